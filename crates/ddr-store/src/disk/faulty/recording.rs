//! A recording of everything that was written to a [`FaultyDisk`], to be played again and cut off
//! anywhere.
//!
//! Decides what may be found after a power cut: any subset of what no sync has covered, by the
//! rules of `memory`. A subset is chosen by whole operations, so that all of them can be tried
//! where they are few, or by a seed, which tears writes at sectors too.

use super::memory::{Content, Inode, Memory};
use super::{FaultyDisk, State};
use std::io;
use std::path::PathBuf;

/// One change of the disk that succeeded, with its bytes.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    Create(PathBuf),
    Write(Inode, usize, Vec<u8>),
    SetLen(Inode, usize),
    Sync(Inode),
    CreateDir(PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
    Mark(u64),
}

/// What happened between [`FaultyDisk::start_recording`] and [`FaultyDisk::stop_recording`].
#[derive(Debug)]
pub struct Recording {
    pub(super) start: Memory,
    pub(super) entries: Vec<Entry>,
}

/// A recording that is being played: the disk after some of the operations.
#[derive(Debug)]
pub struct Replay<'a> {
    recording: &'a Recording,
    memory: Memory,
    done: usize,
    marks: Vec<u64>,
}

impl FaultyDisk {
    /// Starts to record with all bytes. Needs as much memory as what is written.
    pub fn start_recording(&self) {
        let mut state = self.state();
        let start = state.memory.clone();
        state.recording = Some(Recording { start, entries: Vec::new() });
    }

    /// Puts a mark into the recording: "acknowledged by now", or what the caller likes.
    pub fn mark(&self, mark: u64) {
        self.state().enter(|| Entry::Mark(mark));
    }

    /// Ends the recording; `None` if there is none.
    pub fn stop_recording(&self) -> Option<Recording> {
        self.state().recording.take()
    }

    fn holding(memory: Memory) -> Self {
        let disk = Self::new();
        disk.state().memory = memory;
        disk
    }
}

impl State {
    pub(super) fn enter(&mut self, entry: impl FnOnce() -> Entry) {
        if let Some(recording) = &mut self.recording {
            recording.entries.push(entry());
        }
    }
}

impl Recording {
    /// Operations in it, marks included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Plays it from the start.
    pub fn replay(&self) -> Replay<'_> {
        Replay { recording: self, memory: self.start.clone(), done: 0, marks: Vec::new() }
    }
}

impl Replay<'_> {
    /// Does the next operation; false at the end.
    ///
    /// # Errors
    /// None that a recording of operations that succeeded can give.
    pub fn step(&mut self) -> io::Result<bool> {
        let Some(entry) = self.recording.entries.get(self.done) else { return Ok(false) };
        self.done += 1;
        let memory = &mut self.memory;
        match entry {
            Entry::Create(path) => {
                memory.create_file(path)?;
            }
            Entry::Write(inode, offset, bytes) => {
                resize(memory, *inode, |content| content.write(*offset, bytes))?;
            }
            Entry::SetLen(inode, len) => resize(memory, *inode, |content| content.set_len(*len))?,
            Entry::Sync(inode) => memory.content(*inode)?.sync(),
            Entry::CreateDir(path) => memory.create_dir(path)?,
            Entry::Rename(from, to) => memory.rename(from, to)?,
            Entry::Remove(path) => memory.remove(path)?,
            Entry::SyncDir(path) => memory.sync_dir(path)?,
            Entry::Mark(mark) => self.marks.push(*mark),
        }
        Ok(true)
    }

    /// Operations done so far, marks included.
    pub fn done(&self) -> usize {
        self.done
    }

    /// Marks met so far, in order.
    pub fn marks(&self) -> &[u64] {
        &self.marks
    }

    /// Operations that no sync has covered.
    pub fn unsynced(&self) -> usize {
        self.memory.unsynced()
    }

    /// The system writes everything back by itself, as it may at any time.
    pub fn settle(&mut self) {
        self.memory.cut(&vec![true; self.memory.unsynced()], false);
    }

    /// A disk as it may be found after a power cut here: of the unsynced operations those with
    /// `true` are kept, and the earlier ones on the same names.
    ///
    /// # Panics
    /// Unless `keep` has [`Replay::unsynced`] values.
    pub fn cut_whole(&self, keep: &[bool]) -> FaultyDisk {
        let mut memory = self.memory.clone();
        assert_eq!(keep.len(), memory.unsynced(), "one value for each unsynced operation");
        memory.cut(keep, true);
        FaultyDisk::holding(memory)
    }

    /// As [`FaultyDisk::power_cut`], with writes torn at sectors.
    pub fn cut_torn(&self, seed: u64) -> FaultyDisk {
        let mut memory = self.memory.clone();
        memory.power_cut(seed);
        FaultyDisk::holding(memory)
    }
}

/// Changes a file and the count of bytes in use.
fn resize(memory: &mut Memory, inode: Inode, change: impl FnOnce(&mut Content)) -> io::Result<()> {
    let content = memory.content(inode)?;
    let (old, named) = (content.len(), content.has_name());
    change(content);
    let new = content.len();
    if named {
        memory.used_bytes = memory.used_bytes - old + new;
    }
    Ok(())
}
