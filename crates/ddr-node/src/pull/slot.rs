//! The place of one running fetch: where its task writes and its readers look.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use ddr_oci::{Digest, RepositoryName};
use ddr_store::FetchReader;
use tokio::sync::watch;

use super::progress::{Arriving, Phase, Progress};

/// Repositories that may wait for one fetch.
const MAX_REPOSITORIES: usize = 64;

/// See the module comment.
pub(crate) struct Slot {
    pub(crate) digest: Digest,
    progress: watch::Sender<Progress>,
    readers: Arc<AtomicUsize>,
    repositories: Mutex<BTreeSet<RepositoryName>>,
}

impl Slot {
    /// A place for `digest`, asked for by `repository`.
    pub(crate) fn new(digest: Digest, repository: RepositoryName) -> Self {
        Self {
            digest,
            progress: watch::Sender::default(),
            readers: Arc::default(),
            repositories: Mutex::new(BTreeSet::from([repository])),
        }
    }

    /// A reader's side.
    pub(crate) fn arriving(&self) -> Arriving {
        Arriving::new(self.progress.subscribe(), Arc::clone(&self.readers))
    }

    /// True when `repository` may read from it.
    pub(crate) fn admits(&self, repository: &RepositoryName) -> bool {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner).contains(repository)
    }

    /// A holder said that `repository` has this content too. False: too many wait.
    pub(crate) fn admit(&self, repository: RepositoryName) -> bool {
        let mut repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        repositories.len() < MAX_REPOSITORIES && {
            repositories.insert(repository);
            true
        }
    }

    /// Whoever may read it, and is to be linked.
    pub(crate) fn repositories(&self) -> BTreeSet<RepositoryName> {
        self.repositories.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// True while somebody reads or waits.
    pub(crate) fn is_read(&self) -> bool {
        self.readers.load(Ordering::SeqCst) > 0
    }

    /// The file exists and the size is known.
    pub(crate) fn opened(&self, size: u64, reader: FetchReader) {
        self.progress.send_modify(|progress| {
            progress.size = Some(size);
            progress.reader = Some(reader);
        });
    }

    /// `written` bytes are in the file.
    pub(crate) fn written(&self, written: u64, size: u64) {
        let visible = Progress::visible_of(written, size);
        self.progress.send_if_modified(|progress| {
            let more = visible > progress.visible;
            progress.visible = progress.visible.max(visible);
            more
        });
    }

    /// The digest is proven: everything may be read.
    pub(crate) fn proven(&self) {
        self.progress.send_modify(|progress| {
            progress.visible = progress.size.unwrap_or(progress.visible);
        });
    }

    /// A client is about to be answered: from here on nothing is taken back. `None`: it was taken
    /// back already; wait again.
    pub(crate) fn hand_out(&self) -> Option<u64> {
        let mut size = None;
        self.progress.send_if_modified(|progress| {
            if progress.visible > 0 {
                progress.handed_out = true;
                size = progress.size;
            }
            false
        });
        size
    }

    /// Takes back what was published, to start over. False: a client has been answered.
    pub(crate) fn take_back(&self) -> bool {
        self.progress.send_if_modified(|progress| {
            let untouched = !progress.handed_out;
            if untouched {
                *progress = Progress::default();
            }
            untouched
        })
    }

    /// The end, for all to see.
    pub(crate) fn end(&self, phase: Phase) {
        self.progress.send_modify(|progress| {
            progress.phase = phase;
        });
    }

    /// True while it runs.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.progress.borrow().phase, Phase::Running)
    }
}
