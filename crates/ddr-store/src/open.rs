//! Opening the data directory: is it ours, is it free, is it of a version that we know.
//!
//! Decides in an order that does no harm: look first, and write nothing into a directory that is
//! not a store's; then lock; then read the version; then the index; then clean up. A directory
//! becomes a store when its `format` file is durable, which is written last.

use crate::disk::{Disk, DiskFile, Entry, OpenMode, read_full};
use crate::error::OpenError;
use crate::index::{Index, IndexOpenError};
use crate::layout::{
    ALGORITHMS, BLOBS, FETCH, FILES_OF_OTHERS, FORMAT, FORMAT_NEW, FORMAT_PREFIX, FORMAT_VERSION,
    INDEX, LOCK, Layout, MAX_FORMAT_BYTES, OWN_NAMES, PARTIAL, QUARANTINE, UPLOADS,
};
use crate::store::{Inner, StoreConfig};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Opens or creates the store.
pub(crate) fn open(config: StoreConfig) -> Result<Inner, OpenError> {
    let StoreConfig { root, disk } = config;
    let opening = Opening { disk: Arc::clone(&disk), layout: Layout::new(root) };
    let before = opening.look()?;
    if !before.is_store {
        opening.check_unfinished()?;
    }
    let lock = opening.lock()?;
    // Another process may have created the store before we had the lock.
    let found = opening.look()?;
    if found.is_store {
        opening.check_format()?;
        opening.check_index(&found.entries)?;
        opening.create_dirs()?;
    } else {
        opening.discard_unfinished_index()?;
        opening.create_dirs()?;
    }
    let index = opening.open_index()?;
    if !found.is_store {
        opening.write_format()?;
    }
    let Opening { layout, .. } = opening;
    let inner = Inner::new(disk, layout, index, lock);
    inner.recover()?;
    Ok(inner)
}

struct Opening {
    disk: Arc<dyn Disk>,
    layout: Layout,
}

struct Found {
    entries: Vec<Entry>,
    is_store: bool,
}

/// Turns an I/O error into [`OpenError::Unusable`] of a path.
pub(crate) fn unusable(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.into();
    move |source| OpenError::Unusable { path, source }
}

impl Opening {
    fn root(&self) -> &Path {
        self.layout.root()
    }

    /// Lists the directory, creating it if it is missing, and refuses a foreign one.
    fn look(&self) -> Result<Found, OpenError> {
        let entries = match self.disk.list(self.root()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.create_root()?;
                Vec::new()
            }
            other => other.map_err(unusable(self.root()))?,
        };
        let is_store = entries.iter().any(|entry| entry.name == FORMAT);
        let known = |name: &str| OWN_NAMES.contains(&name) || FILES_OF_OTHERS.contains(&name);
        if !is_store && let Some(foreign) = entries.iter().find(|entry| !known(&entry.name)) {
            let (root, found) = (self.root().to_owned(), foreign.name.clone());
            return Err(OpenError::Foreign { root, found });
        }
        Ok(Found { entries, is_store })
    }

    /// Creates the directory and its missing ancestors, each with a durable name.
    fn create_root(&self) -> Result<(), OpenError> {
        let mut changed = Vec::new();
        for parent in self.root().ancestors().skip(1) {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            changed.push(parent);
            match self.disk.list(parent) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                // It is there, be it readable or not.
                _ => break,
            }
        }
        self.disk.create_dir(self.root()).map_err(unusable(self.root()))?;
        for dir in changed {
            self.disk.sync_dir(dir).map_err(unusable(dir))?;
        }
        Ok(())
    }

    /// A directory without a `format` file may be a store whose creation was cut off, but not
    /// one that holds blobs: then the file was lost, and must not be made up.
    fn check_unfinished(&self) -> Result<(), OpenError> {
        for algorithm in ALGORITHMS {
            let dir = self.layout.algorithm_dir(algorithm);
            match self.disk.list(&dir) {
                Ok(entries) if entries.is_empty() => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Ok(_) => return Err(OpenError::BadFormat { path: self.layout.top(FORMAT) }),
                Err(e) => return Err(unusable(dir)(e)),
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<Arc<dyn DiskFile>, OpenError> {
        let path = self.layout.top(LOCK);
        self.disk.open(&path, OpenMode::Lock).map_err(|e| {
            if e.kind() == io::ErrorKind::WouldBlock {
                OpenError::Locked { root: self.root().to_owned() }
            } else {
                unusable(path)(e)
            }
        })
    }

    fn check_format(&self) -> Result<(), OpenError> {
        let path = self.layout.top(FORMAT);
        let mut bytes = [0; MAX_FORMAT_BYTES];
        let len = self
            .disk
            .open(&path, OpenMode::Read)
            .and_then(|file| read_full(file.as_ref(), 0, &mut bytes))
            .map_err(unusable(path.clone()))?;
        let version = std::str::from_utf8(&bytes[..len])
            .ok()
            .and_then(|text| text.strip_prefix(FORMAT_PREFIX))
            .and_then(|text| text.trim_end().parse::<u32>().ok());
        match version {
            None | Some(0) => Err(OpenError::BadFormat { path }),
            Some(found) if found > FORMAT_VERSION => {
                let root = self.root().to_owned();
                Err(OpenError::NewerFormat { root, found, known: FORMAT_VERSION })
            }
            Some(_) => Ok(()),
        }
    }

    /// The database makes a new index of a missing or empty file: here that would be a loss.
    fn check_index(&self, entries: &[Entry]) -> Result<(), OpenError> {
        let path = self.layout.top(INDEX);
        match entries.iter().find(|entry| entry.name == INDEX) {
            None => Err(OpenError::IndexMissing { path }),
            Some(entry) if entry.len == 0 => {
                Err(OpenError::IndexDamaged { path, reason: "it is empty".into() })
            }
            Some(_) => Ok(()),
        }
    }

    fn discard_unfinished_index(&self) -> Result<(), OpenError> {
        let path = self.layout.top(INDEX);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(unusable(path)(e)),
            _ => Ok(()),
        }
    }

    fn create_dirs(&self) -> Result<(), OpenError> {
        let top = [BLOBS, UPLOADS, FETCH, PARTIAL, QUARANTINE].map(|name| self.layout.top(name));
        let algorithms = ALGORITHMS.map(|algorithm| self.layout.algorithm_dir(algorithm));
        for dir in top.iter().chain(&algorithms) {
            self.disk.create_dir(dir).map_err(unusable(dir))?;
        }
        let blobs = self.layout.top(BLOBS);
        for dir in [self.root(), &blobs] {
            self.disk.sync_dir(dir).map_err(unusable(dir))?;
        }
        Ok(())
    }

    fn open_index(&self) -> Result<Index, OpenError> {
        let path = self.layout.top(INDEX);
        Index::open(Arc::clone(&self.disk), path.clone()).map_err(|error| match error {
            IndexOpenError::Io(error) => unusable(path)(error),
            IndexOpenError::Damaged(reason) => OpenError::IndexDamaged { path, reason },
        })
    }

    /// Makes the directory a store.
    fn write_format(&self) -> Result<(), OpenError> {
        let (new, path) = (self.layout.top(FORMAT_NEW), self.layout.top(FORMAT));
        let text = format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n");
        let write = || {
            // The name of the index must be durable before the store is one.
            self.disk.sync_dir(self.root())?;
            let file = self.disk.open(&new, OpenMode::Write)?;
            file.set_len(0)?;
            file.write_at(0, text.as_bytes())?;
            file.sync()?;
            self.disk.rename(&new, &path)?;
            self.disk.sync_dir(self.root())
        };
        write().map_err(unusable(path.clone()))
    }
}
