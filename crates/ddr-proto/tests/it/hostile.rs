//! Peers that lie, forge and flood: each is refused and named, and memory stays bounded.

use ddr_proto::kad::{Effort, Input, KadConfig, LookupKind, MAX_JOINED_OPS, OpId, Reason};
use ddr_proto::wire::{
    Contact, MAX_ADDRS, MAX_NODES, MAX_RECORDS_PER_ANSWER, MAX_RECORDS_PER_PUT, ProviderRecord,
    RecordError, RefuseReason, Request, RequestEnvelope, Response, Signer,
};
use ddr_proto::{Key, NodeId};

use crate::net::{START, key};
use crate::solo::{PONG, Solo, nothing_for, peer, quiet_config, stored};

const HOUR_MS: u64 = 3_600_000;

/// Changes a record after it was signed.
type Forge = fn(&mut ProviderRecord);

fn record(signer: &Signer, contact: &Contact, key: Key) -> ProviderRecord {
    ProviderRecord::sign(signer, contact, key, true, START.0, START.0 + HOUR_MS)
}

fn refused(reason: RefuseReason) -> Response {
    Response::Refused { reason }
}

#[test]
fn a_sender_that_is_not_the_connection_is_refused() {
    let mut solo = Solo::new(quiet_config());
    let ((_, honest), (_, liar)) = (peer(1), peer(2));
    let envelope = RequestEnvelope { sender: honest.clone(), puzzle: [0; 32], body: Request::Ping };
    assert_eq!(solo.ask_as(liar.id, envelope), refused(RefuseReason::WrongSender));
    assert_eq!(solo.misbehaviour, [(liar.id, Reason::WrongSender)]);
    assert!(solo.take_calls().is_empty(), "nobody is pinged for a lie");
}

#[test]
fn a_forged_record_is_refused_and_named() {
    let mut solo = Solo::new(quiet_config());
    let ((signer, holder), (_, liar)) = (peer(1), peer(2));
    let good = record(&signer, &holder, key(1));
    let forgeries: [(Forge, RecordError); 6] = [
        (|record| record.signature[7] ^= 1, RecordError::BadSignature),
        (|record| record.key = key(2), RecordError::BadSignature),
        (|record| record.issued_ms += 1, RecordError::BadSignature),
        (|record| record.withdrawn = true, RecordError::BadSignature),
        (|record| record.provider.addrs[0].set_port(1), RecordError::BadSignature),
        (|record| record.provider.id = peer(3).1.id, RecordError::WrongIdentity),
    ];
    for (forge, error) in forgeries {
        let mut forged = good.clone();
        forge(&mut forged);
        let answer = solo.ask(&liar, Request::PutProviders { records: vec![forged] });
        assert_eq!(answer, refused(RefuseReason::BadSignature));
        assert_eq!(solo.misbehaviour.pop(), Some((liar.id, Reason::BadRecord(error))));
        assert_eq!(solo.kad.stored_records(), 0);
    }
    let answer = solo.ask(&liar, Request::PutProviders { records: vec![good] });
    assert_eq!(answer, stored(1), "anyone may pass on a true record");
}

#[test]
fn a_request_over_a_limit_is_refused_and_named() {
    let mut solo = Solo::new(quiet_config());
    let (signer, asking) = peer(1);
    let records = vec![record(&signer, &asking, key(1)); MAX_RECORDS_PER_PUT + 1];
    let answer = solo.ask(&asking, Request::PutProviders { records });
    assert_eq!(answer, refused(RefuseReason::Malformed));
    let mut many_homes = asking.clone();
    many_homes.addrs = vec![asking.addrs[0]; MAX_ADDRS + 1];
    assert_eq!(solo.ask(&many_homes, Request::Ping), refused(RefuseReason::Malformed));
    let mut long_zone = asking.clone();
    long_zone.zone = "z".repeat(33);
    assert_eq!(solo.ask(&long_zone, Request::Ping), refused(RefuseReason::Malformed));
    let reasons: Vec<Reason> = solo.misbehaviour.iter().map(|(_, reason)| *reason).collect();
    let limits = ["MAX_RECORDS_PER_PUT", "MAX_ADDRS", "MAX_ZONE_BYTES"];
    assert_eq!(reasons, limits.map(Reason::OverLimit));
    assert_eq!(solo.kad.stored_records(), 0);
    assert!(solo.known().is_empty());
}

#[test]
fn lying_answers_are_dropped_and_named() {
    let (signer, holder) = peer(1);
    let (_, liar) = peer(2);
    let good = record(&signer, &holder, key(1));
    let mut forged = good.clone();
    forged.signature[0] ^= 1;
    let mut borrowed = good.clone();
    borrowed.provider.id = peer(3).1.id;
    let foreign = record(&signer, &holder, key(2));
    let many_homes = Contact { addrs: vec![holder.addrs[0]; MAX_ADDRS + 1], ..holder.clone() };
    let providers = |records: Vec<ProviderRecord>| Response::Providers { records, nodes: vec![] };
    let nodes = vec![holder.clone(); MAX_NODES + 1];
    let cases = [
        (providers(vec![forged]), Reason::BadRecord(RecordError::BadSignature)),
        (providers(vec![borrowed]), Reason::BadRecord(RecordError::WrongIdentity)),
        (providers(vec![foreign]), Reason::ForeignRecord),
        (
            providers(vec![good; MAX_RECORDS_PER_ANSWER + 1]),
            Reason::OverLimit("MAX_RECORDS_PER_ANSWER"),
        ),
        (Response::Providers { records: vec![], nodes }, Reason::OverLimit("MAX_NODES")),
        (
            Response::Providers { records: vec![], nodes: vec![many_homes] },
            Reason::OverLimit("MAX_ADDRS"),
        ),
        (stored(1), Reason::WrongAnswer),
        (Response::Nodes { nodes: vec![] }, Reason::WrongAnswer),
    ];
    for (lie, reason) in cases {
        let mut solo = Solo::with_peers(quiet_config(), std::slice::from_ref(&liar));
        solo.start_lookup(key(1), LookupKind::Providers);
        let calls = solo.take_calls();
        let [(call, to, _)] = &calls[..] else { panic!("one peer, one call, got {calls:?}") };
        assert_eq!(to.id, liar.id);
        solo.input(Input::Response { call: *call, response: lie });
        solo.settle_after_lookup();
        assert_eq!(solo.misbehaviour, [(liar.id, reason)]);
        assert_eq!(solo.lookup_result(), Some((vec![], vec![])), "{reason:?}");
    }
}

#[test]
fn answers_that_nobody_asked_for_change_nothing() {
    let (_, known) = peer(1);
    let mut solo = Solo::with_peers(quiet_config(), std::slice::from_ref(&known));
    solo.start_lookup(key(1), LookupKind::Nodes);
    let calls = solo.take_calls();
    let call = calls[0].0;
    let answer = || Response::Nodes { nodes: vec![] };
    solo.input(Input::Response { call, response: answer() });
    assert!(solo.lookup_result().is_some());
    solo.outputs.clear();
    solo.input(Input::Response { call, response: answer() });
    solo.input(Input::Failed { call });
    assert!(solo.outputs.is_empty(), "{:?}", solo.outputs);
    assert!(solo.kad.contacts()[0].alive);
}

#[test]
fn a_late_answer_is_a_sign_of_life_but_no_result() {
    let known: Vec<Contact> = (0..2).map(|number| peer(number).1).collect();
    let mut solo = Solo::with_peers(quiet_config(), &known);
    solo.start_lookup(key(1), LookupKind::Nodes);
    let calls = solo.take_calls();
    solo.advance_ms(510);
    assert_eq!(solo.lookup_result(), Some((vec![], vec![])), "both were given up");
    assert!(solo.kad.contacts().iter().all(|peer| !peer.alive));
    solo.outputs.clear();
    let (call, to, _) = &calls[0];
    solo.input(Input::Response { call: *call, response: Response::Nodes { nodes: vec![] } });
    let alive = |peer: &&ddr_proto::kad::PeerView| peer.alive;
    let contacts = solo.kad.contacts();
    let alive: Vec<NodeId> = contacts.iter().filter(alive).map(|peer| peer.contact.id).collect();
    assert_eq!(alive, [to.id]);
    assert_eq!(solo.lookup_result(), None, "the lookup has ended once");
}

#[test]
fn one_question_is_joined_by_a_limited_number() {
    let known = [peer(1).1];
    let mut solo = Solo::with_peers(quiet_config(), &known);
    for number in 0..5_000 {
        let kind = LookupKind::Providers;
        solo.input(Input::Lookup { op: OpId(number), target: key(1), kind, effort: Effort::Fresh });
    }
    assert_eq!(solo.calls_waiting(), 1, "one lookup runs for all");
    assert_eq!(solo.done_ops().len(), 5_000 - MAX_JOINED_OPS);
    solo.finish_everything();
    assert_eq!(solo.done_ops().len(), 5_000);
}

#[test]
fn a_flood_of_senders_leaves_the_table_bounded() {
    let mut solo = Solo::new(quiet_config());
    for number in 0..4_000 {
        let (_, sender) = peer(number);
        solo.ask(&sender, Request::Ping);
        let pings = solo.outputs.len();
        if number < 200 {
            continue;
        }
        // After a while the flood's own pings are answered.
        assert!(pings <= 64 + 2 * number, "pings are limited");
        for (call, _, request) in solo.take_calls() {
            solo.input(Input::Response { call, response: nothing_for(&request) });
        }
        solo.outputs.clear();
    }
    let contacts = solo.kad.contacts();
    let mut buckets = std::collections::BTreeMap::<u32, usize>::new();
    for peer in contacts.iter().filter(|peer| !peer.sibling) {
        *buckets.entry(peer.bucket).or_default() += 1;
    }
    assert!(buckets.values().all(|count| *count <= 20), "{buckets:?}");
    assert_eq!(contacts.iter().filter(|peer| peer.sibling).count(), 20);
}

#[test]
fn unanswered_pings_are_limited() {
    let mut solo = Solo::new(quiet_config());
    for number in 0..1_000 {
        solo.ask(&peer(number).1, Request::Ping);
    }
    assert_eq!(solo.take_calls().len(), 64, "one ping each, up to the limit");
    assert!(solo.known().is_empty(), "nobody answered yet");
}

#[test]
fn a_flood_of_records_stays_within_the_quotas() {
    let cfg = KadConfig {
        max_records: 100,
        max_records_per_signer: 10,
        max_holders_per_key: 5,
        ..quiet_config()
    };
    let mut solo = Solo::new(cfg);
    let (signer, greedy) = peer(0);
    for number in 0..50 {
        let records = vec![record(&signer, &greedy, key(number))];
        let answer = solo.ask(&greedy, Request::PutProviders { records });
        let accepted = u32::from(number < 10);
        assert_eq!(answer, stored(accepted), "record {number}");
        solo.outputs.clear();
    }
    assert_eq!(solo.kad.stored_records(), 10);
    for number in 1..40 {
        let (signer, holder) = peer(number);
        let records = vec![record(&signer, &holder, key(1_000))];
        solo.ask(&holder, Request::PutProviders { records });
    }
    assert_eq!(solo.kad.stored_records(), 15, "five holders of the hot key");
    for number in 100..400 {
        let (signer, holder) = peer(number);
        let records = vec![record(&signer, &holder, key(number as u64))];
        solo.ask(&holder, Request::PutProviders { records });
    }
    assert_eq!(solo.kad.stored_records(), 100);
}

#[test]
fn a_hot_key_keeps_the_zones_that_are_rare() {
    let cfg = KadConfig { max_holders_per_key: 6, ..quiet_config() };
    let mut solo = Solo::new(cfg);
    let mut put = |number: usize, zone: &str| {
        let (signer, mut holder) = peer(number);
        holder.zone = zone.to_owned();
        let issued_ms = START.0 - 1_000 + number as u64;
        let record =
            ProviderRecord::sign(&signer, &holder, key(1), true, issued_ms, START.0 + HOUR_MS);
        solo.ask(&holder, Request::PutProviders { records: vec![record] });
    };
    put(0, "rare");
    (1..20).for_each(|number| put(number, "crowded"));
    let answer = solo.ask(&peer(99).1, Request::FindProviders { key: key(1) });
    let Response::Providers { records, .. } = answer else { panic!("unexpected {answer:?}") };
    assert_eq!(records.len(), 6);
    let held = |number: usize| records.iter().any(|r| r.provider.id == peer(number).1.id);
    assert!(held(0), "the only holder of its zone stays");
    assert!((1..5).all(held), "the crowded zone keeps those that were there first");
    assert!(held(19), "the last to come has the last place");
}

/// A flood of false holders for one key neither pushes out nor hides who was there before.
#[test]
fn a_flood_of_holders_hides_nobody_who_came_before() {
    let mut solo = Solo::new(quiet_config());
    let mut put = |number: usize| {
        let (signer, holder) = peer(number);
        let record =
            ProviderRecord::sign(&signer, &holder, key(1), true, START.0, START.0 + HOUR_MS);
        solo.ask(&holder, Request::PutProviders { records: vec![record] });
    };
    (0..300).for_each(&mut put);
    for _ in 0..20 {
        let answer = solo.ask(&peer(999).1, Request::FindProviders { key: key(1) });
        let Response::Providers { records, .. } = answer else { panic!("unexpected {answer:?}") };
        assert_eq!(records.len(), 20);
        assert!(records.iter().any(|record| record.provider.id == peer(0).1.id));
    }
}

#[test]
fn records_out_of_time_are_not_kept() {
    let mut solo = Solo::new(quiet_config());
    let (signer, holder) = peer(1);
    let times = [
        (START.0 - 10, START.0),
        (START.0 + 10 * 60_000, START.0 + HOUR_MS),
        (START.0, START.0 + 3 * HOUR_MS),
    ];
    for (issued_ms, expires_ms) in times {
        let record = ProviderRecord::sign(&signer, &holder, key(1), true, issued_ms, expires_ms);
        let answer = solo.ask(&holder, Request::PutProviders { records: vec![record] });
        assert_eq!(answer, stored(0), "{issued_ms} to {expires_ms}");
    }
    assert!(solo.misbehaviour.is_empty(), "a wrong clock is no crime");
}

#[test]
fn an_old_record_cannot_undo_a_withdrawal() {
    let mut solo = Solo::new(quiet_config());
    let (signer, holder) = peer(1);
    let old = record(&signer, &holder, key(1));
    let gone =
        ProviderRecord::sign_withdrawn(&signer, &holder, key(1), START.0 + 1, START.0 + HOUR_MS);
    for records in [vec![old.clone()], vec![gone], vec![old]] {
        solo.ask(&holder, Request::PutProviders { records });
    }
    let answer = solo.ask(&peer(2).1, Request::FindProviders { key: key(1) });
    let Response::Providers { records, .. } = answer else { panic!("unexpected {answer:?}") };
    assert_eq!(records, []);
}

#[test]
fn endless_invented_nodes_end_within_the_limits() {
    let (_, liar) = peer(1);
    let mut solo = Solo::with_peers(quiet_config(), std::slice::from_ref(&liar));
    let target = key(5);
    solo.start_lookup(target, LookupKind::Nodes);
    let (mut asked, mut invented) = (0_u32, 0_u64);
    while solo.lookup_result().is_none() {
        let calls = solo.take_calls();
        assert!(!calls.is_empty() || solo.kad.next_deadline().is_some());
        for (call, _, request) in calls {
            if !matches!(request, Request::FindNode { .. }) {
                solo.input(Input::Response { call, response: nothing_for(&request) });
                continue;
            }
            asked += 1;
            let nodes = (0..20).map(|_| {
                invented += 1;
                let mut id = target.0;
                id[24..].copy_from_slice(&(u64::MAX - invented).to_be_bytes());
                Contact { id: NodeId(id), addrs: liar.addrs.clone(), zone: String::new() }
            });
            let response = Response::Nodes { nodes: nodes.collect() };
            solo.input(Input::Response { call, response });
        }
        solo.advance_ms(1);
    }
    // The crowd of IDs is doubted: there is a second round.
    assert!(asked <= 2 * 256, "asked {asked} nodes");
}

#[test]
fn a_liar_whose_nodes_are_silent_is_not_believed_for_long() {
    let cfg = KadConfig { paths: 1, ..quiet_config() };
    let (_, liar) = peer(1);
    let mut solo = Solo::with_peers(cfg, std::slice::from_ref(&liar));
    let target = key(6);
    let invented = |number: u64| {
        let mut id = target.0;
        id[24..].copy_from_slice(&number.to_be_bytes());
        Contact { id: NodeId(id), addrs: peer(2).1.addrs, zone: String::new() }
    };
    solo.start_lookup(target, LookupKind::Nodes);
    let mut asked_in_vain = 0;
    while solo.lookup_result().is_none() {
        let calls = solo.take_calls();
        assert!(!calls.is_empty(), "the lookup waits for nothing");
        for (call, to, request) in calls {
            if to.id == liar.id && matches!(request, Request::FindNode { .. }) {
                let nodes = (0..20).map(invented).collect();
                solo.input(Input::Response { call, response: Response::Nodes { nodes } });
            } else {
                asked_in_vain += 1;
                solo.input(Input::Failed { call });
            }
        }
    }
    assert!((4..=6).contains(&asked_in_vain), "asked {asked_in_vain} invented nodes");
}

#[test]
fn wrong_addresses_do_not_make_a_live_node_look_dead() {
    let (_, victim) = peer(1);
    let (_, liar) = peer(2);
    let mut solo = Solo::with_peers(quiet_config(), &[victim.clone(), liar.clone()]);
    let mut elsewhere = victim.clone();
    elsewhere.addrs[0].set_port(1);
    solo.start_lookup(key(1), LookupKind::Nodes);
    for (call, to, _) in solo.take_calls() {
        assert_ne!(to, elsewhere);
        let nodes = if to.id == liar.id { vec![elsewhere.clone()] } else { Vec::new() };
        solo.input(Input::Response { call, response: Response::Nodes { nodes } });
    }
    for (_, to, _) in solo.take_calls() {
        assert_ne!(to, elsewhere, "an address that answered beats what others say");
    }
    assert!(solo.kad.contacts().iter().all(|peer| peer.alive));
}

#[test]
fn more_lookups_than_fit_end_with_nothing() {
    let known: Vec<Contact> = (0..5).map(|number| peer(number).1).collect();
    let mut solo = Solo::with_peers(quiet_config(), &known);
    let count = 10_000_u64;
    for number in 0..count {
        let kind = LookupKind::Providers;
        solo.input(Input::Lookup {
            op: OpId(number),
            target: key(number),
            kind,
            effort: Effort::Fresh,
        });
    }
    let refused = solo.done_ops();
    assert_eq!(refused.len() as u64, count - 128 - 4_096);
    let in_flight = solo.calls_waiting();
    assert!(in_flight <= 4_096, "{in_flight} calls in flight");
    // The others get their turn.
    solo.finish_everything();
    assert_eq!(solo.done_ops().len() as u64, count);
}

fn at(contact: &Contact, addr: ([u8; 4], u16)) -> Contact {
    Contact { addrs: vec![addr.into()], ..contact.clone() }
}

/// Addresses at which nobody can ever listen.
const IMPOSSIBLE: [([u8; 4], u16); 4] =
    [([192, 0, 2, 1], 0), ([0, 0, 0, 0], 5001), ([224, 0, 0, 1], 5001), ([255; 4], 5001)];

#[test]
fn a_sender_at_an_impossible_address_is_answered_named_and_not_admitted() {
    let mut solo = Solo::new(quiet_config());
    for (number, addr) in IMPOSSIBLE.into_iter().enumerate() {
        let sender = at(&peer(number).1, addr);
        assert_eq!(solo.ask(&sender, Request::Ping), PONG);
        assert_eq!(solo.misbehaviour.pop(), Some((sender.id, Reason::BadAddress)), "{addr:?}");
        assert!(solo.take_calls().is_empty(), "nobody is sent to {addr:?}");
        solo.outputs.clear();
    }
    // Beside a good address a bad one is as bad.
    let (_, honest) = peer(10);
    let mut both = honest.clone();
    both.addrs.push(([192, 0, 2, 1], 0).into());
    solo.ask(&both, Request::Ping);
    assert_eq!(solo.misbehaviour, [(both.id, Reason::BadAddress)]);
    assert!(solo.take_calls().is_empty());
    solo.outputs.clear();
    solo.ask(&honest, Request::Ping);
    assert_eq!(solo.take_calls().len(), 1, "honest traffic goes on");
}

/// Whoever passes such a record on did not make it: it is not kept, and nobody is named.
#[test]
fn a_record_that_leads_nowhere_is_not_kept() {
    let mut solo = Solo::new(quiet_config());
    let (signer, holder) = peer(1);
    for addr in IMPOSSIBLE {
        let nowhere = record(&signer, &at(&holder, addr), key(1));
        let answer = solo.ask(&peer(2).1, Request::PutProviders { records: vec![nowhere] });
        assert_eq!(answer, stored(0), "{addr:?}");
        solo.outputs.clear();
    }
    assert_eq!(solo.kad.stored_records(), 0);
    assert!(solo.misbehaviour.is_empty());
    let good = record(&signer, &holder, key(1));
    assert_eq!(solo.ask(&holder, Request::PutProviders { records: vec![good] }), stored(1));
}

#[test]
fn an_answer_with_impossible_addresses_is_dropped_and_named() {
    for addr in IMPOSSIBLE {
        let (liar, honest, named) = (peer(1).1, peer(2).1, peer(3).1);
        let known = [liar.clone(), honest.clone()];
        let mut solo = Solo::with_peers(quiet_config(), &known);
        solo.start_lookup(key(1), LookupKind::Nodes);
        for (call, to, _) in solo.take_calls() {
            let nodes = if to.id == liar.id { vec![at(&named, addr)] } else { vec![named.clone()] };
            solo.input(Input::Response { call, response: Response::Nodes { nodes } });
        }
        let mut asked = Vec::new();
        while !solo.kad.is_idle() {
            for (call, to, request) in solo.take_calls() {
                asked.push(to);
                solo.input(Input::Response { call, response: nothing_for(&request) });
            }
        }
        assert_eq!(solo.misbehaviour, [(liar.id, Reason::BadAddress)], "{addr:?}");
        assert!(asked.contains(&named) && !asked.contains(&at(&named, addr)));
        let (closest, _) = solo.lookup_result().expect("done");
        assert!(closest.contains(&honest.id) && closest.contains(&named.id));
    }
}

#[test]
fn nobody_is_talked_into_dialling_itself_or_the_loopback() {
    let own: ([u8; 4], u16) = ([10, 0, 0, 0], 5001);
    for addr in [own, ([127, 0, 0, 1], 6_379), ([127, 9, 9, 9], 5001)] {
        let known = [peer(1).1];
        let mut solo = Solo::with_peers(quiet_config(), &known);
        assert_eq!(solo.own.addrs, [own.into()]);
        // As a sender, as a node that an answer names, and as one of the last run.
        assert_eq!(solo.ask(&at(&peer(2).1, addr), Request::Ping), PONG);
        solo.input(Input::Restore { peers: vec![at(&peer(3).1, addr)] });
        solo.input(Input::Heard { contact: at(&peer(4).1, addr) });
        assert_eq!(solo.take_calls(), [], "{addr:?}");
        solo.outputs.clear();
        solo.start_lookup(key(1), LookupKind::Nodes);
        let call = solo.take_calls()[0].0;
        let nodes = vec![at(&peer(5).1, addr), peer(6).1];
        solo.input(Input::Response { call, response: Response::Nodes { nodes } });
        let asked: Vec<NodeId> = solo.take_calls().iter().map(|(_, to, _)| to.id).collect();
        assert_eq!(asked, [peer(6).1.id], "the others of the answer are asked");
        assert!(solo.misbehaviour.is_empty(), "an old address of a node may be ours by now");
    }
}

#[test]
fn a_swarm_on_one_machine_dials_its_loopback() {
    let (signer, own) = peer(500);
    let mut solo = Solo::new(quiet_config());
    let own = at(&own, ([127, 0, 0, 1], 5001));
    solo.kad = ddr_proto::kad::Kad::new(quiet_config(), own, signer, 1);
    let neighbour = at(&peer(1).1, ([127, 0, 0, 1], 5002));
    solo.ask(&neighbour, Request::Ping);
    assert_eq!(solo.take_calls().len(), 1);
}

/// Old, early, taken back, and not to be dialled: an answer may bring all of them, none is believed.
#[test]
fn records_out_of_time_in_answers_are_not_believed() {
    let (signer, holder) = peer(1);
    let now = START.0;
    let sign = |issued_ms, expires_ms| {
        ProviderRecord::sign(&signer, &holder, key(1), true, issued_ms, expires_ms)
    };
    let (other, nowhere) = peer(3);
    let nowhere = at(&nowhere, ([0, 0, 0, 0], 5001));
    let useless = [
        sign(now - HOUR_MS, now),
        sign(now + 301_000, now + HOUR_MS),
        ProviderRecord::sign_withdrawn(&signer, &holder, key(1), now, now + HOUR_MS),
        ProviderRecord::sign(&other, &nowhere, key(1), true, now, now + HOUR_MS),
    ];
    let answering = peer(2).1;
    for record in useless {
        let mut solo = Solo::with_peers(quiet_config(), std::slice::from_ref(&answering));
        solo.start_lookup(key(1), LookupKind::Providers);
        let call = solo.take_calls()[0].0;
        let response = Response::Providers { records: vec![record.clone()], nodes: vec![] };
        solo.input(Input::Response { call, response });
        assert_eq!(solo.lookup_result(), Some((vec![answering.id], vec![])), "{record:?}");
    }
}

/// A record that was taken back is replayed: kept nowhere where the withdrawal came first.
#[test]
fn a_replayed_record_changes_nothing() {
    let mut solo = Solo::new(quiet_config());
    let (signer, holder) = peer(1);
    let old = record(&signer, &holder, key(1));
    let new = ProviderRecord::sign(&signer, &holder, key(1), false, START.0 + 5, START.0 + HOUR_MS);
    solo.ask(&holder, Request::PutProviders { records: vec![new.clone()] });
    for _ in 0..100 {
        let answer = solo.ask(&peer(2).1, Request::PutProviders { records: vec![old.clone()] });
        assert_eq!(answer, stored(1), "something newer is kept");
        solo.outputs.clear();
    }
    assert_eq!(solo.kad.stored_records(), 1);
    let answer = solo.ask(&peer(3).1, Request::FindProviders { key: key(1) });
    let Response::Providers { records, .. } = answer else { panic!("unexpected {answer:?}") };
    assert_eq!(records, [new]);
}

/// The word of another that a node is gone makes the core ask the node, and the answer counts.
#[test]
fn a_node_that_is_said_to_be_gone_is_asked_and_counts_as_it_answers() {
    let contacts: Vec<Contact> = (0..3).map(|number| peer(number).1).collect();
    let mut solo = Solo::with_peers(quiet_config(), &contacts);
    let alive = |solo: &Solo, id: NodeId| {
        solo.kad.contacts().iter().any(|peer| peer.contact.id == id && peer.alive)
    };
    for contact in &contacts[..2] {
        // Said often, asked once.
        for _ in 0..100 {
            solo.input(Input::Gone { node: contact.id });
        }
        assert!(alive(&solo, contact.id), "nothing is believed");
    }
    let calls = solo.take_calls();
    assert_eq!(calls.len(), 2);
    for (call, to, request) in calls {
        assert_eq!(request, Request::Ping);
        solo.input(match to.id == contacts[0].id {
            true => Input::Response { call, response: PONG },
            false => Input::Failed { call },
        });
    }
    assert!(alive(&solo, contacts[0].id));
    assert!(!alive(&solo, contacts[1].id), "it did not answer");
    // Of who is not known, and of who is dead already, nothing is asked.
    solo.take_calls();
    solo.input(Input::Gone { node: peer(9).1.id });
    assert!(solo.take_calls().is_empty());
}

/// What a node signed is told to nobody when it is said to be gone and answers no ping, until it is heard again.
#[test]
fn records_of_who_is_gone_are_void_until_it_is_heard_again() {
    let contacts: Vec<Contact> = (0..3).map(|number| peer(number).1).collect();
    let mut solo = Solo::with_peers(quiet_config(), &contacts);
    let named = |solo: &mut Solo| match solo.ask(&peer(1).1, Request::FindProviders { key: key(1) })
    {
        Response::Providers { records, .. } => records.len(),
        other => panic!("unexpected {other:?}"),
    };
    let pass_on = |solo: &mut Solo, record: &ProviderRecord| {
        let put = Request::PutProviders { records: vec![record.clone()] };
        solo.ask(&peer(1).1, put) == stored(1)
    };
    // One in the table, and one that is not.
    for (signer, holder) in [peer(0), peer(9)] {
        let record = record(&signer, &holder, key(1));
        assert!(pass_on(&mut solo, &record));
        let before = named(&mut solo);
        // It answers: the word was wrong. Then it answers the second ping only.
        for failures in [0, 1] {
            solo.take_calls();
            solo.input(Input::Gone { node: holder.id });
            solo.fail_pings(failures);
            let (call, to, request) = solo.take_calls().remove(0);
            assert_eq!((to.id, request), (holder.id, Request::Ping));
            solo.input(Input::Response { call, response: PONG });
            assert_eq!(named(&mut solo), before);
        }
        // It answers none.
        solo.take_calls();
        solo.input(Input::Gone { node: holder.id });
        solo.fail_pings(2);
        assert_eq!(named(&mut solo), before - 1);
        assert!(!pass_on(&mut solo, &record), "nor is it taken from one who has not heard");
        // It was only restarted, or cut off.
        solo.input(Input::Heard { contact: holder.clone() });
        assert_eq!(named(&mut solo), before);
        assert!(pass_on(&mut solo, &record));
    }
    assert_eq!(solo.misbehaviour, []);
}
