//! Files by name, in a directory or in a tar.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::members::{self, Member};
use super::name::clean;
use super::{ArchiveError, MAX_LINKS, Section, spool};

/// Where the files are.
#[derive(Debug)]
pub(super) enum Files {
    /// Below a directory, whose path has no links.
    Directory(PathBuf),
    /// In a tar.
    Tar { file: Arc<File>, members: BTreeMap<String, Member> },
}

impl Files {
    /// Opens a directory or a tar; `-` is standard input.
    pub(super) fn open(path: &Path) -> Result<Self, ArchiveError> {
        let shown = path.display().to_string();
        if path != Path::new("-") && path.is_dir() {
            let root = fs::canonicalize(path).map_err(ArchiveError::file(shown))?;
            return Ok(Self::Directory(root));
        }
        let input = if path == Path::new("-") {
            io::stdin().as_fd().try_clone_to_owned().map(File::from)
        } else {
            File::open(path)
        };
        let file = spool::seekable(input.map_err(ArchiveError::file(shown))?)?;
        let members = members::index(&file)?;
        Ok(Self::Tar { file: Arc::new(file), members })
    }

    /// The file of that name.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Path`] when the name, or a link of that name, leads out of the archive.
    pub(super) fn find(&self, name: &str) -> Result<Option<Section>, ArchiveError> {
        let name = clean(name)?;
        match self {
            Self::Directory(root) => in_directory(root, &name),
            Self::Tar { file, members } => {
                let place = in_tar(members, name)?;
                Ok(place.map(|(offset, size)| Section::new(Arc::clone(file), offset, size)))
            }
        }
    }
}

fn in_directory(root: &Path, name: &str) -> Result<Option<Section>, ArchiveError> {
    let path = match fs::canonicalize(root.join(name)) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ArchiveError::file(name)(error)),
    };
    if !path.starts_with(root) {
        return Err(ArchiveError::Path(name.to_owned()));
    }
    // Asked before it is opened: to open a pipe would wait for a writer.
    if !fs::metadata(&path).map_err(ArchiveError::file(name))?.is_file() {
        return Err(ArchiveError::Format(format!("{name} is no file")));
    }
    let file = File::open(&path).map_err(ArchiveError::file(name))?;
    let size = file.metadata().map_err(ArchiveError::file(name))?.len();
    Ok(Some(Section::new(Arc::new(file), 0, size)))
}

/// Offset and size of a member, through its links.
fn in_tar(
    members: &BTreeMap<String, Member>,
    mut name: String,
) -> Result<Option<(u64, u64)>, ArchiveError> {
    for _ in 0..=MAX_LINKS {
        match members.get(&name) {
            None => return Ok(None),
            Some(Member::File { offset, size }) => return Ok(Some((*offset, *size))),
            Some(Member::Link(target)) => name.clone_from(target),
        }
    }
    let what = format!("the number of links behind {name}");
    Err(ArchiveError::TooLarge { what, limit: MAX_LINKS as u64 })
}
