//! Which ways there are between nodes: asked for in both directions, and never at a third one's cost.

use ddr_node::PeerReach;
use ddr_proto::wire::{
    Contact, DialOutcome, DialTry, RefuseReason, Request, RequestEnvelope, Response,
};

use crate::bed::{Bed, within};
use crate::stranger::Stranger;

fn reached(peer: &PeerReach) -> bool {
    let ends_well =
        |dials: &[ddr_node::DialReport]| dials.iter().any(|dial| dial.outcome == "reached");
    ends_well(&peer.dialled) && ends_well(&peer.dialled_back)
}

fn dialled(outcome: DialOutcome, addr: std::net::SocketAddr) -> Option<Response> {
    Some(Response::Dialled { tries: vec![DialTry { addr, outcome }] })
}

/// `body` from a node that says that it is at `addr`.
fn at(stranger: &Stranger, addr: std::net::SocketAddr, body: Request) -> RequestEnvelope {
    let sender = Contact { addrs: vec![addr], ..stranger.own.clone() };
    RequestEnvelope { sender, puzzle: [0; 32], body }
}

#[tokio::test]
async fn nodes_reach_each_other_both_ways_and_tell_their_time() {
    let bed = Bed::new();
    let nodes = bed.swarm(3).await;
    let (machine, node) = &nodes[0];
    let reach = within(node.reach()).await;
    assert_eq!((reach.known, reach.peers.len()), (2, 2));
    for peer in &reach.peers {
        assert!(reached(peer), "{peer:?}");
        assert_eq!(peer.no_dial_back, None);
        // One machine has one clock: it differs by no more than the way takes.
        let way_ms = peer.round_trip_us.expect("measured") / 2_000 + 2;
        assert!(peer.clock_ahead_ms.expect("told").unsigned_abs() <= way_ms, "{peer:?}");
    }
    let own = within(node.reach_itself()).await;
    assert_eq!((own[0].address, own[0].outcome), (machine.addr, "reached"));
}

#[tokio::test]
async fn a_node_that_is_gone_is_not_reached() {
    let bed = Bed::new();
    let nodes = bed.swarm(2).await;
    bed.network.kill(nodes[1].0.addr);
    let reach = within(nodes[0].1.reach()).await;
    assert_eq!(reach.peers.len(), 1);
    assert_eq!(reach.peers[0].dialled[0].outcome, "refused");
    assert_eq!(reach.peers[0].no_dial_back, Some("it was not reached"));
}

#[tokio::test]
async fn a_member_is_dialled_where_it_was_known_to_be_and_not_where_it_says_now() {
    let bed = Bed::new();
    let machine = bed.machine(1);
    let _node = bed.start(&machine, &[]).await;
    let stranger = Stranger::new(&bed, 7);
    assert_eq!(
        stranger.say(&machine, Request::DialMe).await,
        Some(Response::Dialled { tries: Vec::new() }),
        "nothing was known of it"
    );
    let busy = Some(Response::Refused { reason: RefuseReason::Busy });
    assert_eq!(stranger.say(&machine, Request::DialMe).await, busy, "one in two seconds");

    let other = Stranger::new(&bed, 8);
    other.listen(|_| None);
    assert!(other.say(&machine, Request::Ping).await.is_some());
    let elsewhere = at(&other, ([10, 0, 0, 99], 22).into(), Request::DialMe);
    let answer = other.say_as(&machine, elsewhere).await;
    assert_eq!(answer, dialled(DialOutcome::Reached, other.own.addrs[0]));
}

#[tokio::test]
async fn nobody_learns_about_the_ports_of_others() {
    let bed = Bed::new();
    let machine = bed.machine(1);
    let _node = bed.start(&machine, &[]).await;
    let third = Stranger::new(&bed, 9);
    third.listen(|_| None);
    // There somebody listens, and there nobody does: both look the same to who is not there.
    let empty = std::net::SocketAddr::from(([10, 0, 0, 77], 5001));
    for (number, addr) in [(10, third.own.addrs[0]), (11, empty)] {
        let spy = Stranger::new(&bed, number);
        assert!(spy.say_as(&machine, at(&spy, addr, Request::Ping)).await.is_some());
        let answer = spy.say_as(&machine, at(&spy, addr, Request::DialMe)).await;
        assert_eq!(answer, dialled(DialOutcome::Failed, addr));
    }
    assert_eq!(third.heard(), 0, "it was sent no message");
    let own = Stranger::new(&bed, 12);
    let here = std::net::SocketAddr::new(own.own.addrs[0].ip(), 22);
    assert!(own.say_as(&machine, at(&own, here, Request::Ping)).await.is_some());
    let answer = own.say_as(&machine, at(&own, here, Request::DialMe)).await;
    assert_eq!(answer, dialled(DialOutcome::Refused, here), "its own machine is its own affair");
    let node = Stranger::new(&bed, 13);
    assert!(node.say_as(&machine, at(&node, machine.addr, Request::Ping)).await.is_some());
    let answer = node.say_as(&machine, at(&node, machine.addr, Request::DialMe)).await;
    assert_eq!(answer, dialled(DialOutcome::NotDialled, machine.addr));
}
