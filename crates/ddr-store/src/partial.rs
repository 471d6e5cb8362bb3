//! Partial blobs: content that comes in pieces, out of order, from many peers, each piece verified
//! against a piece chain as it lands.
//!
//! Decides that a blob is proven by its pieces alone: when every one was accepted by the chain,
//! the last against the digest itself, no second pass is needed. A chain is a claim until then. If
//! it is convicted, another takes its place and what agrees with that one stays.
//!
//! A partial blob outlives its process. What lies beside it (`sidecar`) is not synced and not
//! believed: after a restart every piece is read and hashed before it counts, which
//! [`PartialBlob::check_next`] does at the pace and on the threads that the owner likes. The
//! alternative, to sync the data before the map names it, costs the running fetch a wait at each
//! step, and saves a read that happens once after a restart, at the speed of the hash; and it
//! would believe bits that flipped on the disk.
//!
//! Must never make a blob of pieces that it has not hashed in this process.

mod growing;
mod idle;
mod pieces;
mod sidecar;

use crate::commit::{CommitError, Committed, Proven, Source};
use crate::disk::OpenMode;
use crate::error::{PartialError, PieceError, UploadError};
use crate::layout::{CHAIN_SUFFIX, MAP_NEW_SUFFIX, MAP_SUFFIX, RandomId};
use crate::store::{Inner, Store, lock, now_ms};
use ddr_oci::digest::Digest;
use ddr_oci::piece_chain::PieceChain;
use growing::Growing;
pub use growing::{Checked, PartialReader, Written};
pub use idle::IdlePartial;
pub use pieces::PieceSet;
use pieces::Pieces;
use sidecar::{Kept, Sidecar};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

/// How long an idle partial blob stays after its last use, milliseconds (seven days).
pub const PARTIAL_IDLE_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Idle partial blobs that stay.
pub const MAX_IDLE_PARTIALS: usize = 1024;
/// Bytes that idle partial blobs hold at most, together (64 GiB).
pub const MAX_IDLE_PARTIAL_BYTES: u64 = 64 << 30;
/// New bytes after which the sidecar is written again.
const NOTE_BYTES: u64 = 16 * 1024 * 1024;
/// Milliseconds after which it is written again when a piece comes.
const NOTE_MS: u64 = 3000;

/// The partial blobs of a store, by digest.
#[derive(Debug, Default)]
pub(crate) struct Partials {
    /// Those that have an owner, at most `MAX_FETCHES`.
    open: BTreeMap<Digest, Arc<Growing>>,
    /// Those that lie on the disk; at most [`MAX_IDLE_PARTIALS`] stay.
    idle: BTreeMap<Digest, IdlePartial>,
}

/// The only owner of a partial blob; share it by reference with as many threads as hash and
/// write. All calls block; drop it on a thread that may. Dropped without a commit it stays on the
/// disk with what it has, for [`Store::begin_partial`] or [`Store::resume_partial`].
#[derive(Debug)]
pub struct PartialBlob {
    store: Store,
    id: RandomId,
    growing: Arc<Growing>,
    /// Bytes written since the sidecar was.
    unnoted_bytes: AtomicU64,
    /// When it was written, unix milliseconds; 0 if there is none.
    noted_ms: AtomicU64,
    life: Mutex<Life>,
}

#[derive(Debug)]
enum Life {
    /// With the sidecar, once one was written, and the chain that is in it.
    Open(Option<(Kept, Arc<Pieces>)>),
    Committed(Committed),
    Gone,
}

fn gone() -> PartialError {
    PartialError::Gone(io::Error::new(io::ErrorKind::NotFound, "it was thrown away"))
}

impl From<UploadError> for PartialError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::NoSpace => Self::NoSpace,
            UploadError::Busy => Self::Busy,
            UploadError::TooManyUploads => Self::TooMany,
            UploadError::Io(error) => Self::Io(error),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl Store {
    /// Begins to gather a blob whose pieces `chain` describes, or goes on with what is on the
    /// disk of it. In the second case nothing is present at first: see
    /// [`PartialBlob::check_next`]. The caller has looked whether the blob is here.
    ///
    /// # Errors
    /// `Busy` if it is being fetched already, `TooMany`, `OtherAlgorithm`, `NoSpace`, `Io`.
    pub fn begin_partial(
        &self,
        digest: &Digest,
        chain: PieceChain,
    ) -> Result<PartialBlob, PartialError> {
        if chain.algorithm() != digest.algorithm() {
            return Err(PartialError::OtherAlgorithm);
        }
        self.inner.claim_fetch(digest)?;
        let begun = self.take_up(digest).and_then(|found| match found {
            Some(partial) => {
                partial.growing.rechain(chain);
                Ok(partial)
            }
            None => self.create_partial(digest, chain),
        });
        self.opened(digest, begun)
    }

    /// Goes on with what is on the disk of a blob, under the chain that is beside it; `None` if
    /// there is nothing.
    ///
    /// # Errors
    /// `Busy` if it is being fetched already, `TooMany`, `Io`.
    pub fn resume_partial(&self, digest: &Digest) -> Result<Option<PartialBlob>, PartialError> {
        self.inner.claim_fetch(digest)?;
        match self.take_up(digest).transpose() {
            Some(found) => self.opened(digest, found).map(Some),
            None => {
                lock(&self.inner.fetching).remove(digest);
                Ok(None)
            }
        }
    }

    /// A reader of a partial blob that has an owner, to serve its pieces to peers.
    pub fn partial(&self, digest: &Digest) -> Option<PartialReader> {
        lock(&self.inner.partials).open.get(digest).cloned().map(PartialReader)
    }

    fn opened(
        &self,
        digest: &Digest,
        begun: Result<PartialBlob, PartialError>,
    ) -> Result<PartialBlob, PartialError> {
        match &begun {
            Ok(partial) => {
                let growing = Arc::clone(&partial.growing);
                lock(&self.inner.partials).open.insert(*digest, growing);
            }
            Err(_) => {
                lock(&self.inner.fetching).remove(digest);
            }
        }
        begun
    }

    fn create_partial(
        &self,
        digest: &Digest,
        chain: PieceChain,
    ) -> Result<PartialBlob, PartialError> {
        let id = RandomId::generate()?;
        let path = self.inner.layout.partial(&id, "");
        let file = self.inner.disk.open(&path, OpenMode::CreateNew)?;
        let growing = Growing::new(*digest, file, Pieces::new(chain));
        Ok(self.owner(id, growing, None))
    }

    /// The partial blob on the disk, if there is one of any use.
    fn take_up(&self, digest: &Digest) -> Result<Option<PartialBlob>, PartialError> {
        let inner = &self.inner;
        let Some(idle) = lock(&inner.partials).idle.remove(digest) else { return Ok(None) };
        match self.reopen(&idle) {
            Ok(partial) => Ok(Some(partial)),
            Err(error) => {
                tracing::warn!(%error, %digest, "a partial blob is thrown away");
                inner.remove_partial(&idle.id);
                Ok(None)
            }
        }
    }

    fn reopen(&self, idle: &IdlePartial) -> io::Result<PartialBlob> {
        let Inner { disk, layout, .. } = self.inner.as_ref();
        let data = layout.partial(&idle.id, "");
        // Opened for reading first: a missing file must stay missing.
        disk.open(&data, OpenMode::Read)?;
        let file = disk.open(&data, OpenMode::Write)?;
        let (kept, sidecar) = Kept::open(disk.as_ref(), &layout.partial(&idle.id, MAP_SUFFIX))?;
        let Sidecar { digest, chain, held, .. } =
            sidecar.filter(|found| found.digest == idle.digest).ok_or_else(idle::damaged)?;
        let growing = Growing::new(digest, file, Pieces::claiming(chain, &held));
        Ok(self.owner(idle.id.clone(), growing, Some(kept)))
    }

    fn owner(&self, id: RandomId, growing: Growing, kept: Option<Kept>) -> PartialBlob {
        let noted_ms = if kept.is_some() { now_ms() } else { 0 };
        let kept = kept.map(|kept| (kept, growing.pieces()));
        PartialBlob {
            store: self.clone(),
            id,
            growing: Arc::new(growing),
            unnoted_bytes: AtomicU64::new(0),
            noted_ms: AtomicU64::new(noted_ms),
            life: Mutex::new(Life::Open(kept)),
        }
    }
}

impl PartialBlob {
    /// The digest that the whole blob has.
    pub fn digest(&self) -> &Digest {
        self.growing.digest()
    }

    /// A reader of what is here and what will be; for anything that the owner wants to look at,
    /// too (chain, pieces, version).
    pub fn reader(&self) -> PartialReader {
        PartialReader(Arc::clone(&self.growing))
    }

    /// Verifies a piece, writes it, and lets readers see it. Threads do this at the same time; no
    /// lock is held while hashing, and only one that all share while writing. After an error
    /// nothing has changed for anyone.
    ///
    /// # Errors
    /// `Wrong`, `NoSpace`, `Io`.
    pub fn write_piece(&self, index: usize, bytes: &[u8]) -> Result<Written, PieceError> {
        let written = self.growing.write_piece(index, bytes)?;
        if written == Written::New {
            self.note_if_due(bytes.len() as u64);
        }
        Ok(written)
    }

    /// Pieces that may be here and were not read yet: what an earlier process, or another chain,
    /// left. They cannot be read before [`PartialBlob::check_next`] has looked at them.
    pub fn claimed(&self) -> PieceSet {
        self.growing.pieces().claimed()
    }

    /// Reads and verifies one more of the claimed pieces; `None` when none is left. Threads may
    /// do this at the same time, and while pieces are written.
    ///
    /// # Errors
    /// What the disk says; the piece counts as missing then, and the next call goes on.
    pub fn check_next(&self) -> io::Result<Option<Checked>> {
        self.growing.check_next()
    }

    /// Puts another chain in the place of one that was convicted. What both chains agree on stays
    /// as it is; every other piece whose bytes are here becomes a claim, see
    /// [`PartialBlob::check_next`]. The size may be another. Where every piece is here, the chain is
    /// proven, and stays.
    ///
    /// # Errors
    /// `OtherAlgorithm`.
    pub fn rechain(&self, chain: PieceChain) -> Result<(), PartialError> {
        if chain.algorithm() != self.digest().algorithm() {
            return Err(PartialError::OtherAlgorithm);
        }
        self.growing.rechain(chain);
        self.note_or_warn();
        Ok(())
    }

    /// Makes the complete content a blob, durable. It is not linked to any repository by this.
    /// Readers read on. A second call answers the same.
    ///
    /// # Errors
    /// `Incomplete`, `NoSpace` and `Io`: the partial blob is as before. `Gone`: begin again.
    pub fn commit(&self) -> Result<Committed, PartialError> {
        let mut life = lock(&self.life);
        match &*life {
            Life::Open(_) => {}
            Life::Committed(committed) => return Ok(*committed),
            Life::Gone => return Err(gone()),
        }
        let pieces = self.growing.pieces();
        if !pieces.is_complete() {
            return Err(PartialError::Incomplete);
        }
        let (inner, digest, file) = (&self.store.inner, self.digest(), self.growing.file());
        let layout = &inner.layout;
        let (data, chain) = (layout.partial(&self.id, ""), layout.partial(&self.id, CHAIN_SUFFIX));
        let source = Source { data, chain };
        let proven = Proven { digest, file, chain: &pieces.chain };
        match inner.commit_proven(&proven, &source, None) {
            Ok(committed) => {
                self.end(&mut life, Life::Committed(committed));
                Ok(committed)
            }
            Err(CommitError::Intact(error)) => Err(error.into()),
            Err(CommitError::Lost(error)) => {
                self.end(&mut life, Life::Gone);
                Err(PartialError::Gone(io::Error::other(error)))
            }
        }
    }

    /// Throws away what was received. Readers read on; nothing of it outlives them.
    pub fn discard(&self) {
        let mut life = lock(&self.life);
        if matches!(*life, Life::Open(_)) {
            self.end(&mut life, Life::Gone);
        }
    }

    fn end(&self, life: &mut Life, end: Life) {
        *life = end;
        self.store.inner.remove_partial(&self.id);
        self.release(None);
    }

    /// Gives the digest back, to whoever begins next.
    fn release(&self, idle: Option<IdlePartial>) {
        let inner = &self.store.inner;
        let mut partials = lock(&inner.partials);
        partials.open.remove(self.digest());
        if let Some(idle) = idle {
            partials.idle.insert(idle.digest, idle);
        }
        drop(partials);
        lock(&inner.fetching).remove(self.digest());
    }

    /// Writes the sidecar with the first piece, so that it has its place on a disk that fills
    /// later, and then whenever enough has come. A blob of one piece needs none.
    fn note_if_due(&self, new_bytes: u64) {
        let unnoted = self.unnoted_bytes.fetch_add(new_bytes, Ordering::AcqRel) + new_bytes;
        let noted_ms = self.noted_ms.load(Ordering::Acquire);
        let is_due = unnoted >= NOTE_BYTES || now_ms().saturating_sub(noted_ms) >= NOTE_MS;
        if !is_due || self.growing.pieces().is_complete() {
            return;
        }
        // One thread writes it; the others go on.
        let mut life = match self.life.try_lock() {
            Ok(life) => life,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.warn_of(self.note(&mut life));
    }

    fn note_or_warn(&self) {
        let noted = self.note(&mut lock(&self.life));
        self.warn_of(noted);
    }

    fn warn_of(&self, noted: io::Result<()>) {
        if let Err(error) = noted {
            let digest = self.digest();
            tracing::warn!(%error, %digest, "the sidecar of a partial blob was not written");
        }
    }

    /// Writes down which pieces may be here.
    fn note(&self, life: &mut Life) -> io::Result<()> {
        let Life::Open(kept) = life else { return Ok(()) };
        let now_ms = now_ms();
        // Before the look, so that what comes after it is counted.
        self.unnoted_bytes.store(0, Ordering::Release);
        self.noted_ms.store(now_ms, Ordering::Release);
        let pieces = self.growing.pieces();
        match kept {
            Some((kept, noted)) if Arc::ptr_eq(noted, &pieces) => {
                kept.update(&pieces.held(), now_ms)
            }
            _ => {
                let Inner { disk, layout, .. } = self.store.inner.as_ref();
                let [new, path] =
                    [MAP_NEW_SUFFIX, MAP_SUFFIX].map(|suffix| layout.partial(&self.id, suffix));
                let sidecar = self.sidecar(&pieces, now_ms);
                *kept = Some((Kept::create(disk.as_ref(), (&new, &path), &sidecar)?, pieces));
                Ok(())
            }
        }
    }

    fn sidecar(&self, pieces: &Pieces, now_ms: u64) -> Sidecar {
        let (chain, held) = (pieces.chain.clone(), pieces.held());
        Sidecar { digest: *self.digest(), chain, held, used_ms: Some(now_ms) }
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        let mut life = lock(&self.life);
        if !matches!(*life, Life::Open(_)) {
            return;
        }
        let pieces = self.growing.pieces();
        let sidecar = self.sidecar(&pieces, now_ms());
        let noted = if sidecar.held.is_empty() { Ok(()) } else { self.note(&mut life) };
        let has_sidecar = matches!(*life, Life::Open(Some(_)));
        self.warn_of(noted);
        if sidecar.held.is_empty() || !has_sidecar {
            return self.end(&mut life, Life::Gone);
        }
        self.release(Some(IdlePartial::of(self.id.clone(), &sidecar, now_ms())));
    }
}
