//! Rows are checked with their other holders: who really keeps what.
//!
//! Decides what follows: who lost a part is no holder any more, what was deleted goes here too, and what too
//! many keep is let go here if enough of higher rank keep it. It must never take silence for a no.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::replica::is_surplus;
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{ContentKind, Keeping, PlacedPart, Placement};
use ddr_store::now_ms;
use futures_util::stream::{self, StreamExt};

use super::mend::PAGE;
use super::{Copies, PartKey};
use crate::{ReadError, blocking};

/// How long a part must have too many holders before one lets go: a day.
const SURPLUS_MS: u64 = 24 * 60 * 60 * 1000;
/// Holders that are asked at once about one row.
const MAX_ASKED: usize = 16;
/// Parts that are remembered as surplus.
const MAX_SURPLUS: usize = 65_536;
/// Where it is noted that the content of an earlier version has its rows.
const ADOPTED: &str = "copies-adopted";

/// Whether the content of an earlier version has its rows: before that, what has none is no cache. Blocks.
pub(crate) fn is_adopted(store: &ddr_store::Store) -> Result<bool, ddr_store::IndexError> {
    Ok(store.get_setting(ADOPTED)?.is_some())
}

/// What was said about each part: who keeps it, who does not.
#[derive(Default)]
struct Said {
    kept: BTreeMap<Digest, BTreeSet<NodeId>>,
    absent: BTreeMap<Digest, BTreeSet<NodeId>>,
    deleted: BTreeSet<Digest>,
}

/// Since when parts have too many holders.
#[derive(Default)]
pub(super) struct Surplus(Mutex<BTreeMap<PartKey, Timestamp>>);

impl Copies {
    /// Checks every row.
    pub(super) async fn audit(&self) -> Result<(), ReadError> {
        let mut after = None;
        loop {
            let page = self.ledger.page(after.take(), PAGE).await?;
            for row in &page {
                self.audit_row(row).await?;
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { return Ok(()) };
            after = Some((last.repository.clone(), last.manifest.digest));
        }
    }

    async fn audit_row(&self, row: &Placement) -> Result<(), ReadError> {
        let gone = self.bring_back(row).await?;
        let said = self.ask_holders(row).await;
        if !said.deleted.is_empty() && self.hear_of_deletes(row, &said.deleted).await? {
            return Ok(());
        }
        let own = self.own();
        let copies = self.parts.settings.copies_of(&row.repository);
        let mut let_go: BTreeSet<Digest> = gone;
        for part in row.parts().filter(|part| part.is_held_by(&own)) {
            let kept: Vec<NodeId> =
                said.kept.get(&part.digest).into_iter().flatten().copied().collect();
            let surplus = is_surplus(&Key::of_content(&part.digest), &own, &kept, copies);
            let key = (row.repository.clone(), row.manifest.digest, part.digest);
            // The manifest stays for as long as one of its blobs does.
            let is_manifest = part.digest == row.manifest.digest && !row.blobs.is_empty();
            if self.surplus.is_over(key, surplus && !is_manifest, self.parts.clock.now()) {
                let_go.insert(part.digest);
            }
        }
        let mut absent = said.absent;
        for (digest, node) in self.forgotten(row, copies) {
            absent.entry(digest).or_default().insert(node);
        }
        if absent.is_empty() && let_go.is_empty() {
            return Ok(());
        }
        let change = move |row: &mut Placement| {
            for part in row.parts_mut() {
                let gone = absent.get(&part.digest);
                part.holders.retain(|node| !gone.is_some_and(|gone| gone.contains(node)));
                if let_go.contains(&part.digest) {
                    part.holders.retain(|node| *node != own);
                }
            }
            row.blobs.retain(|part| part.is_held_by(&own));
        };
        let manifest = (row.manifest.digest, row.manifest.size);
        self.ledger.change(&row.repository, manifest, change).await?;
        Ok(())
    }

    /// Lost holders of parts that have enough others: nobody waits for them.
    fn forgotten<'r>(
        &self,
        row: &'r Placement,
        copies: usize,
    ) -> impl Iterator<Item = (Digest, NodeId)> + 'r {
        let lost = self.watch.lost();
        row.parts().flat_map(move |part| {
            let gone: Vec<NodeId> =
                part.holders.iter().copied().filter(|node| lost.contains(node)).collect();
            let has_enough = part.holders.len() - gone.len() >= copies;
            gone.into_iter().filter(move |_| has_enough).map(|node| (part.digest, node))
        })
    }

    /// Brings parts back that this node should have; those that did not come.
    async fn bring_back(&self, row: &Placement) -> Result<BTreeSet<Digest>, ReadError> {
        let mut gone = BTreeSet::new();
        for part in row.blobs.iter().filter(|part| part.is_held_by(&self.own())) {
            let (repository, digest) = (&row.repository, &part.digest);
            if self.is_here(repository, digest, ContentKind::Blob).await? {
                continue;
            }
            tracing::warn!(%repository, %digest, "a part that is kept here is gone; it is fetched again");
            let came = self.parts.pull.bring(repository, digest).await.unwrap_or(false);
            if !came || !self.is_here(repository, digest, ContentKind::Blob).await? {
                gone.insert(*digest);
            }
        }
        Ok(gone)
    }

    /// Asks each other holder about the parts that it and this node keep.
    async fn ask_holders(&self, row: &Placement) -> Said {
        let own = self.own();
        let kept_here: Vec<&PlacedPart> =
            row.parts().filter(|part| part.is_held_by(&own)).collect();
        let others: BTreeSet<NodeId> =
            kept_here.iter().flat_map(|part| &part.holders).copied().collect();
        let asks = others.into_iter().filter(|node| *node != own).map(|node| {
            let is_shared =
                |part: &&&PlacedPart| part.is_held_by(&node) && part.digest != row.manifest.digest;
            let blobs: Vec<PlacedPart> =
                kept_here.iter().filter(is_shared).map(|part| (*part).clone()).collect();
            let placement = Placement {
                repository: row.repository.clone(),
                manifest: row.manifest.clone(),
                blobs,
            };
            async move { (node, self.ask(node, false, &placement).await, placement) }
        });
        let mut said = Said::default();
        let mut asks = stream::iter(asks.collect::<Vec<_>>()).buffer_unordered(MAX_ASKED);
        while let Some((node, answer, placement)) = asks.next().await {
            let Some(answer) = answer else { continue };
            for (part, keeping) in placement.parts().zip(answer.parts()) {
                match keeping {
                    Keeping::Kept => said.kept.entry(part.digest).or_default().insert(node),
                    Keeping::Deleted => said.deleted.insert(part.digest),
                    Keeping::Absent | Keeping::Full | Keeping::Leaving => {
                        said.absent.entry(part.digest).or_default().insert(node)
                    }
                    Keeping::Coming => false,
                };
            }
        }
        said
    }

    /// Another node says that these were deleted: the nodes that keep such words are asked. Whether the
    /// manifest itself is gone.
    async fn hear_of_deletes(
        &self,
        row: &Placement,
        digests: &BTreeSet<Digest>,
    ) -> Result<bool, ReadError> {
        let mut is_gone = false;
        for digest in digests {
            let is_manifest = *digest == row.manifest.digest;
            let kind = if is_manifest { ContentKind::Manifest } else { ContentKind::Blob };
            let deleted =
                self.parts.shared.deleted.confirm((&row.repository, digest, kind)).await?;
            is_gone |= deleted && is_manifest;
        }
        Ok(is_gone)
    }

    /// Content that came here before there were rows of copies gets its rows: nobody knows any more what was
    /// pushed and what was pulled, so all of it is kept.
    pub(super) async fn adopt(&self) -> Result<(), ReadError> {
        let store = self.parts.shared.store.clone();
        let own = self.own();
        let work = move || {
            if store.get_setting(ADOPTED)?.is_some() {
                return Ok(Vec::new());
            }
            let manifests = store.manifests()?;
            Ok::<_, ddr_store::IndexError>(manifests)
        };
        let manifests =
            blocking(work).await.map_err(ReadError::store)?.map_err(ReadError::store)?;
        for (repository, digest) in manifests {
            self.adopt_one(&repository, &digest, own).await?;
        }
        let store = self.parts.shared.store.clone();
        let note = move || store.set_setting(ADOPTED, now_ms().to_string().as_bytes());
        blocking(note).await.map_err(ReadError::store)?.map_err(ReadError::store)
    }

    async fn adopt_one(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        own: NodeId,
    ) -> Result<(), ReadError> {
        let (store, name, key) = (self.parts.shared.store.clone(), repository.clone(), *digest);
        let read = blocking(move || store.manifest(&name, &key)).await;
        let Some(stored) = read.map_err(ReadError::store)?.map_err(ReadError::store)? else {
            return Ok(());
        };
        let Ok(manifest) = ddr_oci::Manifest::parse(Some(&stored.media_type), &stored.bytes) else {
            return Ok(());
        };
        let mut blobs = Vec::new();
        let mut seen = BTreeSet::new();
        for blob in manifest.required_blobs().filter(|blob| seen.insert(blob.digest)) {
            if self.is_here(repository, &blob.digest, ContentKind::Blob).await? {
                blobs.push(PlacedPart { digest: blob.digest, size: blob.size, holders: vec![own] });
            }
        }
        let size = stored.bytes.len() as u64;
        let change = move |row: &mut Placement| {
            row.manifest.add_holder(own);
            row.blobs = blobs;
        };
        self.ledger.change(repository, (*digest, size), change).await?;
        Ok(())
    }
}

impl Surplus {
    /// Notes whether a part has too many holders; whether it has had them for long enough.
    fn is_over(&self, key: PartKey, surplus: bool, now: Timestamp) -> bool {
        let mut since = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !surplus {
            since.remove(&key);
            return false;
        }
        if since.len() >= MAX_SURPLUS && !since.contains_key(&key) {
            return false;
        }
        let first = *since.entry(key.clone()).or_insert(now);
        let is_over = now.since_ms(first) >= SURPLUS_MS;
        if is_over {
            since.remove(&key);
        }
        is_over
    }
}
