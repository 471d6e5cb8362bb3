//! One test for each rule of the two papers that the overlay keeps.
//!
//! "Kademlia": Maymounkov and Mazieres, IPTPS 2002. "S/Kademlia": Baumgart and Mies, ICPADS 2007.

use std::collections::BTreeSet;

use ddr_proto::id::{dynamic_puzzle_holds, solve_dynamic_puzzle, static_puzzle_holds};
use ddr_proto::kad::{Input, KadConfig, LookupKind, OpId, Output, Reason};
use ddr_proto::wire::{Contact, ProviderRecord, RefuseReason, Request, RequestEnvelope, Response};
use ddr_proto::{Distance, NodeId};
use proptest::prelude::*;

use crate::net::{Net, NetConfig, START, key, signer};
use crate::solo::{PONG, Solo, nothing_for, peer, quiet_config};

fn peers(count: usize) -> Vec<Contact> {
    (0..count).map(|number| peer(number).1).collect()
}

proptest! {
    /// Kademlia, section 2.1: XOR is a metric, symmetric, and unidirectional.
    #[test]
    fn k2_1_xor_is_a_unidirectional_metric(a: [u8; 32], b: [u8; 32], c: [u8; 32]) {
        let distance = |a: &[u8; 32], b: &[u8; 32]| Distance::between(a, b);
        prop_assert_eq!(distance(&a, &a), Distance::bucket_start(256));
        prop_assert_eq!(distance(&a, &b) == distance(&a, &a), a == b);
        prop_assert_eq!(distance(&a, &b), distance(&b, &a));
        // For a point and a distance there is exactly one other point.
        prop_assert_eq!(distance(&a, &b).from_origin(&a), b);
        // d(a,b) xor d(b,c) = d(a,c), from which the triangle inequality follows.
        let through = distance(&a, &b).from_origin(&distance(&b, &c).from_origin(&[0; 32]));
        prop_assert_eq!(distance(&a, &c).from_origin(&[0; 32]), through);
    }

    /// Kademlia, section 2.2: bucket i holds distances from 2^i up to 2^(i+1).
    #[test]
    fn k2_2_a_bucket_is_a_range_of_distances(a: [u8; 32], b: [u8; 32]) {
        let distance = Distance::between(&a, &b);
        let bucket = distance.shared_bits();
        prop_assert!(Distance::bucket_start(bucket) <= distance);
        prop_assert!(distance <= Distance::bucket_end(bucket));
    }
}

/// Kademlia, section 2.2: a full bucket keeps its old live nodes; the newcomer has to wait.
#[test]
fn k2_2_a_full_bucket_keeps_the_nodes_it_has() {
    let cfg = KadConfig { siblings: 0, ..quiet_config() };
    let mut solo = Solo::new(cfg.clone());
    let bucket = solo.peers_in_bucket(0, 25);
    let contacts: Vec<Contact> = bucket.into_iter().map(|(_, contact)| contact).collect();
    for contact in &contacts {
        solo.input(Input::Probed { contact: contact.clone() });
    }
    let first: BTreeSet<NodeId> = contacts[..cfg.k].iter().map(|contact| contact.id).collect();
    assert_eq!(solo.known(), first);
}

/// Kademlia, section 2.3: FIND_NODE returns the k nodes closest to the target that are known.
#[test]
fn k2_3_find_node_returns_the_k_closest_known() {
    let mut known = peers(60);
    let mut solo = Solo::with_peers(quiet_config(), &known);
    let kept = solo.known();
    let target = key(8);
    let Response::Nodes { nodes } = solo.ask(&peer(99).1, Request::FindNode { target }) else {
        panic!("FIND_NODE is answered with nodes");
    };
    known.retain(|contact| kept.contains(&contact.id));
    known.sort_by_key(|contact| contact.id.distance(&target));
    assert_eq!(nodes, known[..20]);
}

/// Kademlia, section 2.3: a storing node answers FIND_VALUE with the value.
#[test]
fn k2_3_find_value_returns_what_was_stored() {
    let mut solo = Solo::new(quiet_config());
    let (signer, holder) = peer(1);
    let record = ProviderRecord::sign(&signer, &holder, key(1), false, START.0, START.0 + 60_000);
    solo.ask(&holder, Request::PutProviders { records: vec![record.clone()] });
    let Response::Providers { records, .. } =
        solo.ask(&peer(2).1, Request::FindProviders { key: key(1) })
    else {
        panic!("FIND_VALUE is answered with providers");
    };
    assert_eq!(records, [record]);
}

/// Kademlia, section 2.3: a lookup keeps alpha requests in flight, to the closest nodes first.
#[test]
fn k2_3_a_path_keeps_alpha_requests_in_flight() {
    let mut known = peers(12);
    let cfg = KadConfig { paths: 1, ..quiet_config() };
    let mut solo = Solo::with_peers(cfg, &known);
    let target = key(3);
    known.sort_by_key(|contact| contact.id.distance(&target));
    solo.start_lookup(target, LookupKind::Nodes);
    let calls = solo.take_calls();
    let asked: Vec<NodeId> = calls.iter().map(|(_, to, _)| to.id).collect();
    let nearest: Vec<NodeId> = known[..3].iter().map(|contact| contact.id).collect();
    assert_eq!(asked, nearest);
    solo.input(Input::Response { call: calls[1].0, response: Response::Nodes { nodes: vec![] } });
    let next: Vec<NodeId> = solo.take_calls().iter().map(|(_, to, _)| to.id).collect();
    assert_eq!(next, [known[3].id], "one answer, one more request");
}

/// Kademlia, section 2.3: nodes that do not respond quickly are left out until they do.
#[test]
fn k2_3_a_slow_node_does_not_hold_a_lookup_up() {
    let cfg = KadConfig { paths: 1, ..quiet_config() };
    let mut solo = Solo::with_peers(cfg, &peers(12));
    solo.start_lookup(key(3), LookupKind::Nodes);
    assert_eq!(solo.take_calls().len(), 3);
    solo.advance_ms(15);
    assert_eq!(solo.take_calls().len(), 3, "three others are asked while the first are silent");
    assert!(solo.lookup_result().is_none());
}

/// Kademlia, section 2.3: a lookup ends when the k closest nodes seen have answered.
#[test]
fn k2_3_a_lookup_ends_when_the_k_closest_have_answered() {
    let cfg = KadConfig { k: 5, paths: 2, ..quiet_config() };
    let all = peers(30);
    let target = key(3);
    let mut solo = Solo::with_peers(cfg, &all[..6]);
    solo.start_lookup(target, LookupKind::Nodes);
    let mut asked = BTreeSet::new();
    while solo.lookup_result().is_none() {
        for (call, to, _) in solo.take_calls() {
            asked.insert(to.id);
            let mut nodes = all.clone();
            nodes.retain(|node| node.id != to.id);
            nodes.sort_by_key(|node| node.id.distance(&target));
            nodes.truncate(5);
            solo.input(Input::Response { call, response: Response::Nodes { nodes } });
        }
    }
    let mut truth = all;
    truth.sort_by_key(|node| node.id.distance(&target));
    let truth: Vec<NodeId> = truth[..5].iter().map(|node| node.id).collect();
    let (closest, _) = solo.lookup_result().expect("done");
    assert_eq!(closest, truth);
    assert!(truth.iter().all(|node| asked.contains(node)));
    assert!(asked.len() < 30, "not everybody had to be asked");
}

/// Kademlia, section 2.3: a node joins by looking up its own ID, then refreshes farther buckets.
#[test]
fn k2_3_joining_is_a_self_lookup_and_a_refresh_of_farther_buckets() {
    let mut solo = Solo::new(KadConfig::default());
    let known = peers(8);
    solo.input(Input::Bootstrap { addrs: vec![known[0].addrs[0]] });
    assert_eq!(solo.outputs, [Output::Probe { addr: known[0].addrs[0] }]);
    solo.input(Input::Probed { contact: known[0].clone() });
    let own = solo.own.id.to_key();
    let mut targets = Vec::new();
    while !solo.kad.is_idle() {
        for (call, _, request) in solo.take_calls() {
            let Request::FindNode { target } = request else { panic!("unexpected {request:?}") };
            targets.push(target);
            let response = Response::Nodes { nodes: known.clone() };
            solo.input(Input::Response { call, response });
        }
    }
    assert_eq!(targets[0], own);
    let nearest = known.iter().map(|contact| solo.bucket_of(&contact.id)).max().expect("some");
    let refreshed: BTreeSet<u32> = targets
        .iter()
        .filter(|target| **target != own)
        .map(|target| solo.bucket_of(&NodeId(target.0)))
        .collect();
    assert_eq!(refreshed, (0..=nearest).collect());
}

/// Kademlia, section 2.3: a bucket without lookups is refreshed with a random ID of its range.
#[test]
fn k2_3_quiet_buckets_are_refreshed() {
    let cfg = KadConfig { refresh_ms: 600_000, ..quiet_config() };
    let mut solo = Solo::with_peers(cfg, &peers(8));
    solo.advance_ms(590_000);
    solo.settle();
    let mut buckets = BTreeSet::new();
    for _ in 0..200 {
        solo.advance_ms(1_000);
        for (call, _, request) in solo.take_calls() {
            if let Request::FindNode { target } = request {
                buckets.insert(solo.bucket_of(&NodeId(target.0)));
            }
            solo.input(Input::Response { call, response: nothing_for(&request) });
        }
    }
    assert!(buckets.contains(&0), "{buckets:?}");
}

/// Kademlia, section 2.5: a key is published again before it expires, and only then lives on.
#[test]
fn k2_5_keys_are_republished_and_otherwise_expire() {
    let (_, storing) = peer(1);
    let mut solo = Solo::with_peers(quiet_config(), std::slice::from_ref(&storing));
    solo.input(Input::Provide { op: OpId(1), key: key(1), complete: true });
    let mut published = Vec::new();
    for _ in 0..3 * 3_600 {
        for (call, _, request) in solo.take_calls() {
            if let Request::PutProviders { records } = &request {
                published.push((solo.now, records[0].clone()));
            }
            solo.input(Input::Response { call, response: nothing_for(&request) });
        }
        solo.advance_ms(1_000);
    }
    assert!(published.len() >= 6, "published {} times in three hours", published.len());
    for pair in published.windows(2) {
        let (at, again) = (pair[0].1.expires_ms, pair[1].0);
        assert!(again.0 < at, "published again before the last record expired");
        assert_eq!(pair[1].1.verify(), Ok(()));
    }
}

/// Kademlia, section 2.5: a node passes keys on to a new node that is closer to them.
#[test]
fn k2_5_records_are_handed_to_a_new_node_close_to_them() {
    let mut solo = Solo::new(quiet_config());
    let (signer, holder) = peer(1);
    let record = ProviderRecord::sign(&signer, &holder, key(1), true, START.0, START.0 + 600_000);
    solo.ask(&holder, Request::PutProviders { records: vec![record.clone()] });
    solo.settle();
    let (_, newcomer) = peer(2);
    solo.input(Input::Probed { contact: newcomer.clone() });
    let handed = solo.take_calls().into_iter().any(|(_, to, request)| {
        to.id == newcomer.id && request == Request::PutProviders { records: vec![record.clone()] }
    });
    assert!(handed);
}

/// Kademlia, section 4.1: a waiting node replaces one that failed, after it has answered itself.
#[test]
fn k4_1_a_waiting_node_replaces_one_that_failed() {
    let cfg = KadConfig { siblings: 0, k: 3, paths: 1, ..quiet_config() };
    let mut solo = Solo::new(cfg);
    let bucket: Vec<Contact> =
        solo.peers_in_bucket(0, 5).into_iter().map(|(_, contact)| contact).collect();
    bucket.iter().for_each(|contact| solo.input(Input::Probed { contact: contact.clone() }));
    solo.settle();
    let leaving = bucket[0].id;
    solo.start_lookup(leaving.to_key(), LookupKind::Nodes);
    let mut pinged = BTreeSet::new();
    while !solo.kad.is_idle() {
        for (call, to, request) in solo.take_calls() {
            if to.id == leaving {
                solo.input(Input::Failed { call });
                continue;
            }
            if request == Request::Ping {
                assert!(!solo.known().contains(&to.id), "not in the bucket before it answered");
                pinged.insert(to.id);
            }
            solo.input(Input::Response { call, response: nothing_for(&request) });
        }
        solo.advance_ms(1);
    }
    assert_eq!(pinged, BTreeSet::from([bucket[4].id]), "the one that was heard of last");
    let now: BTreeSet<NodeId> = [1, 2, 4].map(|index| bucket[index].id).into();
    assert_eq!(solo.known(), now);
}

/// S/Kademlia, section 4.1: the node ID is the hash of the public key.
#[test]
fn s4_1_the_node_id_is_the_hash_of_the_public_key() {
    let (signer, contact) = peer(1);
    assert_eq!(NodeId::of_public_key(signer.public_key()), contact.id);
    let (other, _) = peer(2);
    let stolen = ProviderRecord::sign(&other, &contact, key(1), true, 1, 2);
    assert!(stolen.verify().is_err(), "nobody signs for an ID that is not its own");
}

/// S/Kademlia, section 4.1: both puzzles are checked, and an ID that solves neither is refused.
#[test]
fn s4_1_ids_that_do_not_solve_the_puzzles_are_refused() {
    let (c1, c2) = (4, 6);
    let cfg = KadConfig { static_puzzle_bits: c1, dynamic_puzzle_bits: c2, ..quiet_config() };
    let mut solo = Solo::new(cfg);
    let solves = |contact: &Contact| static_puzzle_holds(&contact.id, c1);
    let (mut good, mut bad) = (None, None);
    for number in 0..200 {
        let contact = peer(number).1;
        let slot = if solves(&contact) { &mut good } else { &mut bad };
        slot.get_or_insert(contact);
    }
    let (good, bad) = (good.expect("one in 16"), bad.expect("15 of 16"));
    let ask = |sender: &Contact, puzzle| RequestEnvelope {
        sender: sender.clone(),
        puzzle,
        body: Request::Ping,
    };
    let refused = Response::Refused { reason: RefuseReason::PuzzleUnsolved };
    let x = solve_dynamic_puzzle(&bad.id, c2, 100_000).expect("64 tries on average");
    assert_eq!(solo.ask_as(bad.id, ask(&bad, x)), refused);
    let x = solve_dynamic_puzzle(&good.id, c2, 100_000).expect("64 tries on average");
    let wrong = (0..=255).map(|byte| [byte; 32]).find(|x| !dynamic_puzzle_holds(&good.id, x, c2));
    let wrong = wrong.expect("most values are no solution");
    assert_eq!(solo.ask_as(good.id, ask(&good, wrong)), refused);
    let reasons: Vec<Reason> = solo.misbehaviour.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(reasons, [Reason::PuzzleUnsolved; 2]);
    assert_eq!(solo.ask_as(good.id, ask(&good, x)), PONG);
}

/// S/Kademlia, section 4.2: the nearest nodes are all known, even where their bucket is full.
#[test]
fn s4_2_siblings_are_kept_although_their_bucket_is_full() {
    let cfg = KadConfig { k: 2, siblings: 6, ..quiet_config() };
    let mut solo = Solo::new(cfg);
    let mut all = peers(80);
    all.iter().for_each(|contact| solo.input(Input::Probed { contact: contact.clone() }));
    let own = solo.own.id.to_key();
    all.sort_by_key(|contact| contact.id.distance(&own));
    let nearest: Vec<NodeId> = all[..6].iter().map(|contact| contact.id).collect();
    let contacts = solo.kad.contacts();
    let siblings: Vec<NodeId> =
        contacts.iter().filter(|peer| peer.sibling).map(|peer| peer.contact.id).collect();
    assert_eq!(siblings, nearest);
}

/// S/Kademlia, section 4.3: only nodes that answered enter a bucket.
#[test]
fn s4_3_only_nodes_that_answered_enter_a_bucket() {
    let mut solo = Solo::new(quiet_config());
    let (_, sender) = peer(1);
    solo.ask(&sender, Request::Ping);
    assert!(solo.known().is_empty());
    let calls = solo.take_calls();
    let [(call, to, Request::Ping)] = &calls[..] else { panic!("one ping, got {calls:?}") };
    assert_eq!(to, &sender);
    solo.input(Input::Response { call: *call, response: PONG });
    assert_eq!(solo.known(), BTreeSet::from([sender.id]));
}

/// S/Kademlia, section 4.3: nodes that an answer names are not entered either.
#[test]
fn s4_3_nodes_that_others_name_are_not_entered() {
    let (_, known) = peer(1);
    let mut solo = Solo::with_peers(quiet_config(), std::slice::from_ref(&known));
    solo.start_lookup(key(1), LookupKind::Nodes);
    let call = solo.take_calls()[0].0;
    let nodes = peers(30).split_off(10);
    solo.input(Input::Response { call, response: Response::Nodes { nodes } });
    assert_eq!(solo.known(), BTreeSet::from([known.id]));
}

/// S/Kademlia, section 4.1, and design: many nodes of one address do not fill a bucket.
#[test]
fn s4_1_one_address_is_one_voice() {
    let cfg = KadConfig { max_per_address: 2, max_per_prefix: 3, ..quiet_config() };
    let mut solo = Solo::new(cfg);
    let bucket: Vec<Contact> =
        solo.peers_in_bucket(0, 12).into_iter().map(|(_, contact)| contact).collect();
    for (number, contact) in bucket.iter().enumerate() {
        let mut contact = contact.clone();
        // Six of one address, then six of one prefix.
        let last = if number < 6 { 1 } else { number as u8 };
        contact.addrs = vec![([192, 0, 2, last], 5001 + number as u16).into()];
        solo.input(Input::Probed { contact });
    }
    assert_eq!(solo.known().len(), 3, "two of the address, one more of the prefix");
}

/// S/Kademlia, section 4.4: a lookup starts on d paths with alpha requests each.
#[test]
fn s4_4_a_lookup_starts_on_d_paths() {
    let cfg = KadConfig { paths: 4, ..quiet_config() };
    let mut solo = Solo::with_peers(cfg, &peers(40));
    solo.start_lookup(key(3), LookupKind::Nodes);
    assert_eq!(solo.take_calls().len(), 4 * 3);
}

/// S/Kademlia, section 4.4: each node is used only once in the whole lookup.
#[test]
fn s4_4_a_node_is_asked_by_one_path_only() {
    let all = peers(60);
    let cfg = KadConfig { paths: 4, ..quiet_config() };
    let mut solo = Solo::with_peers(cfg, &all[..25]);
    let target = key(3);
    solo.start_lookup(target, LookupKind::Nodes);
    let mut asked = BTreeSet::new();
    while solo.lookup_result().is_none() {
        for (call, to, _) in solo.take_calls() {
            assert!(asked.insert(to.id), "asked twice");
            let mut nodes = all.clone();
            nodes.sort_by_key(|node| node.id.distance(&target));
            nodes.truncate(20);
            solo.input(Input::Response { call, response: Response::Nodes { nodes } });
        }
    }
    assert!(asked.len() >= 20);
}

/// S/Kademlia, section 4.4: a lookup succeeds as long as one path meets no adversary.
#[test]
fn s4_4_one_honest_path_is_enough() {
    let honest: Vec<Contact> = peers(40);
    let target = key(3);
    let (signer, holder) = peer(77);
    let record = ProviderRecord::sign(&signer, &holder, target, true, START.0, START.0 + 600_000);
    // The first two paths start at adversaries that name only each other; the third is honest.
    let mut evil: Vec<Contact> = (100..140).map(|number| peer(number).1).collect();
    evil.sort_by_key(|node| node.id.distance(&target));
    let starts = [evil[0].clone(), evil[1].clone(), honest[0].clone()];
    let cfg = KadConfig { paths: 3, ..quiet_config() };
    let mut solo = Solo::with_peers(cfg, &starts);
    solo.start_lookup(target, LookupKind::Providers);
    let is_evil = |id: &NodeId| evil.iter().any(|node| node.id == *id);
    while solo.lookup_result().is_none() {
        for (call, to, request) in solo.take_calls() {
            let response = match request {
                Request::FindProviders { .. } if is_evil(&to.id) => {
                    Response::Providers { records: vec![], nodes: evil[..20].to_vec() }
                }
                Request::FindProviders { .. } => {
                    let mut nodes = honest.clone();
                    nodes.sort_by_key(|node| node.id.distance(&target));
                    let near = nodes[..20].iter().any(|node| node.id == to.id);
                    let records = if near { vec![record.clone()] } else { vec![] };
                    Response::Providers { records, nodes: nodes[..20].to_vec() }
                }
                other => nothing_for(&other),
            };
            solo.input(Input::Response { call, response });
        }
        solo.advance_ms(1);
    }
    let (_, holders) = solo.lookup_result().expect("done");
    assert_eq!(holders, [holder.id]);
}

/// Kademlia, section 2.3, and S/Kademlia, section 4.4: a lookup of holders reports the first at once,
/// and ends when a second path has named one: no single path ends it.
#[test]
fn s4_4_holders_named_on_two_paths_are_enough() {
    let cfg = KadConfig { paths: 2, ..quiet_config() };
    let target = key(3);
    let mut known = peers(20);
    known.sort_by_key(|node| node.id.distance(&target));
    let mut solo = Solo::with_peers(cfg, &known);
    let (signer, holder) = peer(77);
    let record = ProviderRecord::sign(&signer, &holder, target, true, START.0, START.0 + 600_000);
    solo.start_lookup(target, LookupKind::Providers);
    // The nodes are dealt out in turn: the nearest to the first path, the next to the second.
    let mut calls = solo.take_calls();
    calls.sort_by_key(|(_, to, _)| to.id.distance(&target));
    let [first, second] = &calls[..] else { panic!("{calls:?}") };
    let answer = || Response::Providers { records: vec![record.clone()], nodes: vec![] };
    let reported = |output: &&Output| matches!(output, Output::Providers { .. });
    solo.input(Input::Response { call: first.0, response: answer() });
    assert_eq!(solo.outputs.iter().filter(reported).count(), 1, "the first is reported at once");
    for (call, ..) in solo.take_calls() {
        solo.input(Input::Response { call, response: answer() });
    }
    assert!(solo.lookup_result().is_none(), "one path does not decide");
    solo.input(Input::Response { call: second.0, response: answer() });
    assert_eq!(solo.lookup_result().expect("done").1, [holder.id]);
    assert_eq!(solo.outputs.iter().filter(reported).count(), 1);
}

/// Kademlia, section 3: a lookup takes few steps; here the number of requests in a large swarm.
#[test]
fn k3_a_lookup_asks_few_nodes() {
    let mut net = Net::swarm(NetConfig::seeded(41), 300);
    let lookups = 50;
    let before = net.calls_sent;
    for number in 0..lookups {
        let from = net.random(300);
        net.lookup(from, key(number), LookupKind::Nodes);
    }
    let each = (net.calls_sent - before) / lookups;
    assert!(each <= 60, "{each} requests for one lookup in 300 nodes");
    // The signers of the net are those of its seed.
    assert_eq!(net.members[0].signer.node_id(), net.members[0].contact.id);
    assert_ne!(signer(1).node_id(), signer(2).node_id());
}
