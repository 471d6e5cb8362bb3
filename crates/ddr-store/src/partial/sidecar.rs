//! The sidecar of a partial blob: what a later process needs to go on with it.
//!
//! Decides its bytes, version 1. One sector of 512 bytes that is written again and again: the
//! SHA-256 of the rest of the sector, the last use (unix milliseconds, 64-bit big-endian), a bit
//! for each piece that may be here. Behind it what does not change: `DDRP`, version, digest,
//! piece chain, and the SHA-256 of these. Nothing of it is synced, because nothing of it is
//! believed: a piece that it names is hashed again before it counts. So a torn sector costs a
//! look at every piece, and a torn rest costs the partial blob.
//!
//! Must never lead a reader to bytes that were not verified.

use super::pieces::PieceSet;
use crate::disk::{Disk, DiskFile, OpenMode, read_full};
use ddr_oci::digest::{Algorithm, Digest};
use ddr_oci::piece_chain::{MAX_CHAIN_BYTES, MAX_PIECES, PieceChain};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// What disks write whole, bytes.
const SECTOR_BYTES: usize = 512;
const CHECK_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
const MAP_BYTES: usize = MAX_PIECES / 8;
const MAGIC: [u8; 4] = *b"DDRP";
const VERSION: u8 = 1;
const MAX_DIGEST_BYTES: usize = 1 + 64;
/// Longest sidecar, bytes.
const MAX_BYTES: usize =
    SECTOR_BYTES + MAGIC.len() + 1 + MAX_DIGEST_BYTES + MAX_CHAIN_BYTES + CHECK_BYTES;

const _: () = assert!(CHECK_BYTES + TIME_BYTES + MAP_BYTES <= SECTOR_BYTES);

/// What a sidecar says. None of it is proven.
#[derive(Debug)]
pub(super) struct Sidecar {
    pub(super) digest: Digest,
    pub(super) chain: PieceChain,
    /// Pieces that may be here.
    pub(super) held: PieceSet,
    /// Last use, unix milliseconds; `None` if the sector was torn.
    pub(super) used_ms: Option<u64>,
}

/// A sidecar on the disk, whose sector can be written again.
#[derive(Debug)]
pub(super) struct Kept(Arc<dyn DiskFile>);

impl Kept {
    /// Writes a new sidecar, which takes the place of an old one in one step.
    pub(super) fn create(
        disk: &dyn Disk,
        (new, path): (&Path, &Path),
        sidecar: &Sidecar,
    ) -> io::Result<Self> {
        let file = disk.open(new, OpenMode::Write)?;
        file.set_len(0)?;
        file.write_at(0, &sidecar.to_bytes())?;
        disk.rename(new, path)?;
        Ok(Self(file))
    }

    /// Opens the sidecar of an earlier process.
    pub(super) fn open(disk: &dyn Disk, path: &Path) -> io::Result<(Self, Option<Sidecar>)> {
        let sidecar = read(disk, path)?;
        Ok((Self(disk.open(path, OpenMode::Write)?), sidecar))
    }

    /// Writes the sector again.
    pub(super) fn update(&self, held: &PieceSet, used_ms: u64) -> io::Result<()> {
        self.0.write_at(0, &sector(held, used_ms))
    }
}

/// What the sidecar at this path says; `None` if it is damaged.
pub(super) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Sidecar>> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut bytes = vec![0; MAX_BYTES + 1];
    let len = read_full(file.as_ref(), 0, &mut bytes)?;
    Ok(Sidecar::from_bytes(&bytes[..len]))
}

fn sector(held: &PieceSet, used_ms: u64) -> [u8; SECTOR_BYTES] {
    let mut sector = [0; SECTOR_BYTES];
    let (check, rest) = sector.split_at_mut(CHECK_BYTES);
    let (time, map) = rest.split_at_mut(TIME_BYTES);
    time.copy_from_slice(&used_ms.to_be_bytes());
    for (bytes, word) in map.as_chunks_mut().0.iter_mut().zip(held.words()) {
        *bytes = word.to_le_bytes();
    }
    check.copy_from_slice(Digest::sha256(rest).as_bytes());
    sector
}

/// What the sector says of a blob of so many pieces; `None` if it is torn.
fn parse_sector(sector: &[u8; SECTOR_BYTES], pieces: usize) -> Option<(PieceSet, u64)> {
    let (check, rest) = sector.split_first_chunk::<CHECK_BYTES>()?;
    if Digest::sha256(rest).as_bytes() != check {
        return None;
    }
    let (time, map) = rest.split_first_chunk::<TIME_BYTES>()?;
    let mut held = PieceSet::new(pieces);
    let has = |index: &usize| map[index / 8] >> (index % 8) & 1 == 1;
    (0..pieces).filter(has).for_each(|index| held.insert(index));
    Some((held, u64::from_be_bytes(*time)))
}

impl Sidecar {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = sector(&self.held, self.used_ms.unwrap_or_default()).to_vec();
        bytes.extend_from_slice(&MAGIC);
        bytes.push(VERSION);
        bytes.push(match self.digest.algorithm() {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        });
        bytes.extend_from_slice(self.digest.as_bytes());
        bytes.extend_from_slice(&self.chain.to_bytes());
        let check = Digest::sha256(&bytes[SECTOR_BYTES..]);
        bytes.extend_from_slice(check.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sector, rest) = bytes.split_first_chunk::<SECTOR_BYTES>()?;
        let (rest, check) = rest.split_last_chunk::<CHECK_BYTES>()?;
        if Digest::sha256(rest).as_bytes() != check {
            return None;
        }
        let rest = rest.strip_prefix(&MAGIC)?.strip_prefix(&[VERSION])?;
        let (&algorithm, rest) = rest.split_first()?;
        let algorithm = match algorithm {
            1 => Algorithm::Sha256,
            2 => Algorithm::Sha512,
            _ => return None,
        };
        let (hash, chain) = rest.split_at_checked(algorithm.len_bytes())?;
        let digest = Digest::from_parts(algorithm, hash)?;
        let chain = PieceChain::from_bytes(chain).ok()?;
        if chain.algorithm() != algorithm {
            return None;
        }
        let (held, used_ms) = match parse_sector(sector, chain.pieces()) {
            Some((held, used_ms)) => (held, Some(used_ms)),
            None => (all(chain.pieces()), None),
        };
        Some(Self { digest, chain, held, used_ms })
    }
}

fn all(pieces: usize) -> PieceSet {
    let mut set = PieceSet::new(pieces);
    (0..pieces).for_each(|index| set.insert(index));
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use ddr_oci::piece_chain::ChainHasher;

    fn sidecar(algorithm: Algorithm) -> Sidecar {
        let mut hasher = ChainHasher::new(algorithm);
        hasher.update(&[3; 300_000]);
        let (digest, chain) = hasher.finish();
        let mut held = PieceSet::new(chain.pieces());
        [0, 3].into_iter().for_each(|index| held.insert(index));
        Sidecar { digest, chain, held, used_ms: Some(1 << 40) }
    }

    #[test]
    fn it_reads_what_it_writes() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let written = sidecar(algorithm);
            let read = Sidecar::from_bytes(&written.to_bytes()).unwrap();
            assert_eq!((read.digest, &read.chain), (written.digest, &written.chain));
            assert_eq!((read.held, read.used_ms), (written.held, written.used_ms));
        }
    }

    #[test]
    fn a_torn_sector_claims_every_piece_and_any_other_damage_refuses_it() {
        let good = sidecar(Algorithm::Sha256).to_bytes();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            match Sidecar::from_bytes(&bytes) {
                Some(read) => {
                    assert!(at < SECTOR_BYTES, "a flip at {at} was not seen");
                    assert!(read.held.is_full() && read.used_ms.is_none(), "flip at {at}");
                }
                None => assert!(at >= SECTOR_BYTES, "a flip at {at} costs the whole"),
            }
            assert!(Sidecar::from_bytes(&good[..at]).is_none(), "cut at {at}");
        }
        assert!(Sidecar::from_bytes(&[good.as_slice(), &[0]].concat()).is_none());
    }
}
