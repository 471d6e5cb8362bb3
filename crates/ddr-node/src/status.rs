//! Sums since start, and the reports made of them.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Traffic;

/// Rows of peers and of images in one report.
pub const MAX_SOURCES: usize = 256;

/// What this node moved since it started.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    fetched_bytes: AtomicU64,
    served_bytes: AtomicU64,
    served_requests: AtomicU64,
    fetches: AtomicU64,
    fetches_failed: AtomicU64,
    takeovers: AtomicU64,
}

impl Sums {
    pub(crate) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn served_request(&self) {
        self.served_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn served(&self, bytes: u64) {
        self.served_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn fetch_started(&self) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fetch_failed(&self) {
        self.fetches_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn took_over(&self) {
        self.takeovers.fetch_add(1, Ordering::Relaxed);
    }

    /// The sums now.
    pub(crate) fn read(&self) -> Traffic {
        Traffic {
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            served_bytes: self.served_bytes.load(Ordering::Relaxed),
            served_requests: self.served_requests.load(Ordering::Relaxed),
            fetches: self.fetches.load(Ordering::Relaxed),
            fetches_failed: self.fetches_failed.load(Ordering::Relaxed),
            takeovers: self.takeovers.load(Ordering::Relaxed),
        }
    }
}
