//! Whom the swarm core serves: sources, slots, newcomers, greed.

use ddr_proto::swarm::{
    Blame, Class, GREEDY_REFUSALS, Input, MAX_UPLOADS, MAX_UPLOADS_PER_NODE, NEWCOMER_SLOTS,
    Output, Refusal, UploadId,
};
use ddr_proto::wire::{HaveMap, SwarmBody};

use crate::bench::{BLOB, Bench, PIECES, SIZE, map, node};

fn holding(sources: &[u32]) -> Bench {
    let mut bench = Bench::idle();
    let sources = sources.iter().map(|number| node(*number)).collect();
    bench.input(Input::Hold { blob: BLOB, size: SIZE, sources });
    bench
}

fn served(bench: &mut Bench) -> Vec<u32> {
    bench.take_all(|output| match output {
        Output::Serve { piece, .. } => Some(*piece),
        _ => None,
    })
}

fn refused(bench: &mut Bench) -> Vec<Refusal> {
    bench.take_all(|output| match output {
        Output::Refuse { refusal, .. } => Some(refusal.clone()),
        _ => None,
    })
}

fn ended(bench: &mut Bench, upload: u64, whole: bool) {
    bench.input(Input::Uploaded { upload: UploadId(upload), whole });
}

#[test]
fn a_source_gives_each_piece_once_in_order_and_then_stops_choosing() {
    let mut bench = holding(&[]);
    bench.hello(1, map([]));
    bench.hello(2, map([]));
    assert!(matches!(bench.sent(1)[..], [SwarmBody::Hello { chooses: true, .. }]));
    for upload in 0..PIECES as u64 {
        bench.request(upload, 1 + upload as u32 % 2, None);
        ended(&mut bench, upload, true);
    }
    assert_eq!(served(&mut bench), (0..PIECES as u32).collect::<Vec<_>>());
    for number in 1..=2 {
        let last = bench.sent(number).pop();
        assert!(matches!(last, Some(SwarmBody::Hello { chooses: false, .. })), "{last:?}");
    }
    bench.request(1_000, 1, None);
    assert_eq!(refused(&mut bench), [Refusal::NotHere]);
    bench.request(1_001, 1, Some(7));
    assert_eq!(served(&mut bench), [7]);
}

#[test]
fn sources_give_away_their_share_first() {
    let mut bench = holding(&[1, 2]);
    for upload in 0..3 {
        bench.request(upload, 9, None);
        ended(&mut bench, upload, true);
    }
    // Node 0 is the first of three.
    assert_eq!(served(&mut bench), [0, 3, 6]);
}

#[test]
fn a_piece_that_did_not_get_there_is_given_again() {
    let mut bench = holding(&[]);
    bench.request(0, 1, None);
    bench.request(1, 2, None);
    ended(&mut bench, 0, false);
    bench.request(2, 3, None);
    assert_eq!(served(&mut bench), [0, 1, 0]);
}

#[test]
fn there_are_so_many_slots_and_the_last_are_for_newcomers() {
    let mut bench = holding(&[]);
    bench.hello(1, map([]));
    bench.hello(99, HaveMap::Bits(vec![0; PIECES.div_ceil(8)]));
    // Node 1 becomes an old hand.
    for upload in 0..4 {
        bench.request(upload, 1, Some(0));
        ended(&mut bench, upload, true);
    }
    let old_hands = (MAX_UPLOADS - NEWCOMER_SLOTS) as u64;
    for upload in 0..old_hands {
        bench.request(100 + upload, 200 + upload as u32 / 4, Some(1));
    }
    assert_eq!(served(&mut bench).len() as u64, 4 + old_hands);
    bench.request(900, 1, Some(1));
    let [Refusal::Busy(answer)] = &refused(&mut bench)[..] else { panic!("it is not busy") };
    assert_eq!(usize::from(answer.load), MAX_UPLOADS - NEWCOMER_SLOTS);
    for upload in 0..NEWCOMER_SLOTS as u64 {
        bench.request(910 + upload, 300, Some(1));
    }
    assert_eq!(served(&mut bench).len(), NEWCOMER_SLOTS);
    bench.request(920, 301, Some(1));
    assert!(matches!(refused(&mut bench)[..], [Refusal::Busy(_)]));
    ended(&mut bench, 100, true);
    ended(&mut bench, 101, true);
    ended(&mut bench, 102, true);
    bench.request(930, 1, Some(1));
    assert_eq!(served(&mut bench), [1]);
}

#[test]
fn a_busy_answer_names_others_that_have_the_piece() {
    let mut bench = holding(&[]);
    bench.hello(5, map([1]));
    bench.hello(6, map([2]));
    for upload in 0..MAX_UPLOADS as u64 {
        bench.request(upload, 200 + upload as u32 / 4, Some(1));
    }
    served(&mut bench);
    bench.request(900, 400, Some(1));
    let [Refusal::Busy(answer)] = &refused(&mut bench)[..] else { panic!("it is not busy") };
    let others: Vec<_> = answer.others.iter().map(|holder| holder.contact.id).collect();
    assert_eq!(others, [node(5)]);
}

#[test]
fn a_node_that_asks_for_everything_at_once_is_held_back_and_then_struck() {
    let mut bench = holding(&[]);
    bench.hello(1, map([]));
    for upload in 0..MAX_UPLOADS_PER_NODE as u64 + u64::from(GREEDY_REFUSALS) {
        bench.request(upload, 1, Some(3));
    }
    assert_eq!(served(&mut bench).len(), MAX_UPLOADS_PER_NODE);
    assert_eq!(refused(&mut bench).len(), GREEDY_REFUSALS as usize);
    assert_eq!(bench.struck(), [(node(1), Blame::Greedy)]);
}

#[test]
fn background_requests_find_half_of_the_slots() {
    let mut bench = holding(&[]);
    for upload in 0..MAX_UPLOADS as u64 {
        let (from, blob, class) = (node(1 + upload as u32 / 4), BLOB, Class::Background);
        let upload = UploadId(upload);
        bench.input(Input::Request { upload, from, blob, piece: Some(0), class });
    }
    assert_eq!(served(&mut bench).len(), MAX_UPLOADS / 2);
}
