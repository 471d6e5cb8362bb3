//! What is kept for the swarm: the higher rank holds, pages are bounded, one step is one step.

use ddr_store::{Batch, KeptEntry, KeptName, Outcome, Store, StoreConfig};

fn entry(set: u8, member: &[u8], rank: u128, record: &[u8]) -> KeptEntry {
    KeptEntry { set: [set; 32], member: member.to_vec(), rank, record: record.to_vec() }
}

fn keep(store: &Store, entries: Vec<KeptEntry>) -> Vec<Outcome> {
    store.keep(&Batch { entries, ..Batch::default() }).expect("kept")
}

#[test]
fn the_higher_rank_holds_and_of_equal_ones_the_greater_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(StoreConfig::new(dir.path())).expect("a store");
    let one = |rank, record: &[u8]| keep(&store, vec![entry(1, b"m", rank, record)]);
    assert_eq!(one(5, b"b"), [Outcome::New]);
    assert_eq!(one(5, b"b"), [Outcome::Same]);
    assert_eq!(one(4, b"z"), [Outcome::Newer(b"b".to_vec())]);
    assert_eq!(one(5, b"a"), [Outcome::Newer(b"b".to_vec())]);
    assert_eq!(one(5, b"c"), [Outcome::Replaced]);
    assert_eq!(one(6, b"a"), [Outcome::Replaced]);
    let name = KeptName { key: [9; 32], rank: 1, record: b"n".to_vec() };
    let entries = vec![entry(1, b"m", 1, b"old"), entry(1, b"n", 1, b"new")];
    let both = Batch { names: vec![name], entries, tags: Vec::new() };
    let outcomes = store.keep(&both).expect("kept");
    assert_eq!(outcomes, [Outcome::New, Outcome::Newer(b"a".to_vec()), Outcome::New]);

    store.forget_kept(&[([9; 32], 1)], &[([1; 32], b"m".to_vec(), 5)]).expect("forgotten");
    assert_eq!(store.name([9; 32]).expect("read"), None);
    let kept = store.set_entry([1; 32], b"m").expect("read");
    assert_eq!(kept.as_deref(), Some(&b"a"[..]), "its rank is another by now");
}

#[test]
fn a_page_is_bounded_by_number_and_bytes_and_stays_in_its_set() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(StoreConfig::new(dir.path())).expect("a store");
    let members = [&b"a"[..], b"b", b"c"];
    let entries = members.iter().map(|member| entry(1, member, 1, &[7; 10])).collect();
    keep(&store, entries);
    keep(&store, vec![entry(0, b"z", 1, b"x"), entry(2, b"", 1, b"y")]);
    let page = |from: &[u8], limit, bytes| {
        let (rows, more) = store.set_page([1; 32], from, limit, bytes).expect("read");
        (rows.len(), more)
    };
    assert_eq!(page(b"", 9, 99), (3, false));
    assert_eq!(page(b"", 2, 99), (2, true));
    assert_eq!(page(b"b", 9, 99), (2, false));
    assert_eq!(page(b"b\0", 9, 99), (1, false));
    assert_eq!(page(b"", 9, 20), (2, true));
    assert_eq!(page(b"", 9, 1), (1, true), "one is always given");
    assert_eq!(page(b"d", 9, 99), (0, false));
    let all = store.sets(2, Some(([1; 32], b"b"))).expect("read");
    let places: Vec<_> = all.iter().map(|(set, member, _)| (set[0], member.as_slice())).collect();
    assert_eq!(places, [(1, &b"c"[..]), (2, b"")]);
    assert!(
        store
            .keep(&Batch { entries: vec![entry(1, &[0; 257], 1, b"")], ..Batch::default() })
            .is_err()
    );
}
