//! The node key: one Ed25519 key per data directory, made at the first start and kept.
//!
//! It decides who this node is: the node ID is the SHA-256 of the public key (S/Kademlia, Baumgart
//! and Mies 2007, section 4.1). It must never print, send or copy the private key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ddr_proto::id::NodeId;
use ddr_proto::wire::Signer;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};
use ed25519_dalek::{Signer as _, SigningKey};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::files::{self, ReadError};

/// Name of the key file in the data directory: PKCS#8 PEM, mode 0600.
pub const KEY_FILE: &str = "node.key";

/// This node's key and the name that follows from it. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    node_id: NodeId,
}

/// Why there is no identity to work with. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file can be read by group or others.
    #[error("the key {0} can be read by others: run `chmod 600 {0}`")]
    Exposed(PathBuf),
    /// The key file holds something else than an Ed25519 key in PKCS#8 PEM.
    #[error(
        "the key {0} is damaged: restore it from a backup, or move it and the swarm files away to \
         start as a new node"
    )]
    Damaged(PathBuf),
    /// The key file could not be read or written.
    #[error("cannot use the key {path}: {source}: check the owner and rights of its directory")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Identity {
    /// Reads `dir/node.key`, or makes it (and `dir`) if there is none.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join(KEY_FILE);
        if let Some(identity) = Self::load(&path)? {
            return Ok(identity);
        }
        let identity = Self::generate().map_err(|source| io_error(&path, source))?;
        let pem = identity
            .key
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|error| io_error(&path, io::Error::other(error.to_string())))?;
        files::ensure_dir(dir).map_err(|source| io_error(&path, source))?;
        match files::create(&path, pem.as_bytes(), files::PRIVATE) {
            Ok(()) => Ok(identity),
            // Another process was first; its key is the key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(&path)?.ok_or_else(|| io_error(&path, error))
            }
            Err(source) => Err(io_error(&path, source)),
        }
    }

    /// A new identity that is kept nowhere, for tests and simulations.
    pub fn generate() -> io::Result<Self> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(Self::from_key(SigningKey::from_bytes(&secret)))
    }

    fn load(path: &Path) -> Result<Option<Self>, IdentityError> {
        let bytes = match files::read_private(path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(ReadError::Exposed) => return Err(IdentityError::Exposed(path.into())),
            Err(ReadError::Io(source)) => return Err(io_error(path, source)),
        };
        let damaged = || IdentityError::Damaged(path.into());
        let pem = str::from_utf8(&bytes).map_err(|_| damaged())?;
        let key = SigningKey::from_pkcs8_pem(pem).map_err(|_| damaged())?;
        Ok(Some(Self::from_key(key)))
    }

    fn from_key(key: SigningKey) -> Self {
        let node_id = NodeId::of_public_key(&key.verifying_key().to_bytes());
        Self { key, node_id }
    }

    /// SHA-256 of the public key.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The 32-byte Ed25519 public key (RFC 8032).
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// Ed25519 signature of `message` (RFC 8032, without prehash).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }

    /// What signs this node's records, for the pure cores.
    pub fn signer(&self) -> Signer {
        let key = self.key.clone();
        Signer::new(self.public_key(), move |message| key.sign(message).to_bytes())
    }

    /// The private key in the form that TLS wants.
    pub(crate) fn tls_key(&self) -> io::Result<PrivateKeyDer<'static>> {
        let der = self.key.to_pkcs8_der().map_err(|error| io::Error::other(error.to_string()))?;
        Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_bytes().to_vec())))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

fn io_error(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};

    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new/data");
        let first = Identity::load_or_create(&data).unwrap();
        let second = Identity::load_or_create(&data).unwrap();
        assert_eq!(first.node_id(), second.node_id());
        assert_eq!(first.public_key(), second.public_key());
        let mode = fs::metadata(data.join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = Identity::load_or_create(dir.path()).unwrap();
        assert_ne!(first.node_id(), other.node_id());
    }

    #[test]
    fn a_key_that_others_can_read_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        Identity::load_or_create(dir.path()).unwrap();
        let path = dir.path().join(KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(dir.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Exposed(_)));
        let line = error.to_string();
        assert!(line.contains(&format!("chmod 600 {}", path.display())), "{line}");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_damaged_key_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        Identity::load_or_create(dir.path()).unwrap();
        let whole = fs::read(&path).unwrap();
        for bytes in [&whole[..whole.len() / 2], b"", b"\xff\xfe", b"garbage\n"] {
            fs::write(&path, bytes).unwrap();
            let error = Identity::load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged(_)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), bytes, "the file is evidence");
        }
    }

    #[test]
    fn signatures_verify_and_the_secret_stays_out_of_debug() {
        let identity = Identity::generate().unwrap();
        let key = VerifyingKey::from_bytes(&identity.public_key()).unwrap();
        let signature = Signature::from_bytes(&identity.sign(b"message"));
        key.verify(b"message", &signature).unwrap();
        assert!(key.verify(b"other", &signature).is_err());
        let secret = format!("{:?}", identity.key.to_bytes());
        assert!(!format!("{identity:?}").contains(&secret));
    }
}
