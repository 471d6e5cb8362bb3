//! The running hash of staged content, which may be fed beside the writes.
//!
//! Decides nothing about the content: it hashes bytes in order, each once, and says how far it
//! is. Whoever needs the result brings it to the length of the file first, by reading what it has
//! not seen. After a write that failed the hash may have seen bytes that are not in the file, so
//! the one that goes on is another ([`Hashing::anew`]): it costs reads, never a wrong digest.

use crate::disk::DiskFile;
use crate::staged::read_range;
use crate::store::lock;
use ddr_oci::digest::{Algorithm, Digest};
use ddr_oci::piece_chain::{ChainHasher, PieceChain};
use std::io;
use std::sync::{Arc, Mutex};

/// Hashes the bytes of an upload or a fetch on another thread than the one that writes them.
#[derive(Debug, Clone)]
pub struct Hashing(Arc<Mutex<ChainHasher>>);

/// Brings a hash to the first `len` bytes of the file.
fn catch_up(hasher: &mut ChainHasher, file: &dyn DiskFile, len: u64) -> io::Result<()> {
    if hasher.len() > len {
        *hasher = ChainHasher::new(hasher.algorithm());
    }
    read_range(file, hasher.len()..len, |bytes| hasher.update(bytes))?;
    if hasher.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

impl Hashing {
    pub(crate) fn new() -> Self {
        Self::of(Algorithm::Sha256)
    }

    fn of(algorithm: Algorithm) -> Self {
        Self(Arc::new(Mutex::new(ChainHasher::new(algorithm))))
    }

    /// Takes the bytes that stand at `at`. Bytes out of order are not taken: they are read from
    /// the file when the hash is needed.
    pub fn update(&self, at: u64, bytes: &[u8]) {
        let mut running = lock(&self.0);
        if running.len() == at {
            running.update(bytes);
        }
    }

    /// Hashes with this algorithm from now on, if no byte was taken yet.
    pub(crate) fn expect(&self, algorithm: Algorithm) {
        let mut running = lock(&self.0);
        if running.is_empty() && running.algorithm() != algorithm {
            *running = ChainHasher::new(algorithm);
        }
    }

    /// Another running hash of the same algorithm that has seen nothing. Who still feeds this one
    /// has no part in it.
    pub(crate) fn anew(&self) -> Self {
        Self::of(lock(&self.0).algorithm())
    }

    /// The digest of the first `len` bytes of the file.
    pub(crate) fn digest(
        &self,
        algorithm: Algorithm,
        file: &dyn DiskFile,
        len: u64,
    ) -> io::Result<Digest> {
        let mut running = lock(&self.0);
        if running.algorithm() != algorithm {
            *running = ChainHasher::new(algorithm);
        }
        catch_up(&mut running, file, len)?;
        Ok(running.digest())
    }

    /// The piece chain of all that was hashed: of the content, once [`Hashing::digest`] was asked.
    pub(crate) fn chain(&self) -> PieceChain {
        lock(&self.0).clone().finish().1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Disk, FaultyDisk, OpenMode};
    use std::path::Path;

    fn file(bytes: &[u8]) -> Arc<dyn DiskFile> {
        let file = FaultyDisk::new().open(Path::new("/file"), OpenMode::Write).unwrap();
        file.write_at(0, bytes).unwrap();
        file
    }

    #[test]
    fn what_it_saw_twice_too_early_or_never_changes_no_digest() {
        let bytes = (0..300_000_u32).map(|n| (n * 7 % 251) as u8).collect::<Vec<_>>();
        let file = file(&bytes);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for expected in [Algorithm::Sha256, Algorithm::Sha512] {
                let hashing = Hashing::new();
                hashing.expect(expected);
                hashing.update(0, &bytes[..70_000]);
                hashing.update(0, &bytes[..70_000]);
                hashing.update(100_000, &bytes[100_000..]);
                for len in [50_000, 70_000, 300_000, 60_000] {
                    let digest = hashing.digest(algorithm, file.as_ref(), len as u64).unwrap();
                    assert_eq!(digest, Digest::of(algorithm, &bytes[..len]), "{len} bytes");
                }
            }
        }
    }

    #[test]
    fn bytes_of_a_write_that_failed_are_not_in_the_digest() {
        let file = file(b"stored");
        let hashing = Hashing::new();
        hashing.update(0, b"stored");
        hashing.update(6, b" and not stored");
        let digest = hashing.digest(Algorithm::Sha256, file.as_ref(), 6).unwrap();
        assert_eq!(digest, Digest::sha256(b"stored"));
        assert_eq!(hashing.chain().size(), 6);
        let short = hashing.digest(Algorithm::Sha256, file.as_ref(), 7).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
