//! The disk of the operating system.
//!
//! Decides one thing: large writes that nobody reads soon go past the page cache, where the file
//! system can do that (`O_DIRECT`). A cached write costs a copy and a page for every 4 KiB, and
//! pushes out what is being read; a direct one costs next to nothing and leaves nothing to flush.

use super::{Disk, DiskFile, Entry, EntryKind, OpenMode, Space};
use rustix::fs::OFlags;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Mode of new directories: the owner only, for the content may be private.
const DIRECTORY_MODE: u32 = 0o700;
/// Mode of new files.
const FILE_MODE: u32 = 0o600;

/// The real disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

/// What a direct write is aligned to in memory and in the file, bytes: a page, and the largest
/// block of usual disks.
const DIRECT_ALIGN_BYTES: u64 = 4096;
/// Smallest direct write, bytes. Each waits for the disk, so small ones are left to the cache.
const MIN_DIRECT_BYTES: u64 = 256 * 1024;

#[derive(Debug)]
struct RealFile {
    file: File,
    path: PathBuf,
    /// The same file for direct writes, opened at the first one; `None` where that does not work.
    direct: OnceLock<Option<File>>,
}

impl RealFile {
    fn direct(&self) -> Option<&File> {
        let open = || {
            let flags = OFlags::DIRECT | OFlags::NOFOLLOW;
            let flags = i32::try_from(flags.bits()).ok()?;
            let direct =
                OpenOptions::new().write(true).custom_flags(flags).open(&self.path).ok()?;
            // Names move; this must be the same file.
            let (one, other) = (self.file.metadata().ok()?, direct.metadata().ok()?);
            ((one.dev(), one.ino()) == (other.dev(), other.ino())).then_some(direct)
        };
        self.direct.get_or_init(open).as_ref()
    }
}

/// How many bytes at the start of a write may go directly.
fn direct_len(offset: u64, bytes: &[u8]) -> usize {
    let in_memory = bytes.as_ptr().align_offset(DIRECT_ALIGN_BYTES as usize) == 0;
    let len = bytes.len() as u64 / DIRECT_ALIGN_BYTES * DIRECT_ALIGN_BYTES;
    let direct = in_memory && offset.is_multiple_of(DIRECT_ALIGN_BYTES) && len >= MIN_DIRECT_BYTES;
    if direct { bytes.len() - bytes.len() % DIRECT_ALIGN_BYTES as usize } else { 0 }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write | OpenMode::Lock => {
                options.write(true).create(true).truncate(false);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true);
            }
        }
        let file = options.open(path)?;
        if mode == OpenMode::Lock {
            file.try_lock().map_err(|e| match e {
                TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
                TryLockError::Error(e) => e,
            })?;
        }
        Ok(Arc::new(RealFile { file, path: path.to_owned(), direct: OnceLock::new() }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for item in fs::read_dir(path)? {
            let item = item?;
            let kind = item.file_type()?;
            let (kind, len) = if kind.is_file() {
                (EntryKind::File, item.metadata()?.len())
            } else if kind.is_dir() {
                (EntryKind::Directory, 0)
            } else {
                (EntryKind::Other, 0)
            };
            let name = item.file_name().to_string_lossy().into_owned();
            entries.push(Entry { name, kind, len, path: item.path() });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            // A directory: Linux says the first, POSIX the second.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied
                ) && fs::symlink_metadata(path)?.is_dir() =>
            {
                fs::remove_dir(path)
            }
            other => other,
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let of = rustix::fs::statvfs(path)?;
        Ok(space(of.f_frsize, (of.f_blocks, of.f_bfree, of.f_bavail)))
    }
}

/// Blocks that are kept for root are neither used nor left.
const fn space(block_bytes: u64, (all, free, left): (u64, u64, u64)) -> Space {
    let total = all.saturating_sub(free).saturating_add(left);
    Space { total: total.saturating_mul(block_bytes), free: left.saturating_mul(block_bytes) }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(buffer, offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_past_cache(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        let len = direct_len(offset, bytes);
        if len > 0
            && let Some(direct) = self.direct()
        {
            match direct.write_all_at(&bytes[..len], offset) {
                Ok(()) => done = len,
                // The file system or the disk wants it otherwise.
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {}
                Err(e) => return Err(e),
            }
        }
        self.file.write_all_at(&bytes[done..], offset + done as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn as_file(&self) -> Option<&File> {
        Some(&self.file)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_for_root_count_for_nothing() {
        let found = space(4096, (1000, 300, 250));
        assert_eq!(found, Space { total: 950 * 4096, free: 250 * 4096 });
    }

    #[test]
    fn what_goes_past_the_cache_is_read_back_whatever_its_place_and_size() {
        let dir = tempfile::tempdir().unwrap();
        let page = usize::try_from(DIRECT_ALIGN_BYTES).unwrap();
        let mut memory = vec![0; (2 << 20) + page];
        for (n, byte) in memory.iter_mut().enumerate() {
            *byte = u8::try_from(n * 31 % 253).unwrap();
        }
        let aligned = memory.as_ptr().align_offset(page);
        for (shift, len) in [(0, 1 << 20), (0, (1 << 20) + 5), (1, 1 << 20), (0, 100), (7, 300_000)]
        {
            for begin in [0, 1, 4096] {
                let path = dir.path().join(format!("{shift}-{len}-{begin}"));
                let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
                let bytes = &memory[aligned + shift..aligned + shift + len];
                file.write_at(0, &memory[..begin]).unwrap();
                file.write_past_cache(begin as u64, bytes).unwrap();
                file.write_past_cache((begin + len) as u64, bytes).unwrap();
                let mut back = vec![0; begin + 2 * len + 1];
                let read = super::super::read_full(file.as_ref(), 0, &mut back).unwrap();
                assert_eq!(read, begin + 2 * len);
                assert_eq!(&back[begin..begin + len], bytes);
                assert_eq!(&back[begin + len..read], bytes);
                file.sync().unwrap();
            }
        }
    }

    #[test]
    fn only_whole_blocks_of_large_aligned_writes_go_directly() {
        let page = usize::try_from(DIRECT_ALIGN_BYTES).unwrap();
        let memory = vec![0; (1 << 20) + page];
        let bytes = &memory[memory.as_ptr().align_offset(page)..][..1 << 20];
        assert_eq!(direct_len(0, bytes), 1 << 20);
        assert_eq!(direct_len(8192, &bytes[..300_000]), 300_000 / page * page);
        assert_eq!(direct_len(8192, &bytes[..200_000]), 0, "small");
        assert_eq!(direct_len(100, bytes), 0, "place");
        assert_eq!(direct_len(0, &bytes[8..]), 0, "memory");
    }
}
