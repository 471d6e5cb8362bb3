//! The size of the swarm as its nodes see it, and lookups whose result looks wrong.
//!
//! S/Kademlia, section 4.4: more disjoint paths make it likelier that one meets no adversary.

use std::collections::BTreeSet;

use ddr_proto::kad::{Effort, Input, KadConfig, LookupKind, OpId};
use ddr_proto::wire::{Contact, ProviderRecord, Request, Response};
use ddr_proto::{Key, NodeId};

use crate::net::{Net, NetConfig, START, key};
use crate::solo::{PONG, Solo, peer, quiet_config, stored};

const K: usize = 20;

fn peers(count: usize) -> Vec<Contact> {
    (0..count).map(|number| peer(number).1).collect()
}

fn nearest(nodes: &[Contact], target: &Key, count: usize) -> Vec<Contact> {
    let mut nodes = nodes.to_vec();
    nodes.sort_by_key(|contact| contact.id.distance(target));
    nodes.truncate(count);
    nodes
}

/// What a node that knows `nodes` answers.
fn answer(nodes: &[Contact], request: &Request, records: &[ProviderRecord]) -> Response {
    match request {
        Request::FindNode { target } => Response::Nodes { nodes: nearest(nodes, target, K) },
        Request::FindProviders { key } => {
            Response::Providers { records: records.to_vec(), nodes: nearest(nodes, key, K) }
        }
        Request::PutProviders { .. } => stored(1),
        _ => PONG,
    }
}

/// Answers all calls until there are none; `None` is a call that fails.
fn run(solo: &mut Solo, mut answer: impl FnMut(&Contact, &Request) -> Option<Response>) {
    while !solo.kad.is_idle() {
        for (call, to, request) in solo.take_calls() {
            let input = match answer(&to, &request) {
                Some(response) => Input::Response { call, response },
                None => Input::Failed { call },
            };
            solo.input(input);
        }
    }
}

/// A core in a swarm of `world`, of which it knows `known` in its table.
fn joined(world: &[Contact], known: &[Contact]) -> Solo {
    let mut solo = Solo::new(quiet_config());
    // It joins by its siblings, so that no others enter the table, then hears of those it is to know.
    solo.input(Input::Probed { contact: known[0].clone() });
    run(&mut solo, |_, request| Some(answer(world, request, &[])));
    for contact in known {
        solo.input(Input::Probed { contact: contact.clone() });
    }
    run(&mut solo, |_, request| Some(answer(world, request, &[])));
    solo.outputs.clear();
    solo
}

fn in_percent(part: u64, whole: usize) -> u64 {
    100 * part / whole as u64
}

#[test]
fn a_node_knows_about_how_large_its_swarm_is() {
    for count in [3, 12, 60, 240] {
        let net = Net::swarm(NetConfig::seeded(80 + count as u64), count);
        let sizes = net.members.iter().map(|member| member.kad.size_estimate().expect("joined"));
        let mut sizes: Vec<u64> = sizes.collect();
        sizes.sort_unstable();
        if count <= K {
            assert!(sizes.iter().all(|size| *size == count as u64), "{count}: {sizes:?}");
        }
        let median = in_percent(sizes[count / 2], count);
        assert!((80..=125).contains(&median), "{count} nodes: {sizes:?}");
        let (least, most) = (in_percent(sizes[0], count), in_percent(sizes[count - 1], count));
        assert!(least >= 60 && most <= 180, "{count} nodes: {sizes:?}");
        println!(
            "{count} nodes: {} to {}, median {}",
            sizes[0],
            sizes[count - 1],
            sizes[count / 2]
        );
    }
}

#[test]
fn a_lonely_node_knows_no_size() {
    assert_eq!(Solo::new(quiet_config()).kad.size_estimate(), None);
}

#[test]
fn honest_lookups_are_not_doubted() {
    let mut net = Net::swarm(NetConfig::seeded(85), 240);
    let doubted = |net: &Net| -> u64 { net.members.iter().map(|m| m.kad.doubted_lookups()).sum() };
    let before = doubted(&net);
    for number in 0..300 {
        let from = net.random(240);
        let kind = if number % 2 == 0 { LookupKind::Nodes } else { LookupKind::Providers };
        net.lookup(from, key(number), kind);
    }
    let doubted = doubted(&net) - before;
    println!("{doubted} of 300 lookups doubted");
    // By the distribution of the k-th distance one in thirty, while the size is known from few points.
    assert!(doubted <= 18, "{doubted} of 300 lookups");
}

/// 40 IDs around a key, all of one attacker, who names nobody else: the true storing nodes are
/// not among the 20 closest any more.
#[test]
fn a_crowd_around_a_key_does_not_hide_its_holder() {
    let (honest, target) = (peers(300), key(5));
    let crowd: Vec<Contact> = (0..40_u8)
        .map(|number| {
            let mut id = target.0;
            (id[8], id[31]) = (!number, number);
            let addrs = vec![([203, 0, 113, number], 5001).into()];
            Contact { id: NodeId(id), addrs, zone: String::new() }
        })
        .collect();
    let is_crowd = |id: &NodeId| id.0[..8] == target.0[..8];
    let storing: BTreeSet<NodeId> =
        nearest(&honest, &target, K).iter().map(|contact| contact.id).collect();
    let (signer, holder) = peer(900);
    let record = ProviderRecord::sign(&signer, &holder, target, true, START.0, START.0 + 600_000);
    let all: Vec<Contact> = honest.iter().chain(&crowd).cloned().collect();
    let mut solo = joined(&honest, &nearest(&honest, &key(77), 60));
    let (op, kind, effort) = (OpId(4), LookupKind::Providers, Effort::Thorough);
    solo.input(Input::Lookup { op, target, kind, effort });
    run(&mut solo, |to, request| {
        let kept = storing.contains(&to.id).then(|| record.clone());
        let known = if is_crowd(&to.id) { &crowd } else { &all };
        Some(answer(known, request, kept.as_slice()))
    });
    let (_, holders) = solo.lookup_result().expect("done");
    assert_eq!(solo.kad.doubted_lookups(), 1);
    assert_eq!(holders, [holder.id]);

    // What is published now goes past the crowd as well.
    solo.outputs.clear();
    let op = OpId(5);
    solo.input(Input::Provide { op, key: target, complete: true });
    let mut told = BTreeSet::new();
    run(&mut solo, |to, request| {
        if matches!(request, Request::PutProviders { .. }) {
            told.insert(to.id);
        }
        Some(answer(if is_crowd(&to.id) { &crowd } else { &all }, request, &[]))
    });
    let honest_told = told.intersection(&storing).count();
    assert!(honest_told >= 1, "everybody here names the crowd first, and still one is told");
    assert!(told.len() > K && told.len() <= 3 * K, "{} were told", told.len());
}

/// The nearest nodes that are known are colluders and name colluders only.
#[test]
fn a_lookup_that_was_led_astray_starts_again_elsewhere() {
    let (world, target) = (peers(300), key(6));
    let sorted = nearest(&world, &target, world.len());
    let colluders: Vec<Contact> = sorted.iter().skip(4).step_by(6).cloned().collect();
    let evil: BTreeSet<NodeId> = colluders.iter().map(|contact| contact.id).collect();
    let honest: Vec<Contact> =
        sorted.iter().filter(|contact| !evil.contains(&contact.id)).cloned().collect();
    let mut known = colluders[..K].to_vec();
    known.extend_from_slice(&honest[honest.len() - 60..]);
    let mut solo = joined(&known, &known);
    // Its size estimate comes from the true world.
    let own = solo.own.id.to_key();
    solo.start_lookup(own, LookupKind::Nodes);
    run(&mut solo, |_, request| Some(answer(&world, request, &[])));
    let mut solo = fresh_estimate(solo, &world);
    let before = solo.kad.doubted_lookups();
    solo.outputs.clear();
    solo.start_lookup(target, LookupKind::Nodes);
    let mut second_wave = 0;
    run(&mut solo, |to, request| {
        second_wave += 1;
        Some(answer(if evil.contains(&to.id) { &colluders } else { &world }, request, &[]))
    });
    assert_eq!(solo.kad.doubted_lookups() - before, 1);
    let (closest, _) = solo.lookup_result().expect("done");
    let truth: Vec<NodeId> = sorted[..K].iter().map(|contact| contact.id).collect();
    assert_eq!(closest, truth, "after {second_wave} calls");
}

/// Refreshes all buckets, so that the size estimate is that of `world`.
fn fresh_estimate(mut solo: Solo, world: &[Contact]) -> Solo {
    for _ in 0..40 {
        solo.advance_ms(1_000);
        run(&mut solo, |_, request| Some(answer(world, request, &[])));
    }
    solo
}

/// Of four paths so many meet honest nodes; the others know colluders only.
fn doubts_with_honest_paths(honest_paths: usize) -> u64 {
    let (world, target) = (peers(300), key(7));
    let sorted = nearest(&world, &target, world.len());
    let known = &sorted[150..150 + K];
    let mut solo = joined(&world, known);
    for peer in solo.kad.contacts() {
        assert!(peer.alive);
    }
    let before = solo.kad.doubted_lookups();
    solo.outputs.clear();
    let table: Vec<Contact> = solo.kad.contacts().into_iter().map(|peer| peer.contact).collect();
    let seeds = nearest(&table, &target, K);
    let evil: BTreeSet<NodeId> = seeds
        .iter()
        .enumerate()
        .filter(|(place, _)| place % 4 >= honest_paths)
        .map(|(_, contact)| contact.id)
        .collect();
    let is_evil = |contact: &&Contact| evil.contains(&contact.id);
    let colluders: Vec<Contact> = seeds.iter().filter(is_evil).cloned().collect();
    solo.start_lookup(target, LookupKind::Nodes);
    run(&mut solo, |to, request| {
        let known = if evil.contains(&to.id) { &colluders } else { &world };
        Some(answer(known, request, &[]))
    });
    solo.kad.doubted_lookups() - before
}

#[test]
fn a_lookup_on_which_most_paths_disagree_is_doubted() {
    assert_eq!(doubts_with_honest_paths(4), 0);
    assert_eq!(doubts_with_honest_paths(2), 0);
    assert_eq!(doubts_with_honest_paths(1), 1);
}

#[test]
fn a_lookup_in_which_as_many_failed_as_answered_goes_on_with_eight_paths() {
    let world = peers(300);
    let mut solo = joined(&world, &nearest(&world, &key(77), 60));
    solo.start_lookup(key(8), LookupKind::Nodes);
    let (mut calls, mut widest) = (0, 0);
    while !solo.kad.is_idle() {
        let now = solo.take_calls();
        let doubted = solo.kad.doubted_lookups() > 0;
        widest = widest.max(if doubted { now.len() } else { 0 });
        for (call, _, request) in now {
            calls += 1;
            let lookup = matches!(request, Request::FindNode { .. });
            let input = if lookup && !doubted && calls % 2 == 0 {
                Input::Failed { call }
            } else {
                Input::Response { call, response: answer(&world, &request, &[]) }
            };
            solo.input(input);
        }
    }
    assert_eq!(solo.kad.doubted_lookups(), 1, "and no third round");
    assert!(widest >= 8 * KadConfig::default().alpha - 4, "{widest} calls at once");
    let (closest, _) = solo.lookup_result().expect("done");
    assert_eq!(closest.len(), K);
}

#[test]
fn a_small_swarm_has_nobody_else_to_ask() {
    let world = peers(30);
    let mut solo = joined(&world, &world);
    solo.start_lookup(key(8), LookupKind::Nodes);
    run(&mut solo, |_, _| None);
    assert_eq!(solo.kad.doubted_lookups(), 0);
}

/// One path that starts from one liar and one honest node. The liar names 20 colluders, nearer to the
/// key than all honest nodes; every colluder gives out `claims` and the same 20.
fn beside_a_liar(
    claims: Vec<ProviderRecord>,
    true_word: ProviderRecord,
) -> (Solo, impl Fn(&mut Solo)) {
    let target = true_word.key;
    let honest = nearest(&peers(40), &target, 40);
    let nearer = |contact: &Contact| contact.id.distance(&target) < honest[0].id.distance(&target);
    let colluders: Vec<Contact> =
        (100..).map(|number| peer(number).1).filter(nearer).take(K).collect();
    let starts = [colluders[0].clone(), honest[39].clone()];
    let cfg = KadConfig { paths: 1, paths_under_suspicion: 0, ..quiet_config() };
    let solo = Solo::with_peers(cfg, &starts);
    let run_it = move |solo: &mut Solo| {
        run(solo, |to, request| {
            if colluders.iter().any(|colluder| colluder.id == to.id) {
                return Some(answer(&colluders, request, &claims));
            }
            let keeps = honest[..K].iter().any(|near| near.id == to.id);
            let kept = keeps.then(|| true_word.clone());
            Some(answer(&honest, request, kept.as_slice()))
        });
    };
    (solo, run_it)
}

fn signed_by(number: usize, target: Key) -> (NodeId, ProviderRecord) {
    let (signer, holder) = peer(number);
    let (from, until) = (START.0, START.0 + 600_000);
    (holder.id, ProviderRecord::sign(&signer, &holder, target, true, from, until))
}

#[test]
fn a_liar_does_not_speak_for_its_path() {
    let (holder, true_word) = signed_by(900, key(5));
    let (mut solo, run_it) = beside_a_liar(vec![], true_word);
    solo.start_lookup(key(5), LookupKind::Providers);
    run_it(&mut solo);
    assert_eq!(solo.lookup_result().expect("done").1, [holder]);
}

#[test]
fn who_met_false_holders_only_looks_harder() {
    let (holder, true_word) = signed_by(900, key(5));
    let (liar, claim) = signed_by(901, key(5));
    let (mut solo, run_it) = beside_a_liar(vec![claim], true_word);
    solo.start_lookup(key(5), LookupKind::Providers);
    run_it(&mut solo);
    assert_eq!(solo.lookup_result().expect("done").1, [liar], "the nearest 20 are colluders");
    solo.outputs.clear();
    let (op, effort) = (OpId(6), Effort::Thorough);
    solo.input(Input::Lookup { op, target: key(5), kind: LookupKind::Providers, effort });
    run_it(&mut solo);
    let mut found = solo.lookup_result().expect("done").1;
    found.sort_unstable();
    let mut both = [liar, holder];
    both.sort_unstable();
    assert_eq!(found, both);
}
