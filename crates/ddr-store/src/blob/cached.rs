//! Reading what the system has in memory, and only that.
//!
//! Decides what counts as "in memory": the system says so (`RWF_NOWAIT`, preadv2(2), Linux 4.14).
//! A thread that serves many clients reads this way and never waits for a disk. What is not in
//! memory is brought there by [`BlobReader::warm`] on a thread that may wait.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;

use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::BlobReader;

/// Distance of the bytes that [`BlobReader::is_cached`] looks at. The system evicts and reads ahead
/// in larger runs than pages; a hole between two looks costs a short wait, never wrong bytes.
const PROBE_BYTES: u64 = 64 * 1024;
/// Bytes read at once by [`BlobReader::warm`].
const WARM_BYTES: usize = 128 * 1024;

impl BlobReader {
    /// The file, for system calls that read it in ways of their own. Whoever uses it reads within
    /// [`BlobReader::size`] and changes nothing. `None` where the disk is a double.
    pub fn file(&self) -> Option<&File> {
        self.file.as_file()
    }

    /// Reads at most `buffer.len()` bytes from `offset` without waiting for a disk; 0 means the
    /// end. `None`: it would have to wait, or this disk cannot tell.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let Some(file) = self.file.as_file() else { return Ok(None) };
        let mut parts = [IoSliceMut::new(buffer)];
        match preadv2(file, &mut parts, offset, ReadWriteFlags::NOWAIT) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::INTR | Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// True when `range` is in memory as far as a look every 64 KiB can tell.
    pub fn is_cached(&self, range: Range<u64>) -> bool {
        let mut at = range.start;
        while at < range.end {
            if !matches!(self.read_cached(at, &mut [0]), Ok(Some(1))) {
                return false;
            }
            at += PROBE_BYTES;
        }
        range.is_empty() || matches!(self.read_cached(range.end - 1, &mut [0]), Ok(Some(1)))
    }

    /// Brings `range` into memory. Waits for the disk.
    ///
    /// # Errors
    /// What the disk says; `UnexpectedEof` when the file is shorter than the range.
    pub fn warm(&self, range: Range<u64>) -> io::Result<()> {
        let mut scratch = vec![0; WARM_BYTES];
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at).unwrap_or(WARM_BYTES).min(WARM_BYTES);
            match self.read_at(at, &mut scratch[..len])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => at += count as u64,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, OpenMode, RealDisk};

    fn reader(bytes: &[u8]) -> (tempfile::TempDir, BlobReader) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("blob");
        std::fs::write(&path, bytes).unwrap();
        let file = RealDisk.open(&path, OpenMode::Read).unwrap();
        (dir, BlobReader { file, size: bytes.len() as u64 })
    }

    #[test]
    fn what_was_warmed_is_read_without_waiting() {
        let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 251) as u8).collect();
        let (_dir, reader) = reader(&bytes);
        reader.warm(0..reader.size()).unwrap();
        let mut buffer = vec![0; 300_000];
        // A file system that cannot tell says so, always.
        if let Some(count) = reader.read_cached(123_456, &mut buffer).unwrap() {
            assert_eq!(buffer[..count], bytes[123_456..123_456 + count]);
            assert!(reader.is_cached(0..reader.size()));
        } else {
            assert!(!reader.is_cached(0..reader.size()));
        }
    }

    #[test]
    fn past_the_end_nothing_is_cached_and_nothing_can_be_warmed() {
        let (_dir, mut reader) = reader(b"12345");
        reader.size = 10;
        assert!(!reader.is_cached(0..10));
        assert_eq!(reader.warm(0..10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(reader.is_cached(5..5));
    }

    #[test]
    fn a_disk_that_is_a_double_has_no_file() {
        #[derive(Debug)]
        struct Double;
        impl crate::disk::DiskFile for Double {
            fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
                Ok(0)
            }
            fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
                Ok(())
            }
            fn set_len(&self, _: u64) -> io::Result<()> {
                Ok(())
            }
            fn len(&self) -> io::Result<u64> {
                Ok(0)
            }
            fn sync(&self) -> io::Result<()> {
                Ok(())
            }
        }
        let reader = BlobReader { file: Arc::new(Double), size: 0 };
        assert!(reader.file().is_none());
        assert!(reader.read_cached(0, &mut [0]).unwrap().is_none());
    }
}
