//! What an HTTP/2 client has still to take.
//!
//! A stream without a window is written to by nobody, so no write of the connection can tell that
//! it stalls. Each piece of a response is noted here from its making until its last byte is on
//! the wire. Decides nothing: the connection asks for the oldest one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;

/// The pieces of one connection that the client has not taken. Bounded by the streams of the
/// connection and the pieces of a reader.
#[derive(Clone, Debug, Default)]
pub(crate) struct Untaken(Arc<Mutex<Pieces>>);

#[derive(Debug, Default)]
struct Pieces {
    next: u64,
    made: BTreeMap<u64, Instant>,
}

impl Untaken {
    /// The same bytes, noted until the last of them is dropped.
    pub(crate) fn note(&self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() {
            return bytes;
        }
        let mut pieces = self.pieces();
        let number = pieces.next;
        pieces.next += 1;
        pieces.made.insert(number, Instant::now());
        Bytes::from_owner(Noted { bytes, number, untaken: self.clone() })
    }

    /// When the oldest piece was made.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.pieces().made.first_key_value().map(|(_, made)| *made)
    }

    fn pieces(&self) -> MutexGuard<'_, Pieces> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Noted {
    bytes: Bytes,
    number: u64,
    untaken: Untaken,
}

impl AsRef<[u8]> for Noted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.untaken.pieces().made.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_noted_until_its_last_byte_is_gone() {
        let untaken = Untaken::default();
        assert!(untaken.note(Bytes::new()).is_empty());
        assert_eq!(untaken.oldest(), None);
        let mut first = untaken.note(Bytes::from_static(b"12"));
        let made = untaken.oldest().unwrap();
        let second = untaken.note(Bytes::from_static(b"3"));
        let head = first.split_to(1);
        drop(first);
        assert_eq!(untaken.oldest(), Some(made));
        drop(head);
        assert!(untaken.oldest().unwrap() >= made);
        drop(second);
        assert_eq!(untaken.oldest(), None);
    }
}
