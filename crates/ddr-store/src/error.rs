//! What can go wrong, by what the caller should do next.

use crate::disk::is_no_space;
use std::io;
use std::path::PathBuf;

/// Why a store did not open. The text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory holds files that are not a store's.
    #[error(
        "{} is not a DDR data directory: it contains {found:?} and no format file; \
         choose an empty directory",
        root.display()
    )]
    Foreign {
        /// The data directory.
        root: PathBuf,
        /// A name that does not belong there.
        found: String,
    },
    /// A file or directory cannot be read or written.
    #[error(
        "cannot use {}: {source}; check its owner, its mode (0700, files 0600) and its disk",
        path.display()
    )]
    Unusable {
        /// What could not be used.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the store open.
    #[error(
        "{} is in use by another ddrd; stop that one or choose another data directory",
        root.display()
    )]
    Locked {
        /// The data directory.
        root: PathBuf,
    },
    /// A newer version wrote this directory.
    #[error(
        "{} has format {found}, this ddrd knows formats up to {known}; use a newer ddrd",
        root.display()
    )]
    NewerFormat {
        /// The data directory.
        root: PathBuf,
        /// The version found.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The `format` file says nothing that a store writes.
    #[error(
        "{} is damaged; if this is a DDR data directory, write \"ddr-store 1\" into it",
        path.display()
    )]
    BadFormat {
        /// The `format` file.
        path: PathBuf,
    },
    /// The index is missing although there is content.
    #[error(
        "{} is missing; restore it from a backup, or move the data directory aside and \
         start with an empty one",
        path.display()
    )]
    IndexMissing {
        /// The index file.
        path: PathBuf,
    },
    /// The index is damaged beyond its own repair.
    #[error(
        "{} is damaged ({reason}); restore it from a backup, or move the data directory aside \
         and start with an empty one",
        path.display()
    )]
    IndexDamaged {
        /// The index file.
        path: PathBuf,
        /// What the database said.
        reason: String,
    },
}

/// Why an upload or a fetch did not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// No such session in this repository. Start again.
    #[error("the upload session is unknown")]
    Unknown,
    /// Another request holds the session, or another fetch the digest. Try later.
    #[error("another request is using the upload session")]
    Busy,
    /// The disk is full. The session stays; what was acknowledged stays.
    #[error("no space is left on the disk")]
    NoSpace,
    /// The content is not what the digest says. The session is gone.
    #[error("the content does not match the digest")]
    DigestMismatch,
    /// The chunk does not start where the session ends. Go on at `offset`.
    #[error("the chunk does not start at {offset}")]
    OutOfOrder {
        /// Bytes that the session has.
        offset: u64,
    },
    /// The limit of open sessions is reached. Try later.
    #[error("too many upload sessions are open")]
    TooManyUploads,
    /// The swarm cannot say whether the content may come in. Try later; the session stays.
    #[error("{0}")]
    Unavailable(String),
    /// The disk or the index failed.
    #[error("the store failed: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for UploadError {
    fn from(error: io::Error) -> Self {
        if is_no_space(&error) { Self::NoSpace } else { Self::Io(error) }
    }
}

impl From<IndexError> for UploadError {
    fn from(error: IndexError) -> Self {
        io::Error::from(error).into()
    }
}

/// Why a piece was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PieceError {
    /// The bytes are not this piece of the chain, or there is no such piece. Blame who gave it; if
    /// another gives the same, the chain.
    #[error("the piece does not fit the chain")]
    Wrong,
    /// The disk is full. What is here stays.
    #[error("no space is left on the disk")]
    NoSpace,
    /// The disk failed. What is here stays.
    #[error("the store failed: {0}")]
    Io(#[source] io::Error),
}

impl From<io::Error> for PieceError {
    fn from(error: io::Error) -> Self {
        if is_no_space(&error) { Self::NoSpace } else { Self::Io(error) }
    }
}

/// Why a partial blob was not begun, changed or made a blob.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartialError {
    /// The digest is being fetched already. Join that fetch.
    #[error("the content is being fetched already")]
    Busy,
    /// The limit of fetches is reached. Try later.
    #[error("too many fetches are running")]
    TooMany,
    /// The chain is one of the other algorithm.
    #[error("the piece chain does not belong to the digest's algorithm")]
    OtherAlgorithm,
    /// Pieces are missing. Go on.
    #[error("the content is not complete")]
    Incomplete,
    /// The disk is full. What is here stays.
    #[error("no space is left on the disk")]
    NoSpace,
    /// The disk or the index failed. What is here stays, and the call may be tried again.
    #[error("the store failed: {0}")]
    Io(#[source] io::Error),
    /// The partial blob is gone: it was thrown away before, or the disk failed in a way that makes
    /// its bytes doubtful. Begin again.
    #[error("what was received is gone: {0}")]
    Gone(#[source] io::Error),
}

impl From<io::Error> for PartialError {
    fn from(error: io::Error) -> Self {
        if is_no_space(&error) { Self::NoSpace } else { Self::Io(error) }
    }
}

/// Why the index did not answer or did not store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The disk is full. Nothing was stored.
    #[error("no space is left on the disk")]
    NoSpace,
    /// A value is larger than its limit. Nothing was stored.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// Which value.
        what: &'static str,
        /// The limit, bytes.
        limit: usize,
    },
    /// The bytes of a manifest are not what its digest says. Nothing was stored.
    #[error("the content does not match the digest")]
    DigestMismatch,
    /// The database holds what the store never writes.
    #[error("the index is damaged: {0}")]
    Damaged(String),
    /// The disk failed. A change may or may not have been stored.
    #[error("the index failed: {0}")]
    Io(#[source] io::Error),
}

impl From<IndexError> for io::Error {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Io(error) => error,
            IndexError::NoSpace => io::ErrorKind::StorageFull.into(),
            IndexError::Damaged(_) | IndexError::DigestMismatch => {
                Self::new(io::ErrorKind::InvalidData, error)
            }
            IndexError::TooLarge { .. } => Self::new(io::ErrorKind::InvalidInput, error),
        }
    }
}

impl From<redb::Error> for IndexError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) if is_no_space(&error) => Self::NoSpace,
            redb::Error::Io(error) => Self::Io(error),
            redb::Error::ValueTooLarge(_) => Self::TooLarge { what: "a value", limit: 3 << 30 },
            redb::Error::Corrupted(reason) => Self::Damaged(reason),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {$(
        impl From<$error> for IndexError {
            fn from(error: $error) -> Self {
                redb::Error::from(error).into()
            }
        }
    )*};
}

from_redb!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError);
