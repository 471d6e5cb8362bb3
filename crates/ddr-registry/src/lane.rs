//! Content that leaves without passing through the memory of this process.
//!
//! hyper writes what a body gives it, and it gives bytes. For a part of a file the body gives a
//! [`Piece`] of stand-in bytes instead, and tells the connection by its [`Lane`] which file they
//! stand for; the connection meets them in a vectored write, knows them by their address and lets
//! the kernel send the file in their place (sendfile(2)). Only plain HTTP/1.1 has a lane.
//!
//! It must never let a stand-in byte leave. hyper takes bytes off a piece only after the
//! connection has said that it sent as many; if they go any other way (a copy into another
//! buffer), the lane is broken before the copy can be written, and so is the connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, Bytes};
use ddr_node::BlobReader;

use crate::metrics;

/// Stand-in bytes that one slice shows; a longer piece shows them again and again.
const STAND_IN_BYTES: usize = 1024 * 1024;
/// Never read and never written, so it takes no memory.
static STAND_IN: [u8; STAND_IN_BYTES] = [0; STAND_IN_BYTES];

/// A part of a file that is still to be sent.
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    pub(crate) reader: BlobReader,
    pub(crate) left: Range<u64>,
}

/// The files of one connection, in the order in which they are sent. At most one for each response
/// that hyper has taken and not written, which HTTP/1.1 holds to two.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lane(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: VecDeque<FilePart>,
    /// Bytes that were sent and not yet taken off their piece.
    owed: usize,
    broken: bool,
}

impl Lane {
    /// The piece that stands for `part`; `held` is kept until it is sent or given up.
    pub(crate) fn piece(&self, part: FilePart, held: Box<dyn Send + Sync>) -> Piece {
        let left = usize::try_from(part.left.end - part.left.start).unwrap_or(usize::MAX);
        self.state().files.push_back(part);
        Piece::File(FilePiece { left, lane: self.clone(), _held: held })
    }

    /// The next file to send.
    pub(crate) fn next_file(&self) -> Option<FilePart> {
        self.state().files.pop_front()
    }

    /// The connection has sent `count` bytes of a file.
    pub(crate) fn sent(&self, count: usize) {
        self.state().owed += count;
    }

    /// True when stand-in bytes went where they must not go: nothing more may be written.
    pub(crate) fn is_broken(&self) -> bool {
        self.state().broken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when the slice is made of stand-in bytes.
pub(crate) fn is_stand_in(slice: &IoSlice<'_>) -> bool {
    !slice.is_empty() && STAND_IN.as_ptr_range().contains(&slice.as_ptr())
}

/// What a response body is made of.
pub(crate) enum Piece {
    Bytes(Bytes),
    File(FilePiece),
}

/// Stand-in bytes for a part of a file.
pub(crate) struct FilePiece {
    left: usize,
    lane: Lane,
    _held: Box<dyn Send + Sync>,
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.remaining(),
            Self::File(file) => file.left,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.chunk(),
            Self::File(file) => &STAND_IN[..file.left.min(STAND_IN_BYTES)],
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::File(file) => file.take(count),
        }
    }
}

impl FilePiece {
    fn take(&mut self, count: usize) {
        assert!(count <= self.left, "more bytes were written than there are");
        self.left -= count;
        metrics::sent(count);
        let mut state = self.lane.state();
        match state.owed.checked_sub(count) {
            Some(owed) => state.owed = owed,
            None => state.broken = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_are_no_stand_ins() {
        let zeros = vec![0; 100];
        assert!(!is_stand_in(&IoSlice::new(&zeros)));
        assert!(!is_stand_in(&IoSlice::new(&[])));
        assert!(is_stand_in(&IoSlice::new(&STAND_IN[5..])));
    }
}
