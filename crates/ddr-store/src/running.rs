//! The running hash of staged content, which may be fed beside the writes.
//!
//! Decides nothing about the content: it hashes bytes in order, each once, and says how far it
//! is. Whoever needs the result brings it to the length of the file first, by reading what it has
//! not seen. After a write that failed the hash may have seen bytes that are not in the file, so
//! the one that goes on is another ([`Hashing::anew`]): it costs reads, never a wrong digest.

use crate::disk::DiskFile;
use crate::staged::read_range;
use crate::store::lock;
use ddr_oci::digest::{Algorithm, Digest, Hasher};
use ddr_oci::piece_chain::{ChainHasher, PieceChain};
use std::io;
use std::sync::{Arc, Mutex};

/// Hashes the bytes of an upload or a fetch on another thread than the one that writes them.
#[derive(Debug, Clone)]
pub struct Hashing(Arc<Mutex<Running>>);

#[derive(Debug)]
enum Running {
    /// With the piece chain.
    Sha256(ChainHasher),
    /// With the bytes seen.
    Sha512(Hasher, u64),
}

impl Running {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(ChainHasher::new()),
            Algorithm::Sha512 => Self::Sha512(Hasher::new(algorithm), 0),
        }
    }

    fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(..) => Algorithm::Sha512,
        }
    }

    fn len(&self) -> u64 {
        match self {
            Self::Sha256(hasher) => hasher.len(),
            Self::Sha512(_, len) => *len,
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher, len) => {
                hasher.update(bytes);
                *len += bytes.len() as u64;
            }
        }
    }

    /// Brings the hash to the first `len` bytes of the file.
    fn catch_up(&mut self, file: &dyn DiskFile, len: u64) -> io::Result<()> {
        if self.len() > len {
            *self = Self::new(self.algorithm());
        }
        let seen = self.len();
        read_range(file, seen..len, |bytes| self.update(bytes))?;
        if self.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

impl Hashing {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Running::new(Algorithm::Sha256))))
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
        if running.len() == 0 && running.algorithm() != algorithm {
            *running = Running::new(algorithm);
        }
    }

    /// Another running hash of the same algorithm that has seen nothing. Who still feeds this one
    /// has no part in it.
    pub(crate) fn anew(&self) -> Self {
        Self(Arc::new(Mutex::new(Running::new(lock(&self.0).algorithm()))))
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
            *running = Running::new(algorithm);
        }
        running.catch_up(file, len)?;
        Ok(match &*running {
            Running::Sha256(hasher) => hasher.digest(),
            Running::Sha512(hasher, _) => hasher.clone().finish(),
        })
    }

    /// The piece chain, once [`Hashing::digest`] has been asked for SHA-256.
    pub(crate) fn chain(&self) -> Option<PieceChain> {
        match &*lock(&self.0) {
            Running::Sha256(hasher) => Some(hasher.clone().finish().1),
            Running::Sha512(..) => None,
        }
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
        assert_eq!(hashing.chain().unwrap().size(), 6);
        let short = hashing.digest(Algorithm::Sha256, file.as_ref(), 7).unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
