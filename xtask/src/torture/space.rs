//! What lies on the disk, by kind, and what of it was promised.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::model::Key;
use super::worker::Worker;

/// Bytes below a data directory.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Space {
    pub(super) blobs: u64,
    pub(super) uploads: u64,
    pub(super) upload_sessions: u64,
    pub(super) fetches: u64,
    pub(super) quarantine: u64,
    pub(super) index: u64,
}

impl Space {
    /// Adds up the files of a data directory that nobody writes to.
    pub(super) fn of(data: &Path) -> io::Result<Self> {
        let sum = |name: &str| -> io::Result<u64> {
            let mut bytes = 0;
            each_file(&data.join(name), &mut |_, len| bytes += len)?;
            Ok(bytes)
        };
        let sessions = match fs::read_dir(data.join("uploads")) {
            Ok(entries) => entries.count() as u64,
            Err(_) => 0,
        };
        Ok(Self {
            blobs: sum("blobs")?,
            uploads: sum("uploads")?,
            upload_sessions: sessions,
            fetches: sum("fetch")?,
            quarantine: sum("quarantine")?,
            index: fs::metadata(data.join("index.redb"))?.len(),
        })
    }
}

/// Bytes of the blobs that the workers were promised, each counted once.
pub(super) fn promised(workers: &[Worker]) -> u64 {
    let mut seen = BTreeSet::new();
    let mut bytes = 0;
    for worker in workers {
        for (key, digest) in worker.model.present() {
            if matches!(key, Key::Blob { .. }) && seen.insert(digest.to_owned()) {
                bytes += worker.contents.get(digest).map_or(0, |c| c.len as u64);
            }
        }
    }
    bytes
}

/// The file in which the store keeps a blob.
pub(super) fn blob_file(data: &Path, digest: &str) -> Option<PathBuf> {
    let (algorithm, hex) = digest.split_once(':')?;
    Some(data.join("blobs").join(algorithm).join(hex.get(..2)?).join(hex))
}

fn each_file(dir: &Path, found: &mut dyn FnMut(&Path, u64)) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let path = entry?.path();
        match fs::metadata(&path) {
            Ok(about) if about.is_dir() => each_file(&path, found)?,
            Ok(about) => found(&path, about.len()),
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
