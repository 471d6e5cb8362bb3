//! Anti-entropy among siblings: what one of them missed, it has soon; what nobody lacks costs little.

use std::collections::BTreeSet;

use ddr_proto::kad::{Input, KadConfig, LookupKind, Reason};
use ddr_proto::wire::{
    CELLS, Contact, KeyRange, Mark, ProviderRecord, RecordError, RefuseReason, Request, Response,
};
use ddr_proto::{Key, NodeId};
use proptest::prelude::*;

use crate::net::{Net, NetConfig, START, key};
use crate::solo::{Solo, nothing_for, peer, quiet_config};

const HOUR_MS: u64 = 3_600_000;
/// One comparison is due at least this often.
const ROUND_MS: u64 = 57_000;

fn record(number: usize, key: Key) -> ProviderRecord {
    let (signer, holder) = peer(number);
    ProviderRecord::sign(&signer, &holder, key, true, START.0, START.0 + HOUR_MS)
}

fn everything(range_of: &Contact) -> KeyRange {
    KeyRange { start: range_of.id.to_key(), bits: 0 }
}

proptest! {
    #[test]
    fn a_range_is_all_keys_with_a_prefix(start: [u8; 32], other: [u8; 32], bits in 0..=256_u16) {
        let range = KeyRange { start: Key(start), bits };
        let inside = range.contains(&Key(other));
        prop_assert_eq!(inside, Key(start).shared_bits(&Key(other)) >= u32::from(bits));
        prop_assert!(range.contains(&range.first()));
        prop_assert!(!inside || range.first() <= Key(other));
        prop_assert!(range.cell_of(&Key(other)) < CELLS);
        let halves = [range.half(false), range.half(true)];
        if bits < 256 {
            let parts = halves.iter().filter(|half| half.contains(&Key(other))).count();
            prop_assert_eq!(parts, usize::from(inside), "in one of the halves");
        }
        let (mut cells, mut at) = (BTreeSet::new(), range);
        if bits <= 252 {
            for bit in [8, 4, 2, 1] {
                at = at.half(range.cell_of(&Key(other)) & bit != 0);
            }
            cells.insert(range.cell_of(&at.first()));
            prop_assert_eq!(cells, BTreeSet::from([range.cell_of(&Key(other))]));
        }
    }
}

/// Node 1 alone hears of a record; the others have it within a bound, without being told.
#[test]
fn a_node_that_missed_a_record_takes_it_from_a_sibling() {
    let mut net = Net::swarm(NetConfig { codec: true, ..NetConfig::seeded(90) }, 12);
    let (signer, holder) = peer(900);
    let until_ms = net.now.0 + HOUR_MS;
    let record = ProviderRecord::sign(&signer, &holder, key(1), true, net.now.0, until_ms);
    let all_but_one: Vec<usize> = (0..12).filter(|index| *index != 7).collect();
    for index in all_but_one {
        net.tell(index, Request::PutProviders { records: vec![record.clone()] });
    }
    net.run_ms(100);
    assert_eq!(net.members[7].kad.stored_records(), 0);
    net.run_ms(ROUND_MS);
    assert_eq!(net.members[7].kad.stored_records(), 1, "one round later");
    assert!(net.misbehaviour.is_empty(), "{:?}", net.misbehaviour);
}

#[test]
fn a_withdrawal_that_one_node_heard_of_reaches_all() {
    let mut net = Net::swarm(NetConfig { codec: true, ..NetConfig::seeded(91) }, 12);
    net.provide(3, key(1));
    net.run_ms(10);
    let (holder, signer) = (net.members[3].contact.clone(), net.members[3].signer.clone());
    // The holder goes without a word but to one node.
    net.kill(3);
    let (now, until_ms) = (net.now.0 + 1, net.now.0 + HOUR_MS);
    let gone = ProviderRecord::sign_withdrawn(&signer, &holder, key(1), now, until_ms);
    net.tell(5, Request::PutProviders { records: vec![gone] });
    net.run_ms(10);
    assert!(!net.holders(9, key(1)).is_empty(), "most nodes have not heard of it");
    // Word spreads: who knows doubles about once in a round.
    let mut rounds = 0;
    while (0..12).filter(|index| *index != 3).any(|index| knows_of(&mut net, index, key(1))) {
        net.run_ms(ROUND_MS);
        rounds += 1;
        assert!(rounds <= 11, "no later than when each has asked each");
    }
    net.run_ms(6_000);
    assert!(net.holders(9, key(1)).is_empty());
    println!("all knew after {rounds} rounds");
    assert!(rounds <= 6, "{rounds} rounds");
}

/// Whether a node would name holders of the key.
fn knows_of(net: &mut Net, index: usize, key: Key) -> bool {
    match net.tell(index, Request::FindProviders { key }) {
        Some(Response::Providers { records, .. }) => !records.is_empty(),
        other => panic!("unexpected {other:?}"),
    }
}

#[test]
fn nothing_is_sent_when_nothing_differs() {
    let mut net = Net::swarm(NetConfig { codec: true, ..NetConfig::seeded(92) }, 40);
    for number in 0..40 {
        net.provide(number, key(number as u64));
    }
    net.run_ms(4 * ROUND_MS);
    net.transcript = Some(Vec::new());
    let minutes = 10;
    net.run_ms(minutes * 60_000);
    let transcript = net.transcript.take().expect("recording");
    let count = |what: &str| transcript.iter().filter(|(.., output)| output.contains(what)).count();
    let (compares, fetches) = (count("request: Compare"), count("request: GetRecords"));
    let each = compares as u64 / 40;
    assert!((10..=18).contains(&each), "{each} comparisons a node in {minutes} minutes");
    assert!(fetches <= compares / 20, "{fetches} requests for records, {compares} comparisons");
    assert!(net.misbehaviour.is_empty(), "{:?}", net.misbehaviour);
    println!("{compares} comparisons, {fetches} requests for records");
}

/// A core with one sibling, and the first comparison that it sends.
fn comparing(stored: &[ProviderRecord]) -> (Solo, Contact, ddr_proto::kad::CallId, Mark) {
    let (_, sibling) = peer(1);
    let cfg = KadConfig { sync_ms: 45_000, ..quiet_config() };
    let mut solo = Solo::with_peers(cfg, std::slice::from_ref(&sibling));
    for record in stored {
        solo.ask(&peer(2).1, Request::PutProviders { records: vec![record.clone()] });
    }
    solo.settle();
    loop {
        solo.advance_ms(1_000);
        for (call, to, request) in solo.take_calls() {
            if let Request::Compare { range, salt, .. } = request
                && to.id == sibling.id
            {
                assert_eq!(range.bits, 0, "in a small swarm everything is compared");
                return (solo, sibling, call, salt);
            }
            solo.input(Input::Response { call, response: nothing_for(&request) });
        }
        assert!(solo.now.since_ms(START) < 10 * ROUND_MS, "it compares");
    }
}

fn fetched(solo: &mut Solo) -> Option<(ddr_proto::kad::CallId, Vec<Mark>)> {
    solo.take_calls().into_iter().find_map(|(call, _, request)| match request {
        Request::GetRecords { marks, .. } => Some((call, marks)),
        _ => None,
    })
}

#[test]
fn only_what_is_missing_is_asked_for() {
    let (kept, new) = (record(3, key(1)), record(4, key(2)));
    let (mut solo, _, call, salt) = comparing(std::slice::from_ref(&kept));
    let marks = vec![Mark::of(&kept, salt), Mark::of(&new, salt)];
    solo.input(Input::Response { call, response: Response::Compared { marks } });
    let (call, asked) = fetched(&mut solo).expect("one record is missing");
    assert_eq!(asked, [Mark::of(&new, salt)]);
    solo.input(Input::Response { call, response: Response::Records { records: vec![new] } });
    assert_eq!(solo.kad.stored_records(), 2);
    assert!(fetched(&mut solo).is_none(), "and that is all");
    assert!(solo.misbehaviour.is_empty());
}

#[test]
fn lies_in_a_comparison_are_named_and_change_nothing() {
    let new = record(4, key(2));
    let mut forged = new.clone();
    forged.expires_ms += 1;
    let mut own = new.clone();
    own.provider.id = crate::net::signer(7).node_id();
    let foreign = record(5, key(3));
    // The mark of a forged record is that of its signature, so only the signature tells.
    let cases = [
        (forged, Reason::BadRecord(RecordError::BadSignature)),
        (own, Reason::ForeignRecord),
        (foreign, Reason::ForeignRecord),
    ];
    for (lie, reason) in cases {
        let (mut solo, liar, call, salt) = comparing(&[]);
        let marks = vec![Mark::of(&new, salt)];
        solo.input(Input::Response { call, response: Response::Compared { marks } });
        let (call, _) = fetched(&mut solo).expect("asked");
        solo.input(Input::Response { call, response: Response::Records { records: vec![lie] } });
        assert_eq!(solo.misbehaviour, [(liar.id, reason)]);
        assert_eq!(solo.kad.stored_records(), 0);
        assert!(fetched(&mut solo).is_none(), "nothing more is asked of it");
    }
    let wrong = [Response::Records { records: vec![new] }, Response::Nodes { nodes: vec![] }];
    for wrong in wrong {
        let (mut solo, liar, call, _) = comparing(&[]);
        solo.input(Input::Response { call, response: wrong });
        assert_eq!(solo.misbehaviour, [(liar.id, Reason::WrongAnswer)]);
        assert_eq!(solo.kad.stored_records(), 0);
    }
}

/// A sibling with a wrong clock passes on what has ended, or does not hold yet: no offence, and nothing
/// of it is kept.
#[test]
fn records_out_of_time_in_a_comparison_are_not_kept() {
    let (signer, holder) = peer(4);
    let sign = |issued_ms, expires_ms| {
        ProviderRecord::sign(&signer, &holder, key(2), true, issued_ms, expires_ms)
    };
    let now_ms = START.0 + 10 * ROUND_MS;
    for useless in [sign(START.0 - 10, START.0), sign(now_ms + HOUR_MS, now_ms + 2 * HOUR_MS)] {
        let (mut solo, _, call, salt) = comparing(&[]);
        let marks = vec![Mark::of(&useless, salt)];
        solo.input(Input::Response { call, response: Response::Compared { marks } });
        let (call, _) = fetched(&mut solo).expect("asked");
        let response = Response::Records { records: vec![useless] };
        solo.input(Input::Response { call, response });
        assert_eq!(solo.kad.stored_records(), 0);
        assert!(solo.misbehaviour.is_empty(), "{:?}", solo.misbehaviour);
    }
}

#[test]
fn endless_marks_end_within_the_limits() {
    let (mut solo, _, call, _) = comparing(&[]);
    let marks = (0..4_096_u64).map(|number| Mark(number.to_be_bytes())).collect();
    solo.input(Input::Response { call, response: Response::Compared { marks } });
    let mut requests = 0;
    while let Some((call, asked)) = fetched(&mut solo) {
        requests += 1;
        assert!(asked.len() <= 128);
        solo.input(Input::Response { call, response: Response::Records { records: vec![] } });
    }
    assert_eq!(requests, 8);
}

#[test]
fn strangers_and_the_impatient_are_not_compared_with() {
    let known = [peer(1).1];
    let mut solo = Solo::with_peers(quiet_config(), &known);
    let busy = Response::Refused { reason: RefuseReason::Busy };
    let range = everything(&known[0]);
    let (salt, sums) = (Mark([1; 8]), [Mark::default(); CELLS]);
    let compare = || Request::Compare { range, salt, sums };
    let get = || Request::GetRecords { range, salt, marks: vec![salt] };
    assert_eq!(solo.ask(&peer(50).1, compare()), busy);
    assert_eq!(solo.ask(&peer(50).1, get()), busy);
    let empty = Response::Compared { marks: vec![] };
    for _ in 0..64 {
        assert_eq!(solo.ask(&known[0], compare()), empty);
        solo.settle();
    }
    assert_eq!(solo.ask(&known[0], compare()), busy);
    for _ in 0..100 {
        solo.settle();
        solo.advance_ms(100);
    }
    solo.settle();
    assert_eq!(solo.ask(&known[0], get()), Response::Records { records: vec![] });
    assert!(solo.misbehaviour.is_empty());
}

#[test]
fn an_answer_tells_the_marks_of_the_cells_that_differ() {
    let known = [peer(1).1];
    let mut solo = Solo::with_peers(quiet_config(), &known);
    let records: Vec<ProviderRecord> = (0..40).map(|number| record(2, key(number))).collect();
    solo.ask(&peer(2).1, Request::PutProviders { records: records.clone() });
    solo.settle();
    let (range, salt) = (everything(&known[0]), Mark([7; 8]));
    let mut sums = [Mark::default(); CELLS];
    for record in &records[1..] {
        sums[range.cell_of(&record.key)].add(Mark::of(record, salt));
    }
    let answer = solo.ask(&known[0], Request::Compare { range, salt, sums });
    let Response::Compared { marks } = answer else { panic!("unexpected {answer:?}") };
    let cell = range.cell_of(&records[0].key);
    let truth: BTreeSet<Mark> = records
        .iter()
        .filter(|record| range.cell_of(&record.key) == cell)
        .map(|record| Mark::of(record, salt))
        .collect();
    assert_eq!(marks.iter().copied().collect::<BTreeSet<_>>(), truth);
    solo.outputs.clear();
    let wanted = vec![Mark::of(&records[0], salt), Mark([0xff; 8])];
    let answer = solo.ask(&known[0], Request::GetRecords { range, salt, marks: wanted });
    assert_eq!(answer, Response::Records { records: vec![records[0].clone()] });
}

/// What concerns the two nodes themselves is left out: each knows that better.
#[test]
fn the_records_of_the_two_are_no_matter_between_them() {
    let (signer, sibling) = peer(1);
    let mut solo = Solo::with_peers(quiet_config(), std::slice::from_ref(&sibling));
    let record = ProviderRecord::sign(&signer, &sibling, key(1), true, START.0, START.0 + HOUR_MS);
    solo.ask(&sibling, Request::PutProviders { records: vec![record] });
    solo.outputs.clear();
    let (range, salt) = (everything(&sibling), Mark([1; 8]));
    let sums = [Mark::default(); CELLS];
    let answer = solo.ask(&sibling, Request::Compare { range, salt, sums });
    assert_eq!(answer, Response::Compared { marks: vec![] });
}

#[test]
fn a_key_with_many_holders_is_compared_for_its_withdrawals_only() {
    let known = [peer(1).1];
    let mut solo = Solo::with_peers(quiet_config(), &known);
    for number in 100..140 {
        solo.ask(&peer(2).1, Request::PutProviders { records: vec![record(number, key(1))] });
        solo.outputs.clear();
    }
    let (signer, holder) = peer(120);
    let gone =
        ProviderRecord::sign_withdrawn(&signer, &holder, key(1), START.0 + 1, START.0 + HOUR_MS);
    solo.ask(&peer(2).1, Request::PutProviders { records: vec![gone.clone()] });
    solo.outputs.clear();
    let (range, salt) = (everything(&known[0]), Mark([3; 8]));
    let sums = [Mark::default(); CELLS];
    let answer = solo.ask(&known[0], Request::Compare { range, salt, sums });
    assert_eq!(answer, Response::Compared { marks: vec![Mark::of(&gone, salt)] });
}

#[test]
fn a_node_in_a_large_swarm_compares_what_its_neighbours_keep_too() {
    let mut net = Net::swarm(NetConfig { codec: true, ..NetConfig::seeded(93) }, 120);
    net.transcript = Some(Vec::new());
    net.run_ms(ROUND_MS);
    let transcript = net.transcript.take().expect("recording");
    let compared: BTreeSet<usize> = transcript
        .iter()
        .filter(|(.., output)| output.contains("request: Compare"))
        .map(|(_, index, _)| *index)
        .collect();
    assert!(compared.len() >= 110, "{} of 120 nodes compared", compared.len());
    // A record that one node of a range has spreads to the others of its range.
    let (signer, holder) = peer(900);
    let point = net.members[17].contact.id.to_key();
    let until_ms = net.now.0 + HOUR_MS;
    let record = ProviderRecord::sign(&signer, &holder, point, true, net.now.0, until_ms);
    net.tell(17, Request::PutProviders { records: vec![record] });
    net.run_ms(8 * ROUND_MS);
    let mut ids: Vec<(NodeId, usize)> =
        net.members.iter().enumerate().map(|(index, m)| (m.contact.id, index)).collect();
    ids.sort_by_key(|(id, _)| id.distance(&point));
    let near = ids[..8].iter().filter(|(_, i)| net.members[*i].kad.stored_records() == 1).count();
    assert!(near >= 7, "{near} of the 8 nearest");
    assert!(net.lookup(3, point, LookupKind::Providers).providers.len() == 1);
}
