//! How this crate's few files reach the disk: whole or not at all, keys for their owner only.
//!
//! It must never leave a half-written key behind a final name, and never read a secret that others
//! on the machine can read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// No key or certificate file is larger; a longer one is not ours.
pub(crate) const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Mode of files that hold a private key.
pub(crate) const PRIVATE: u32 = 0o600;
/// Mode of files that anyone may read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Why a file could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// Group or others have rights on a secret.
    Exposed,
    /// The operating system refused, or the file is longer than [`MAX_FILE_BYTES`].
    Io(io::Error),
}

/// Makes `dir` and its parents, for the owner only, if they are missing.
pub(crate) fn ensure_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Reads a public file. `None` if it does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    read_checked(path, false)
}

/// Reads a secret file, which must be closed to group and others. `None` if it does not exist.
pub(crate) fn read_private(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    read_checked(path, true)
}

fn read_checked(path: &Path, private: bool) -> Result<Option<Vec<u8>>, ReadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ReadError::Io(error)),
    };
    // The open file is asked, not the path: nothing can be swapped in between.
    let mode = file.metadata().map_err(ReadError::Io)?.mode();
    if private && mode & 0o077 != 0 {
        return Err(ReadError::Exposed);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(ReadError::Io(io::Error::new(io::ErrorKind::InvalidData, "file is too long")));
    }
    Ok(Some(bytes))
}

/// Writes `path` durably and in one step, replacing what was there.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = write_temporary(path, bytes, mode)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    sync_parent(path)
}

/// Writes `path` durably and in one step; fails with `AlreadyExists` if it is there.
pub(crate) fn create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let temporary = write_temporary(path, bytes, mode)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked?;
    sync_parent(path)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{:016x}.tmp", u64::from_le_bytes(random)));
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok(temporary)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_created_file_is_whole_private_and_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.key");
        create(&path, b"one", PRIVATE).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let second = create(&path, b"two", PRIVATE).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read_private(&path).unwrap().unwrap(), b"one");
        replace(&path, b"three", PRIVATE).unwrap();
        assert_eq!(read_private(&path).unwrap().unwrap(), b"three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn an_exposed_secret_and_an_endless_file_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, b"x").unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read_private(&path), Err(ReadError::Exposed)), "mode {mode:o}");
            assert!(read(&path).is_ok());
        }
        fs::write(&path, vec![0; MAX_FILE_BYTES as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(ReadError::Io(_))));
        assert!(read(&dir.path().join("absent")).unwrap().is_none());
    }
}
