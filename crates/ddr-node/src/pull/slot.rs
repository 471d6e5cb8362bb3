//! The place of one running fetch: where its task writes and its readers look.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ddr_oci::{Digest, RepositoryName};
use ddr_store::{FetchReader, PartialReader};
use tokio::sync::watch;

use super::places::{Places, Purpose};
use super::progress::{Arriving, Here, Phase, Progress, Trust};
use super::tally::Tally;

/// Repositories that may wait for one fetch.
const MAX_REPOSITORIES: usize = 64;

/// See the module comment.
pub(crate) struct Slot {
    pub(crate) digest: Digest,
    pub(crate) tally: Arc<Tally>,
    progress: watch::Sender<Progress>,
    readers: Places,
    repositories: Mutex<BTreeSet<RepositoryName>>,
}

impl Slot {
    /// A place for `digest`, asked for by `repository`.
    pub(crate) fn new(digest: Digest, repository: RepositoryName) -> Self {
        Self {
            digest,
            tally: Arc::new(Tally::new()),
            progress: watch::Sender::default(),
            readers: Places::default(),
            repositories: Mutex::new(BTreeSet::from([repository])),
        }
    }

    /// A reader's side.
    pub(crate) fn arriving(&self, purpose: Purpose) -> Arriving {
        Arriving::new(self.progress.subscribe(), self.readers.enter(purpose))
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
        self.readers.count() > 0
    }

    /// Where they read.
    pub(crate) fn readers(&self) -> &Places {
        &self.readers
    }

    /// How it stands now.
    pub(crate) fn progress(&self) -> Progress {
        self.progress.borrow().clone()
    }

    /// The file exists and the size is known.
    pub(crate) fn opened(&self, size: u64, reader: FetchReader) {
        self.progress.send_modify(|progress| {
            progress.size = Some(size);
            progress.here = Here::Start { reader, visible: 0 };
        });
    }

    /// Pieces of a blob of `size` bytes are here, or more of them than before.
    pub(crate) fn pieces(&self, size: u64, reader: PartialReader, trust: Trust) {
        let trust = if reader.is_complete() { Trust::Proven } else { trust };
        self.progress.send_modify(|progress| {
            progress.size = Some(size);
            progress.here = Here::Pieces { reader, trust };
        });
    }

    /// `written` bytes are in the file.
    pub(crate) fn written(&self, written: u64, size: u64) {
        let most = Progress::visible_of(written, size);
        self.progress.send_if_modified(|progress| {
            let Here::Start { visible, .. } = &mut progress.here else { return false };
            let more = most > *visible;
            *visible = most.max(*visible);
            more
        });
    }

    /// The digest is proven: everything may be read.
    pub(crate) fn proven(&self) {
        self.progress.send_modify(|progress| match (&mut progress.here, progress.size) {
            (Here::Start { visible, .. }, Some(size)) => *visible = size,
            (Here::Pieces { trust, .. }, _) => *trust = Trust::Proven,
            _ => {}
        });
    }

    /// A client is about to be answered: from here on nothing is taken back. `None`: it was taken
    /// back already; wait again.
    pub(crate) fn hand_out(&self, purpose: Purpose) -> Option<u64> {
        let mut size = None;
        self.progress.send_if_modified(|progress| {
            if progress.has_bytes(purpose) {
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
