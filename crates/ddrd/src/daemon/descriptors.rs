//! How many files, sockets included, this process may have open.
//!
//! Decides that it is as many as the system lets it: each client and each blob that is read needs
//! one. The limits of the client port follow from the answer.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a limit that is none counts as.
const UNLIMITED: u64 = 1 << 20;

/// The limit of open files before and after it was raised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Descriptors {
    was: u64,
    now: u64,
}

impl Descriptors {
    /// How many files may be open.
    pub(super) fn limit(self) -> usize {
        usize::try_from(self.now).unwrap_or(usize::MAX)
    }

    /// Tells the operator. Apart from the raising: a start that is refused says nothing else.
    pub(super) fn say(self) {
        tracing::info!(was = self.was, now = self.now, "limit of open files");
    }
}

/// Raises the soft limit of open files to the hard one.
pub(super) fn raise() -> Descriptors {
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
    Descriptors { was, now }
}
