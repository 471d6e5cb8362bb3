//! How many files, sockets included, this process may have open.
//!
//! Decides that it is as many as the system lets it: each client and each blob that is read needs
//! one. The limits of the client port follow from the answer.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a limit that is none counts as.
const UNLIMITED: u64 = 1 << 20;

/// Raises the soft limit of open files to the hard one and answers what holds from now on.
pub(super) fn raise() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let (was, wanted) = (limit.current.unwrap_or(UNLIMITED), limit.maximum.unwrap_or(UNLIMITED));
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::warn!(%error, was, wanted, "the limit of open files stays");
            was
        }
    };
    tracing::info!(was, now, "limit of open files");
    usize::try_from(now).unwrap_or(usize::MAX)
}
