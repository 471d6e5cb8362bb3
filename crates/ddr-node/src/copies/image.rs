//! The parts of one image are copied to other nodes, together.
//!
//! Decides which of them go at once, and tells all that keep something of the image who holds them then.

use std::collections::BTreeSet;
use std::time::Duration;

use ddr_oci::Digest;
use ddr_proto::id::{Key, NodeId};
use ddr_proto::replica::place_in_line;
use ddr_proto::wire::{MAX_PARTS_PER_KEEP, PlacedPart, Placement};
use tokio::time::Instant;

use super::ledger::add_holders;
use super::raise::{Order, Raised};
use super::{Copies, ImageKey, PartKey};
use crate::ReadError;

/// Parts of an image are copied together as far as they come to so many bytes, and noted then.
const BATCH_BYTES: u64 = 64 << 20;
/// However slow they are, a batch of an image waits for those before it no longer than this.
const MAX_SPACING: Duration = Duration::from_secs(24 * 60 * 60);

/// Copies that were made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    pub(super) parts: u64,
    pub(super) bytes: u64,
}

impl Made {
    fn add(&mut self, more: Self) {
        self.parts += more.parts;
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

impl Copies {
    /// Has the parts of an image that are short, and that this node mends, copied to as many nodes as are missing.
    pub(super) async fn mend(&self, (repository, manifest): &ImageKey) -> Result<Made, ReadError> {
        let (mut made, mut tried) = (Made::default(), BTreeSet::new());
        let (started, mut bytes) = (Instant::now(), 0_u64);
        loop {
            // Anew for each batch: others may have mended some of it, or more may be lost.
            let Some(row) = self.ledger.get(repository, manifest).await? else { return Ok(made) };
            let others = self.candidates(Key::of_content(manifest)).await.len();
            let want = self.parts.settings.copies_of(repository).min(others + 1);
            let mut short = self.own_short(&row, want);
            short.retain(|part| !tried.contains(&part.digest));
            let parts = first_batch(&short);
            if parts.is_empty() {
                return Ok(made);
            }
            tokio::time::sleep_until(started + self.time_for(bytes)).await;
            tried.extend(parts.iter().map(|part| part.digest));
            bytes = parts.iter().fold(bytes, |sum, part| sum.saturating_add(part.size));
            let order = self.order_of(&row, parts);
            let raised = self.raise(&order, want).await;
            made.add(self.note_raised(&row, &order, &raised).await?);
            let copies = raised.fewest();
            tracing::debug!(%manifest, parts = parts.len(), ?made, copies, want, why = ?raised.why, "parts were mended");
        }
    }

    /// The parts of an image that are short and that this node mends, with their living holders: the scarcest first,
    /// of these the smallest.
    fn own_short(&self, row: &Placement, want: usize) -> Vec<PlacedPart> {
        let (lost, now) = (self.watch.lost(), self.parts.clock.now());
        let mut short = Vec::new();
        for part in row.parts().filter(|part| part.is_held_by(&self.own())) {
            let alive = self.watch.alive(&part.holders, &lost);
            let place = place(row, &self.own(), &alive);
            if alive.len() < want && self.turns.is_own(&key_of(row, part), place, now) {
                short.push(PlacedPart { holders: alive, ..part.clone() });
            }
        }
        short.sort_by_key(|part| (part.holders.len(), part.size));
        short
    }

    /// How long so many bytes shall take.
    fn time_for(&self, bytes: u64) -> Duration {
        let rate = self.parts.settings.rate;
        let ms = rate.map_or(0, |rate| bytes.saturating_mul(1_000) / rate.max(1));
        Duration::from_millis(ms).min(MAX_SPACING)
    }

    /// Writes down who holds what was raised, and tells the others. What came new.
    pub(super) async fn note_raised(
        &self,
        row: &Placement,
        order: &Order,
        raised: &Raised,
    ) -> Result<Made, ReadError> {
        let (own, lost) = (self.own(), self.watch.lost());
        let mut made = Made::default();
        let mut known: Vec<(Digest, BTreeSet<NodeId>, BTreeSet<NodeId>)> = Vec::new();
        for ((part, held), refused) in order.parts.iter().zip(&raised.held).zip(&raised.refused) {
            let others = held.iter().filter(|node| **node != own);
            others.clone().for_each(|node| self.watch.add(*node));
            let copies = others.filter(|node| !part.is_held_by(node)).count() as u64;
            made.add(Made { parts: copies, bytes: part.size.saturating_mul(copies) });
            known.push((part.digest, held.clone(), refused.clone()));
        }
        let change = move |row: &mut Placement| {
            for (digest, held, refused) in known {
                if let Some(part) = row.parts_mut().find(|part| part.digest == digest) {
                    part.holders.retain(|node| !refused.contains(node));
                    add_holders(part, held, (own, &lost));
                }
            }
        };
        let manifest = (row.manifest.digest, row.manifest.size);
        self.ledger.change(&row.repository, manifest, change).await?;
        self.tell(order, &raised.held).await;
        Ok(made)
    }

    /// Tells all that hold something of the image who holds what was raised, and its manifest: others keep
    /// other blobs of it, and count the copies of the manifest too.
    async fn tell(&self, order: &Order, held: &[BTreeSet<NodeId>]) {
        let mut parts = order.parts.iter().zip(held).map(|(part, held)| {
            let mut part = PlacedPart { holders: Vec::new(), ..part.clone() };
            held.iter().for_each(|node| part.add_holder(*node));
            part
        });
        let Some(mut manifest) = parts.next() else { return };
        order.parts[0].holders.iter().for_each(|node| manifest.add_holder(*node));
        let mut others: BTreeSet<NodeId> = held.iter().flatten().copied().collect();
        others.extend(&manifest.holders);
        others.remove(&self.own());
        let placement =
            Placement { repository: order.repository.clone(), manifest, blobs: parts.collect() };
        let placement = &placement;
        let tells =
            others.into_iter().map(|node| async move { self.ask(node, false, placement).await });
        futures_util::future::join_all(tells).await;
    }

    /// Parts of a row with their holders that are alive, the manifest before them; of it those who are not lost are
    /// presumed to hold it.
    pub(super) fn order_of(&self, row: &Placement, alive: &[PlacedPart]) -> Order {
        let holders = self.watch.alive(&row.manifest.holders, &self.watch.lost());
        let mut parts = vec![PlacedPart { holders, ..row.manifest.clone() }];
        parts.extend(alive.iter().filter(|part| part.digest != row.manifest.digest).cloned());
        let here = parts.iter().map(|part| part.digest).collect();
        Order { repository: row.repository.clone(), parts, here }
    }
}

/// The first of the parts, as far as they come to [`BATCH_BYTES`] at most, or a single one.
fn first_batch(parts: &[PlacedPart]) -> &[PlacedPart] {
    let mut bytes = 0_u64;
    let fits = |part: &PlacedPart| {
        bytes = bytes.saturating_add(part.size);
        bytes <= BATCH_BYTES
    };
    let count = parts.iter().take(MAX_PARTS_PER_KEEP).map(fits).take_while(|fits| *fits).count();
    &parts[..count.max(1).min(parts.len())]
}

/// How many of the holders that are alive come before `node` when a part of the image is to be mended. The line is by
/// the manifest for all its parts, so that few nodes mend one image.
pub(super) fn place(row: &Placement, node: &NodeId, alive: &[NodeId]) -> usize {
    place_in_line(&Key::of_content(&row.manifest.digest), node, alive)
}

/// Where a part of the image is noted.
pub(super) fn key_of(row: &Placement, part: &PlacedPart) -> PartKey {
    (row.repository.clone(), row.manifest.digest, part.digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(sizes: &[u64]) -> usize {
        let part = |size: &u64| PlacedPart {
            digest: Digest::sha256(&size.to_be_bytes()),
            size: *size,
            holders: Vec::new(),
        };
        first_batch(&sizes.iter().map(part).collect::<Vec<_>>()).len()
    }

    #[test]
    fn small_parts_are_copied_together_and_large_ones_alone() {
        const MIB: u64 = 1 << 20;
        assert_eq!(first(&[]), 0);
        assert_eq!(first(&[1, MIB, 63 * MIB - 1, 1]), 3);
        assert_eq!(first(&[64 * MIB, 1]), 1);
        assert_eq!(first(&[u64::MAX, u64::MAX]), 1);
        assert_eq!(first(&[1; MAX_PARTS_PER_KEEP + 2]), MAX_PARTS_PER_KEEP);
    }
}
