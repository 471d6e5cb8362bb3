//! Membership: the swarm's root certificate, its key, and this node's own leaf.
//!
//! It decides who is admitted and keeps three files: `swarm.pem` (root), `swarm.key` (0600) and
//! `member.pem`. `swarm.pem` is written last, so a directory without it holds no membership. It
//! must never hand the swarm key to anyone but a joiner that TLS has proven.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ddr_oci::digest::Digest;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificate;
use crate::files::{self, ReadError};
use crate::identity::Identity;
use crate::service::JoinReply;
use crate::token::{JoinToken, TokenError};

mod join;

pub use join::JoinError;

/// File of the swarm's root certificate.
pub const ROOT_FILE: &str = "swarm.pem";
/// File of the swarm's key: whoever has it can admit nodes.
pub const SWARM_KEY_FILE: &str = "swarm.key";
/// File of this node's member certificate.
pub const MEMBER_FILE: &str = "member.pem";

/// SHA-256 of the swarm's Ed25519 root public key. Shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwarmId([u8; 32]);

impl SwarmId {
    /// The ID of the swarm whose root has this public key.
    pub fn of_root_key(public_key: &[u8; 32]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(Digest::sha256(public_key).as_bytes());
        Self(id)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SwarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SwarmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwarmId({self})")
    }
}

/// This node's membership in one swarm. Cheap to clone.
#[derive(Clone)]
pub struct Swarm(Arc<Inner>);

struct Inner {
    id: SwarmId,
    root: CertificateDer<'static>,
    key: KeyPair,
    member: CertificateDer<'static>,
}

/// Why there is no membership to work with. Each message is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SwarmError {
    /// The swarm key can be read by group or others.
    #[error("the key {0} can be read by others: run `chmod 600 {0}`")]
    Exposed(PathBuf),
    /// A file is missing, cut off, or does not fit the others.
    #[error(
        "the membership file {0} is damaged or not this node's: restore it, or move swarm.pem, \
         swarm.key and member.pem away and join again with a token"
    )]
    Damaged(PathBuf),
    /// The directory holds a membership already.
    #[error("{0} holds a membership already: use another data directory for another swarm")]
    Exists(PathBuf),
    /// A file could not be read or written.
    #[error("cannot use {path}: {source}: check the owner and rights of its directory")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}: report this as a fault of DDR")]
    Certificate(String),
}

impl From<rcgen::Error> for SwarmError {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.to_string())
    }
}

impl Swarm {
    /// The membership in `dir`; `None` if the directory holds none.
    pub fn load(dir: &Path, identity: &Identity) -> Result<Option<Self>, SwarmError> {
        let Some(root) = read_certificate(&dir.join(ROOT_FILE))? else { return Ok(None) };
        let key_path = dir.join(SWARM_KEY_FILE);
        let key = read_key(&key_path)?;
        let member_path = dir.join(MEMBER_FILE);
        let member = read_certificate(&member_path)?
            .ok_or_else(|| SwarmError::Damaged(member_path.clone()))?;
        Self::assemble(identity, root, key, member, dir).map(Some)
    }

    /// Founds a new swarm with this node as its first member and keeps it in `dir`.
    pub fn create(dir: &Path, identity: &Identity) -> Result<Self, SwarmError> {
        if dir.join(ROOT_FILE).exists() {
            return Err(SwarmError::Exists(dir.into()));
        }
        let key = certificate::generate_key()?;
        let root = certificate::root(&key)?;
        let member = certificate::member(&key, &identity.public_key())?;
        let swarm = Self::assemble(identity, root, key, member, dir)?;
        swarm.save(dir)?;
        Ok(swarm)
    }

    /// Joins the token's swarm and keeps the membership in `dir`.
    ///
    /// A directory that holds a membership of that swarm already is left as it is; one of another
    /// swarm gives [`TokenError::WrongSwarm`]. Asks the token's addresses one after the other.
    pub async fn join(
        dir: &Path,
        identity: &Identity,
        token: &JoinToken,
    ) -> Result<Self, JoinError> {
        Self::join_by(dir, identity, token, &[]).await
    }

    /// The same, asking at `more` addresses after the token's. What answers there proves that it is
    /// of the token's swarm, too.
    pub async fn join_by(
        dir: &Path,
        identity: &Identity,
        token: &JoinToken,
        more: &[SocketAddr],
    ) -> Result<Self, JoinError> {
        if let Some(own) = Self::load(dir, identity)? {
            return own.checked_against(token, dir).map_err(JoinError::Token);
        }
        token.check_expiry(SystemTime::now())?;
        let reply = join::ask(identity, token, more).await?;
        let swarm = Self::admitted(dir, identity, token, &reply)?;
        swarm.save(dir)?;
        Ok(swarm)
    }

    fn checked_against(self, token: &JoinToken, dir: &Path) -> Result<Self, TokenError> {
        if self.swarm_id() == token.swarm_id() {
            return Ok(self);
        }
        Err(TokenError::WrongSwarm {
            token: token.swarm_id(),
            place: dir.display().to_string(),
            found: format!("swarm {}", self.swarm_id()),
        })
    }

    fn admitted(
        dir: &Path,
        identity: &Identity,
        token: &JoinToken,
        reply: &JoinReply,
    ) -> Result<Self, JoinError> {
        let key = certificate::read_key(&reply.swarm_key).map_err(|_| JoinError::BadAnswer)?;
        let member = CertificateDer::from(reply.member.clone());
        Self::assemble(identity, token.root(), key, member, dir).map_err(|_| JoinError::BadAnswer)
    }

    /// SHA-256 of the root's public key.
    pub fn swarm_id(&self) -> SwarmId {
        self.0.id
    }

    /// A token that admits any number of nodes during the next `ttl`.
    ///
    /// `addresses` are members to ask, 1 to [`crate::token::MAX_TOKEN_ADDRESSES`].
    pub fn create_token(
        &self,
        addresses: Vec<SocketAddr>,
        ttl: Duration,
    ) -> Result<JoinToken, SwarmError> {
        self.create_token_until(addresses, SystemTime::now() + ttl)
    }

    /// As [`Self::create_token`], with the end given as a point in time, which may be past.
    pub fn create_token_until(
        &self,
        addresses: Vec<SocketAddr>,
        expires: SystemTime,
    ) -> Result<JoinToken, SwarmError> {
        let key = certificate::generate_key()?;
        let serial = certificate::random_serial()
            .map_err(|error| SwarmError::Certificate(error.to_string()))?;
        let authority = certificate::token_authority(&self.0.key, &key, &serial, expires)?;
        JoinToken::new(&self.0.root, &authority, &key, addresses, expires)
            .map_err(|error| SwarmError::Certificate(error.to_string()))
    }

    /// What a joiner with this public key is given. The caller has checked that TLS proved the key.
    pub fn admit(&self, public_key: &[u8; 32]) -> Result<JoinReply, SwarmError> {
        let member = certificate::member(&self.0.key, public_key)?;
        Ok(JoinReply { member: member.to_vec(), swarm_key: self.0.key.serialize_der() })
    }

    pub(crate) fn root(&self) -> &CertificateDer<'static> {
        &self.0.root
    }

    pub(crate) fn member(&self) -> &CertificateDer<'static> {
        &self.0.member
    }

    /// Takes the parts together if they fit each other and this node.
    fn assemble(
        identity: &Identity,
        root: CertificateDer<'static>,
        key: KeyPair,
        member: CertificateDer<'static>,
        dir: &Path,
    ) -> Result<Self, SwarmError> {
        let damaged = |name: &str| SwarmError::Damaged(dir.join(name));
        let root_key = certificate::public_key(&root).ok_or_else(|| damaged(ROOT_FILE))?;
        if key.der_bytes() != root_key {
            return Err(damaged(SWARM_KEY_FILE));
        }
        if certificate::public_key(&member) != Some(identity.public_key()) {
            return Err(damaged(MEMBER_FILE));
        }
        Ok(Self(Arc::new(Inner { id: SwarmId::of_root_key(&root_key), root, key, member })))
    }

    fn save(&self, dir: &Path) -> Result<(), SwarmError> {
        files::ensure_dir(dir).map_err(|source| io_error(dir, source))?;
        let files = [
            (MEMBER_FILE, pem_certificate(&self.0.member), files::PUBLIC),
            (SWARM_KEY_FILE, self.0.key.serialize_pem(), files::PRIVATE),
            (ROOT_FILE, pem_certificate(&self.0.root), files::PUBLIC),
        ];
        for (name, text, mode) in files {
            let path = dir.join(name);
            files::replace(&path, text.as_bytes(), mode)
                .map_err(|source| io_error(&path, source))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swarm").field("id", &self.0.id).finish_non_exhaustive()
    }
}

fn read_certificate(path: &Path) -> Result<Option<CertificateDer<'static>>, SwarmError> {
    let Some(bytes) = files::read(path).map_err(|error| read_error(path, error))? else {
        return Ok(None);
    };
    let parsed = CertificateDer::from_pem_slice(&bytes);
    parsed.map(Some).map_err(|_| SwarmError::Damaged(path.into()))
}

fn read_key(path: &Path) -> Result<KeyPair, SwarmError> {
    let damaged = || SwarmError::Damaged(path.into());
    let bytes =
        files::read_private(path).map_err(|error| read_error(path, error))?.ok_or_else(damaged)?;
    let der =
        rustls::pki_types::PrivatePkcs8KeyDer::from_pem_slice(&bytes).map_err(|_| damaged())?;
    certificate::read_key(der.secret_pkcs8_der()).map_err(|_| damaged())
}

fn read_error(path: &Path, error: ReadError) -> SwarmError {
    match error {
        ReadError::Exposed => SwarmError::Exposed(path.into()),
        ReadError::Io(source) => io_error(path, source),
    }
}

fn io_error(path: &Path, source: io::Error) -> SwarmError {
    SwarmError::Io { path: path.into(), source }
}

/// RFC 7468, section 5: lines of 64 characters.
fn pem_certificate(der: &CertificateDer<'_>) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|&byte| char::from(byte)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_swarm_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::generate().unwrap();
        assert!(Swarm::load(dir.path(), &identity).unwrap().is_none());
        let made = Swarm::create(dir.path(), &identity).unwrap();
        let found = Swarm::load(dir.path(), &identity).unwrap().unwrap();
        assert_eq!(made.swarm_id(), found.swarm_id());
        let mode = fs::metadata(dir.path().join(SWARM_KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = Swarm::create(dir.path(), &identity).unwrap_err();
        assert!(matches!(again, SwarmError::Exists(_)));
    }

    #[test]
    fn every_damaged_or_missing_file_is_named() {
        let identity = Identity::generate().unwrap();
        for name in [ROOT_FILE, SWARM_KEY_FILE, MEMBER_FILE] {
            let dir = tempfile::tempdir().unwrap();
            Swarm::create(dir.path(), &identity).unwrap();
            let path = dir.path().join(name);
            let whole = fs::read(&path).unwrap();
            fs::write(&path, &whole[..whole.len() / 2]).unwrap();
            let error = Swarm::load(dir.path(), &identity).unwrap_err();
            assert!(matches!(&error, SwarmError::Damaged(path) if path.ends_with(name)), "{error}");
            fs::remove_file(&path).unwrap();
            let without = Swarm::load(dir.path(), &identity);
            match name {
                ROOT_FILE => assert!(without.unwrap().is_none(), "an unfinished join is none"),
                _ => assert!(matches!(without, Err(SwarmError::Damaged(_)))),
            }
        }
    }

    #[test]
    fn files_of_another_node_or_swarm_are_refused() {
        let (one, two) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (dir_one, dir_two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Swarm::create(dir_one.path(), &one).unwrap();
        Swarm::create(dir_two.path(), &two).unwrap();
        assert!(matches!(Swarm::load(dir_one.path(), &two), Err(SwarmError::Damaged(_))));
        fs::copy(dir_two.path().join(SWARM_KEY_FILE), dir_one.path().join(SWARM_KEY_FILE)).unwrap();
        let error = Swarm::load(dir_one.path(), &one).unwrap_err();
        assert!(error.to_string().contains(SWARM_KEY_FILE), "{error}");
    }

    #[test]
    fn an_exposed_swarm_key_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::generate().unwrap();
        Swarm::create(dir.path(), &identity).unwrap();
        let path = dir.path().join(SWARM_KEY_FILE);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let line = Swarm::load(dir.path(), &identity).unwrap_err().to_string();
        assert!(line.contains(&format!("chmod 600 {}", path.display())), "{line}");
    }

    #[test]
    fn pem_is_read_back_by_the_reader_in_use() {
        let key = certificate::generate_key().unwrap();
        let der = certificate::root(&key).unwrap();
        let text = pem_certificate(&der);
        assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap(), der);
        assert!(text.lines().all(|line| line.len() <= 64));
    }
}
