//! Reading sets: pages of any cut give what one map would hold, and a finished write is in it.

use std::collections::BTreeMap;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::NodeId;
use ddr_proto::names::{SetDecision, SetPage, SetRead, read_quorum, write_quorum};
use ddr_proto::wire::{Member, NameRecord, SetEntry, SetName};
use proptest::collection::vec;
use proptest::prelude::*;

fn id(number: usize) -> NodeId {
    NodeId([number as u8; 32])
}

fn repository() -> RepositoryName {
    "team/app".parse().expect("a name")
}

fn set() -> SetName {
    SetName::Tags(repository())
}

/// An entry of the set; merging never looks at signatures.
fn entry(tag: u8, stamp: u64, present: bool) -> SetEntry {
    SetEntry::Tag(NameRecord {
        repository: repository(),
        tag: format!("v{tag}").parse().expect("a tag"),
        digest: present.then(|| Digest::sha256(&stamp.to_be_bytes())),
        stamp,
        writer: [1; 32],
        signature: [0; 64],
    })
}

type Kept = BTreeMap<Member, SetEntry>;

fn keep(kept: &mut Kept, entry: &SetEntry) {
    let there = kept.get(&entry.member());
    if there.is_none_or(|there| entry.cmp_newness(there).is_gt()) {
        kept.insert(entry.member(), entry.clone());
    }
}

fn page(kept: &Kept, from: &Member, limit: usize) -> SetPage {
    let mut rows = kept.range(from.clone()..).map(|(_, entry)| entry.clone());
    let entries: Vec<SetEntry> = rows.by_ref().take(limit).collect();
    SetPage { entries, more: rows.next().is_some() }
}

/// A write: which tag, whether it is there then, and which voters hear of it.
type Op = (u8, bool, u8);

proptest! {
    #[test]
    fn pages_of_any_cut_give_what_one_map_holds(
        voters in 1..6_usize,
        ops in vec((0..12_u8, any::<bool>(), any::<u8>()), 0..60),
        limits in vec(1..5_usize, 6),
        deaf in any::<u8>(),
    ) {
        let mut nodes = vec![Kept::new(); voters];
        let (mut done, mut any) = (Kept::new(), Kept::new());
        for (stamp, (tag, present, heard)) in (1_u64..).zip::<Vec<Op>>(ops) {
            let entry = entry(tag, stamp, present);
            let heard: Vec<usize> = (0..voters).filter(|node| heard >> node & 1 == 1).collect();
            heard.iter().for_each(|node| keep(&mut nodes[*node], &entry));
            if !heard.is_empty() {
                keep(&mut any, &entry);
            }
            if heard.len() >= write_quorum(voters) {
                keep(&mut done, &entry);
            }
        }
        // As many fail as a read survives, and which they are is chance.
        let answering = voters.min(read_quorum(voters).max(1));
        let first = usize::from(deaf) % voters;
        let answers: Vec<usize> = (0..answering).map(|n| (first + n) % voters).collect();
        let (mut from, mut seen) = (Member::first(), Kept::new());
        loop {
            let mut read = SetRead::new((0..voters).map(id));
            for node in &answers {
                prop_assert_ne!(read.decide(), SetDecision::Ready);
                let page = page(&nodes[*node], &from, limits[*node]);
                prop_assert!(page.is_of(&set(), &from, limits[*node]));
                read.answered(id(*node), page);
            }
            prop_assert_eq!(read.decide(), SetDecision::Ready);
            let merged = read.merge();
            for merged in merged.entries {
                let member = merged.entry.member();
                let keepers = answers.iter().filter(|node| {
                    nodes[**node].get(&member) == Some(&merged.entry)
                });
                prop_assert_eq!(merged.kept_by, keepers.count());
                let told = if merged.kept_by < write_quorum(voters) { voters } else { answering };
                prop_assert_eq!(merged.behind.len(), told - merged.kept_by);
                prop_assert_eq!(seen.insert(member, merged.entry), None, "each member once");
            }
            match merged.next {
                Some(next) => {
                    prop_assert!(next > from, "it moves on");
                    from = next;
                }
                None => break,
            }
        }
        let mut model = Kept::new();
        answers.iter().flat_map(|node| nodes[*node].values()).for_each(|e| keep(&mut model, e));
        prop_assert_eq!(&seen, &model, "the union of the newest");
        for (member, entry) in &done {
            let shown = seen.get(member).expect("a finished write is seen");
            prop_assert!(shown.cmp_newness(entry).is_ge(), "and nothing older");
        }
        for (member, shown) in &seen {
            prop_assert!(any.get(member).is_some_and(|newest| shown.cmp_newness(newest).is_le()));
        }
    }
}

#[test]
fn the_young_add_what_they_keep_and_count_only_when_all_have_spoken() {
    let old = SetPage { entries: vec![entry(1, 1, true)], more: false };
    let young = SetPage { entries: vec![entry(2, 2, true)], more: false };
    let mut read = SetRead::new((0..3).map(id));
    read.answered(id(0), old.clone());
    read.answered_young(id(1), young.clone());
    assert_eq!(read.decide(), SetDecision::Wait);
    read.count_young();
    assert_eq!(read.decide(), SetDecision::Wait, "one has not spoken");
    let mut failed = read.clone();
    failed.failed(id(2));
    failed.count_young();
    assert_eq!(failed.decide(), SetDecision::Impossible { answered: 1, needed: 2 });
    read.answered_young(id(2), SetPage::default());
    read.count_young();
    assert_eq!(read.decide(), SetDecision::Ready);
    assert_eq!(read.merge().entries.len(), 2);
}

#[test]
fn pages_that_are_not_of_the_question_are_told_apart() {
    let from = Member::tag(&"v2".parse().expect("a tag"));
    let sound = |entries: Vec<SetEntry>, more| SetPage { entries, more }.is_of(&set(), &from, 4);
    let [one, two, three] = [1, 2, 3].map(|tag| entry(tag, 5, true));
    assert!(sound(vec![two.clone(), three.clone()], true) && sound(Vec::new(), false));
    assert!(!sound(vec![one], false), "before the beginning");
    assert!(!sound(vec![three.clone(), two.clone()], false), "not in order");
    assert!(!sound(vec![two.clone(), two.clone()], false), "twice");
    assert!(!sound(Vec::new(), true), "more of nothing never ends");
    assert!(!sound(vec![two.clone()], true), "there was room for more");
    let other = SetName::Tags("other".parse().expect("a name"));
    let page = SetPage { entries: vec![two], more: false };
    assert!(!page.is_of(&other, &from, 4), "of another repository");
    assert_ne!(other.key(), set().key());
}
