//! The rules of the swarm core, one by one: whom it asks for what, and whom it blames.

use std::collections::{BTreeMap, BTreeSet};

use ddr_proto::swarm::{
    Blame, ClaimId, Class, DEGREE, Failure, GroupId, Input, LOST_MS, MAX_CHAIN_ASKS,
    MAX_NEIGHBOURS, MAX_SHRINKS, Output, STALL_MS, UploadId, WINDOW, Wanted,
};
use ddr_proto::wire::{BusyAnswer, HaveMap, Holder, SwarmBody};
use ddr_proto::{Key, NodeId};

use crate::bench::{
    Asked, BLOB, Bench, PIECES, SIZE, TRUE_CHAIN, contact, contact_in, hello, map, node,
};

const FALSE_CHAIN: ClaimId = ClaimId([2; 32]);

#[test]
fn the_window_is_filled_with_different_pieces_two_at_a_neighbour() {
    let mut bench = Bench::with_holders(20);
    let asks = bench.asks();
    assert_eq!(asks.len(), WINDOW);
    let pieces: BTreeSet<_> = asks.iter().map(|ask| ask.piece).collect();
    assert_eq!(pieces.len(), WINDOW);
    let mut at: BTreeMap<NodeId, usize> = BTreeMap::new();
    asks.iter().for_each(|ask| *at.entry(ask.node).or_default() += 1);
    assert!(at.values().all(|count| *count <= 2), "{at:?}");
    let mut few = Bench::with_holders(3);
    assert_eq!(few.asks().len(), 6);
}

#[test]
fn everything_is_fetched_and_nothing_twice() {
    let mut bench = Bench::with_holders(20);
    let mut got = BTreeSet::new();
    let mut open = bench.asks();
    while let Some(Asked { ask, piece: Some(piece), .. }) = open.pop() {
        assert!(got.insert(piece) || got.len() >= PIECES - 3, "piece {piece} was asked for twice");
        bench.arrive(ask, piece);
        let cancelled = bench.cancels();
        open.retain(|other| !cancelled.contains(&other.ask));
        open.extend(bench.asks());
    }
    assert_eq!(got.len(), PIECES);
    assert!(bench.outputs.contains(&Output::Complete { blob: BLOB }));
}

#[test]
fn the_rarest_piece_comes_first_and_none_past_what_a_neighbour_has() {
    let mut bench = Bench::fetching(Wanted::All);
    (1..=5).for_each(|number| bench.hello(number, map([3, 7])));
    bench.hello(6, map([3, 7, 50]));
    bench.settle();
    let asks = bench.asks();
    assert_eq!(asks.len(), 3);
    let of_six: Vec<_> = asks.iter().filter(|ask| ask.node == node(6)).collect();
    assert!(of_six.iter().any(|ask| ask.piece == Some(50)), "{asks:?}");
}

#[test]
fn a_range_is_fetched_and_nothing_else() {
    let mut bench = Bench::fetching(Wanted::Ranges(vec![10..14, 98..500]));
    let chooses =
        SwarmBody::Hello { size: SIZE, have: HaveMap::All, chooses: true, load: 0, reply: true };
    (1..=9).for_each(|number| bench.say(number, chooses.clone()));
    bench.settle();
    let pieces: BTreeSet<_> = bench.asks().iter().map(|ask| ask.piece).collect();
    assert_eq!(pieces, [10, 11, 12, 13, 98, 99].map(Some).into());
}

#[test]
fn pieces_past_the_reader_come_first() {
    let mut bench = Bench::fetching(Wanted::All);
    bench.input(Input::ClientAt { blob: BLOB, readers: vec![90] });
    (1..=20).for_each(|number| bench.hello(number, HaveMap::All));
    bench.settle();
    let asked: BTreeSet<_> = bench.asks().iter().filter_map(|ask| ask.piece).collect();
    assert!((90..100).all(|piece| asked.contains(&piece)), "{asked:?}");
}

#[test]
fn a_source_is_left_the_choice() {
    let mut bench = Bench::fetching(Wanted::All);
    let have = HaveMap::All;
    bench.say(1, SwarmBody::Hello { size: SIZE, have, chooses: true, load: 9, reply: true });
    bench.settle();
    let asks = bench.asks();
    assert_eq!(asks.iter().map(|ask| ask.piece).collect::<Vec<_>>(), [None, None]);
    bench.input(Input::Chosen { ask: asks[0].ask, piece: 0 });
    // A piece that is under way already is not taken a second time.
    bench.input(Input::Chosen { ask: asks[1].ask, piece: 0 });
    assert_eq!(bench.cancels(), [asks[1].ask]);
    bench.arrive(asks[0].ask, 0);
    assert_eq!(bench.core.blobs().next().expect("the blob").have, 1);
}

#[test]
fn have_maps_that_lie_about_their_form_are_struck() {
    let too_short = HaveMap::Bits(vec![0; PIECES.div_ceil(8) - 1]);
    let too_long = HaveMap::Bits(vec![0; PIECES.div_ceil(8) + 1]);
    let mut past_the_end = vec![0; PIECES.div_ceil(8)];
    past_the_end[PIECES / 8] = 0x80;
    for have in [too_short, too_long, HaveMap::Bits(past_the_end)] {
        let mut bench = Bench::fetching(Wanted::All);
        bench.hello(1, have);
        assert_eq!(bench.struck(), [(node(1), Blame::BadMap)]);
        assert!(bench.core.blobs().next().expect("the blob").neighbours.is_empty());
    }
}

#[test]
fn have_maps_that_keep_shrinking_or_name_what_is_not_there_are_struck() {
    let mut bench = Bench::fetching(Wanted::All);
    bench.hello(1, map([1, 2, 3]));
    bench.hello(1, map([1, 2, 3, 4]));
    assert!(bench.struck().is_empty());
    for _ in 0..MAX_SHRINKS {
        bench.hello(1, map([1, 2]));
        assert!(bench.struck().is_empty(), "it may have crashed");
        bench.hello(1, map([1, 2, 3]));
    }
    bench.hello(1, map([1, 2]));
    assert_eq!(bench.struck(), [(node(1), Blame::BadMap)]);
    bench.hello(2, map([1]));
    bench.say(2, SwarmBody::Have { pieces: vec![PIECES as u16], load: 0 });
    assert_eq!(bench.struck(), [(node(2), Blame::BadMap)]);
    // While the strike lasts it is no neighbour.
    bench.hello(2, map([1]));
    assert!(matches!(bench.sent(2).last(), Some(SwarmBody::Goodbye { .. })));
}

#[test]
fn a_neighbour_that_claims_all_and_gives_nothing_does_not_stop_a_fetch() {
    let mut bench = Bench::with_holders(2);
    let mut got = 0;
    let mut open = bench.asks();
    while let Some(asked) = open.pop() {
        let piece = asked.piece.expect("a named piece");
        if asked.node == node(1) {
            bench.input(Input::Failed { ask: asked.ask, failure: Failure::NotThere });
        } else {
            bench.arrive(asked.ask, piece);
            got += 1;
        }
        let cancelled = bench.cancels();
        open.retain(|other| !cancelled.contains(&other.ask));
        open.extend(bench.asks());
    }
    assert_eq!(got, PIECES);
}

#[test]
fn floods_stay_below_the_limits() {
    let mut bench = Bench::fetching(Wanted::All);
    let holders = |from: u32| {
        let holder = |n: u32| Holder { contact: (*contact(from + n)).clone(), complete: true };
        SwarmBody::Holders { holders: (0..20).map(holder).collect() }
    };
    for number in 1..2_000 {
        bench.hello(number, map([5]));
        bench.say(number, holders(10_000 + 20 * number));
        bench.say(number, SwarmBody::Have { pieces: (0..100).collect(), load: u16::MAX });
    }
    let view = bench.core.blobs().next().expect("the blob");
    assert_eq!(view.neighbours.len(), MAX_NEIGHBOURS);
    let refused = |output: &Output| match output {
        Output::Send { message, .. } if matches!(message.body, SwarmBody::Goodbye { .. }) => {
            Some(())
        }
        _ => None,
    };
    assert_eq!(bench.take_all(refused).len(), 1_999 - MAX_NEIGHBOURS);
    bench.settle();
    assert!(bench.asks().len() <= WINDOW);
}

#[test]
fn who_says_goodbye_about_one_blob_is_greeted_about_another() {
    let neighbour =
        |blob| Input::Neighbour { blob, contact: contact(1), complete: true, rtt_us: 0 };
    let mut bench = Bench::fetching(Wanted::All);
    bench.hello(1, map([1]));
    bench.say(1, SwarmBody::Goodbye { others: Vec::new() });
    let other = Key([2; 32]);
    bench.fetch(other, Wanted::All, Class::Pull, GroupId(1));
    bench.outputs.clear();
    bench.input(neighbour(BLOB));
    assert!(bench.sent(1).is_empty(), "it would only say the same again");
    bench.input(neighbour(other));
    assert!(matches!(bench.sent(1)[..], [SwarmBody::Hello { .. }]));
    bench.say_in(&contact(1), other, hello(map([1])));
    bench.outputs.clear();
    bench.wait_ms(LOST_MS);
    bench.input(neighbour(BLOB));
    assert!(matches!(bench.sent(1)[..], [SwarmBody::Hello { .. }]));
}

#[test]
fn messages_about_unknown_blobs_change_nothing() {
    let mut bench = Bench::idle();
    bench.hello(1, HaveMap::All);
    assert!(matches!(bench.sent(1)[..], [SwarmBody::Goodbye { .. }]));
    bench.say(1, SwarmBody::Have { pieces: vec![1], load: 0 });
    bench.request(1, 1, Some(0));
    assert_eq!(bench.outputs.len(), 1);
    assert_eq!((bench.core.blobs().count(), bench.core.next_deadline()), (0, None));
}

#[test]
fn who_gives_a_wrong_piece_is_struck_when_another_gives_the_right_one() {
    let mut bench = Bench::with_holders(5);
    let mut asks = bench.asks();
    let stranger = |asked: &Asked| !bench.signers.contains(&asked.node);
    let at = asks.iter().position(stranger).expect("others are asked");
    let bad = asks.remove(at);
    bench.input(Input::PieceWrong { ask: bad.ask, piece: bad.piece.expect("named") });
    assert!(bench.struck().is_empty(), "one word against another");
    let mut open = asks;
    open.extend(bench.asks());
    let again = loop {
        let asked = open.pop().expect("the piece is asked for again");
        if asked.piece == bad.piece {
            break asked;
        }
        bench.arrive(asked.ask, asked.piece.expect("named"));
        open.extend(bench.asks());
    };
    assert_ne!(again.node, bad.node);
    bench.arrive(again.ask, bad.piece.expect("named"));
    assert_eq!(bench.struck(), [(bad.node, Blame::WrongPiece)]);
}

/// Two neighbours that signed no chain give the same piece wrong.
fn two_give_a_piece_wrong(bench: &mut Bench) {
    let mut open = bench.asks();
    let signers = bench.signers.clone();
    let signed = |asked: &Asked| signers.contains(&asked.node);
    let piece = open.iter().find(|asked| !signed(asked)).expect("others are asked").piece;
    let mut wrong = 0;
    while wrong < 2 {
        let asked = open.pop().expect("the piece is asked for again");
        let at = asked.piece.expect("named");
        if asked.piece == piece && !signed(&asked) {
            bench.input(Input::PieceWrong { ask: asked.ask, piece: at });
            wrong += 1;
        } else if asked.piece == piece {
            bench.input(Input::Failed { ask: asked.ask, failure: Failure::NotThere });
        } else {
            bench.arrive(asked.ask, at);
        }
        open.extend(bench.asks());
    }
}

#[test]
fn two_wrong_pieces_alone_convict_nobody_but_more_chains_are_asked_for() {
    let mut bench = Bench::with_holders(6);
    two_give_a_piece_wrong(&mut bench);
    assert!(bench.struck().is_empty());
    let asked = |output: &Output| matches!(output, Output::AskChain { .. }).then_some(());
    assert!(!bench.take_all(asked).is_empty());
}

#[test]
fn each_wrong_piece_lets_one_holder_more_be_asked_for_its_chain() {
    let mut bench = Bench::with_holders(20);
    two_give_a_piece_wrong(&mut bench);
    let voucher = |output: &Output| match output {
        Output::AskChain { node, .. } => Some(*node),
        _ => None,
    };
    let mut asked = bench.signers.len();
    while let Some(from) = bench.take(voucher) {
        asked += 1;
        bench.input(Input::NoChain { blob: BLOB, from, wrong: false });
    }
    assert_eq!(asked, MAX_CHAIN_ASKS + 2);
}

#[test]
fn who_fails_its_own_chain_is_struck_at_once_and_its_chain_goes_with_it() {
    let mut bench = Bench::fetching(Wanted::All);
    bench.hello(1, HaveMap::All);
    bench.settle();
    bench.hello(3, HaveMap::All);
    let asked = bench.asks().into_iter().find(|asked| asked.node == node(1)).expect("it is asked");
    bench.input(Input::PieceWrong { ask: asked.ask, piece: asked.piece.expect("named") });
    assert_eq!(bench.struck(), [(node(1), Blame::WrongPiece)]);
    let voucher = bench.take(|output| match output {
        Output::AskChain { node, .. } => Some(*node),
        _ => None,
    });
    assert_eq!(voucher, Some(node(3)));
    bench.chain(node(3), FALSE_CHAIN, None);
    let used = Output::UseChain { blob: BLOB, claim: FALSE_CHAIN, settled: false, vouched: false };
    assert!(bench.outputs.contains(&used));
}

#[test]
fn of_two_chains_the_one_that_the_deciding_piece_passes_under_stays() {
    for winner in [TRUE_CHAIN, FALSE_CHAIN] {
        let mut bench = Bench::fetching(Wanted::All);
        (1..=4).for_each(|number| bench.hello(number, HaveMap::All));
        let asked = |output: &Output| match output {
            Output::AskChain { node, .. } => Some(*node),
            _ => None,
        };
        let vouchers = bench.take_all(asked);
        assert_eq!(vouchers.len(), 2);
        bench.chain(vouchers[0], TRUE_CHAIN, None);
        let first =
            Output::UseChain { blob: BLOB, claim: TRUE_CHAIN, settled: false, vouched: false };
        assert!(bench.outputs.contains(&first));
        let open = bench.asks().len();
        bench.chain(vouchers[1], FALSE_CHAIN, Some(77));
        let doubt = Output::Doubt { blob: BLOB, piece: 77, other: FALSE_CHAIN };
        assert!(bench.outputs.contains(&doubt));
        // The window may be full: then the piece comes as soon as there is room.
        let Some(ask) = bench.asks().into_iter().find(|ask| ask.piece == Some(77)) else {
            panic!("{open} asks are open and piece 77 is not asked for");
        };
        let (piece, load) = (77, None);
        bench.input(Input::PieceArrived { ask: ask.ask, piece, claim: winner, load });
        let liar = if winner == TRUE_CHAIN { vouchers[1] } else { vouchers[0] };
        assert_eq!(bench.struck(), [(liar, Blame::WrongChain)]);
        let used = |output: &Output| match output {
            Output::UseChain { claim, .. } => Some(*claim),
            _ => None,
        };
        assert_eq!(bench.take_all(used).last(), Some(&winner));
    }
}

#[test]
fn a_holder_that_stalls_is_given_up_and_struck() {
    let mut bench = Bench::with_holders(1);
    let asks = bench.asks();
    assert_eq!(asks.len(), 2);
    bench.wait_ms(STALL_MS / 2);
    assert!(bench.cancels().is_empty());
    bench.wait_ms(STALL_MS / 2 + STALL_MS / 10);
    assert_eq!(bench.cancels(), asks.iter().map(|asked| asked.ask).collect::<Vec<_>>());
    assert_eq!(bench.struck(), [(node(1), Blame::Stalled)]);
    bench.hello(1, HaveMap::All);
    assert!(bench.asks().is_empty(), "it is asked again while its strike lasts");
}

#[test]
fn a_busy_neighbour_is_asked_again_later_and_those_it_named_are_greeted() {
    let mut bench = Bench::with_holders(1);
    let asks = bench.asks();
    assert_eq!(asks.len(), 2);
    let others = vec![Holder { contact: (*contact(50)).clone(), complete: true }];
    for asked in &asks {
        let answer = BusyAnswer { load: 32, others: others.clone() };
        bench.input(Input::Busy { ask: asked.ask, answer });
    }
    assert!(bench.asks().is_empty());
    assert!(matches!(bench.sent(50)[..], [SwarmBody::Hello { .. }]));
    bench.wait_ms(100);
    assert_eq!(bench.asks().len(), 2);
}

#[test]
fn the_last_three_pieces_are_asked_of_two_and_the_slower_is_broken_off() {
    let mut bench = Bench::with_holders(8);
    let mut open = bench.asks();
    while bench.core.blobs().next().expect("the blob").have < PIECES - 3 {
        let asked = open.remove(0);
        bench.arrive(asked.ask, asked.piece.expect("named"));
        open.extend(bench.asks());
    }
    assert_eq!(open.len(), 6);
    let first = open[0];
    let twin = open.iter().rfind(|ask| ask.piece == first.piece).expect("a second ask");
    assert_ne!((first.ask, first.node), (twin.ask, twin.node));
    bench.arrive(first.ask, first.piece.expect("named"));
    assert_eq!(bench.cancels(), [twin.ask]);
}

#[test]
fn the_blobs_of_a_group_share_one_window() {
    let mut bench = Bench::fetching(Wanted::All);
    let second = Key([2; 32]);
    bench.fetch(second, Wanted::All, Class::Pull, GroupId(1));
    for number in 1..=20 {
        bench.hello(number, HaveMap::All);
        bench.say_in(&contact(number), second, hello(HaveMap::All));
    }
    bench.settle();
    let from = node(1);
    let claim = TRUE_CHAIN;
    bench.input(Input::Chain { blob: second, from, signer: from, claim, differs: None });
    assert_eq!(bench.asks().len(), WINDOW);
}

#[test]
fn a_background_fetch_gives_way_to_a_pull() {
    let mut bench = Bench::with_holders(20);
    assert_eq!(bench.asks().len(), WINDOW);
    let second = Key([2; 32]);
    bench.fetch(second, Wanted::All, Class::Background, GroupId(2));
    for number in 1..=20 {
        bench.say_in(&contact(number), second, hello(HaveMap::All));
    }
    let (from, claim) = (node(1), TRUE_CHAIN);
    bench.input(Input::Chain { blob: second, from, signer: from, claim, differs: None });
    assert_eq!(bench.asks().len(), 4);
}

#[test]
fn another_zone_is_asked_only_for_what_the_own_one_has_not_and_what_falls_to_this_node() {
    let mut bench = Bench::fetching(Wanted::All);
    bench.hello(1, map(0..50));
    bench.hello(2, map(0..50));
    let far = contact_in(30, "b");
    bench.say_in(&far, BLOB, hello(HaveMap::All));
    bench.settle();
    let mut of_far = Vec::new();
    let mut open = bench.asks();
    while let Some(asked) = open.pop() {
        let piece = asked.piece.expect("named");
        if asked.node == node(30) {
            of_far.push(piece);
        }
        bench.arrive(asked.ask, piece);
        open.extend(bench.asks());
    }
    assert!(of_far.iter().all(|piece| *piece >= 50), "{of_far:?}");
    // A third falls to each of three nodes.
    assert!((8..=26).contains(&of_far.len()), "{of_far:?}");
    bench.wait_ms(600);
    assert!(
        bench.asks().iter().any(|ask| ask.node == node(30)),
        "it waits for the others for ever"
    );
}

/// In the endgame too, when everything that is missing is asked for twice.
#[test]
fn what_the_own_zone_has_never_crosses() {
    let mut bench = Bench::fetching(Wanted::All);
    (1..=3).for_each(|number| bench.hello(number, map(0..PIECES - 1)));
    bench.hello(4, map([PIECES - 1]));
    bench.say_in(&contact_in(30, "b"), BLOB, hello(HaveMap::All));
    bench.settle();
    let (mut got, mut open) = (0, bench.asks());
    while let Some(asked) = open.pop() {
        assert_ne!(asked.node, node(30), "piece {:?}", asked.piece);
        bench.arrive(asked.ask, asked.piece.expect("named"));
        got += 1;
        let cancelled = bench.cancels();
        open.retain(|other| !cancelled.contains(&other.ask));
        open.extend(bench.asks());
    }
    assert_eq!(got, PIECES);
}

#[test]
fn neighbours_of_the_own_zone_are_looked_for_however_many_others_there_are() {
    let mut bench = Bench::fetching(Wanted::All);
    let mut greeted = |from: u32, zone: &str| {
        for number in from..from + 25 {
            let (contact, complete) = (contact_in(number, zone), false);
            bench.input(Input::Neighbour { blob: BLOB, contact, complete, rtt_us: 0 });
        }
        (from..from + 25).filter(|number| !bench.sent(*number).is_empty()).count()
    };
    assert_eq!(greeted(100, "b"), DEGREE);
    assert_eq!(greeted(200, ""), DEGREE);
}

#[test]
fn a_source_that_chooses_does_not_keep_other_zones_from_being_asked() {
    let mut bench = Bench::fetching(Wanted::All);
    let have = HaveMap::All;
    bench.say(1, SwarmBody::Hello { size: SIZE, have, chooses: true, load: 0, reply: true });
    bench.say_in(&contact_in(30, "b"), BLOB, hello(map(0..50)));
    bench.settle();
    assert!(bench.asks().iter().any(|ask| ask.node == node(30)));
}

#[test]
fn uploads_that_end_in_any_order_leave_nothing_behind() {
    let mut bench = Bench::idle();
    bench.input(Input::Hold { blob: BLOB, size: SIZE, sources: Vec::new() });
    (0..20).for_each(|upload| bench.request(upload, 1 + upload as u32 / 4, Some(3)));
    for upload in (0..20).rev() {
        bench.input(Input::Uploaded { upload: UploadId(upload), whole: upload % 2 == 0 });
        bench.input(Input::Uploaded { upload: UploadId(upload), whole: true });
    }
    bench.wait_ms(120_000);
    assert_eq!((bench.core.blobs().count(), bench.core.next_deadline()), (0, None));
}
