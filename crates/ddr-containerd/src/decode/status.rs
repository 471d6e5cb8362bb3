//! How an answer ended: `grpc-status` and `grpc-message`.
//!
//! Source: gRPC over HTTP/2, "Responses"; the codes of `google.rpc.Code`.

use http::HeaderMap;

use super::DecodeError;

/// Longest text of a status that is kept, in bytes before decoding.
pub const MAX_STATUS_BYTES: usize = 512;

/// An answer's end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// 0 is success.
    pub code: u32,
    /// What containerd says of it, without control characters.
    pub text: String,
}

/// The status in an answer's trailers, or in its headers where there is no body; `None`: there is none.
///
/// # Errors
/// [`DecodeError::Status`] if it is no number.
pub fn status(headers: &HeaderMap) -> Result<Option<Status>, DecodeError> {
    let Some(value) = headers.get("grpc-status") else { return Ok(None) };
    let digits = value.to_str().map_err(|_| DecodeError::Status)?;
    let code = digits.parse().map_err(|_| DecodeError::Status)?;
    let text = headers.get("grpc-message").map_or_else(String::new, |value| text(value.as_bytes()));
    Ok(Some(Status { code, text }))
}

/// Undoes the percent encoding of `grpc-message`. What is no encoding stays as it is.
fn text(bytes: &[u8]) -> String {
    let mut rest = &bytes[..bytes.len().min(MAX_STATUS_BYTES)];
    let mut decoded = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = hex.and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte.filter(|_| *first == b'%') {
            Some(byte) => {
                decoded.push(byte);
                rest = &after[2..];
            }
            None => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).replace(char::is_control, " ")
}
