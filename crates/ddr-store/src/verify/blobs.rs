//! Blobs against their digests, and their chain files against the blobs.
//!
//! Decides that a blob is damaged only after it was read a second time, whole and under the lock
//! of its digest: the file may have been replaced, deleted, or merely failed to be read.

use super::{Verify, VerifyPhase, VerifyStep};
use crate::blob::{BlobReader, Place};
use crate::index::Index;
use crate::store::Inner;
use ddr_oci::digest::Digest;
use ddr_oci::piece_chain::{ChainHasher, PieceChain};
use std::io;

/// Bytes read in one step.
const STEP_BYTES: usize = 1024 * 1024;

/// A blob that is being read.
#[derive(Debug)]
pub(super) struct Reading {
    digest: Digest,
    reader: BlobReader,
    offset: u64,
    hasher: Box<ChainHasher>,
}

impl Verify {
    /// Goes on with the blob at hand, or with the next.
    pub(super) fn blobs(&mut self) -> io::Result<VerifyStep> {
        if let Some(reading) = self.reading.take() {
            return self.read_on(reading);
        }
        let next = self.store.inner.index.blobs_after(self.cursor.as_ref(), 1)?;
        let Some(digest) = next.first().copied() else {
            self.enter(VerifyPhase::Manifests);
            return Ok(VerifyStep::default());
        };
        let place = match self.store.inner.place_of(&digest) {
            Ok(place) => place,
            Err(error) => {
                self.unreadable(&digest, error)?;
                self.passed(&digest);
                return Ok(VerifyStep::default());
            }
        };
        match place {
            // Deleted between the two looks.
            Place::Absent => self.cursor = Some(Index::cursor_after(&digest)),
            Place::Damaged => {
                self.put_aside(&digest)?;
                self.passed(&digest);
            }
            Place::Whole(_) if self.options.fast => {
                self.store.inner.check_chain_file(&digest, &mut self.report.chains_repaired)?;
                self.passed(&digest);
            }
            Place::Whole(reader) => {
                let hasher = Box::new(ChainHasher::new(digest.algorithm()));
                self.reading = Some(Reading { digest, reader, offset: 0, hasher });
            }
        }
        Ok(VerifyStep::default())
    }

    fn put_aside(&mut self, digest: &Digest) -> io::Result<()> {
        match self.store.inner.put_aside_if_rotten(digest) {
            Ok(true) => self.corrupt(digest),
            Ok(false) => {}
            Err(error) => self.unreadable(digest, error)?,
        }
        Ok(())
    }

    fn passed(&mut self, digest: &Digest) {
        self.report.blobs += 1;
        self.cursor = Some(Index::cursor_after(digest));
    }

    fn read_on(&mut self, mut reading: Reading) -> io::Result<VerifyStep> {
        let mut buffer = vec![0; STEP_BYTES];
        let read = reading.reader.read_at(reading.offset, &mut buffer);
        if let Ok(n) = read
            && n > 0
        {
            reading.hasher.update(&buffer[..n]);
            reading.offset += n as u64;
            self.report.bytes += n as u64;
            self.reading = Some(reading);
            return Ok(VerifyStep { done: false, bytes: n as u64 });
        }
        let digest = reading.digest;
        let (found, chain) = reading.hasher.finish();
        let inner = &self.store.inner;
        if read.is_ok() && found == digest {
            let repaired = inner.check_chain(&digest, &chain)?;
            self.report.chains_repaired += u64::from(repaired);
            self.passed(&digest);
            return Ok(VerifyStep::default());
        }
        let size = reading.reader.size();
        self.put_aside(&digest)?;
        self.passed(&digest);
        Ok(VerifyStep { done: false, bytes: size })
    }
}

impl Inner {
    /// Reads a blob again, alone; whether it was damaged, and is in quarantine now.
    pub(crate) fn put_aside_if_rotten(&self, digest: &Digest) -> io::Result<bool> {
        let _held = self.hold(digest);
        match self.place_of(digest)? {
            Place::Absent => Ok(false),
            Place::Whole(reader) if reader.is_sound(digest) => Ok(false),
            Place::Whole(_) | Place::Damaged => {
                self.put_aside_blob(digest, "its bytes do not have its digest")?;
                Ok(true)
            }
        }
    }

    /// Whether the chain file of a blob had to be written again.
    fn check_chain(&self, digest: &Digest, chain: &PieceChain) -> io::Result<bool> {
        if chain.pieces() <= 1 {
            return Ok(false);
        }
        let _held = self.hold(digest);
        let Some(reader) = self.look(digest)? else { return Ok(false) };
        if self.read_chain(digest, reader.size())?.as_ref() == Some(chain) {
            return Ok(false);
        }
        self.keep_chain(digest, chain)?;
        Ok(true)
    }

    /// The same where the blob is not read: a damaged file goes, and is made again when needed.
    fn check_chain_file(&self, digest: &Digest, repaired: &mut u64) -> io::Result<()> {
        let _held = self.hold(digest);
        let path = self.layout.chain(digest);
        if !self.is_file(&path)? {
            return Ok(());
        }
        if let Some(reader) = self.look(digest)?
            && self.read_chain(digest, reader.size())?.is_none()
        {
            *repaired += 1;
        }
        Ok(())
    }
}
