//! Every path and file name under the data directory, and nothing else.
//!
//! A path is built only from parts that were checked here: digests are typed, identifiers are
//! [`RandomId`]. No text from a client reaches a path.

use ddr_oci::digest::{Algorithm, Digest};
use std::path::{Path, PathBuf};

/// The version of the on-disk format, as written into the `format` file.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// What the `format` file begins with, before the version.
pub(crate) const FORMAT_PREFIX: &str = "ddr-store ";
/// The longest `format` file that is read, bytes.
pub(crate) const MAX_FORMAT_BYTES: usize = 64;

/// Files of the daemon that live in the same directory and belong to other crates.
pub(crate) const FILES_OF_OTHERS: [&str; 8] = [
    "node.key",
    "swarm.pem",
    "swarm.key",
    "member.pem",
    "join-token",
    "peers.json",
    "config.toml",
    "lost+found",
];

pub(crate) const FORMAT: &str = "format";
pub(crate) const FORMAT_NEW: &str = "format.new";
pub(crate) const LOCK: &str = "lock";
pub(crate) const INDEX: &str = "index.redb";
pub(crate) const BLOBS: &str = "blobs";
pub(crate) const UPLOADS: &str = "uploads";
pub(crate) const FETCH: &str = "fetch";
pub(crate) const PARTIAL: &str = "partial";
pub(crate) const QUARANTINE: &str = "quarantine";
pub(crate) const SESSION: &str = "session.json";
pub(crate) const DATA: &str = "data";
pub(crate) const CHAIN: &str = "chain";
/// What the name of a chain file adds to the name of its blob.
pub(crate) const CHAIN_SUFFIX: &str = ".chain";

/// What the name of the sidecar of a partial blob adds to the name of its data.
pub(crate) const MAP_SUFFIX: &str = ".map";
/// The same of a sidecar that is not whole yet.
pub(crate) const MAP_NEW_SUFFIX: &str = ".map.new";

/// Names that a store may have left in its directory before the `format` file was written.
pub(crate) const OWN_NAMES: [&str; 8] =
    [FORMAT_NEW, LOCK, INDEX, BLOBS, UPLOADS, FETCH, PARTIAL, QUARANTINE];

pub(crate) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// 128 random bits as 32 lower-case hexadecimal digits: an upload session, a fetch or a
/// partial blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RandomId(String);

impl RandomId {
    /// Bits of randomness, in bytes.
    const BYTES: usize = 16;

    /// A new one, from the operating system's randomness.
    pub(crate) fn generate() -> std::io::Result<Self> {
        let mut bytes = [0; Self::BYTES];
        getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(hex(&bytes)))
    }

    /// The identifier that `text` is, if it is one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        (text.len() == 2 * Self::BYTES && text.bytes().all(is_lower_hex)).then(|| Self(text.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The paths of one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn top(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn algorithm_dir(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join(BLOBS).join(algorithm.name())
    }

    /// The directory of a blob: one of 256 for each algorithm.
    pub(crate) fn shard_dir(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.algorithm_dir(digest.algorithm()).join(&hex[..2])
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.shard_dir(digest).join(digest.hex())
    }

    pub(crate) fn chain(&self, digest: &Digest) -> PathBuf {
        self.shard_dir(digest).join(digest.hex() + CHAIN_SUFFIX)
    }

    pub(crate) fn upload_dir(&self, id: &RandomId) -> PathBuf {
        self.root.join(UPLOADS).join(id.as_str())
    }

    pub(crate) fn fetch(&self, id: &RandomId) -> PathBuf {
        self.root.join(FETCH).join(id.as_str())
    }

    pub(crate) fn fetch_chain(&self, id: &RandomId) -> PathBuf {
        self.root.join(FETCH).join(id.as_str().to_owned() + CHAIN_SUFFIX)
    }

    /// A file of a partial blob: its data, or with a suffix what belongs to it.
    pub(crate) fn partial(&self, id: &RandomId, suffix: &str) -> PathBuf {
        self.root.join(PARTIAL).join(id.as_str().to_owned() + suffix)
    }

    pub(crate) fn quarantined(&self, id: &RandomId, name: &str) -> PathBuf {
        // A name may be anything that someone put into the data directory.
        let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '_' };
        let name = name.chars().take(MAX_QUARANTINE_NAME).map(safe).collect::<String>();
        self.root.join(QUARANTINE).join(format!("{}-{name}", id.as_str()))
    }
}

/// Characters of the old name that a quarantined file keeps, enough for a sha512 chain file.
const MAX_QUARANTINE_NAME: usize = 140;

/// The digest whose blob file has this name in this shard directory, if it is one.
pub(crate) fn digest_of_file(algorithm: Algorithm, shard: &str, name: &str) -> Option<Digest> {
    if !name.starts_with(shard) || !name.bytes().all(is_lower_hex) {
        return None;
    }
    format!("{}:{name}", algorithm.name()).parse().ok()
}

/// Whether a name is that of a shard directory.
pub(crate) fn is_shard(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(is_lower_hex)
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_128_bits_and_distinct() {
        let (a, b) = (RandomId::generate().unwrap(), RandomId::generate().unwrap());
        assert_eq!(a.as_str().len(), 32);
        assert_ne!(a, b);
        assert_eq!(RandomId::parse(a.as_str()), Some(a));
    }

    #[test]
    fn nothing_but_an_identifier_becomes_a_path() {
        let long = "0".repeat(33);
        let upper = "A".repeat(32);
        for text in
            ["", "..", "../../etc/passwd", "/", &long, &upper, "é0000000000000000000000000000000"]
        {
            assert_eq!(RandomId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_blob_file_is_known_by_its_name_only_in_its_own_shard() {
        let digest = Digest::sha256(b"x");
        let hex = digest.hex();
        assert_eq!(digest_of_file(Algorithm::Sha256, &hex[..2], &hex), Some(digest));
        assert_eq!(digest_of_file(Algorithm::Sha256, "zz", &hex), None);
        assert_eq!(digest_of_file(Algorithm::Sha512, &hex[..2], &hex), None);
        assert_eq!(digest_of_file(Algorithm::Sha256, &hex[..2], &hex[..63]), None);
    }

    #[test]
    fn a_quarantined_name_cannot_leave_its_directory() {
        let layout = Layout::new("/data".into());
        let id = RandomId::parse(&"0".repeat(32)).unwrap();
        let path = layout.quarantined(&id, "../../x/\u{fffd}");
        assert_eq!(path.parent().unwrap(), Path::new("/data/quarantine"));
    }
}
