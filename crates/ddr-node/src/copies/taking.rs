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

use super::ledger::{Change, add_holders};
use super::{Copies, ImageKey};
use crate::{ReadError, blocking};

/// Images that are taken in at once; more wait for a turn.
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

/// What is on its way here.
#[derive(Default)]
pub(super) struct Taking(Mutex<BTreeMap<ImageKey, Arc<Run>>>);

struct Run {
    /// What the run brings.
    parts: BTreeSet<Digest>,
    ended: watch::Receiver<bool>,
}

/// What stands here of parts that another node asks about: of the manifest, then of the blobs.
struct Look {
    /// The row of the manifest.
    row: Option<Placement>,
    /// Whether it can be read here, under its repository.
    here: Vec<bool>,
    /// Whether this node was told that it was deleted there.
    marked: Vec<bool>,
    /// Bytes that are left for copies.
    room: u64,
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
            Ok(answer) => Response::Keeping(answer),
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
    ) -> Result<KeepAnswer, ReadError> {
        let mut look = self.look(&placement).await?;
        let mut keeping = self.keeping(&placement, &look).await?;
        if take && keeping.contains(&Keeping::Absent) {
            let missing = missing_bytes(&placement, &keeping, &look.here);
            let refusal = match () {
                () if self.is_leaving() => Some(Keeping::Leaving),
                () if missing > look.room => Some(Keeping::Full),
                () => None,
            };
            let run = refusal.is_none().then(|| self.take_in(from, &placement)).flatten();
            if let Some(run) = &run {
                (look, keeping) = self.after(run, &placement).await?;
            } else {
                // Where too many come in it has a turn later.
                let answer = refusal.unwrap_or(Keeping::Coming);
                keeping
                    .iter_mut()
                    .filter(|one| **one == Keeping::Absent)
                    .for_each(|one| *one = answer);
            }
        }
        let named = placement.clone();
        let placement = self.with_proven(from, placement).await;
        self.learn(&placement, &keeping, &look).await?;
        if !take {
            self.tell_back(from, &named, &keeping, &look);
        }
        let bytes = self.bytes_here(&placement, &look.here);
        let manifest = keeping.remove(0);
        Ok(KeepAnswer { manifest, blobs: keeping, bytes, free: look.room })
    }

    /// What stands here when a run has ended, or after a while.
    async fn after(
        &self,
        run: &Run,
        placement: &Placement,
    ) -> Result<(Look, Vec<Keeping>), ReadError> {
        let mut ended = run.ended.clone();
        let wait = ended.wait_for(|ended| *ended);
        let is_running = tokio::time::timeout(ANSWER_WAIT, wait).await.is_err();
        let look = self.look(placement).await?;
        let mut keeping = self.keeping(placement, &look).await?;
        // What this run does not bring waits for the next.
        for (one, part) in keeping.iter_mut().zip(placement.parts()) {
            if *one == Keeping::Absent && (is_running || !run.parts.contains(&part.digest)) {
                *one = Keeping::Coming;
            }
        }
        Ok((look, keeping))
    }

    /// What this node says about the manifest, then about the blobs.
    async fn keeping(&self, placement: &Placement, look: &Look) -> Result<Vec<Keeping>, ReadError> {
        let mut keeping = Vec::with_capacity(look.here.len());
        for (at, (part, kind)) in kinds(placement).enumerate() {
            let content = (&placement.repository, &part.digest, kind);
            let is_deleted = look.marked[at] && self.parts.shared.deleted.contains(content).await?;
            keeping.push(match look.kept(&part.digest, self.own()) {
                _ if is_deleted => Keeping::Deleted,
                true if look.here[at] => Keeping::Kept,
                _ => Keeping::Absent,
            });
        }
        Ok(keeping)
    }

    /// What stands here of these parts.
    async fn look(&self, placement: &Placement) -> Result<Look, ReadError> {
        let (shared, ledger) = (Arc::clone(&self.parts.shared), self.ledger.clone());
        let placement = placement.clone();
        let look = blocking(move || {
            let repository = &placement.repository;
            let mut look = Look {
                row: ledger.read(repository, &placement.manifest.digest)?,
                here: Vec::with_capacity(placement.blobs.len() + 1),
                marked: Vec::with_capacity(placement.blobs.len() + 1),
                room: room(&shared.store)?,
            };
            for (part, kind) in kinds(&placement) {
                look.here.push(is_readable(&shared.store, repository, &part.digest, kind)?);
                look.marked.push(shared.deleted.is_marked((repository, &part.digest, kind))?);
            }
            Ok::<_, std::io::Error>(look)
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
        blocking(move || room(&store)).await.map_err(ReadError::store)?.map_err(ReadError::store)
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
    async fn learn(
        &self,
        placement: &Placement,
        keeping: &[Keeping],
        look: &Look,
    ) -> Result<(), ReadError> {
        let kept = placement.parts().zip(keeping).filter(|(_, keeping)| **keeping == Keeping::Kept);
        let is_news = |part: &PlacedPart| {
            let known = look.part(&part.digest);
            part.holders.iter().any(|node| known.is_none_or(|known| !known.is_held_by(node)))
        };
        let kept: Vec<PlacedPart> =
            kept.map(|(part, _)| part).filter(|part| is_news(part)).cloned().collect();
        if kept.is_empty() {
            return Ok(());
        }
        let manifest = (placement.manifest.digest, placement.manifest.size);
        let (own, lost) = (self.own(), self.watch.lost());
        let change = move |row: &mut Placement| {
            for heard in kept {
                if let Some(part) = row.parts_mut().find(|part| part.digest == heard.digest) {
                    add_holders(part, heard.holders, (own, &lost));
                }
            }
        };
        if self.ledger.change(&placement.repository, manifest, change).await? == Change::Written {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Tells a node that asked who else keeps what it asked about, where it does not know all of them.
    fn tell_back(
        self: &Arc<Self>,
        from: &Contact,
        named: &Placement,
        keeping: &[Keeping],
        look: &Look,
    ) {
        let lost = self.watch.lost();
        let (mut told, mut has_news) = (named.clone(), false);
        for ((part, before), keeping) in told.parts_mut().zip(named.parts()).zip(keeping) {
            part.holders.clear();
            let known = look.part(&part.digest).filter(|_| *keeping == Keeping::Kept);
            let Some(known) = known else { continue };
            part.holders = self.watch.alive(&known.holders, &lost);
            let is_news =
                |node: &NodeId| *node != self.own() && *node != from.id && !before.is_held_by(node);
            has_news |= part.holders.iter().any(is_news);
        }
        if !has_news {
            return;
        }
        let Ok(turn) = Arc::clone(&self.telling).try_acquire_owned() else { return };
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
        let (own, lost) = (self.own(), self.watch.lost());
        let change = move |row: &mut Placement| {
            for part in here {
                hold(row, part, (own, &lost));
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

impl Look {
    fn part(&self, digest: &Digest) -> Option<&PlacedPart> {
        self.row.iter().flat_map(Placement::parts).find(|part| part.digest == *digest)
    }

    /// Whether the row names this node for a part.
    fn kept(&self, digest: &Digest, own: NodeId) -> bool {
        self.part(digest).is_some_and(|part| part.is_held_by(&own))
    }
}

/// The parts with what each is.
fn kinds(placement: &Placement) -> impl Iterator<Item = (&PlacedPart, ContentKind)> {
    let blobs = placement.blobs.iter().map(|part| (part, ContentKind::Blob));
    std::iter::once((&placement.manifest, ContentKind::Manifest)).chain(blobs)
}

/// Bytes that are left for copies. Blocks.
fn room(store: &Store) -> std::io::Result<u64> {
    let space = store.space()?;
    Ok(space.free.saturating_sub(spare_bytes(space.total)))
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
fn hold(row: &mut Placement, part: PlacedPart, (own, lost): (NodeId, &BTreeSet<NodeId>)) {
    let known = row.parts().position(|one| one.digest == part.digest);
    let at = known.unwrap_or_else(|| {
        row.blobs.push(PlacedPart { holders: Vec::new(), ..part });
        row.blobs.len()
    });
    if let Some(one) = row.parts_mut().nth(at) {
        add_holders(one, part.holders.into_iter().chain([own]), (own, lost));
    }
}
