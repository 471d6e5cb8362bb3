//! Writes an OCI layout into a directory, a tar or standard output.
//!
//! Nothing stands under its final name before it is complete: until then it is `NAME.part`, and
//! dropping the writer removes that. Every blob is checked while it is written.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ddr_oci::digest::Hasher;
use ddr_oci::{Descriptor, Digest};
use tar::Header;

use super::{ArchiveError, CHUNK_BYTES, Closure, INDEX, LAYOUT, MARK, blob_path, docker, layout};

/// Blocks of a tar (POSIX, pax, "ustar Interchange Format").
const BLOCK: usize = 512;

/// Where an export goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A directory that is not there yet, or is empty.
    Directory(PathBuf),
    /// A tar; one that is there is replaced.
    Tar(PathBuf),
    /// A tar to standard output.
    Stdout,
}

impl FromStr for Target {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "-" => Ok(Self::Stdout),
            tar if tar.ends_with(".tar") => Ok(Self::Tar(tar.into())),
            gzip if gzip.ends_with(".gz") || gzip.ends_with(".tgz") => {
                Err("an export is not compressed; want NAME.tar, a directory, or - to pipe it on")
            }
            directory => Ok(Self::Directory(directory.into())),
        }
    }
}

/// An export under way.
pub struct Writer {
    sink: Sink,
    current: Option<Current>,
    part: Option<Part>,
}

enum Sink {
    Tar(Box<dyn Write + Send>),
    Directory(Option<File>),
}

/// The blob that is being written.
struct Current {
    digest: Digest,
    size: u64,
    left: u64,
    hasher: Hasher,
}

/// Something that is not complete. Dropping it removes it.
struct Part {
    path: PathBuf,
    target: PathBuf,
    done: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Begins an export.
    ///
    /// # Errors
    ///
    /// When the target is there, or another export writes to it, or the system says no.
    pub fn create(target: &Target) -> Result<Self, ArchiveError> {
        let (sink, part) = match target {
            Target::Stdout => (Sink::Tar(Box::new(io::stdout())), None),
            Target::Tar(path) => {
                let (part, file) = Part::begin(path, |part| File::create_new(part))?;
                (Sink::Tar(Box::new(BufWriter::with_capacity(CHUNK_BYTES, file))), Some(part))
            }
            Target::Directory(path) => {
                check_free(path)?;
                let (part, ()) = Part::begin(path, |part| fs::create_dir(part))?;
                (Sink::Directory(None), Some(part))
            }
        };
        Ok(Self { sink, current: None, part })
    }

    /// Writes what an image has beside its blobs: the mark, the index, manifests, and docker's list
    /// where it can express the image. `name` is what readers will call it; `tag` when it is one.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn head(
        &mut self,
        root: &Descriptor,
        closure: &Closure,
        name: &str,
    ) -> Result<(), ArchiveError> {
        self.file(MARK, LAYOUT.as_bytes())?;
        self.file(INDEX, &layout::index(root, name))?;
        let tag = Some(name).filter(|name| !name.contains('@'));
        if let Some(list) = docker::list(root, closure, tag) {
            self.file(docker::LIST, &list)?;
        }
        // One that is a layer of another as well comes with the blobs.
        let is_blob = |manifest: &Descriptor| closure.blobs.contains_key(&manifest.digest);
        for (manifest, bytes) in closure.manifests.iter().filter(|(m, _)| !is_blob(m)) {
            self.file(&blob_path(&manifest.digest), bytes)?;
        }
        Ok(())
    }

    /// Begins a blob; the one before must have ended.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn begin(&mut self, blob: &Descriptor) -> Result<(), ArchiveError> {
        debug_assert!(self.current.is_none(), "the blob before has ended");
        self.open(&blob_path(&blob.digest), blob.size)?;
        let hasher = Hasher::new(blob.digest.algorithm());
        let (digest, size) = (blob.digest, blob.size);
        self.current = Some(Current { digest, size, left: size, hasher });
        Ok(())
    }

    /// Writes the next bytes of a blob.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Size`] when there are more than said, or what the system says.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let len = bytes.len() as u64;
        let Some(left) = current.left.checked_sub(len) else {
            let is = current.size - current.left + len;
            return Err(ArchiveError::Size { digest: current.digest, said: current.size, is });
        };
        current.left = left;
        current.hasher.update(bytes);
        self.put(bytes)
    }

    /// Ends a blob and checks it.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Size`] and [`ArchiveError::Digest`]; the export must then be given up.
    pub fn end(&mut self) -> Result<(), ArchiveError> {
        let Some(Current { digest, size, left, hasher }) = self.current.take() else {
            return Ok(());
        };
        if left > 0 {
            return Err(ArchiveError::Size { digest, said: size, is: size - left });
        }
        match hasher.finish() {
            is if is == digest => self.close(size),
            is => Err(ArchiveError::Digest { digest, is: Box::new(is) }),
        }
    }

    /// Ends the export: all is on disk, under its name.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn finish(mut self) -> Result<(), ArchiveError> {
        if let Sink::Tar(out) = &mut self.sink {
            let end = out.write_all(&[0; 2 * BLOCK]).and_then(|()| out.flush());
            end.map_err(ArchiveError::file("writing the end of the tar"))?;
        }
        self.part.take().map_or(Ok(()), Part::finish)
    }

    fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.open(name, bytes.len() as u64)?;
        self.put(bytes)?;
        self.close(bytes.len() as u64)
    }

    fn open(&mut self, name: &str, size: u64) -> Result<(), ArchiveError> {
        match &mut self.sink {
            Sink::Tar(out) => header(name, size)
                .and_then(|header| out.write_all(header.as_bytes()))
                .map_err(ArchiveError::file(format!("writing {name}"))),
            Sink::Directory(open) => {
                let Some(part) = &self.part else { return Ok(()) };
                let file = create_below(&part.path, name).map_err(ArchiveError::file(name))?;
                *open = Some(file);
                Ok(())
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let written = match &mut self.sink {
            Sink::Tar(out) => out.write_all(bytes),
            Sink::Directory(Some(file)) => file.write_all(bytes),
            Sink::Directory(None) => Ok(()),
        };
        written.map_err(ArchiveError::file("writing the export"))
    }

    fn close(&mut self, size: u64) -> Result<(), ArchiveError> {
        let ended = match &mut self.sink {
            Sink::Tar(out) => {
                let over = usize::try_from(size % BLOCK as u64).unwrap_or_default();
                out.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK])
            }
            Sink::Directory(file) => file.take().map_or(Ok(()), |file| file.sync_all()),
        };
        ended.map_err(ArchiveError::file("writing the export"))
    }
}

impl Part {
    /// Makes `target` with `.part` at its end, which must not be there.
    fn begin<T>(
        target: &Path,
        make: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<(Self, T), ArchiveError> {
        let target = PathBuf::from_iter(target.components());
        let mut path = OsString::from(&target);
        path.push(".part");
        let path = PathBuf::from(path);
        match make(&path) {
            Ok(made) => Ok((Self { path, target, done: false }, made)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let shown = path.display();
                Err(ArchiveError::Format(format!(
                    "{shown} is there: another export runs, or one was killed; remove it then"
                )))
            }
            Err(error) => Err(ArchiveError::file(path.display().to_string())(error)),
        }
    }

    fn finish(mut self) -> Result<(), ArchiveError> {
        let renamed = File::open(&self.path)
            .and_then(|part| part.sync_all())
            .and_then(|()| fs::rename(&self.path, &self.target));
        renamed.map_err(ArchiveError::file(self.target.display().to_string()))?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let removed = match self.path.is_dir() {
            true => fs::remove_dir_all(&self.path),
            false => fs::remove_file(&self.path),
        };
        if let Err(error) = removed {
            eprintln!("ddr: {} could not be removed: {error}", self.path.display());
        }
    }
}

/// A directory that an export may take the place of.
fn check_free(path: &Path) -> Result<(), ArchiveError> {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().map_or(Ok(()), |_| {
            Err(ArchiveError::Format(format!("{} is there and not empty", path.display())))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ArchiveError::file(path.display().to_string())(error)),
    }
}

fn create_below(root: &Path, name: &str) -> io::Result<File> {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap_or(root))?;
    File::create_new(path)
}

/// The same for the same content: no owner and no time.
fn header(name: &str, size: u64) -> io::Result<Header> {
    let mut header = Header::new_gnu();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    Ok(header)
}
