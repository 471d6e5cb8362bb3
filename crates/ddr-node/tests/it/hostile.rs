//! Members that break the rules of the overlay: named, struck, left alone for a time that doubles; what
//! honest nodes do by accident strikes nobody, and honest traffic goes on.

use std::time::Duration;

use ddr_net::GetError;
use ddr_node::{Node, PeerStatus};
use ddr_oci::Digest;
use ddr_proto::id::{Key, NodeId};
use ddr_proto::wire::{
    Contact, Fact, FactRecord, MAX_NODES, MAX_RECORDS_PER_ANSWER, MAX_RECORDS_PER_PUT,
    MAX_ZONE_BYTES, NameRecord, ProviderRecord, RefuseReason, Request, RequestEnvelope, Response,
    SetEntry,
};

use crate::bed::{Bed, Machine, announced, content, eventually, pull, push_blob, repository, tag};
use crate::stranger::{Stranger, now_ms};

const HOUR_MS: u64 = 3_600_000;
/// The time of the first strike, and what is left out on both sides of its end.
const FIRST: Duration = Duration::from_secs(30);
const SLACK: Duration = Duration::from_millis(500);

fn pong(answer: Option<Response>) -> bool {
    matches!(answer, Some(Response::Pong { .. }))
}

fn struck() -> Option<Response> {
    Some(Response::Refused { reason: RefuseReason::Struck })
}

fn record(of: &Stranger, key: Key) -> ProviderRecord {
    let now_ms = now_ms();
    ProviderRecord::sign(&of.signer, &of.own, key, true, now_ms, now_ms + HOUR_MS)
}

fn forged(of: &Stranger, key: Key) -> ProviderRecord {
    let mut record = record(of, key);
    record.signature[9] ^= 1;
    record
}

/// The row of `stranger` in `ddr peers`.
async fn row(node: &Node, stranger: &Stranger) -> Option<PeerStatus> {
    let id = stranger.own.id.to_string();
    node.peers().await.into_iter().find(|row| row.node_id == id)
}

async fn strikes(node: &Node, stranger: &Stranger) -> u32 {
    row(node, stranger).await.map_or(0, |row| row.strikes)
}

/// Something that no honest node says: what, how it is named, and the message.
type Breach = (&'static str, fn(&Stranger) -> RequestEnvelope);

fn put(of: &Stranger, records: Vec<ProviderRecord>) -> RequestEnvelope {
    ask(of, Request::PutProviders { records })
}

fn ask(of: &Stranger, body: Request) -> RequestEnvelope {
    RequestEnvelope { sender: of.own.clone(), puzzle: [0; 32], body }
}

fn ping_from(sender: Contact) -> RequestEnvelope {
    RequestEnvelope { sender, puzzle: [0; 32], body: Request::Ping }
}

const BREACHES: [Breach; 9] = [
    ("forged record", |of| put(of, vec![forged(of, Key([1; 32]))])),
    ("forged record", |of| {
        let mut record = record(of, Key([1; 32]));
        record.provider.id = NodeId([7; 32]);
        put(of, vec![record])
    }),
    ("forged record", |of| {
        let name = repository("team/app");
        let mut record = NameRecord::sign(&of.signer, name, tag("v1"), None, now_ms() << 16);
        record.tag = tag("v2");
        ask(of, Request::PutName { record })
    }),
    ("forged record", |of| {
        let digest = Digest::sha256(b"x");
        let fact =
            Fact::Referrer { repository: repository("a"), subject: digest, referrer: digest };
        let mut record = FactRecord::sign(&of.signer, fact, None, now_ms() << 16);
        record.stamp += 1;
        ask(of, Request::PutEntry { entry: SetEntry::Fact(record) })
    }),
    ("another ID", |of| ping_from(Contact { id: NodeId([7; 32]), ..of.own.clone() })),
    ("MAX_RECORDS_PER_PUT", |of| put(of, vec![record(of, Key([1; 32])); MAX_RECORDS_PER_PUT + 1])),
    ("MAX_ZONE_BYTES", |of| {
        ping_from(Contact { zone: "z".repeat(MAX_ZONE_BYTES + 1), ..of.own.clone() })
    }),
    ("MAX_MESSAGE_BYTES", |of| put(of, vec![record(of, Key([1; 32])); 600])),
    ("no node can listen", |of| {
        ping_from(Contact { addrs: vec![([10, 0, 0, 9], 0).into()], ..of.own.clone() })
    }),
];

#[tokio::test(start_paused = true)]
async fn who_says_what_no_honest_node_says_is_named_and_refused_for_a_time_that_doubles() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    let (machine, node) = &nodes[0];
    for (number, (words, breach)) in (100..).zip(BREACHES) {
        let stranger = Stranger::new(&bed, number);
        assert!(pong(stranger.say(machine, Request::Ping).await), "{words}: it is answered first");
        for strike in 1..=3_u32 {
            stranger.say_as(machine, breach(&stranger)).await;
            eventually("it is struck", async || strikes(node, &stranger).await == strike).await;
            let row = row(node, &stranger).await.expect("named");
            assert!(row.refused && row.avoided, "{words}: {row:?}");
            let why = row.struck_for.unwrap_or_default();
            assert!(why.contains(words), "{words}: {why}");
            assert_eq!(row.addresses, stranger.own.addrs, "{words}");
            refused_for(machine, &stranger, FIRST * (1 << (strike - 1))).await;
        }
        assert!(pong(stranger.say(machine, Request::Ping).await), "{words}: its time is over");
        assert_eq!(strikes(&nodes[1].1, &stranger).await, 0, "nobody is struck by hearsay");
    }
    assert_eq!(node.status().await.struck, 0);
    let honest = &nodes[1].0;
    let rows = node.peers().await;
    assert!(rows.iter().any(|row| row.node_id == honest.id() && row.alive && row.strikes == 0));
}

/// `stranger` was struck just now: nothing of it is answered before `time` has passed.
async fn refused_for(machine: &Machine, stranger: &Stranger, time: Duration) {
    let digest = Digest::sha256(b"wanted");
    for pause in [Duration::ZERO, time - SLACK] {
        tokio::time::advance(pause).await;
        assert_eq!(stranger.say(machine, Request::Ping).await, struck(), "within {time:?}");
        // What it does meanwhile does not count.
        stranger
            .say_as(machine, ping_from(Contact { id: NodeId([7; 32]), ..stranger.own.clone() }))
            .await;
        let content = stranger.read(machine, &digest).await;
        assert!(matches!(&content, Err(GetError::Status(status)) if *status == 403), "{content:?}");
    }
    tokio::time::advance(2 * SLACK).await;
    assert!(pong(stranger.say(machine, Request::Ping).await), "after {time:?}");
    assert_eq!(stranger.read(machine, &digest).await.err(), Some(GetError::NotFound));
}

/// What a liar answers to a question for the holders of a key.
type Lie = (&'static str, fn(&Stranger, Key) -> Response);

fn nodes_of(of: &Stranger, count: usize) -> Response {
    Response::Providers { records: Vec::new(), nodes: vec![of.own.clone(); count] }
}

fn records(records: Vec<ProviderRecord>) -> Response {
    Response::Providers { records, nodes: Vec::new() }
}

const LIES: [Lie; 7] = [
    ("forged record", |of, key| records(vec![forged(of, key)])),
    ("another key", |of, _| records(vec![record(of, Key([7; 32]))])),
    ("MAX_RECORDS_PER_ANSWER", |of, key| {
        records(vec![record(of, key); MAX_RECORDS_PER_ANSWER + 1])
    }),
    ("MAX_NODES", |of, _| nodes_of(of, MAX_NODES + 1)),
    ("MAX_MESSAGE_BYTES", |of, _| nodes_of(of, 5_000)),
    ("does not belong", |_, _| Response::Stored { accepted: 1, not_soon: Vec::new() }),
    ("no node can listen", |of, _| {
        let nowhere = Contact { addrs: vec![([10, 0, 0, 9], 0).into()], ..of.own.clone() };
        Response::Providers { records: Vec::new(), nodes: vec![nowhere] }
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_with_lies_is_named_and_not_asked_again_while_honest_lookups_go_on() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let name = repository("team/app");
    for (number, (words, lie)) in (100..).zip(LIES) {
        let stranger = std::sync::Arc::new(Stranger::new(&bed, number));
        let liar = std::sync::Arc::downgrade(&stranger);
        stranger.listen(move |request| match request {
            Request::FindProviders { key } => Some(lie(&*liar.upgrade()?, *key)),
            _ => None,
        });
        for (machine, node) in &nodes {
            assert!(pong(stranger.say(machine, Request::Ping).await));
            eventually("it is known", async || row(node, &stranger).await.is_some()).await;
        }
        let bytes = content(number.into(), 50_000);
        let digest = push_blob(&nodes[0].1, &name, &bytes).await;
        for (_, node) in &nodes[1..] {
            announced(node, &digest, 1).await;
            assert!(pull(node, &name, &digest).await == bytes, "{words}: honest lookups go on");
            eventually("it is struck", async || strikes(node, &stranger).await == 1).await;
            let row = row(node, &stranger).await.expect("named");
            let why = row.struck_for.clone().unwrap_or_default();
            assert!(row.refused && why.contains(words), "{words}: {row:?}");
        }
        not_asked(&nodes[1..], &stranger).await;
    }
    for (_, node) in &nodes {
        let rows = node.peers().await;
        let honest = nodes.iter().map(|(machine, _)| machine.id());
        let blamed = |id: String| rows.iter().any(|row| row.node_id == id && row.strikes > 0);
        assert!(!honest.into_iter().any(blamed), "{rows:?}");
    }
}

/// The nodes look for content that nobody has; none of them asks `stranger`.
async fn not_asked(nodes: &[(Machine, Node)], stranger: &Stranger) {
    let before = stranger.heard_from(nodes);
    for (_, node) in nodes {
        for number in 0..5 {
            let digest = Digest::sha256(&[number]);
            let report = node.find(&digest.to_string()).await.expect("a report");
            assert!(report.holders.is_empty());
        }
    }
    assert_eq!(stranger.heard_from(nodes), before, "a struck node is not asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_honest_nodes_do_by_accident_strikes_nobody() {
    let bed = Bed::new();
    let nodes = bed.swarm(1).await;
    let (machine, node) = &nodes[0];
    let stranger = Stranger::new(&bed, 100);
    let (key, now_ms) = (Key([1; 32]), now_ms());
    let sign = |issued_ms, expires_ms| {
        ProviderRecord::sign(&stranger.signer, &stranger.own, key, true, issued_ms, expires_ms)
    };
    // A wrong clock: ended, from the future, for too long; and a tag from the future.
    let times = [(0, 1), (now_ms + HOUR_MS, now_ms + 2 * HOUR_MS), (now_ms, now_ms + 99 * HOUR_MS)];
    for (issued_ms, expires_ms) in times {
        let answer =
            stranger.say_as(machine, put(&stranger, vec![sign(issued_ms, expires_ms)])).await;
        assert_eq!(answer, Some(Response::Stored { accepted: 0, not_soon: Vec::new() }));
    }
    let stamp = (now_ms + HOUR_MS) << 16;
    let record = NameRecord::sign(&stranger.signer, repository("a"), tag("v1"), None, stamp);
    let answer = stranger.say(machine, Request::PutName { record }).await;
    assert_eq!(answer, Some(Response::Refused { reason: RefuseReason::ClockAhead }));
    // An old address: the loopback, or one that is this node's by now.
    for addr in [([127, 0, 0, 1], 5001).into(), machine.addr] {
        let sender = Contact { addrs: vec![addr], ..stranger.own.clone() };
        assert!(pong(stranger.say_as(machine, ping_from(sender)).await), "{addr}");
    }
    // A question that is not answered here.
    let request = Request::GetRecords {
        range: ddr_proto::wire::KeyRange { start: key, bits: 0 },
        salt: ddr_proto::wire::Mark([0; 8]),
        marks: Vec::new(),
    };
    stranger.say(machine, request).await;
    assert!(pong(stranger.say(machine, Request::Ping).await));
    assert_eq!(strikes(node, &stranger).await, 0);
    assert_eq!(node.status().await.struck, 0);
}
