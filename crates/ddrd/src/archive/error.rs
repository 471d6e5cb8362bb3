//! What can be wrong with an archive. Each line says what to do, or what is wrong with the file.

use std::io;

use ddr_oci::{Digest, ManifestError};

/// Why an archive cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system said no.
    #[error("{what}: {error}")]
    File {
        /// The file, or what was done.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not what it should be.
    #[error("{0}")]
    Format(String),
    /// The file ends in the middle.
    #[error("the archive ends too early: {0}")]
    Truncated(&'static str),
    /// A name that leads out of the archive, or none at all.
    #[error("the archive names {0:?}, which is no path inside of it")]
    Path(String),
    /// Compressed in a way that is not unpacked here.
    #[error("the archive is compressed with {0}; unpack it first: {0} -d")]
    Compressed(&'static str),
    /// More than a limit allows.
    #[error("{what} is over the limit of {limit}")]
    TooLarge {
        /// What there is too much of.
        what: String,
        /// The limit, in bytes or in number.
        limit: u64,
    },
    /// A blob that an image needs is not there.
    #[error("{digest} ({media_type}) is not in the archive")]
    Missing {
        /// The blob.
        digest: Digest,
        /// What it is said to be.
        media_type: String,
    },
    /// A blob is not as long as its descriptor says.
    #[error("{digest} should have {said} bytes but has {is}")]
    Size {
        /// The blob.
        digest: Digest,
        /// What the descriptor says.
        said: u64,
        /// What there is.
        is: u64,
    },
    /// A blob is not what its digest says.
    #[error("{digest} is damaged: its bytes give {is}")]
    Digest {
        /// What it should be.
        digest: Digest,
        /// What it is; apart, so that results stay small.
        is: Box<Digest>,
    },
    /// A manifest cannot be understood.
    #[error("manifest {digest}: {error}")]
    Manifest {
        /// The manifest.
        digest: Digest,
        /// What is wrong with it.
        error: ManifestError,
    },
}

impl ArchiveError {
    /// For `map_err`: the system's error about `what`.
    pub fn file(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::File { what, error }
    }
}
