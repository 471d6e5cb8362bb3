//! Whole swarms: everything that is held is found, from everywhere, through kills, loss and growth.

use std::collections::BTreeSet;

use ddr_proto::kad::{Input, KadConfig, LookupKind};
use ddr_proto::{Key, NodeId};

use crate::net::{Grave, Net, NetConfig, key};

/// Each node provides one key; returns the keys in the order of the nodes.
fn provide_one_each(net: &mut Net, least_stored: usize) -> Vec<Key> {
    let members = 0..net.members.len();
    members
        .map(|index| {
            let key = key(index as u64);
            let stored = net.provide(index, key);
            let seed = net.cfg.seed;
            assert!(stored >= least_stored, "node {index} stored {stored}, seed {seed}");
            key
        })
        .collect()
}

fn assert_found(net: &mut Net, from: usize, holder: usize, key: Key) {
    let found = net.lookup(from, key, LookupKind::Providers);
    let wanted = net.members[holder].contact.id;
    assert!(
        from == holder || found.providers.iter().any(|record| record.provider.id == wanted),
        "node {from} does not find node {holder}'s key {key}, seed {}",
        net.cfg.seed
    );
    assert!(
        from == holder || found.first_provider_at.is_some(),
        "holders are reported early, seed {}",
        net.cfg.seed
    );
}

fn kill_a_third(net: &mut Net) -> Vec<usize> {
    let count = net.members.len() / 3;
    let mut killed = BTreeSet::new();
    while killed.len() < count {
        killed.insert(net.random(net.members.len()));
    }
    killed.iter().for_each(|index| net.kill(*index));
    killed.into_iter().collect()
}

#[test]
fn three_nodes_find_everything() {
    let mut net = Net::swarm(NetConfig { codec: true, ..NetConfig::seeded(3) }, 3);
    let keys = provide_one_each(&mut net, 2);
    for from in 0..3 {
        for (holder, key) in keys.iter().enumerate() {
            assert_found(&mut net, from, holder, *key);
        }
    }
    net.kill(1);
    assert_found(&mut net, 0, 2, keys[2]);
    assert_found(&mut net, 2, 0, keys[0]);
    assert!(net.misbehaviour.is_empty(), "{:?}", net.misbehaviour);
}

#[test]
fn a_single_node_answers_at_once() {
    let mut net = Net::swarm(NetConfig::seeded(1), 1);
    assert_eq!(net.provide(0, key(1)), 0);
    let started = net.now;
    let found = net.lookup(0, key(2), LookupKind::Providers);
    assert!(found.closest.is_empty() && found.providers.is_empty());
    assert_eq!(found.done_at, Some(started));
}

#[test]
fn what_was_provided_alone_is_found_by_all_who_join_later() {
    for seed in 0..4 {
        let mut net = Net::new(NetConfig::seeded(seed));
        net.join(0);
        let alone: Vec<Key> = (0..300).map(key).collect();
        for key in &alone {
            net.provide(0, *key);
        }
        for index in 1..64 {
            net.join(index);
            net.run_ms(50);
        }
        net.run_ms(20_000);
        for (step, key) in alone.iter().enumerate() {
            assert_found(&mut net, 1 + step % 63, 0, *key);
        }
    }
}

#[test]
fn a_swarm_smaller_than_k_knows_all_of_itself_soon() {
    for seed in 0..10 {
        let mut net = Net::new(NetConfig::seeded(seed));
        for index in 0..15 {
            net.join(index);
        }
        let everybody: BTreeSet<NodeId> = net.members.iter().map(|m| m.contact.id).collect();
        net.run_until(15_000, |net| {
            net.members.iter().all(|member| {
                let mut known: BTreeSet<NodeId> =
                    member.kad.contacts().iter().map(|peer| peer.contact.id).collect();
                known.insert(member.contact.id);
                known == everybody
            })
        });
    }
}

#[test]
fn sixty_four_nodes_find_everything_and_survive_a_third_killed() {
    for (seed, grave) in [(64, Grave::Refuses), (65, Grave::Silent)] {
        let cfg = NetConfig { codec: true, grave, ..NetConfig::seeded(seed) };
        let mut net = Net::swarm(cfg, 64);
        let keys = provide_one_each(&mut net, 20);
        for (holder, key) in keys.iter().enumerate() {
            for _ in 0..4 {
                let from = net.random(64);
                assert_found(&mut net, from, holder, *key);
            }
        }
        let killed = kill_a_third(&mut net);
        for from in net.alive() {
            for (holder, key) in keys.iter().enumerate() {
                if !killed.contains(&holder) && (from + holder) % 5 == 0 {
                    assert_found(&mut net, from, holder, *key);
                }
            }
        }
        assert!(net.misbehaviour.is_empty(), "{:?}", net.misbehaviour);
    }
}

#[test]
fn five_hundred_nodes_find_everything_and_survive_a_third_killed() {
    let mut net = Net::swarm(NetConfig { grave: Grave::Silent, ..NetConfig::seeded(500) }, 500);
    let holders: Vec<usize> = (0..100).map(|n| n * 5).collect();
    for &holder in &holders {
        let stored = net.provide(holder, key(holder as u64));
        assert!(stored >= 20, "node {holder} stored {stored}");
    }
    for &holder in &holders {
        let from = net.random(500);
        assert_found(&mut net, from, holder, key(holder as u64));
    }
    let killed = kill_a_third(&mut net);
    for &holder in holders.iter().filter(|holder| !killed.contains(holder)) {
        let alive = net.alive();
        let from = alive[net.random(alive.len())];
        assert_found(&mut net, from, holder, key(holder as u64));
    }
}

#[test]
fn closest_nodes_are_the_true_closest() {
    for seed in 0..3 {
        let mut net = Net::swarm(NetConfig::seeded(seed), 100);
        for number in 0..20 {
            let target = key(1_000 + number);
            let from = net.random(100);
            let found = net.lookup(from, target, LookupKind::Nodes);
            let own = net.members[from].contact.id;
            let mut truth: Vec<NodeId> =
                net.members.iter().map(|m| m.contact.id).filter(|id| *id != own).collect();
            truth.sort_by_key(|id| id.distance(&target));
            truth.truncate(20);
            let closest: Vec<NodeId> = found.closest.iter().map(|c| c.id).collect();
            assert_eq!(closest, truth, "seed {seed}, target {target}");
        }
    }
}

#[test]
fn loss_does_not_hide_anything() {
    let cfg = NetConfig { loss_permille: 50, ..NetConfig::seeded(77) };
    let mut net = Net::swarm(cfg, 64);
    let keys = provide_one_each(&mut net, 12);
    for (holder, key) in keys.iter().enumerate() {
        let from = net.random(64);
        assert_found(&mut net, from, holder, *key);
    }
}

#[test]
fn a_lookup_of_nothing_ends_within_the_budget() {
    // Warm swarm, round trips of 2 to 10 ms: a handful of them is enough.
    let mut net = Net::swarm(NetConfig::seeded(9), 64);
    for number in 0..50 {
        let from = net.random(64);
        let started = net.now;
        let found = net.lookup(from, key(90_000 + number), LookupKind::Providers);
        let took_ms = found.done_at.expect("done").since_ms(started);
        assert!(found.providers.is_empty());
        assert!(took_ms <= 60, "took {took_ms} ms, seed 9");
    }
    // A third is silent: hedging still ends early, and never after the ceiling.
    net.cfg.grave = Grave::Silent;
    kill_a_third(&mut net);
    let mut slow = 0;
    for number in 0..50 {
        let alive = net.alive();
        let from = alive[net.random(alive.len())];
        let started = net.now;
        let found = net.lookup(from, key(91_000 + number), LookupKind::Providers);
        let took_ms = found.done_at.expect("done").since_ms(started);
        assert!(took_ms <= KadConfig::default().lookup_ceiling_ms, "took {took_ms} ms, seed 9");
        slow += usize::from(took_ms > 250);
    }
    assert!(slow <= 5, "{slow} of 50 lookups of nothing were slow, seed 9");
}

#[test]
fn a_newly_joined_node_is_found_at_once() {
    let mut net = Net::swarm(NetConfig::seeded(31), 64);
    let index = net.join(64);
    net.run_ms(200);
    let key = key(4_711);
    assert!(net.provide(index, key) >= 20);
    for from in 0..64 {
        assert_found(&mut net, from, index, key);
    }
}

#[test]
fn withdrawn_keys_vanish_at_once_and_expired_ones_in_time() {
    let mut net = Net::swarm(NetConfig::seeded(12), 30);
    let (kept, withdrawn, orphan) = (key(1), key(2), key(3));
    net.provide(5, kept);
    net.provide(5, withdrawn);
    net.provide(6, orphan);
    net.input(5, Input::Withdraw { key: withdrawn });
    net.run_ms(1_000);
    assert!(net.holders(9, withdrawn).is_empty());
    assert_eq!(net.holders(9, kept), [net.members[5].contact.id]);
    // A key may come back after it was withdrawn.
    net.provide(5, withdrawn);
    assert_eq!(net.holders(9, withdrawn), [net.members[5].contact.id]);

    net.kill(6);
    let ttl_ms = net.cfg.kad.provider_ttl_ms;
    net.run_ms(ttl_ms + 120_000);
    assert!(net.holders(9, orphan).is_empty(), "the dead holder's record has expired");
    assert_eq!(net.holders(9, kept), [net.members[5].contact.id], "republished before expiry");
    let stored: usize =
        net.alive().iter().map(|index| net.members[*index].kad.stored_records()).sum();
    assert!(stored <= 2 * 20 + 20, "expired records are dropped, {stored} are kept");
}

#[test]
fn a_leaving_node_takes_everything_back() {
    let mut net = Net::swarm(NetConfig::seeded(13), 30);
    let keys: Vec<Key> = (0..500).map(key).collect();
    let ops: Vec<_> = keys.iter().map(|key| net.start_provide(4, *key)).collect();
    net.run_until(20_000, |net| ops.iter().all(|op| net.ops[op].stored.is_some()));
    assert_eq!(net.holders(9, keys[77]), [net.members[4].contact.id]);
    net.input(4, Input::Shutdown);
    net.run_until(5_000, |net| net.members[4].kad.is_idle());
    net.kill(4);
    for step in 0..50 {
        assert!(net.holders(9, keys[step * 10]).is_empty(), "key {step}");
    }
}

#[test]
fn republishing_is_spread_over_the_interval() {
    let mut net = Net::swarm(NetConfig::seeded(14), 100);
    let count = 2_000;
    let ops: Vec<_> = (0..count).map(|number| net.start_provide(0, key(number))).collect();
    net.run_until(60_000, |net| ops.iter().all(|op| net.ops[op].stored.is_some()));
    // The first sweep begins one interval after the first key; then every minute counts.
    net.run_ms(net.cfg.kad.republish_ms);
    let mut by_minute = Vec::new();
    for _ in 0..net.cfg.kad.republish_ms / 60_000 {
        let before = net.members[0].calls;
        net.run_ms(60_000);
        by_minute.push(net.members[0].calls - before);
    }
    // One batch may be a sixteenth of all keys, and is followed by as much of the interval.
    let least = by_minute.windows(3).map(|minutes| minutes.iter().sum::<u64>()).min();
    let most = by_minute.iter().max().expect("some");
    assert!(least.is_some_and(|least| least > 0), "a long silence: {by_minute:?}");
    assert!(*most <= 200, "calls by minute: {by_minute:?}");
}

#[test]
fn a_restarted_node_is_taken_back_at_once() {
    let mut net = Net::swarm(NetConfig::seeded(15), 3);
    net.kill(2);
    let found = net.lookup(0, key(1), LookupKind::Nodes);
    assert_eq!(found.closest.len(), 1, "the dead node is noticed");
    net.members[2].alive = true;
    let addrs = vec![net.members[0].contact.addrs[0]];
    net.input(2, Input::Bootstrap { addrs });
    net.run_ms(500);
    let found = net.lookup(0, key(2), LookupKind::Nodes);
    assert_eq!(found.closest.len(), 2, "a sign of life clears the memory of its death");
    net.provide(2, key(3));
    assert_found(&mut net, 0, 2, key(3));
}

#[test]
fn a_lonely_node_keeps_trying_to_join() {
    let mut net = Net::new(NetConfig::seeded(16));
    net.join(0);
    net.kill(0);
    let signer = crate::net::signer(1);
    let contact = crate::net::contact(&signer, 1);
    net.add(signer, contact);
    let addrs = vec![net.members[0].contact.addrs[0]];
    net.input(1, Input::Bootstrap { addrs });
    net.run_ms(20_000);
    assert!(net.members[1].kad.contacts().is_empty());
    net.members[0].alive = true;
    net.run_until(31_000, |net| !net.members[1].kad.contacts().is_empty());
}

#[test]
fn the_same_seed_gives_the_same_transcript() {
    let run = || {
        let cfg = NetConfig { loss_permille: 20, ..NetConfig::seeded(99) };
        let mut net = Net::new(cfg);
        net.transcript = Some(Vec::new());
        for index in 0..40 {
            net.join(index);
            net.run_ms(10);
        }
        net.run_ms(5_000);
        provide_one_each(&mut net, 1);
        kill_a_third(&mut net);
        for number in 0..40 {
            let alive = net.alive();
            let from = alive[net.random(alive.len())];
            net.lookup(from, key(number), LookupKind::Providers);
        }
        net.transcript.expect("recording")
    };
    let (first, second) = (run(), run());
    assert!(first.len() > 10_000, "the transcript says something");
    for (one, other) in first.iter().zip(&second) {
        assert_eq!(one, other);
    }
    assert_eq!(first.len(), second.len());
}
