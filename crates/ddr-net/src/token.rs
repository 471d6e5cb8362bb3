//! Join tokens: one line of text that lets its holder become a member until it expires.
//!
//! ```text
//! "ddr1." base64url( postcard{ root, authority, key, addresses, expires_ms } checksum )
//! ```
//!
//! `checksum` is the first four bytes of the SHA-256 of what stands before it: it tells a slip in
//! copying from an attack, and protects against nothing else. What a token may do is decided by the
//! certificate in it, never by `expires_ms`, which exists for a clear message.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ddr_oci::digest::Digest;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::certificate;
use crate::swarm::SwarmId;

/// What every token of this version begins with.
pub const PREFIX: &str = "ddr1.";
/// A longer text is not a token.
pub const MAX_TOKEN_CHARS: usize = 8 * 1024;
/// A token names at most so many addresses of members.
pub const MAX_TOKEN_ADDRESSES: usize = 8;

const CHECKSUM_BYTES: usize = 4;

/// A credential to join one swarm. It is a secret: `Display` shows all of it, `Debug` nothing.
#[derive(Clone)]
pub struct JoinToken {
    payload: Payload,
    serial: [u8; certificate::SERIAL_BYTES],
    swarm: SwarmId,
}

#[derive(Clone, Serialize, Deserialize)]
struct Payload {
    root: Vec<u8>,
    authority: Vec<u8>,
    key: Vec<u8>,
    addresses: Vec<SocketAddr>,
    expires_ms: u64,
}

/// Why a token cannot be used. Each message is one line that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The text is not a whole token.
    #[error(
        "the join token is malformed ({0}): copy the whole line that `ddr token create` prints"
    )]
    Malformed(&'static str),
    /// The token's time is over.
    #[error("the join token has expired: make a new one with `ddr token create` on any member")]
    Expired,
    /// The data directory, or the node that was asked, belongs to another swarm.
    #[error(
        "the join token is of swarm {token} but {place} belongs to {found}: use a token of \
         that swarm or an empty data directory"
    )]
    WrongSwarm {
        /// The token's swarm.
        token: SwarmId,
        /// What was found to be of another swarm: a directory or an address.
        place: String,
        /// That other swarm: "swarm ID", or "another swarm" when it is not known.
        found: String,
    },
}

impl JoinToken {
    /// Puts a token together from parts that fit each other.
    pub(crate) fn new(
        root: &CertificateDer<'_>,
        authority: &CertificateDer<'_>,
        key: &KeyPair,
        addresses: Vec<SocketAddr>,
        expires: SystemTime,
    ) -> Result<Self, TokenError> {
        let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::check(Payload {
            root: root.to_vec(),
            authority: authority.to_vec(),
            key: key.serialize_der(),
            addresses,
            expires_ms: expires.as_millis().try_into().unwrap_or(u64::MAX),
        })
    }

    /// The token's ID: the serial of its certificate. It may be shown; it opens nothing.
    pub fn serial(&self) -> [u8; 16] {
        self.serial
    }

    /// The swarm that this token opens.
    pub fn swarm_id(&self) -> SwarmId {
        self.swarm
    }

    /// Members to ask, 1 to [`MAX_TOKEN_ADDRESSES`].
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.payload.addresses
    }

    /// End of the token's time, Unix milliseconds.
    pub fn expires_ms(&self) -> u64 {
        self.payload.expires_ms
    }

    /// `Expired` if the token's time is over at `now`.
    pub fn check_expiry(&self, now: SystemTime) -> Result<(), TokenError> {
        let end =
            SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(self.payload.expires_ms));
        match end {
            Some(end) if end < now => Err(TokenError::Expired),
            _ => Ok(()),
        }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.payload.root.clone())
    }

    pub(crate) fn authority(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.payload.authority.clone())
    }

    pub(crate) fn key(&self) -> Result<KeyPair, TokenError> {
        certificate::read_key(&self.payload.key).map_err(|_| TokenError::Malformed("bad key"))
    }

    fn check(payload: Payload) -> Result<Self, TokenError> {
        let malformed = TokenError::Malformed;
        if payload.addresses.is_empty() || payload.addresses.len() > MAX_TOKEN_ADDRESSES {
            return Err(malformed("bad number of addresses"));
        }
        let root = certificate::public_key(&CertificateDer::from(payload.root.as_slice()))
            .ok_or(malformed("bad swarm certificate"))?;
        let authority = CertificateDer::from(payload.authority.as_slice());
        let authority_key =
            certificate::public_key(&authority).ok_or(malformed("bad token certificate"))?;
        let serial = certificate::serial(&authority).ok_or(malformed("bad serial"))?;
        let key = certificate::read_key(&payload.key).map_err(|_| malformed("bad key"))?;
        if key.der_bytes() != authority_key {
            return Err(malformed("the key does not fit the certificate"));
        }
        Ok(Self { swarm: SwarmId::of_root_key(&root), serial, payload })
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let malformed = TokenError::Malformed;
        let text = text.trim();
        if text.len() > MAX_TOKEN_CHARS {
            return Err(malformed("too long"));
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(malformed("it does not begin with ddr1."))?;
        let bytes = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| malformed("cut off, or with a character that no token has"))?;
        let (body, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(malformed("too short"))?;
        if *sum != checksum(body) {
            return Err(malformed("cut off or changed: its checksum does not fit"));
        }
        match postcard::take_from_bytes::<Payload>(body) {
            Ok((payload, [])) => Self::check(payload),
            _ => Err(malformed("unknown content")),
        }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_stdvec(&self.payload).map_err(|_| fmt::Error)?;
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("swarm", &self.swarm).finish_non_exhaustive()
    }
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&Digest::sha256(body).as_bytes()[..CHECKSUM_BYTES]);
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Identity, Swarm};

    fn token() -> JoinToken {
        let dir = tempfile::tempdir().unwrap();
        let swarm = Swarm::create(dir.path(), &Identity::generate().unwrap()).unwrap();
        let addresses = vec!["127.0.0.1:5001".parse().unwrap(), "[::1]:5001".parse().unwrap()];
        swarm.create_token(addresses, Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn a_token_survives_its_text() {
        let token = token();
        let text = token.to_string();
        assert!((800..1_400).contains(&text.len()), "a line of {} characters", text.len());
        let back: JoinToken = format!("  {text}\n").parse().unwrap();
        assert_eq!(back.serial(), token.serial());
        assert_eq!(back.swarm_id(), token.swarm_id());
        assert_eq!(back.addresses(), token.addresses());
        assert_eq!(back.expires_ms(), token.expires_ms());
        assert!(!format!("{token:?}").contains(&text[5..25]), "Debug hides the secret");
    }

    #[test]
    fn malformed_tokens_are_told_apart_in_one_line_each() {
        let text = token().to_string();
        let mut changed = text.clone().into_bytes();
        changed[100] = if changed[100] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        let cases = [
            ("", "begin with"),
            ("ddr2.AAAA", "begin with"),
            (&text[5..], "begin with"),
            ("ddr1.", "too short"),
            ("ddr1.AA", "too short"),
            ("ddr1.!!!!", "character"),
            (&text[..text.len() - 40], "checksum"),
            (&changed, "checksum"),
            (&"x".repeat(MAX_TOKEN_CHARS + 1), "too long"),
        ];
        for (input, reason) in cases {
            let error = input.parse::<JoinToken>().unwrap_err();
            let line = error.to_string();
            assert!(matches!(error, TokenError::Malformed(_)) && line.contains(reason), "{line}");
            assert!(line.contains("copy the whole line") && line.lines().count() == 1, "{line}");
        }
    }

    #[test]
    fn expiry_is_judged_by_the_given_time() {
        let token = token();
        let now = SystemTime::now();
        assert_eq!(token.check_expiry(now), Ok(()));
        let later = now + Duration::from_secs(61);
        assert_eq!(token.check_expiry(later), Err(TokenError::Expired));
    }

    #[test]
    fn a_foreign_key_in_a_token_is_refused() {
        let (one, two) = (token(), token());
        let mixed = Payload { key: two.payload.key.clone(), ..one.payload };
        assert!(matches!(JoinToken::check(mixed), Err(TokenError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "ddr1\\.[A-Za-z0-9_-]{0,400}") {
            prop_assert!(text.parse::<JoinToken>().is_err());
        }

        #[test]
        fn no_payload_panics(body in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut bytes = body.clone();
            bytes.extend_from_slice(&checksum(&body));
            let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
            prop_assert!(text.parse::<JoinToken>().is_err());
        }
    }
}
