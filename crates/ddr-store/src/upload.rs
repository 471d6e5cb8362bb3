//! Upload sessions: content that a client pushes, in as many requests as it likes.
//!
//! Decides who may use a session (one request at a time, in the repository that began it), what
//! survives a restart (the file; its hash is computed again on first touch) and when a session
//! ends (commit, cancel, wrong digest, [`UPLOAD_TTL_MS`], or [`UPLOAD_IDLE_MS`] where a new one
//! needs its room). Must never let a client's text reach a path: an identifier is parsed first
//! and must be in the table.
//!
//! A session is on the disk from its first byte on, and outlives the process once it is noted
//! there: when a request lets it go or acknowledges bytes, or after [`NOTE_BYTES`] of one request.
//! What a dead process did not note is removed at the next start. So a session whose answer was
//! lost, or whose only request was cut off, leaves nothing behind. Bytes are made durable at
//! commit; a power cut may take some, and the digest check at commit then says so.

use crate::commit::{CommitError, Committed, Source};
use crate::disk::{Entry, EntryKind, OpenMode, read_full};
use crate::error::UploadError;
use crate::layout::{CHAIN, DATA, RandomId, SESSION};
use crate::running::Hashing;
use crate::staged::{Staged, Way};
use crate::store::{Inner, Store, lock, now_ms};
use ddr_oci::digest::Digest;
use ddr_oci::reference::RepositoryName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

#[cfg(test)]
mod tests;

/// Upload sessions that may be open at once.
pub const MAX_UPLOADS: usize = 1024;
/// Idle sessions whose hash and file stay in memory; others are hashed again on next touch. One
/// takes at most about 66 KiB and one file descriptor.
pub const MAX_WARM_UPLOADS: usize = 64;
/// How long a session that nobody touches is kept, milliseconds (a day). A session of an earlier
/// process counts from its start.
pub const UPLOAD_TTL_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a session must be untouched before it may be ended to make room for a new one,
/// milliseconds (an hour).
pub const UPLOAD_IDLE_MS: u64 = 60 * 60 * 1000;

/// How long a session without a byte must be untouched before it may be ended to make room for a
/// new one, milliseconds (a minute).
pub const EMPTY_UPLOAD_IDLE_MS: u64 = 60 * 1000;
/// Bytes of one request after which its session is noted on the disk while they still come.
const NOTE_BYTES: u64 = 8 * 1024 * 1024;

/// The version of `session.json`.
const SESSION_VERSION: u32 = 1;
/// Longest `session.json` that is read, bytes.
const MAX_SESSION_BYTES: usize = 1024;

/// A session in the table.
#[derive(Debug)]
pub(crate) struct Session {
    repository: RepositoryName,
    touched_ms: u64,
    /// A handle on it is out.
    busy: bool,
    /// It has bytes, on the disk.
    has_bytes: bool,
    /// Its file and hash, unless they must be read from the disk.
    warm: Option<Staged>,
}

/// What `session.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct SessionFile {
    version: u32,
    repository: RepositoryName,
    started_unix_ms: u64,
}

/// The only handle on an upload session. Dropped, it leaves the session as it is, for the next
/// request.
#[derive(Debug)]
pub struct Upload {
    store: Store,
    id: RandomId,
    repository: RepositoryName,
    /// Taken when the session has ended.
    staged: Option<Staged>,
    /// A process that comes later finds the session.
    noted: bool,
    /// Nobody knows the session: it ends with this handle.
    unnamed: bool,
}

impl Store {
    /// Begins an upload session; its identifier, 32 hexadecimal digits of randomness. Where
    /// [`MAX_UPLOADS`] are open, the one that was untouched longest ends, if nobody has touched
    /// it for [`UPLOAD_IDLE_MS`].
    ///
    /// # Errors
    /// `TooManyUploads`, `NoSpace`, `Io`.
    pub fn begin_upload(&self, repository: &RepositoryName) -> Result<String, UploadError> {
        let inner = &self.inner;
        let now = now_ms();
        inner.drop_stale_uploads(now);
        let id = RandomId::generate()?;
        let repository = repository.clone();
        let session =
            Session { repository, touched_ms: now, busy: false, has_bytes: false, warm: None };
        let ended = admit(&mut lock(&inner.sessions), MAX_UPLOADS, &id, session)?;
        if let Some(ended) = ended {
            tracing::info!(id = ended.as_str(), "an idle upload is removed to make room");
            inner.end_upload(&ended);
        }
        Ok(id.as_str().to_owned())
    }

    /// Ends the sessions that nobody has touched for [`UPLOAD_TTL_MS`] and removes what they hold;
    /// how many. [`Store::begin_upload`] does this too; call it now and then all the same, or
    /// the last sessions keep their space for as long as nobody pushes.
    pub fn drop_stale_uploads(&self) -> usize {
        self.inner.drop_stale_uploads(now_ms())
    }

    /// Takes hold of an upload session. After a restart the first call reads what is on the disk
    /// to compute its hash.
    ///
    /// # Errors
    /// `Unknown`, also for an identifier of another repository; `Busy`; `Io`.
    pub fn upload(&self, repository: &RepositoryName, id: &str) -> Result<Upload, UploadError> {
        let inner = &self.inner;
        let id = RandomId::parse(id).ok_or(UploadError::Unknown)?;
        let (warm, has_bytes) = {
            let mut sessions = lock(&inner.sessions);
            let session = sessions
                .get_mut(&id)
                .filter(|session| session.repository == *repository)
                .ok_or(UploadError::Unknown)?;
            if session.busy {
                return Err(UploadError::Busy);
            }
            session.busy = true;
            session.touched_ms = now_ms();
            (session.warm.take(), session.has_bytes)
        };
        let staged = match warm {
            Some(staged) => Ok(staged),
            None if has_bytes => {
                let path = inner.layout.upload_dir(&id).join(DATA);
                Staged::resume(inner.disk.as_ref(), &path, Way::Past)
            }
            None => inner.create_upload(&id),
        };
        match staged {
            Ok(staged) => {
                let (store, repository) = (self.clone(), repository.clone());
                let (noted, unnamed) = (has_bytes, false);
                Ok(Upload { store, id, repository, staged: Some(staged), noted, unnamed })
            }
            Err(error) => {
                inner.release_upload(&id, None, has_bytes);
                Err(error.into())
            }
        }
    }
}

impl Upload {
    /// Bytes that the session has: where the next chunk must start.
    pub fn offset(&self) -> u64 {
        self.staged.as_ref().map_or(0, Staged::len)
    }

    /// Checks that a chunk that starts at `start` is the next one.
    ///
    /// # Errors
    /// `OutOfOrder`, with the right offset.
    pub fn expect_offset(&self, start: u64) -> Result<(), UploadError> {
        let offset = self.offset();
        if start == offset { Ok(()) } else { Err(UploadError::OutOfOrder { offset }) }
    }

    /// Adds bytes, in chunks of any size (1 MiB is a good one). After an error the session is as
    /// it was before the call.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let staged = self.staged.as_mut().ok_or(UploadError::Unknown)?;
        staged.append(bytes)?;
        self.note_if_long()
    }

    /// As [`Upload::append`], for bytes that another thread gives to [`Upload::hashing`] at the
    /// same time, under the offset that the session has before the call.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let staged = self.staged.as_mut().ok_or(UploadError::Unknown)?;
        staged.write(bytes)?;
        self.note_if_long()
    }

    /// Has the session outlive this process, if it has bytes. Call it before they are acknowledged.
    ///
    /// # Errors
    /// `NoSpace`, `Io`.
    pub fn note(&mut self) -> Result<(), UploadError> {
        if !self.noted && !self.unnamed && self.offset() > 0 {
            self.store.inner.note_upload(&self.id, &self.repository)?;
            self.noted = true;
        }
        Ok(())
    }

    fn note_if_long(&mut self) -> Result<(), UploadError> {
        if self.offset() >= NOTE_BYTES { self.note() } else { Ok(()) }
    }

    /// Says that nobody knows the session: it ends with this handle, whatever it has.
    pub fn keep_unnamed(&mut self) {
        self.unnamed = true;
    }

    /// The running hash, for bytes that [`Upload::write`] writes.
    pub fn hashing(&self) -> Option<Hashing> {
        self.staged.as_ref().map(|staged| staged.hashing().clone())
    }

    /// Tells the digest that is to come, before the first byte: SHA-512 is then computed on the
    /// way, and the file is not read again.
    pub fn expect_digest(&self, digest: &Digest) {
        if let Some(staged) = &self.staged {
            staged.hashing().expect(digest.algorithm());
        }
    }

    /// Makes the content a blob, durable, and links it to the repository. The session ends,
    /// except after `NoSpace`, and after `Io` where the content could be saved.
    ///
    /// # Errors
    /// `DigestMismatch`, `NoSpace`, `Io`.
    pub fn commit(mut self, digest: &Digest) -> Result<Committed, UploadError> {
        let staged = self.staged.take().ok_or(UploadError::Unknown)?;
        let inner = &self.store.inner;
        let dir = inner.layout.upload_dir(&self.id);
        let source = Source { data: dir.join(DATA), chain: dir.join(CHAIN) };
        match inner.commit(&staged, &source, digest, Some(&self.repository)) {
            Ok(committed) => {
                inner.end_upload(&self.id);
                Ok(committed)
            }
            Err(CommitError::Lost(error)) => {
                inner.end_upload(&self.id);
                Err(error)
            }
            Err(CommitError::Intact(error)) => {
                self.staged = Some(staged);
                Err(error)
            }
        }
    }

    /// Ends the session and removes what it holds.
    pub fn cancel(mut self) {
        self.staged = None;
        self.store.inner.end_upload(&self.id);
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let noted = self.note();
        let Some(staged) = self.staged.take() else { return };
        let inner = &self.store.inner;
        if self.unnamed {
            drop(staged);
            return inner.end_upload(&self.id);
        }
        if let Err(error) = noted {
            tracing::warn!(%error, id = self.id.as_str(), "an upload ends with this process");
        }
        if staged.len() > 0 {
            return inner.release_upload(&self.id, Some(staged), true);
        }
        drop(staged);
        if let Err(error) = inner.remove_upload_files(&self.id) {
            tracing::warn!(%error, id = self.id.as_str(), "an upload is removed at the next start");
        }
        inner.release_upload(&self.id, None, false);
    }
}

/// Enters a new session in the table, which holds at most `limit`; the idle session that it takes
/// the place of, whose files the caller removes. A session with a handle out is never ended.
fn admit(
    sessions: &mut BTreeMap<RandomId, Session>,
    limit: usize,
    id: &RandomId,
    session: Session,
) -> Result<Option<RandomId>, UploadError> {
    let mut ended = None;
    if sessions.len() >= limit {
        let idle_since = |other: &Session| {
            let idle_ms = if other.has_bytes { UPLOAD_IDLE_MS } else { EMPTY_UPLOAD_IDLE_MS };
            session.touched_ms.saturating_sub(idle_ms)
        };
        let (idle, _) = sessions
            .iter()
            .filter(|(_, other)| !other.busy && other.touched_ms <= idle_since(other))
            .min_by_key(|(_, other)| other.touched_ms)
            .ok_or(UploadError::TooManyUploads)?;
        let idle = idle.clone();
        sessions.remove(&idle);
        ended = Some(idle);
    }
    sessions.insert(id.clone(), session);
    Ok(ended)
}

impl Inner {
    fn create_upload(&self, id: &RandomId) -> io::Result<Staged> {
        let dir = self.layout.upload_dir(id);
        self.disk.create_dir(&dir)?;
        match Staged::create(self.disk.as_ref(), &dir.join(DATA), Way::Past) {
            // A handle before this one could not remove it.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                self.disk.remove(&dir.join(DATA))?;
                Staged::create(self.disk.as_ref(), &dir.join(DATA), Way::Past)
            }
            other => other,
        }
    }

    /// Writes the session file, which makes the directory a session for a later process.
    fn note_upload(&self, id: &RandomId, repository: &RepositoryName) -> io::Result<()> {
        let (repository, started_unix_ms) = (repository.clone(), now_ms());
        let session = SessionFile { version: SESSION_VERSION, repository, started_unix_ms };
        let session = serde_json::to_vec(&session).map_err(io::Error::other)?;
        let file = self.disk.open(&self.layout.upload_dir(id).join(SESSION), OpenMode::Write)?;
        file.write_at(0, &session)?;
        file.set_len(session.len() as u64)
    }

    /// Gives a session back to the table; its hash stays in memory if there is room.
    fn release_upload(&self, id: &RandomId, staged: Option<Staged>, has_bytes: bool) {
        let mut sessions = lock(&self.sessions);
        let warm = sessions.values().filter(|session| session.warm.is_some()).count();
        if let Some(session) = sessions.get_mut(id) {
            session.busy = false;
            session.has_bytes = has_bytes;
            session.touched_ms = now_ms();
            session.warm = staged.filter(|_| warm < MAX_WARM_UPLOADS);
        }
    }

    /// Ends a session whose handle the caller has.
    fn end_upload(&self, id: &RandomId) {
        if let Err(error) = self.remove_upload_files(id) {
            tracing::warn!(%error, id = id.as_str(), "an upload is removed at the next start");
        }
        lock(&self.sessions).remove(id);
    }

    fn remove_upload_files(&self, id: &RandomId) -> io::Result<()> {
        let dir = self.layout.upload_dir(id);
        // Without its session file a directory is no session, so a crash in between is clean.
        for name in [SESSION, DATA, CHAIN] {
            self.remove_if_there(&dir.join(name))?;
        }
        self.remove_if_there(&dir)
    }

    /// Ends the sessions that nobody has touched for [`UPLOAD_TTL_MS`]; how many.
    fn drop_stale_uploads(&self, now: u64) -> usize {
        let mut stale = Vec::new();
        for (id, session) in lock(&self.sessions).iter_mut() {
            if !session.busy && session.touched_ms.saturating_add(UPLOAD_TTL_MS) < now {
                session.busy = true;
                session.warm = None;
                stale.push(id.clone());
            }
        }
        for id in &stale {
            tracing::info!(id = id.as_str(), "an abandoned upload is removed");
            self.end_upload(id);
        }
        stale.len()
    }

    /// Takes up the session in `uploads/<id>` that an earlier process left, or removes what is
    /// there if it is none.
    pub(crate) fn adopt_upload(&self, id: &RandomId) -> io::Result<()> {
        if let Some(file) = self.read_session(id)?
            && file.started_unix_ms.saturating_add(UPLOAD_TTL_MS) >= now_ms()
        {
            let SessionFile { repository, started_unix_ms: touched_ms, .. } = file;
            let session =
                Session { repository, touched_ms, busy: false, has_bytes: true, warm: None };
            lock(&self.sessions).insert(id.clone(), session);
            return Ok(());
        }
        tracing::info!(id = id.as_str(), "an incomplete or abandoned upload is removed");
        match self.remove_upload_files(id) {
            // Something else is in there.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                self.put_aside(&self.layout.upload_dir(id))
            }
            other => other,
        }
    }

    /// The session file of a session that still has its data, and any.
    fn read_session(&self, id: &RandomId) -> io::Result<Option<SessionFile>> {
        let dir = self.layout.upload_dir(id);
        let entries = self.disk.list(&dir)?;
        let is_file = |name: &str| {
            let file = |entry: &&Entry| entry.name == name && entry.kind == EntryKind::File;
            entries.iter().find(file).is_some_and(|entry| entry.len > 0)
        };
        if !is_file(SESSION) || !is_file(DATA) {
            return Ok(None);
        }
        let file = self.disk.open(&dir.join(SESSION), OpenMode::Read)?;
        let mut bytes = vec![0; MAX_SESSION_BYTES];
        let len = read_full(file.as_ref(), 0, &mut bytes)?;
        let session = serde_json::from_slice::<SessionFile>(&bytes[..len]).ok();
        Ok(session.filter(|session| session.version == SESSION_VERSION))
    }
}
