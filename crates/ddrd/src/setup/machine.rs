//! The files of a machine, or of an image of one below a directory.
//!
//! Decides how a file is replaced: whole or not at all, with its mode and owner, and through a link in the last
//! place. It must never leave half a file, nor replace a link by a file.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::SetupError;

/// Links that are followed from one path.
const MAX_LINKS: usize = 16;
/// Bytes of a file that is read. No configuration is near it.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Mode of a file that was not there.
const FILE_MODE: u32 = 0o644;

/// A directory that stands for `/`.
#[derive(Clone, Debug)]
pub struct Machine {
    root: PathBuf,
}

impl Machine {
    /// The machine whose `/` is `root`.
    #[must_use]
    pub fn below(root: PathBuf) -> Self {
        Self { root }
    }

    /// True for this machine itself, where programs can be asked and told.
    #[must_use]
    pub fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path` lies.
    #[must_use]
    pub fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The file that `path` means in the end. Links that name an absolute path stay below the root.
    fn resolved(&self, path: &str) -> io::Result<PathBuf> {
        let mut place = self.place(path);
        for _ in 0..MAX_LINKS {
            match fs::read_link(&place) {
                Ok(target) if target.is_absolute() => {
                    place = self.place(&target.to_string_lossy());
                }
                Ok(target) => place = place.parent().unwrap_or(&self.root).join(target),
                Err(_) => return Ok(place),
            }
        }
        Err(io::Error::other("too many links"))
    }

    /// What a file says; nothing if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be read, is not UTF-8, or is longer than any configuration.
    pub fn read(&self, path: &str) -> Result<Option<String>, SetupError> {
        let place = self.place(path);
        let text = self.resolved(path).and_then(|file| {
            if fs::metadata(&file)?.len() > MAX_FILE_BYTES {
                return Err(io::Error::other("longer than any configuration"));
            }
            fs::read_to_string(file)
        });
        match text {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(SetupError::broken(&place.to_string_lossy(), None, "not UTF-8 text"))
            }
            Err(error) => Err(SetupError::io("read", place, error)),
        }
    }

    /// Permission bits of a file that is there.
    ///
    /// # Errors
    ///
    /// It cannot be looked at.
    pub fn mode(&self, path: &str) -> Result<Option<u32>, SetupError> {
        match self.resolved(path).and_then(fs::metadata) {
            Ok(found) => Ok(Some(found.permissions().mode() & 0o7777)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(SetupError::io("read", self.place(path), error)),
        }
    }

    /// Names in a directory and whether each is a directory, sorted; none if it is not there.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn list(&self, path: &str) -> Result<Vec<(String, bool)>, SetupError> {
        let failed = |error| SetupError::io("read", self.place(path), error);
        let entries = match fs::read_dir(self.place(path)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            names.push((entry.file_name().to_string_lossy().into_owned(), entry.path().is_dir()));
        }
        names.sort();
        Ok(names)
    }

    /// The directories above `path` that are not there, the outermost first.
    #[must_use]
    pub fn missing_above(&self, path: &str) -> Vec<String> {
        let above = Path::new(path).ancestors().skip(1);
        let mut missing: Vec<String> = above
            .map(|directory| directory.to_string_lossy().into_owned())
            .take_while(|directory| !self.place(directory).exists())
            .collect();
        missing.reverse();
        missing
    }

    /// Writes a file whole, with the directories above it. `mode` is for a file that is not there, or for one that
    /// is to get back the mode it had.
    ///
    /// # Errors
    ///
    /// It cannot be written; the old file is still there then.
    pub fn write(&self, path: &str, text: &str, mode: Option<u32>) -> Result<(), SetupError> {
        self.replace(path, text, mode)
            .map_err(|error| SetupError::io("write", self.place(path), error))
    }

    fn replace(&self, path: &str, text: &str, mode: Option<u32>) -> io::Result<()> {
        let place = self.resolved(path)?;
        let directory = place.parent().unwrap_or(&self.root);
        fs::create_dir_all(directory)?;
        let mut file = tempfile::Builder::new().prefix(".ddr-setup-").tempfile_in(directory)?;
        file.write_all(text.as_bytes())?;
        let before = fs::metadata(&place).ok();
        if let Some(before) = &before {
            // Another owner can be given by root only; who is not root owns what it may replace.
            let _ = chown(file.path(), Some(before.uid()), Some(before.gid()));
        }
        let kept = before.map(|before| before.mode() & 0o7777);
        let mode = mode.or(kept).unwrap_or(FILE_MODE);
        file.as_file().set_permissions(Permissions::from_mode(mode))?;
        file.as_file().sync_all()?;
        file.persist(&place)?;
        File::open(directory)?.sync_all()
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn remove(&self, path: &str) -> Result<(), SetupError> {
        match self.resolved(path).and_then(fs::remove_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SetupError::io("remove", self.place(path), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a directory if it is empty. One that is not stays, and that is no error.
    pub fn remove_empty(&self, path: &str) {
        let _ = fs::remove_dir(self.place(path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::below(dir.path().to_owned());
        (dir, machine)
    }

    #[test]
    fn a_link_in_the_last_place_is_followed_and_stays() {
        let (dir, machine) = machine();
        machine.write("/data/real", "old", Some(0o600)).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/data/real", dir.path().join("etc/a")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("etc/b")).unwrap();
        machine.write("/etc/b", "new", None).unwrap();
        assert_eq!(machine.read("/data/real").unwrap().unwrap(), "new");
        assert_eq!(machine.mode("/etc/b").unwrap(), Some(0o600));
        assert!(fs::symlink_metadata(dir.path().join("etc/b")).unwrap().is_symlink());
        let names = machine.list("/data").unwrap();
        assert_eq!(names, [("real".to_owned(), false)], "no temporary file is left");
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let (dir, machine) = machine();
        std::os::unix::fs::symlink("/a", dir.path().join("a")).unwrap();
        assert!(machine.read("/a").unwrap_err().to_string().contains("too many links"));
    }

    #[test]
    fn missing_directories_are_named_from_the_outside() {
        let (dir, machine) = machine();
        fs::create_dir(dir.path().join("etc")).unwrap();
        assert_eq!(machine.missing_above("/etc/a/b/c.conf"), ["/etc/a", "/etc/a/b"]);
        assert!(machine.missing_above("/etc/c.conf").is_empty());
    }

    #[test]
    fn what_is_not_text_is_refused() {
        let (dir, machine) = machine();
        fs::write(dir.path().join("a"), [0xff, 0xfe]).unwrap();
        assert!(machine.read("/a").unwrap_err().to_string().contains("not UTF-8"));
        assert_eq!(machine.read("/b").unwrap(), None);
    }
}
