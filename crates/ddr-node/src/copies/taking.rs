//! What other nodes ask this one to keep.
//!
//! Decides whether there is room, and when a part may be called kept: when it is durable here and its row
//! is written. Fetches that began go on when the asker is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::NodeId;
use ddr_proto::wire::{
    Contact, ContentKind, KeepAnswer, Keeping, PlacedPart, Placement, RefuseReason, Response,
};
use ddr_store::Store;
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Copies;
use super::ledger::{Change, add_holders};
use crate::{ReadError, blocking};

/// Images that are taken in at once; more are told busy.
const MAX_TAKING: usize = 64;
/// Unknown holders that one message may make this node ask for a sign of life; the others are passed over.
const MAX_STRANGE: usize = 16;
/// Blobs of one image that come at once.
const MAX_AT_ONCE: usize = 4;
/// How long an answer waits for the end of what is on its way.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// What copies leave free of the file system: one in so many bytes, and this much at most.
const SPARE_SHARE: u64 = 20;
const MAX_SPARE_BYTES: u64 = 1 << 30;

/// (repository, manifest)
type ImageKey = (RepositoryName, Digest);

/// What is on its way here.
#[derive(Default)]
pub(super) struct Taking(Mutex<BTreeMap<ImageKey, Arc<Run>>>);

struct Run {
    /// What the run brings.
    parts: BTreeSet<Digest>,
    ended: watch::Receiver<bool>,
}

impl Taking {
    fn runs(&self) -> MutexGuard<'_, BTreeMap<ImageKey, Arc<Run>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Copies {
    /// Answers a node that asks what this one keeps, or to keep it.
    pub(crate) async fn answer(
        self: &Arc<Self>,
        from: Contact,
        take: bool,
        placement: Placement,
    ) -> Response {
        self.watch.heard(&from, None);
        match self.answer_about(&from, take, placement).await {
            Ok(Some(answer)) => Response::Keeping(answer),
            Ok(None) => Response::Refused { reason: RefuseReason::Busy },
            Err(error) => {
                tracing::error!(%error, peer = %from.id, "a question for copies was not answered");
                Response::Refused { reason: RefuseReason::Unsupported }
            }
        }
    }

    async fn answer_about(
        self: &Arc<Self>,
        from: &Contact,
        take: bool,
        placement: Placement,
    ) -> Result<Option<KeepAnswer>, ReadError> {
        let mut here = self.here(&placement).await?;
        let mut keeping = self.keeping(&placement, &here).await?;
        if take && keeping.contains(&Keeping::Absent) {
            let missing = missing_bytes(&placement, &keeping, &here);
            let refusal = match () {
                () if self.is_leaving() => Some(Keeping::Leaving),
                () if missing > self.room().await? => Some(Keeping::Full),
                () => None,
            };
            if let Some(refusal) = refusal {
                keeping
                    .iter_mut()
                    .filter(|one| **one == Keeping::Absent)
                    .for_each(|one| *one = refusal);
            } else {
                let Some(run) = self.take_in(from, &placement) else { return Ok(None) };
                let mut ended = run.ended.clone();
                let wait = ended.wait_for(|ended| *ended);
                let is_running = tokio::time::timeout(ANSWER_WAIT, wait).await.is_err();
                here = self.here(&placement).await?;
                keeping = self.keeping(&placement, &here).await?;
                // What this run does not bring waits for the next.
                let parts = placement.parts().map(|part| part.digest);
                for (one, part) in keeping.iter_mut().zip(parts) {
                    if *one == Keeping::Absent && (is_running || !run.parts.contains(&part)) {
                        *one = Keeping::Coming;
                    }
                }
            }
        }
        let named = placement.clone();
        let placement = self.with_proven(from, placement).await;
        self.learn(&placement, &keeping).await?;
        if !take {
            self.tell_back(from, &named, &keeping).await?;
        }
        let bytes = self.bytes_here(&placement, &here);
        let free = self.room().await?;
        let manifest = keeping.remove(0);
        Ok(Some(KeepAnswer { manifest, blobs: keeping, bytes, free }))
    }

    /// What this node says about the manifest, then about the blobs; `here` is [`Self::here`] of them.
    async fn keeping(
        &self,
        placement: &Placement,
        here: &[bool],
    ) -> Result<Vec<Keeping>, ReadError> {
        let repository = &placement.repository;
        let row = self.ledger.get(repository, &placement.manifest.digest).await?;
        let own = self.own();
        let kept = row.iter().flat_map(Placement::parts).filter(|part| part.is_held_by(&own));
        let kept: BTreeSet<Digest> = kept.map(|part| part.digest).collect();
        let mut keeping = Vec::with_capacity(here.len());
        for (at, (part, is_here)) in placement.parts().zip(here).enumerate() {
            let kind = if at == 0 { ContentKind::Manifest } else { ContentKind::Blob };
            let content = (repository, &part.digest, kind);
            let is_kept = *is_here && kept.contains(&part.digest);
            keeping.push(match self.parts.shared.deleted.contains(content).await? {
                true => Keeping::Deleted,
                false if is_kept => Keeping::Kept,
                false => Keeping::Absent,
            });
        }
        Ok(keeping)
    }

    /// Of the manifest, then of the blobs: whether it can be read here, under its repository.
    async fn here(&self, placement: &Placement) -> Result<Vec<bool>, ReadError> {
        let (store, placement) = (self.parts.shared.store.clone(), placement.clone());
        let look = blocking(move || {
            let repository = &placement.repository;
            let blobs = placement.blobs.iter().map(|part| (part.digest, ContentKind::Blob));
            std::iter::once((placement.manifest.digest, ContentKind::Manifest))
                .chain(blobs)
                .map(|(digest, kind)| is_readable(&store, repository, &digest, kind))
                .collect::<std::io::Result<Vec<bool>>>()
        });
        look.await.map_err(ReadError::store)?.map_err(ReadError::store)
    }

    /// Whether a part can be read here, under its repository.
    pub(super) async fn is_here(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        kind: ContentKind,
    ) -> Result<bool, ReadError> {
        let (store, repository, digest) =
            (self.parts.shared.store.clone(), repository.clone(), *digest);
        let here = blocking(move || is_readable(&store, &repository, &digest, kind));
        here.await.map_err(ReadError::store)?.map_err(ReadError::store)
    }

    /// Bytes that are left for copies.
    pub(super) async fn room(&self) -> Result<u64, ReadError> {
        let store = self.parts.shared.store.clone();
        let space = blocking(move || store.space()).await.map_err(ReadError::store)?;
        let space = space.map_err(ReadError::store)?;
        Ok(space.free.saturating_sub(spare_bytes(space.total)))
    }

    /// Bytes of the blobs that are here, also of those on their way.
    fn bytes_here(&self, placement: &Placement, here: &[bool]) -> u64 {
        let blobs = placement.blobs.iter().zip(&here[1..]);
        let bytes = blobs.map(|(part, here)| match self.parts.pull.bytes_here(&part.digest) {
            Some(bytes) => bytes,
            None if *here => part.size,
            None => 0,
        });
        bytes.fold(0, u64::saturating_add)
    }

    /// The placement with those holders only that this node has heard itself: the sender, and who is
    /// asked for a sign of life if need be. So nobody counts as a holder because of an old list.
    async fn with_proven(&self, from: &Contact, mut placement: Placement) -> Placement {
        let own = self.own();
        let named: BTreeSet<NodeId> =
            placement.parts().flat_map(|part| &part.holders).copied().collect();
        self.watch.add(from.id);
        self.watch.heard(from, None);
        let is_known =
            |node: &NodeId| *node == own || *node == from.id || self.watch.is_proven(node);
        let (mut proven, strange): (BTreeSet<NodeId>, BTreeSet<NodeId>) =
            named.into_iter().partition(is_known);
        let asks = strange.into_iter().take(MAX_STRANGE).map(|node| {
            self.watch.add(node);
            async move { self.is_alive(node).await.then_some(node) }
        });
        // Whoever answers counts, whatever the vigil remembers: a walk over the rows forgets whom no row names.
        let mut asks: FuturesUnordered<_> = asks.collect();
        let deadline = Instant::now() + ANSWER_WAIT;
        while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, asks.next()).await {
            proven.extend(answer);
        }
        if !asks.is_empty() {
            // They are heard of by the next message.
            tracing::debug!(peer = %from.id, "not every node that it names has given a sign of life");
        }
        for part in placement.parts_mut() {
            part.holders.retain(|node| proven.contains(node));
        }
        placement
    }

    /// Notes holders of kept parts that this node did not know.
    async fn learn(&self, placement: &Placement, keeping: &[Keeping]) -> Result<(), ReadError> {
        let kept = placement.parts().zip(keeping).filter(|(_, keeping)| **keeping == Keeping::Kept);
        let kept: Vec<PlacedPart> = kept.map(|(part, _)| part.clone()).collect();
        if kept.is_empty() {
            return Ok(());
        }
        let manifest = (placement.manifest.digest, placement.manifest.size);
        let own = self.own();
        let change = move |row: &mut Placement| {
            for heard in kept {
                if let Some(part) = row.parts_mut().find(|part| part.digest == heard.digest) {
                    add_holders(part, heard.holders, own);
                }
            }
        };
        if self.ledger.change(&placement.repository, manifest, change).await? == Change::Written {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Tells a node that asked who else keeps what it asked about, where it does not know all of them.
    async fn tell_back(
        self: &Arc<Self>,
        from: &Contact,
        named: &Placement,
        keeping: &[Keeping],
    ) -> Result<(), ReadError> {
        let row = self.ledger.get(&named.repository, &named.manifest.digest).await?;
        let Some(row) = row else { return Ok(()) };
        let lost = self.watch.lost();
        let (mut told, mut has_news) = (named.clone(), false);
        for ((part, before), keeping) in told.parts_mut().zip(named.parts()).zip(keeping) {
            part.holders.clear();
            let known = row.parts().find(|one| one.digest == part.digest);
            let Some(known) = known.filter(|_| *keeping == Keeping::Kept) else { continue };
            part.holders = self.watch.alive(&known.holders, &lost);
            let is_news =
                |node: &NodeId| *node != self.own() && *node != from.id && !before.is_held_by(node);
            has_news |= part.holders.iter().any(is_news);
        }
        let Ok(turn) = Arc::clone(&self.telling).try_acquire_owned() else { return Ok(()) };
        if has_news {
            let (copies, to) = (Arc::clone(self), from.id);
            tokio::spawn(async move {
                let mut stopped = copies.parts.shared.stopped.clone();
                tokio::select! {
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                    _ = copies.ask(to, false, &told) => {}
                }
                drop(turn);
            });
        }
        Ok(())
    }

    /// Begins to bring the parts here, unless that runs. `None`: too many run.
    fn take_in(self: &Arc<Self>, from: &Contact, placement: &Placement) -> Option<Arc<Run>> {
        let key = (placement.repository.clone(), placement.manifest.digest);
        let mut runs = self.taking.runs();
        runs.retain(|_, run| !*run.ended.borrow() && run.ended.has_changed().is_ok());
        if let Some(run) = runs.get(&key) {
            return Some(Arc::clone(run));
        }
        if runs.len() >= MAX_TAKING {
            return None;
        }
        let (tell, ended) = watch::channel(false);
        let parts = placement.parts().map(|part| part.digest).collect();
        let run = Arc::new(Run { parts, ended });
        runs.insert(key, Arc::clone(&run));
        drop(runs);
        for part in placement.parts() {
            self.parts.shared.locator.hint(&part.digest, from);
        }
        let (copies, from, placement) = (Arc::clone(self), from.clone(), placement.clone());
        tokio::spawn(async move {
            let mut stopped = copies.parts.shared.stopped.clone();
            let ended = tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => Ok(()),
                ended = copies.bring(&from, placement.clone()) => ended,
            };
            if let Err(error) = ended {
                let (repository, manifest) = (&placement.repository, &placement.manifest.digest);
                tracing::warn!(%repository, %manifest, %error, "content could not be taken in for others");
            }
            tell.send_replace(true);
        });
        Some(run)
    }

    /// Brings the parts here and writes the row of those that came.
    async fn bring(&self, from: &Contact, placement: Placement) -> Result<(), ReadError> {
        let placement = &self.with_proven(from, placement).await;
        let (repository, manifest) = (&placement.repository, &placement.manifest);
        let found = self.parts.pull.manifest(repository, &manifest.digest).await?;
        let Some(found) = found else {
            return Err(ReadError::Unavailable("nobody gave the manifest".into()));
        };
        let size = found.bytes.len() as u64;
        let named = ddr_oci::Manifest::parse(Some(&found.media_type), &found.bytes)
            .map_err(ReadError::store)?;
        let named: BTreeSet<Digest> = named.required_blobs().map(|blob| blob.digest).collect();
        // What the manifest does not name would be garbage here.
        let wanted = placement.blobs.iter().filter(|part| named.contains(&part.digest));
        let fetches = wanted.map(|part| async move {
            (part, self.parts.pull.bring(repository, &part.digest).await)
        });
        let fetched: Vec<_> =
            stream::iter(fetches.collect::<Vec<_>>()).buffered(MAX_AT_ONCE).collect().await;
        let (mut here, mut failed) = (vec![manifest.clone()], None);
        for (part, ended) in fetched {
            match ended {
                Ok(true) => here.push(part.clone()),
                Ok(false) => {
                    failed = Some(ReadError::Unavailable(format!("nobody gave {}", part.digest)));
                }
                Err(error) => failed = Some(error),
            }
        }
        let own = self.own();
        let change = move |row: &mut Placement| {
            for part in here {
                hold(row, &part, own);
            }
        };
        let changed = self.ledger.change(repository, (manifest.digest, size), change).await?;
        if changed == Change::Refused {
            return Err(ReadError::Unavailable("some of it went again before it was noted".into()));
        }
        self.wake.notify_one();
        failed.map_or(Ok(()), Err)
    }
}

/// What copies leave free of a file system with so many bytes.
pub fn spare_bytes(total: u64) -> u64 {
    (total / SPARE_SHARE).min(MAX_SPARE_BYTES)
}

/// Bytes of the blobs that are absent and not here for another reason.
fn missing_bytes(placement: &Placement, keeping: &[Keeping], here: &[bool]) -> u64 {
    let blobs = placement.blobs.iter().zip(&keeping[1..]).zip(&here[1..]);
    let missing = blobs.filter(|((_, keeping), here)| **keeping == Keeping::Absent && !**here);
    missing.fold(0, |bytes, ((part, _), _)| bytes.saturating_add(part.size))
}

fn is_readable(
    store: &Store,
    repository: &RepositoryName,
    digest: &Digest,
    kind: ContentKind,
) -> std::io::Result<bool> {
    match kind {
        ContentKind::Blob => Ok(store.is_linked(repository, digest)? && store.keeps(digest)?),
        ContentKind::Manifest => Ok(store.manifest(repository, digest)?.is_some()),
    }
}

/// Notes in a row that `own` holds a part, with the others that are named for it.
pub(super) fn hold(row: &mut Placement, part: &PlacedPart, own: NodeId) {
    let known = row.parts().position(|one| one.digest == part.digest);
    let at = known.unwrap_or_else(|| {
        row.blobs.push(PlacedPart { holders: Vec::new(), ..part.clone() });
        row.blobs.len()
    });
    if let Some(one) = row.parts_mut().nth(at) {
        part.holders.iter().for_each(|node| one.add_holder(*node));
        one.add_holder(own);
    }
}
