//! The words in which containerd does not give what it was asked for.

use std::io;
use std::path::PathBuf;

/// Why containerd did not answer. One line each, with what to do where something can be done.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// No socket there. It may come: containerd may start later.
    #[error(
        "{}: no such socket; is containerd running, and is this the address in the [grpc] table of its configuration?",
        .0.display()
    )]
    NoSocket(PathBuf),
    /// This process may not use the socket.
    #[error(
        "{}: permission denied; run as root, or give the socket to a group with gid in the [grpc] table of containerd's configuration",
        .0.display()
    )]
    Denied(PathBuf),
    /// Nobody answers there, or not in time, or the connection broke. Asking again later may help.
    #[error("{0}")]
    Unreachable(String),
    /// It has no such content in this namespace (any more).
    #[error("containerd has no such content")]
    Absent,
    /// It failed, or gave an answer that is none.
    #[error("{0}")]
    Failed(String),
}

impl From<ContainerdError> for io::Error {
    fn from(error: ContainerdError) -> Self {
        let kind = match &error {
            ContainerdError::NoSocket(_) | ContainerdError::Absent => io::ErrorKind::NotFound,
            ContainerdError::Denied(_) => io::ErrorKind::PermissionDenied,
            ContainerdError::Unreachable(_) => io::ErrorKind::ConnectionAborted,
            ContainerdError::Failed(_) => io::ErrorKind::InvalidData,
            ContainerdError::Settings(_) => io::ErrorKind::InvalidInput,
        };
        Self::new(kind, error)
    }
}
