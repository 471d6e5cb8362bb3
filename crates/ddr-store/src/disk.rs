//! The disk: what the store asks of a file system, and nothing else.
//!
//! Every byte and every name that the store writes goes through [`Disk`] and [`DiskFile`], the
//! index included. So one double, [`FaultyDisk`], can fill the disk, fail any operation and cut
//! the power between any two operations. This module must never know what a file is for.

mod faulty;
mod real;

pub use faulty::{FaultyDisk, Operation, Recording, Replay};
pub use real::RealDisk;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How [`Disk::open`] treats a file that is there, and one that is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading. The file must be there (`NotFound`).
    Read,
    /// For reading and writing. Created, empty, where it is missing.
    Write,
    /// For reading and writing. It must not be there yet (`AlreadyExists`).
    CreateNew,
    /// As `Write`, and locked against every other opener with this mode until the handle is
    /// dropped. `WouldBlock` where another holds the lock.
    Lock,
}

/// What a name in a directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Anything else: a symbolic link, a device, a socket. Never followed.
    Other,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The last part of the path. Names that are not UTF-8 arrive with replacement characters,
    /// which no name of the store contains.
    pub name: String,
    /// What the name stands for.
    pub kind: EntryKind,
    /// Bytes in a regular file, 0 otherwise.
    pub len: u64,
    /// The full path, exact also where `name` is not.
    pub path: PathBuf,
}

/// The names of a file system. A change of names is durable only after [`Disk::sync_dir`] on
/// each directory that it touched.
pub trait Disk: Send + Sync + Debug {
    /// Opens one file. New files are readable and writable by the owner only.
    ///
    /// # Errors
    /// As the operating system says; see [`OpenMode`] for the kinds that callers rely on.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a directory and its missing parents, for the owner only. One that is already
    /// there is no error.
    ///
    /// # Errors
    /// As the operating system says.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// The names in a directory, in byte order.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `PermissionDenied`, and what else the system says.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;

    /// Moves a file or directory, in one step. A file that has the new name is replaced.
    ///
    /// # Errors
    /// As the operating system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// As the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As the operating system says.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// The room on the file system of a directory.
    ///
    /// # Errors
    /// As the operating system says.
    fn space(&self, path: &Path) -> io::Result<Space>;
}

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it that this process may use: what is used and what is left, as `df` reckons.
    pub total: u64,
    /// What is left for this process.
    pub free: u64,
}

/// An open file. It stays readable after its name is gone.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads at most `buffer.len()` bytes from `offset`. 0 means the end.
    ///
    /// # Errors
    /// As the operating system says.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. After an error any part of them may be written.
    ///
    /// # Errors
    /// As the operating system says; `StorageFull` on a full disk.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// As [`DiskFile::write_at`], for many bytes that nobody reads soon: they may go past the
    /// cache of the system.
    ///
    /// # Errors
    /// As [`DiskFile::write_at`].
    fn write_past_cache(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)
    }

    /// Cuts or extends (with zeros) the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Bytes in the file.
    ///
    /// # Errors
    /// As the operating system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The file itself, for system calls that read it in ways of their own (`sendfile`,
    /// `preadv2`); `None` where every read must pass through [`DiskFile::read_at`].
    fn as_file(&self) -> Option<&std::fs::File> {
        None
    }

    /// Makes the bytes and the length durable (not the name).
    ///
    /// # Errors
    /// As the operating system says. After an error the bytes must be taken as lost: a second
    /// call may succeed without having written them.
    fn sync(&self) -> io::Result<()>;
}

/// Reads until `buffer` is full or the file ends; the number of bytes read.
pub(crate) fn read_full(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        let n = file.read_at(offset + done as u64, &mut buffer[done..])?;
        if n == 0 {
            break;
        }
        done += n;
    }
    Ok(done)
}

/// Whether an error means that no byte more fits on the disk (or in the user's quota).
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
