//! Swarms of fewer than k nodes, where everybody knows everybody: how few questions lookups need.

use std::collections::BTreeMap;

use ddr_proto::NodeId;
use ddr_proto::kad::{Effort, Input, KadConfig, LookupKind, OpId, Output};
use ddr_proto::wire::{Contact, ProviderRecord, Request, Response};

use crate::net::{Net, NetConfig, START, key};
use crate::solo::{Solo, nothing_for, peer, quiet_config};

const FEW: usize = 5;
const HOUR_MS: u64 = 3_600_000;

/// Calls that node 1 makes while it looks this up.
fn calls_for(net: &mut Net, number: u64, kind: LookupKind) -> u64 {
    let before = net.members[1].calls;
    let found = net.lookup(1, key(number), kind);
    assert_eq!(found.closest.len(), FEW - 1);
    net.members[1].calls - before
}

#[test]
fn who_keeps_a_record_of_a_living_holder_asks_nobody() {
    let mut net = Net::swarm(NetConfig::seeded(81), FEW);
    let holder = net.members[0].contact.id;
    for number in 0..20 {
        assert_eq!(net.provide(0, key(number)), FEW - 1);
        let before = net.calls_sent;
        for from in 1..FEW {
            assert_eq!(net.holders(from, key(number)), [holder]);
        }
        assert_eq!(net.calls_sent, before, "key {number}");
    }
}

#[test]
fn nobody_is_asked_twice_for_holders() {
    let mut net = Net::swarm(NetConfig::seeded(82), FEW);
    for number in 0..20 {
        let calls = calls_for(&mut net, number, LookupKind::Providers);
        assert!(calls < FEW as u64, "{calls} calls for key {number}, which nobody holds");
    }
}

#[test]
fn one_lookup_of_nodes_stands_for_those_of_other_keys() {
    let mut net = Net::swarm(NetConfig::seeded(83), FEW);
    assert_eq!(calls_for(&mut net, 0, LookupKind::Nodes), FEW as u64 - 1);
    for number in 1..20 {
        assert_eq!(calls_for(&mut net, number, LookupKind::Nodes), 0, "key {number}");
    }
    net.run_ms(500);
    assert_eq!(calls_for(&mut net, 20, LookupKind::Nodes), FEW as u64 - 1, "that was long ago");
    net.run_ms(500);
    let before = net.calls_sent;
    net.provide(1, key(21));
    net.provide(1, key(22));
    assert_eq!(net.calls_sent - before, 3 * (FEW as u64 - 1), "one lookup and two publications");
}

#[test]
fn who_is_dead_as_far_as_this_node_knows_does_not_end_a_lookup() {
    let mut net = Net::swarm(NetConfig::seeded(84), FEW);
    net.provide(0, key(1));
    net.kill(0);
    // Node 1 hears that the holder does not answer any more.
    let gone = net.members[0].contact.id;
    net.input(1, Input::Gone { node: gone });
    net.run_ms(100);
    let before = net.members[1].calls;
    assert_eq!(net.holders(1, key(1)), [gone], "its record still holds");
    assert!(net.members[1].calls > before, "others may know another one");
}

/// Lookups by one node, which the test gives nothing but answers; those in `silent` do not answer.
struct Asker {
    solo: Solo,
    silent: Vec<NodeId>,
    ops: u64,
}

impl Asker {
    fn new(cfg: KadConfig, peers: usize) -> Self {
        let known: Vec<Contact> = (0..peers).map(|number| peer(number).1).collect();
        Self { solo: Solo::with_peers(cfg, &known), silent: Vec::new(), ops: 100 }
    }

    /// How many nodes were asked, and whom the lookup found.
    fn look_up(&mut self, number: u64, kind: LookupKind, effort: Effort) -> (usize, Vec<NodeId>) {
        self.ops += 1;
        let (op, mut asked) = (OpId(self.ops), BTreeMap::<NodeId, usize>::new());
        self.solo.outputs.retain(|output| matches!(output, Output::Call { .. }));
        self.solo.input(Input::Lookup { op, target: key(number), kind, effort });
        loop {
            let calls = self.solo.take_calls();
            if calls.is_empty() {
                break;
            }
            for (call, to, request) in calls {
                if matches!(request, Request::FindNode { .. } | Request::FindProviders { .. }) {
                    *asked.entry(to.id).or_default() += 1;
                }
                if self.silent.contains(&to.id) {
                    self.solo.input(Input::Failed { call });
                } else {
                    self.solo.input(Input::Response { call, response: nothing_for(&request) });
                }
            }
        }
        assert!(asked.values().all(|count| *count == 1), "nobody is asked twice: {asked:?}");
        let closest = self.solo.outputs.iter().find_map(|output| match output {
            Output::LookupDone { closest, .. } => Some(closest.iter().map(|one| one.id).collect()),
            _ => None,
        });
        (asked.len(), closest.expect("it has ended"))
    }

    fn nodes(&mut self, number: u64) -> (usize, Vec<NodeId>) {
        self.look_up(number, LookupKind::Nodes, Effort::Thorough)
    }
}

#[test]
fn who_comes_or_falls_silent_ends_what_was_known_of_everybody() {
    let mut asker = Asker::new(quiet_config(), FEW);
    assert_eq!(asker.nodes(1).0, FEW);
    assert_eq!(asker.nodes(2), (0, nearest(FEW, 2)));
    asker.solo.ask(&peer(FEW).1, Request::Ping);
    let (asked, closest) = asker.nodes(3);
    assert_eq!((asked, closest), (FEW, nearest(FEW, 3)), "the newcomer has not answered yet");
    let (asked, closest) = asker.nodes(4);
    assert_eq!((asked, closest), (FEW + 1, nearest(FEW + 1, 4)), "now it has");
    assert_eq!(asker.nodes(5).0, 0);
    asker.silent = vec![peer(0).1.id];
    asker.solo.input(Input::Gone { node: peer(0).1.id });
    let (asked, closest) = asker.nodes(6);
    assert!(asked > 0 && !closest.contains(&peer(0).1.id));
}

#[test]
fn in_a_swarm_of_k_nodes_and_more_everybody_is_not_known() {
    let mut asker = Asker::new(KadConfig { k: 4, ..quiet_config() }, FEW);
    for number in 0..5 {
        assert!(asker.nodes(number).0 > 0, "key {number}");
    }
}

#[test]
fn a_thorough_lookup_of_holders_asks_in_any_case() {
    let mut asker = Asker::new(quiet_config(), FEW);
    let (signer, holder) = peer(0);
    let record = ProviderRecord::sign(&signer, &holder, key(1), true, START.0, START.0 + HOUR_MS);
    let kept = asker.solo.ask(&holder, Request::PutProviders { records: vec![record] });
    assert!(matches!(kept, Response::Stored { accepted: 1, .. }));
    assert_eq!(asker.look_up(1, LookupKind::Providers, Effort::Fresh).0, 0);
    assert_eq!(asker.look_up(1, LookupKind::Providers, Effort::Thorough).0, FEW);
}

fn nearest(count: usize, number: u64) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = (0..count).map(|number| peer(number).1.id).collect();
    nodes.sort_by_key(|node| node.distance(&key(number)));
    nodes
}
