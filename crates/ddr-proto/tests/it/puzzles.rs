//! The puzzles of S/Kademlia, section 4.1: solved within bounds, and checked of whoever asks or
//! answers.

use std::collections::BTreeSet;

use ddr_proto::NodeId;
use ddr_proto::id::{
    dynamic_puzzle_holds, solve_dynamic_puzzle, solve_static_puzzle, static_puzzle_holds,
};
use ddr_proto::kad::{CallId, Input, KadConfig, LookupKind, Reason};
use ddr_proto::wire::{Contact, Request, RequestEnvelope, Response};

use crate::net::{key, signer};
use crate::solo::{Solo, nothing_for, peer, quiet_config};

const C2: u32 = 6;

fn solo() -> Solo {
    Solo::new(KadConfig { dynamic_puzzle_bits: C2, ..quiet_config() })
}

fn solution(contact: &Contact) -> [u8; 32] {
    solve_dynamic_puzzle(&contact.id, C2, 100_000).expect("64 tries on average")
}

fn wrong(contact: &Contact) -> [u8; 32] {
    let all = (0..=255).map(|byte| [byte; 32]);
    let mut wrong = all.filter(|x| !dynamic_puzzle_holds(&contact.id, x, C2));
    wrong.next().expect("most values are no solution")
}

fn pings(solo: &mut Solo) -> Vec<(CallId, Contact)> {
    let calls = solo.take_calls().into_iter();
    calls.filter(|(_, _, r)| *r == Request::Ping).map(|(call, to, _)| (call, to)).collect()
}

fn pong(solo: &mut Solo, call: CallId, puzzle: [u8; 32]) {
    solo.input(Input::Response { call, response: Response::Pong { revoked: 0, puzzle } });
}

#[test]
fn the_static_puzzle_is_solved_by_making_key_pairs() {
    let mut made = 0;
    let mut make = || {
        made += 1;
        let signer = signer(made);
        let id = signer.node_id();
        (signer, id)
    };
    let solved = solve_static_puzzle(6, 2_000, &mut make).expect("64 tries on average");
    assert!(static_puzzle_holds(&solved.node_id(), 6));
    assert!(made > 1, "the first one seldom solves it");
    made = 0;
    let mut hopeless = || {
        made += 1;
        (made, NodeId([0; 32]))
    };
    assert_eq!(solve_static_puzzle(200, 50, &mut hopeless), None);
    assert_eq!(made, 50, "the search is bounded");
}

#[test]
fn the_dynamic_puzzle_is_solved_within_the_limit_or_not_at_all() {
    let (_, contact) = peer(1);
    assert!(dynamic_puzzle_holds(&contact.id, &solution(&contact), C2));
    assert_eq!(solve_dynamic_puzzle(&contact.id, 200, 1_000), None);
    assert_eq!(solve_dynamic_puzzle(&contact.id, 0, 1), Some([0; 32]), "no bits, no work");
}

#[test]
fn a_node_that_only_answers_shows_its_solution_too() {
    let mut solo = solo();
    let (good, bad) = (peer(1).1, peer(2).1);
    for contact in [&good, &bad] {
        solo.input(Input::Probed { contact: contact.clone() });
    }
    assert!(solo.known().is_empty(), "an answer at an address proves no work");
    let calls = pings(&mut solo);
    assert_eq!(calls.len(), 2);
    for (call, to) in calls {
        let x = if to == good { solution(&good) } else { wrong(&bad) };
        pong(&mut solo, call, x);
    }
    assert_eq!(solo.known(), BTreeSet::from([good.id]));
    assert_eq!(solo.misbehaviour, [(bad.id, Reason::PuzzleUnsolved)]);
}

#[test]
fn a_node_that_a_lookup_met_is_pinged_for_its_solution() {
    let mut solo = solo();
    let (known, met) = (peer(1).1, peer(2).1);
    solo.input(Input::Probed { contact: known.clone() });
    let (call, _) = pings(&mut solo)[0].clone();
    pong(&mut solo, call, solution(&known));
    solo.settle();
    solo.start_lookup(key(1), LookupKind::Nodes);
    let call = solo.take_calls()[0].0;
    let nodes = vec![met.clone()];
    solo.input(Input::Response { call, response: Response::Nodes { nodes } });
    let calls = solo.take_calls();
    let (call, _, request) = calls.iter().find(|(_, to, _)| *to == met).expect("asked");
    solo.input(Input::Response { call: *call, response: nothing_for(request) });
    assert_eq!(solo.known(), BTreeSet::from([known.id]), "not yet");
    let calls = pings(&mut solo);
    let [(call, to)] = &calls[..] else { panic!("one ping, got {calls:?}") };
    assert_eq!(*to, met);
    pong(&mut solo, *call, solution(&met));
    assert_eq!(solo.known(), BTreeSet::from([known.id, met.id]));
}

#[test]
fn the_own_solution_is_in_the_answer_to_a_ping() {
    let mut solo = solo();
    let (asking, own) = (peer(1).1, solo.own.clone());
    solo.kad.set_puzzle(solution(&own));
    let puzzle = solution(&asking);
    let envelope = RequestEnvelope { sender: asking.clone(), puzzle, body: Request::Ping };
    let answer = solo.ask_as(asking.id, envelope);
    assert_eq!(answer, Response::Pong { revoked: 0, puzzle: solution(&own) });
}
