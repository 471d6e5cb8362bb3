//! Frames of gRPC: one byte of flags, four bytes of length, the message.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message".

use bytes::{Buf as _, Bytes, BytesMut};

use super::{DecodeError, MAX_MESSAGE_BYTES};

/// Bytes before a message.
const HEAD_BYTES: usize = 5;

/// Puts messages together again from the pieces in which a body arrives. Holds one message of at most
/// [`MAX_MESSAGE_BYTES`] and the piece that ended it.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
}

impl Frames {
    /// Takes the next piece of the body. [`Frames::pop`] is called until it gives nothing before that.
    pub fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    /// [`DecodeError::Frame`] and [`DecodeError::TooLong`]; nothing can be read after that.
    pub fn pop(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some((&[flags, a, b, c, d], rest)) = self.buffer.split_first_chunk::<HEAD_BYTES>()
        else {
            return Ok(None);
        };
        if flags != 0 {
            return Err(DecodeError::Frame);
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d]))
            .ok()
            .filter(|length| *length <= MAX_MESSAGE_BYTES)
            .ok_or(DecodeError::TooLong)?;
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Whether the body may end here.
    ///
    /// # Errors
    /// [`DecodeError::Cut`] within a message.
    pub fn finish(&self) -> Result<(), DecodeError> {
        if self.buffer.is_empty() { Ok(()) } else { Err(DecodeError::Cut) }
    }

    /// A message in its frame.
    #[must_use]
    pub(crate) fn frame(message: &impl prost::Message) -> Bytes {
        let length = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + length);
        bytes.extend_from_slice(&[0]);
        // Questions are a few hundred bytes long.
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&message.encode_to_vec());
        bytes.freeze()
    }
}
