//! What a push waits for.
//!
//! Decides when a push may be answered: when each part is durable on as many nodes as the operator wants,
//! or on all that there are. The rest of the copies is left to the mending.

use std::collections::BTreeSet;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::Key;
use ddr_proto::wire::{ContentKind, PlacedPart, Placement};
use futures_util::stream::{self, StreamExt};

use super::Copies;
use super::ledger::Change;
use super::raise::{Order, Raised};
use crate::ReadError;

/// Lookups of who holds a part, at once.
const MAX_LOOKUPS: usize = 8;

impl Copies {
    /// Makes a pushed image durable on other nodes, as far as the push waits for that, and notes who keeps
    /// it. `blobs` are those of the manifest that somebody has, with their sizes. `false`: some of it was
    /// deleted meanwhile.
    pub(crate) async fn secure(
        &self,
        repository: &RepositoryName,
        manifest: (Digest, u64),
        blobs: &[(Digest, u64)],
    ) -> Result<bool, ReadError> {
        let order = self.order(repository, manifest, blobs).await?;
        if !order.here.contains(&manifest.0) {
            return Ok(false);
        }
        let others = self.candidates(Key::of_content(&manifest.0)).await.len();
        let want = self.parts.settings.at_push(repository).min(others + 1);
        let raised = self.raise(&order, want).await;
        let fewest = raised.fewest();
        if fewest < want && raised.was_deleted {
            return Ok(false);
        }
        if fewest < want {
            let why = raised.why.unwrap_or_else(|| "no node is left to ask".into());
            let why =
                format!("{fewest} of {want} copies could be made, the push is not safe yet: {why}");
            return Err(ReadError::Unavailable(why));
        }
        let noted = self.note(&order, manifest, raised).await?;
        self.wake.notify_one();
        Ok(noted)
    }

    /// The parts, and who may have them.
    async fn order(
        &self,
        repository: &RepositoryName,
        manifest: (Digest, u64),
        blobs: &[(Digest, u64)],
    ) -> Result<Order, ReadError> {
        let parts = std::iter::once((manifest, ContentKind::Manifest))
            .chain(blobs.iter().map(|blob| (*blob, ContentKind::Blob)));
        let looks = parts.map(|((digest, size), kind)| async move {
            let here = self.is_here(repository, &digest, kind).await?;
            let mut holders = self.ledger.holders(repository, &digest).await?;
            holders.extend(self.second_holder(&digest).await);
            let look = kind == ContentKind::Blob && !self.was_uploaded(&digest);
            if holders.is_empty() && look {
                let found = self.parts.shared.locator.holders(&digest).all().await;
                let complete = found.into_iter().filter(|holder| holder.complete);
                for holder in complete.filter(|holder| holder.contact.id != self.own()) {
                    self.watch.knows(&holder.contact);
                    holders.push(holder.contact.id);
                }
            }
            holders.truncate(self.parts.settings.copies_of(repository));
            Ok::<_, ReadError>((PlacedPart { digest, size, holders }, here))
        });
        let looks: Vec<_> = looks.collect();
        let mut looks = stream::iter(looks).buffered(MAX_LOOKUPS);
        let (mut parts, mut here) = (Vec::new(), BTreeSet::new());
        while let Some(looked) = looks.next().await {
            let (part, is_here) = looked?;
            if is_here {
                here.insert(part.digest);
            }
            parts.push(part);
        }
        Ok(Order { repository: repository.clone(), parts, here })
    }

    /// Writes down who holds what, if it is still here.
    async fn note(
        &self,
        order: &Order,
        manifest: (Digest, u64),
        raised: Raised,
    ) -> Result<bool, ReadError> {
        let mut parts = Vec::with_capacity(order.parts.len());
        for (part, held) in order.parts.iter().zip(raised.held) {
            held.iter().filter(|node| **node != self.own()).for_each(|node| self.watch.add(*node));
            let holders = held.into_iter().collect();
            parts.push(PlacedPart { holders, ..part.clone() });
        }
        let change = move |row: &mut Placement| {
            let mut parts = parts.into_iter();
            if let Some(manifest) = parts.next() {
                row.manifest = manifest;
            }
            row.blobs = parts.collect();
        };
        Ok(self.ledger.change(&order.repository, manifest, change).await? != Change::Refused)
    }
}
