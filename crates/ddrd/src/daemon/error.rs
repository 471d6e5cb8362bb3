//! Why the daemon did not start or did not go on: one line each that says what to do.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use ddr_net::{IdentityError, JoinError, SwarmError, TokenError};
use ddr_node::StartError;
use ddr_store::OpenError;

/// What ended the daemon. The exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The runtime, the signals or the metrics could not be set up.
    #[error("cannot start: {0}: check the limits of this process (ulimit -a)")]
    Runtime(String),
    /// An address could not be listened on.
    #[error("{setting} {address}: {}", bind_advice(.source, .setting))]
    Bind {
        /// The setting, as its flag is called.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The node key cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The membership cannot be used.
    #[error(transparent)]
    Swarm(#[from] SwarmError),
    /// The token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The swarm did not let this node in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The file of `--join @FILE` cannot be read.
    #[error("--join @{}: {source}: give the path of a file that holds a join token", .path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A registry cannot be mirrored.
    #[error("[[upstream]] {host}: {source}")]
    Upstream {
        /// Which.
        host: String,
        /// What is wrong.
        source: ddr_upstream::SettingsError,
    },
    /// The registry beside cannot be used.
    #[error("[driver]: {0}")]
    Driver(ddr_upstream::SettingsError),
    /// The registry port cannot speak TLS.
    #[error("registry-tls-cert, registry-tls-key: {0}")]
    Tls(#[from] ddr_registry::TlsError),
    /// The node could not start on what it found.
    #[error(transparent)]
    Node(#[from] StartError),
    /// A part of the daemon ended although nobody asked it to.
    #[error("the {0} ended unexpectedly: start ddrd again and report this with its log")]
    Ended(&'static str),
    /// A second signal came while the daemon drained.
    #[error("stopped at once by a second {0}: running requests were cut off")]
    Hurried(&'static str),
}

fn bind_advice(error: &io::Error, setting: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "the port is in use: stop what listens there (ss -ltnp shows it) or choose another with --{setting}"
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("this machine has no such address: choose one of its own with --{setting}")
        }
        io::ErrorKind::PermissionDenied => {
            format!("not allowed to listen there: choose a port of 1024 or more with --{setting}")
        }
        _ => format!("{error}: choose another address with --{setting}"),
    }
}
