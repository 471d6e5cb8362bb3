//! Nodes that tell another size of a blob than the one that its digest proves.

use ddr_proto::swarm::{Blame, Class, GroupId, Input, MAX_DISSENTERS, Output, Wanted};
use ddr_proto::wire::{HaveMap, SwarmBody};

use crate::bench::{Asked, BLOB, Bench, SIZE, map, node};

fn other_size(have: HaveMap) -> SwarmBody {
    SwarmBody::Hello { size: SIZE + 1, have, chooses: false, load: 0, reply: false }
}

#[test]
fn who_has_all_of_another_size_is_struck_once_the_size_is_proven() {
    let mut bench = Bench::with_holders(3);
    bench.say(8, other_size(HaveMap::All));
    bench.say(9, other_size(map([1, 2])));
    assert!(matches!(bench.sent(8).last(), Some(SwarmBody::Goodbye { .. })));
    assert!(bench.struck().is_empty(), "this node may be the one that was misled");
    let mut open = bench.asks();
    while let Some(Asked { ask, piece, .. }) = open.pop() {
        bench.arrive(ask, piece.expect("nobody chooses"));
        open.extend(bench.asks());
    }
    assert!(bench.outputs.contains(&Output::Complete { blob: BLOB }));
    assert_eq!(bench.struck(), [(node(8), Blame::BadMap)], "not who has a part: it was misled");

    bench.say(10, other_size(HaveMap::All));
    assert_eq!(bench.struck(), [(node(10), Blame::BadMap)], "at once: the size is known");
    bench.say(11, other_size(map([])));
    assert!(bench.struck().is_empty());
}

#[test]
fn a_fetch_that_was_misled_strikes_nobody() {
    let mut bench = Bench::fetching(Wanted::All);
    for number in 1..=2 * MAX_DISSENTERS as u32 {
        bench.say(number, other_size(HaveMap::All));
    }
    bench.input(Input::Drop { blob: BLOB });
    bench.fetch(BLOB, Wanted::All, Class::Pull, GroupId(1));
    bench.wait_ms(100_000);
    assert!(bench.struck().is_empty());
}
