//! Table, records and paths against models that are too simple to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use proptest::collection::vec;
use proptest::prelude::*;

use super::config::KadConfig;
use super::path::Path;
use super::records::{Kept, Records};
use super::table::{Admitted, Lost, MAX_DEAD, Table};
use crate::chance::Chance;
use crate::id::{Distance, Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, ProviderRecord, Signer};

const OWN: NodeId = NodeId([0; 32]);

/// A node whose ID shares `bucket` bits with the own one, and differs in its last byte.
fn contact((bucket, last): (u32, u8)) -> Arc<Contact> {
    let mut id = Distance::bucket_start(bucket).from_origin(&OWN.0);
    id[31] = last;
    let addrs = vec![([10, 0, bucket as u8, last], 5001).into()];
    Arc::new(Contact { id: NodeId(id), addrs, zone: String::new() })
}

fn table_config() -> KadConfig {
    KadConfig { k: 3, siblings: 4, ..KadConfig::default() }
}

#[derive(Clone, Debug)]
enum Step {
    Answered((u32, u8)),
    Heard((u32, u8)),
    Failed((u32, u8)),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || (0..6_u32, 0..12_u8);
    let step = prop_oneof![
        4 => node().prop_map(Step::Answered),
        1 => node().prop_map(Step::Heard),
        2 => node().prop_map(Step::Failed),
    ];
    vec(step, 1..200)
}

fn check_invariants(table: &Table, cfg: &KadConfig) -> Result<(), TestCaseError> {
    let live: Vec<NodeId> = table.live().map(|peer| peer.contact.id).collect();
    let siblings: Vec<NodeId> = table.siblings().map(|peer| peer.contact.id).collect();
    let mut nearest = live.clone();
    nearest.sort_by_key(|id| id.distance(&OWN.to_key()));
    nearest.truncate(cfg.siblings);
    prop_assert_eq!(&siblings, &nearest, "siblings are the nearest live peers");
    let mut buckets: BTreeMap<u32, usize> = BTreeMap::new();
    for (bucket, peer) in table.all() {
        let plain = peer.alive() && !siblings.contains(&peer.contact.id);
        *buckets.entry(bucket).or_default() += usize::from(plain);
    }
    prop_assert!(buckets.values().all(|plain| *plain <= cfg.k), "{buckets:?}");
    let dead = table.all().filter(|(_, peer)| !peer.alive()).count();
    prop_assert!(dead <= MAX_DEAD);
    for target in [0_u8, 1, 3, 64, 128, 255] {
        let target = Key([target; 32]);
        for limit in [1, 3, 7, 100] {
            let mut truth = live.clone();
            truth.sort_by_key(|id| id.distance(&target));
            truth.truncate(limit);
            let closest: Vec<NodeId> =
                table.closest(&target, limit, None).iter().map(|c| c.id).collect();
            prop_assert_eq!(closest, truth, "closest {} to {}", limit, target);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_table_keeps_its_invariants(steps in steps()) {
        let cfg = table_config();
        let mut table = Table::new(OWN, &cfg);
        let mut answered = BTreeSet::new();
        for (number, step) in steps.into_iter().enumerate() {
            let now = Timestamp(number as u64 + 1);
            let before: BTreeSet<NodeId> = table.live().map(|peer| peer.contact.id).collect();
            let siblings: Vec<NodeId> = table.siblings().map(|peer| peer.contact.id).collect();
            let mut may_leave = BTreeSet::new();
            match step {
                Step::Answered(node) => {
                    let node = contact(node);
                    let near = table.is_sibling_distance(&table.distance(&node.id));
                    let admitted = table.answered(&node, now);
                    answered.insert(node.id);
                    prop_assert_ne!(admitted, Admitted::Refused);
                    let inside = table.get(&node.id).is_some();
                    prop_assert_eq!(inside, admitted != Admitted::Waiting);
                    prop_assert!(inside || !near, "a node among the nearest always enters");
                    // Only the sibling that was pushed off the list may lose its place.
                    may_leave.extend(siblings.last().copied());
                }
                Step::Heard(node) => table.wait(&contact(node)),
                Step::Failed(node) => {
                    let node = contact(node);
                    may_leave.insert(node.id);
                    let lost = table.failed(&node.id, now, now);
                    prop_assert!(table.get(&node.id).is_none_or(|peer| !peer.alive()));
                    if let Lost::Gone { waiting: Some(waiting) } = lost {
                        prop_assert!(table.get(&waiting.id).is_none(), "it must answer first");
                    }
                }
            }
            let after: BTreeSet<NodeId> = table.live().map(|peer| peer.contact.id).collect();
            prop_assert!(after.is_subset(&answered), "only nodes that answered are in it");
            for gone in before.difference(&after) {
                prop_assert!(may_leave.contains(gone), "a live peer was pushed out");
            }
            check_invariants(&table, &cfg)?;
        }
    }
}

fn signer(number: u8) -> Signer {
    Signer::from(SigningKey::from_bytes(&[number + 1; 32]))
}

fn holder(number: u8) -> Contact {
    let addrs = vec![([10, 0, 0, number], 5001).into()];
    Contact { id: signer(number).node_id(), addrs, zone: String::new() }
}

#[derive(Clone, Debug)]
enum RecordStep {
    Offer { key: u8, signer: u8, issued_ms: u64, lifetime_ms: u64, withdrawn: bool },
    Wait { ms: u64 },
    Sweep,
}

fn record_steps() -> impl Strategy<Value = Vec<RecordStep>> {
    let offer = (0..3_u8, 0..5_u8, 0..200_u64, 1..100_u64, proptest::bool::weighted(0.2)).prop_map(
        |(key, signer, issued_ms, lifetime_ms, withdrawn)| RecordStep::Offer {
            key,
            signer,
            issued_ms,
            lifetime_ms,
            withdrawn,
        },
    );
    let step = prop_oneof![
        5 => offer,
        1 => (1..40_u64).prop_map(|ms| RecordStep::Wait { ms }),
        1 => Just(RecordStep::Sweep),
    ];
    vec(step, 1..60)
}

fn sign(step: &RecordStep) -> Option<ProviderRecord> {
    let RecordStep::Offer { key, signer: number, issued_ms, lifetime_ms, withdrawn } = *step else {
        return None;
    };
    let (signer, holder, key) = (signer(number), holder(number), Key([key; 32]));
    let expires_ms = issued_ms + lifetime_ms;
    Some(if withdrawn {
        ProviderRecord::sign_withdrawn(&signer, &holder, key, issued_ms, expires_ms)
    } else {
        ProviderRecord::sign(&signer, &holder, key, true, issued_ms, expires_ms)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_are_a_map_of_the_newest(steps in record_steps(), seed: u64) {
        let mut records = Records::new(&KadConfig::default());
        let mut model: BTreeMap<(Key, NodeId), ProviderRecord> = BTreeMap::new();
        let mut chance = Chance::new(seed);
        let mut now = Timestamp(50);
        for step in &steps {
            match step {
                RecordStep::Wait { ms } => now = now.after_ms(*ms),
                RecordStep::Sweep => {
                    records.sweep(now);
                    records.sweep(now);
                    model.retain(|_, record| record.expires_ms > now.0);
                    prop_assert_eq!(records.len(), model.len(), "two sweeps see every key");
                }
                RecordStep::Offer { .. } => {
                    let record = sign(step).expect("an offer");
                    let slot = (record.key, record.provider.id);
                    let rank = |record: &ProviderRecord| (record.issued_ms, record.withdrawn);
                    let timely = record.expires_ms > now.0;
                    let newer = model.get(&slot).is_none_or(|kept| rank(&record) > rank(kept));
                    let kept = records.offer(record.clone(), now);
                    prop_assert_eq!(kept == Ok(Kept::No), !timely || model.get(&slot).is_some_and(
                        |kept| rank(kept) == rank(&record) && *kept != record));
                    if timely && newer {
                        model.insert(slot, record);
                    }
                }
            }
            for key in (0..3).map(|key| Key([key; 32])) {
                let holds = |record: &&ProviderRecord| {
                    record.key == key && !record.withdrawn && record.expires_ms > now.0
                };
                let truth: Vec<ProviderRecord> = model.values().filter(holds).cloned().collect();
                let mut chosen = records.choose(&key, 20, |_| false, |_| false, (now, &mut chance));
                chosen.sort_by_key(|record| record.provider.id);
                prop_assert_eq!(chosen, truth);
            }
        }
    }

    #[test]
    fn a_choice_is_of_different_holders_and_within_its_limit(
        limit in 0..8_usize,
        dead in vec(1..5_u8, 0..4),
        seed: u64,
    ) {
        let dead: BTreeSet<NodeId> = dead.into_iter().map(|number| holder(number).id).collect();
        let mut records = Records::new(&KadConfig::default());
        let key = Key([9; 32]);
        for number in 0..5 {
            let record = ProviderRecord::sign(&signer(number), &holder(number), key, true, 1, 99);
            prop_assert_eq!(records.offer(record, Timestamp(2)), Ok(Kept::Yes));
        }
        let except = holder(0).id;
        let mut chance = Chance::new(seed);
        let is_dead = |of: &Contact| dead.contains(&of.id);
        let chosen =
            records.choose(&key, limit, |id| *id == except, is_dead, (Timestamp(2), &mut chance));
        let alive = (1..5).map(|number| holder(number).id).filter(|id| !dead.contains(id));
        let shown = chosen.iter().filter(|record| !dead.contains(&record.provider.id)).count();
        prop_assert_eq!(shown, alive.count().min(limit), "the dead come last");
        let ids: BTreeSet<NodeId> = chosen.iter().map(|record| record.provider.id).collect();
        prop_assert_eq!(ids.len(), limit.min(4));
        prop_assert!(!ids.contains(&except));
    }

    #[test]
    fn a_path_keeps_the_nearest_candidates_and_no_more(
        offers in vec((0..60_u32, any::<u8>()), 0..300),
    ) {
        let (target, k) = (OWN.to_key(), 4);
        let mut path = Path::default();
        let mut truth = BTreeMap::new();
        for offer in offers {
            let contact = contact(offer);
            truth.insert(contact.id.distance(&target), contact.id);
            path.offer(contact.id.distance(&target), contact, None, k);
        }
        prop_assert_eq!(path.len(), truth.len().min(3 * k));
        let nearest: Vec<NodeId> = truth.values().take(3 * k).copied().collect();
        prop_assert_eq!(path.nodes(), nearest);
    }
}
