//! A disk in memory that fails on demand: full, broken at the nth operation, forbidden, or cut
//! off from power with everything lost that was not synced.
//!
//! It is a double for tests, in this crate and in others. All clones are the same disk.

mod memory;
mod recording;

use super::{Disk, DiskFile, Entry, OpenMode, Space};
use memory::{Inode, Memory};
use recording::Entry as Step;
pub use recording::{Recording, Replay};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Operations that [`FaultyDisk::record`] keeps at most; later ones are not recorded.
const MAX_RECORDED: usize = 100_000;

/// One operation, as recorded by [`FaultyDisk::record`]. Reads are counted, not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A file was created.
    Create(PathBuf),
    /// Bytes were written; the path is the one the file was opened by.
    Write(PathBuf),
    /// A file was cut or extended.
    SetLen(PathBuf),
    /// A file was synced; the path is the one it was opened by.
    Sync(PathBuf),
    /// A directory was created.
    CreateDir(PathBuf),
    /// A name was moved.
    Rename(PathBuf, PathBuf),
    /// A name was removed.
    Remove(PathBuf),
    /// A directory was synced.
    SyncDir(PathBuf),
}

/// The faulty disk. It starts empty and without faults.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    memory: Memory,
    /// Raised by every restart: older handles are dead.
    epoch: u64,
    operations: u64,
    fail_at: Option<u64>,
    crash_at: Option<u64>,
    down: bool,
    capacity_bytes: Option<u64>,
    denied: Vec<PathBuf>,
    locked: BTreeSet<Inode>,
    recorded: Option<Vec<Operation>>,
    recording: Option<Recording>,
}

impl Default for FaultyDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new() -> Self {
        let state = State {
            memory: Memory::new(),
            epoch: 0,
            operations: 0,
            fail_at: None,
            crash_at: None,
            down: false,
            capacity_bytes: None,
            denied: Vec::new(),
            locked: BTreeSet::new(),
            recorded: None,
            recording: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Operations done so far, reads included.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Fails one operation with an I/O error: the one that comes after `after` more. `None`
    /// takes the fault away.
    pub fn fail_after(&self, after: Option<u64>) {
        let mut state = self.state();
        state.fail_at = after.map(|n| state.operations + n);
    }

    /// Goes down after `after` more operations: from then on every operation fails, until
    /// [`FaultyDisk::power_cut`] or [`FaultyDisk::restart`].
    pub fn crash_after(&self, after: u64) {
        let mut state = self.state();
        state.crash_at = Some(state.operations + after);
    }

    /// Whether a crash asked for by [`FaultyDisk::crash_after`] has happened.
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// The machine loses power and starts again. Of what was not synced, `seed` 0 keeps nothing,
    /// 1 keeps all, and any other keeps a part (writes torn at sectors). Handles and locks die.
    pub fn power_cut(&self, seed: u64) {
        let mut state = self.state();
        state.memory.power_cut(seed);
        state.restart();
    }

    /// The process dies and starts again; the machine lives on, so nothing written is lost.
    /// Handles and locks die.
    pub fn restart(&self) {
        self.state().restart();
    }

    /// Sets the size of the disk: writes that need more fail with `StorageFull` after what fits.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// Bytes in files that have a name.
    pub fn used_bytes(&self) -> u64 {
        self.state().memory.used_bytes
    }

    /// Denies every access to a path and what lies below it.
    pub fn deny(&self, path: &Path) {
        self.state().denied.push(path.to_owned());
    }

    /// Starts (or starts again) to record operations.
    pub fn record(&self) {
        self.state().recorded = Some(Vec::new());
    }

    /// The operations since [`FaultyDisk::record`]; recording stops.
    pub fn recorded(&self) -> Vec<Operation> {
        self.state().recorded.take().unwrap_or_default()
    }

    /// Puts a file there, durable, past all faults. Its directory must exist.
    ///
    /// # Errors
    /// `NotFound` without the directory, `IsADirectory`.
    pub fn plant(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let inode = match state.memory.resolve(path) {
            Ok(inode) => inode,
            Err(_) => state.memory.create_file(path)?,
        };
        state.resize(inode, 0)?;
        state.resize(inode, bytes.len() as u64)?;
        let content = state.memory.content(inode)?;
        content.write(0, bytes);
        content.sync();
        let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        state.memory.sync_dir(parent)
    }

    /// All bytes of a file, past all faults.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`.
    pub fn peek(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let inode = state.memory.resolve(path)?;
        let content = state.memory.content(inode)?;
        let mut bytes = vec![0; usize::try_from(content.len()).map_err(io::Error::other)?];
        content.read(0, &mut bytes);
        Ok(bytes)
    }
}

impl State {
    fn restart(&mut self) {
        self.epoch += 1;
        self.down = false;
        self.crash_at = None;
        self.fail_at = None;
        self.locked.clear();
    }

    /// Counts one operation and fails it if a fault is due.
    fn step(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.crash_at.is_some_and(|at| number >= at) {
            self.down = true;
        }
        if self.down {
            return Err(io::Error::other("injected: the disk is down"));
        }
        if self.fail_at == Some(number) {
            return Err(io::Error::other("injected: input/output error"));
        }
        Ok(())
    }

    fn step_path(&mut self, path: &Path) -> io::Result<()> {
        self.step()?;
        if self.denied.iter().any(|denied| path.starts_with(denied)) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok(())
    }

    fn note(&mut self, operation: impl FnOnce() -> Operation) {
        if let Some(recorded) = &mut self.recorded
            && recorded.len() < MAX_RECORDED
        {
            recorded.push(operation());
        }
    }

    fn resize(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        let content = self.memory.content(inode)?;
        let (old, named) = (content.len(), content.has_name());
        let size = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        content.set_len(size);
        if named {
            self.memory.used_bytes = self.memory.used_bytes - old + len;
        }
        self.enter(|| Step::SetLen(inode, size));
        Ok(())
    }

    /// Bytes by which a file may still grow.
    fn room(&self) -> u64 {
        self.capacity_bytes.map_or(u64::MAX, |all| all.saturating_sub(self.memory.used_bytes))
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.step_path(path)?;
        let inode = match (state.memory.resolve(path), mode) {
            (Ok(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Ok(inode), _) => inode,
            (Err(e), OpenMode::Read) => return Err(e),
            (Err(e), _) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            (Err(_), _) => {
                let inode = state.memory.create_file(path)?;
                state.note(|| Operation::Create(path.to_owned()));
                state.enter(|| Step::Create(path.to_owned()));
                inode
            }
        };
        state.memory.content(inode)?;
        let holds_lock = mode == OpenMode::Lock;
        if holds_lock && !state.locked.insert(inode) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (disk, path, epoch) = (self.clone(), path.to_owned(), state.epoch);
        Ok(Arc::new(FaultyFile { disk, inode, epoch, path, holds_lock }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step_path(path)?;
        state.memory.create_dir(path)?;
        state.note(|| Operation::CreateDir(path.to_owned()));
        state.enter(|| Step::CreateDir(path.to_owned()));
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut state = self.state();
        state.step_path(path)?;
        state.memory.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step_path(from)?;
        state.memory.rename(from, to)?;
        state.note(|| Operation::Rename(from.to_owned(), to.to_owned()));
        state.enter(|| Step::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step_path(path)?;
        state.memory.remove(path)?;
        state.note(|| Operation::Remove(path.to_owned()));
        state.enter(|| Step::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step_path(path)?;
        state.memory.sync_dir(path)?;
        state.note(|| Operation::SyncDir(path.to_owned()));
        state.enter(|| Step::SyncDir(path.to_owned()));
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.state();
        Ok(Space { total: state.capacity_bytes.unwrap_or(u64::MAX), free: state.room() })
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    inode: Inode,
    epoch: u64,
    path: PathBuf,
    holds_lock: bool,
}

impl FaultyFile {
    /// The state, after one counted operation; an error where this handle is dead.
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.disk.state();
        if state.epoch != self.epoch {
            return Err(io::Error::other("injected: the handle is of an earlier process"));
        }
        state.step()?;
        Ok(state)
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.step()?;
        Ok(state.memory.content(self.inode)?.read(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.step()?;
        let room = state.room();
        let content = state.memory.content(self.inode)?;
        let (old, named) = (content.len(), content.has_name());
        let end = offset.saturating_add(bytes.len() as u64);
        let fits = end.min(old.saturating_add(room)).saturating_sub(offset);
        let fits = usize::try_from(fits).unwrap_or(usize::MAX).min(bytes.len());
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if fits > 0 {
            content.write(start, &bytes[..fits]);
        }
        let new = content.len();
        if named {
            state.memory.used_bytes += new - old;
        }
        state.enter(|| Step::Write(self.inode, start, bytes[..fits].to_vec()));
        state.note(|| Operation::Write(self.path.clone()));
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.step()?;
        let old = state.memory.content(self.inode)?.len();
        if len.saturating_sub(old) > state.room() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.resize(self.inode, len)?;
        state.note(|| Operation::SetLen(self.path.clone()));
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let mut state = self.step()?;
        Ok(state.memory.content(self.inode)?.len())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.step()?;
        state.memory.content(self.inode)?.sync();
        state.enter(|| Step::Sync(self.inode));
        state.note(|| Operation::Sync(self.path.clone()));
        Ok(())
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        if !self.holds_lock {
            return;
        }
        let mut state = self.disk.state();
        if state.epoch == self.epoch {
            state.locked.remove(&self.inode);
        }
    }
}
