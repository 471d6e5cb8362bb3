//! Peers that a node knew when it ran before: kept, pinged, never believed.

use std::collections::BTreeSet;

use ddr_proto::NodeId;
use ddr_proto::kad::{Input, Kad, KadConfig, MAX_KEPT_PEERS};
use ddr_proto::wire::{Contact, MAX_ADDRS, Request};

use crate::net::{Net, NetConfig, key};
use crate::solo::{PONG, Solo, nothing_for, peer, quiet_config};

fn peers(count: usize) -> Vec<Contact> {
    (0..count).map(|number| peer(number).1).collect()
}

/// The nodes that are pinged now.
fn pinged(solo: &mut Solo) -> Vec<(ddr_proto::kad::CallId, NodeId)> {
    let calls = solo.take_calls().into_iter();
    calls.filter(|(_, _, r)| *r == Request::Ping).map(|(call, to, _)| (call, to.id)).collect()
}

#[test]
fn restored_peers_are_pinged_and_enter_when_they_answer() {
    let mut solo = Solo::new(quiet_config());
    let saved = peers(40);
    solo.input(Input::Restore { peers: saved.clone() });
    let first = pinged(&mut solo);
    assert_eq!(first.len(), 16, "few at a time");
    assert!(solo.known().is_empty(), "nobody is believed");
    let mut order: Vec<NodeId> = first.iter().map(|(_, id)| *id).collect();
    assert_ne!(order, saved[..16].iter().map(|c| c.id).collect::<Vec<_>>(), "random order");
    let dead = first[0].1;
    solo.input(Input::Failed { call: first[0].0 });
    for (call, _) in &first[1..] {
        solo.input(Input::Response { call: *call, response: PONG });
    }
    while !solo.kad.is_idle() {
        for (call, to, request) in solo.take_calls() {
            if request == Request::Ping {
                order.push(to.id);
            }
            solo.input(Input::Response { call, response: nothing_for(&request) });
        }
    }
    let all: BTreeSet<NodeId> = saved.iter().map(|contact| contact.id).collect();
    assert_eq!(order.iter().copied().collect::<BTreeSet<_>>(), all, "each had its turn");
    assert!(!solo.known().contains(&dead) && solo.known().len() >= 30);
}

#[test]
fn what_is_restored_is_bounded_and_checked() {
    let mut solo = Solo::new(quiet_config());
    let (own, good) = (solo.own.clone(), peer(0).1);
    let mut unreachable = peer(1).1;
    unreachable.addrs[0].set_port(0);
    let mut many_homes = peer(2).1;
    many_homes.addrs = vec![many_homes.addrs[0]; MAX_ADDRS + 1];
    solo.input(Input::Restore { peers: vec![own, unreachable, many_homes, good.clone()] });
    assert_eq!(pinged(&mut solo).iter().map(|(_, id)| *id).collect::<Vec<_>>(), [good.id]);

    let mut solo = Solo::new(quiet_config());
    solo.input(Input::Restore { peers: peers(3 * MAX_KEPT_PEERS) });
    let mut asked = 0;
    while !solo.kad.is_idle() {
        for (call, _) in pinged(&mut solo) {
            asked += 1;
            solo.input(Input::Failed { call });
        }
    }
    assert_eq!(asked, MAX_KEPT_PEERS);
}

#[test]
fn a_node_comes_back_without_any_bootstrap_node() {
    let cfg = KadConfig::default();
    let mut net = Net::swarm(NetConfig::seeded(51), 40);
    let known = net.members[7].kad.contacts().into_iter();
    let saved: Vec<Contact> = known.map(|peer| peer.contact).collect();
    assert!(saved.len() >= 20);
    // The node it had joined through is gone for good, and the node itself starts anew.
    net.kill(0);
    let (contact, signer) = (net.members[7].contact.clone(), net.members[7].signer.clone());
    net.members[7].kad = Kad::new(cfg, contact.clone(), signer, 4_711);
    assert!(net.members[7].kad.is_alone());
    net.input(7, Input::Restore { peers: saved });
    net.run_ms(5_000);
    assert!(net.members[7].kad.contacts().iter().filter(|peer| peer.alive).count() >= 30);
    net.provide(7, key(1));
    assert_eq!(net.holders(20, key(1)), [contact.id]);
}
