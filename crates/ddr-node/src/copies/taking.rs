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
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::Copies;
use super::ledger::Change;
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
        let mut keeping = self.keeping(&placement).await?;
        if take && keeping.contains(&Keeping::Absent) {
            let missing = self.missing_bytes(&placement, &keeping).await?;
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
                keeping = self.keeping(&placement).await?;
                // What this run does not bring waits for the next.
                let parts = placement.parts().map(|part| part.digest);
                for (one, part) in keeping.iter_mut().zip(parts) {
                    if *one == Keeping::Absent && (is_running || !run.parts.contains(&part)) {
                        *one = Keeping::Coming;
                    }
                }
            }
        }
        let placement = self.with_proven(from, placement).await;
        self.learn(&placement, &keeping).await?;
        let bytes = self.bytes_here(&placement).await?;
        let free = self.room().await?;
        let manifest = keeping.remove(0);
        Ok(Some(KeepAnswer { manifest, blobs: keeping, bytes, free }))
    }

    /// What this node says about the manifest, then about the blobs.
    async fn keeping(&self, placement: &Placement) -> Result<Vec<Keeping>, ReadError> {
        let repository = &placement.repository;
        let row = self.ledger.get(repository, &placement.manifest.digest).await?;
        let own = self.own();
        let is_kept = |digest: &Digest| {
            let mut parts = row.iter().flat_map(Placement::parts);
            parts.any(|part| part.digest == *digest && part.is_held_by(&own))
        };
        let mut keeping = Vec::with_capacity(1 + placement.blobs.len());
        for (at, part) in placement.parts().enumerate() {
            let kind = if at == 0 { ContentKind::Manifest } else { ContentKind::Blob };
            let content = (repository, &part.digest, kind);
            let state = if self.parts.shared.deleted.contains(content).await? {
                Keeping::Deleted
            } else if is_kept(&part.digest) && self.is_here(repository, &part.digest, kind).await? {
                Keeping::Kept
            } else {
                Keeping::Absent
            };
            keeping.push(state);
        }
        Ok(keeping)
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
        let here = blocking(move || match kind {
            ContentKind::Blob => Ok::<_, std::io::Error>(
                store.is_linked(&repository, &digest)? && store.blob_size(&digest)?.is_some(),
            ),
            ContentKind::Manifest => Ok(store.manifest(&repository, &digest)?.is_some()),
        });
        here.await.map_err(ReadError::store)?.map_err(ReadError::store)
    }

    /// Bytes of the parts that are absent and not on the disk for another reason.
    async fn missing_bytes(
        &self,
        placement: &Placement,
        keeping: &[Keeping],
    ) -> Result<u64, ReadError> {
        let mut bytes = 0_u64;
        for (part, _) in
            placement.blobs.iter().zip(&keeping[1..]).filter(|(_, k)| **k == Keeping::Absent)
        {
            if !self.is_here(&placement.repository, &part.digest, ContentKind::Blob).await? {
                bytes = bytes.saturating_add(part.size);
            }
        }
        Ok(bytes)
    }

    /// Bytes that are left for copies.
    pub(super) async fn room(&self) -> Result<u64, ReadError> {
        let store = self.parts.shared.store.clone();
        let space = blocking(move || store.space()).await.map_err(ReadError::store)?;
        let space = space.map_err(ReadError::store)?;
        let spare = (space.total / SPARE_SHARE).min(MAX_SPARE_BYTES);
        Ok(space.free.saturating_sub(spare))
    }

    async fn bytes_here(&self, placement: &Placement) -> Result<u64, ReadError> {
        let mut bytes = 0_u64;
        for part in &placement.blobs {
            let here = match self.parts.pull.bytes_here(&part.digest) {
                Some(bytes) => bytes,
                None if self
                    .is_here(&placement.repository, &part.digest, ContentKind::Blob)
                    .await? =>
                {
                    part.size
                }
                None => 0,
            };
            bytes = bytes.saturating_add(here);
        }
        Ok(bytes)
    }

    /// The placement with those holders only that this node has heard itself: the sender, and who is
    /// asked for a sign of life if need be. So nobody counts as a holder because of an old list.
    async fn with_proven(&self, from: &Contact, mut placement: Placement) -> Placement {
        let own = self.own();
        let named: BTreeSet<NodeId> =
            placement.parts().flat_map(|part| &part.holders).copied().collect();
        named.iter().filter(|node| **node != own).for_each(|node| self.watch.add(*node));
        self.watch.heard(from, None);
        let is_strange = |node: &&NodeId| **node != own && !self.watch.is_proven(node);
        let strange: Vec<NodeId> =
            named.iter().filter(is_strange).copied().take(MAX_STRANGE).collect();
        let asks = strange.iter().map(|node| self.is_alive(*node));
        // Who takes longer is heard of by the next message.
        let _ = tokio::time::timeout(ANSWER_WAIT, join_all(asks)).await;
        for part in placement.parts_mut() {
            part.holders.retain(|node| *node == own || self.watch.is_proven(node));
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
        let change = move |row: &mut Placement| {
            for heard in &kept {
                if let Some(part) = row.parts_mut().find(|part| part.digest == heard.digest) {
                    heard.holders.iter().for_each(|node| part.add_holder(*node));
                }
            }
        };
        if self.ledger.change(&placement.repository, manifest, change).await? == Change::Written {
            self.wake.notify_one();
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
