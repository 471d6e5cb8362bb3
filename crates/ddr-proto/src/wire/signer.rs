//! The node's own signature, handed in so that the key itself may stay elsewhere.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signer as _, SigningKey};

use crate::id::NodeId;

/// Signs bytes; the key is inside.
type Sign = dyn Fn(&[u8]) -> [u8; 64] + Send + Sync;

/// Signs with one Ed25519 key. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    public_key: [u8; 32],
    sign: Arc<Sign>,
}

impl Signer {
    /// A signer whose key stays with the caller.
    ///
    /// `sign` must give the Ed25519 signature (RFC 8032, deterministic) of the bytes under
    /// `public_key`; otherwise every record of this node is refused by the others.
    pub fn new(
        public_key: [u8; 32],
        sign: impl Fn(&[u8]) -> [u8; 64] + Send + Sync + 'static,
    ) -> Self {
        Self { public_key, sign: Arc::new(sign) }
    }

    /// The public key.
    #[must_use]
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.public_key
    }

    /// The node ID of the key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::of_public_key(&self.public_key)
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        (self.sign)(bytes)
    }
}

impl From<SigningKey> for Signer {
    fn from(key: SigningKey) -> Self {
        Self::new(key.verifying_key().to_bytes(), move |bytes| key.sign(bytes).to_bytes())
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("node", &self.node_id()).finish_non_exhaustive()
    }
}
