//! How it stands with the copies, for people and for metrics.

use serde::Serialize;

use super::{Copies, Durability};

/// How it stands with the content that this node keeps for its swarm.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopiesStatus {
    /// Copies that there shall be.
    pub wanted: usize,
    /// What a push waits for.
    pub durability: Durability,
    /// Manifests of which this node keeps parts.
    pub images: usize,
    /// Manifests and blobs that it keeps.
    pub parts: usize,
    /// Bytes of these.
    pub bytes: u64,
    /// Those of them that have fewer copies than there shall be, or than there are nodes if these are fewer.
    pub short_parts: usize,
    /// Bytes of the copies that are missing.
    pub short_bytes: u64,
    /// Those of which this node has the only copy.
    pub sole_parts: usize,
    /// Parts that wait here to be copied to another node.
    pub waiting_images: usize,
    /// Bytes of these.
    pub waiting_bytes: u64,
    /// Seconds that this takes, at the pace of the last minute; none where that is not known.
    pub mended_in_s: Option<u64>,
    /// Copies that this node had made on other nodes since it started.
    pub mended_parts: u64,
    /// Bytes of these.
    pub mended_bytes: u64,
    /// Nodes that share parts with this one and are lost.
    pub lost_nodes: usize,
    /// The rows were gone through since nodes last came or were lost: the figures hold.
    pub surveyed: bool,
    /// It takes no new duties, and hands over what it has.
    pub leaving: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) survey: Survey,
    pub(super) surveyed: bool,
    /// Counts what a survey that has begun may not know.
    pub(super) news: u64,
    pub(super) mended_parts: u64,
    pub(super) mended_bytes: u64,
    /// Bytes a second of what was mended lately.
    pub(super) pace: Option<u64>,
}

impl Tally {
    /// Something happened that the figures may not know.
    pub(super) const fn hears_news(&mut self) {
        self.news += 1;
        self.surveyed = false;
    }
}

/// What a walk over the rows found.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Survey {
    pub(super) images: usize,
    pub(super) parts: usize,
    pub(super) bytes: u64,
    pub(super) short_parts: usize,
    pub(super) short_bytes: u64,
    pub(super) sole_parts: usize,
    pub(super) lost_nodes: usize,
}

impl Survey {
    /// One more part that this node keeps, with so many copies alive of those that are wanted.
    pub(super) fn count(&mut self, size: u64, alive: usize, want: usize) {
        let missing = want.saturating_sub(alive);
        self.parts += 1;
        self.bytes = self.bytes.saturating_add(size);
        self.sole_parts += usize::from(alive <= 1);
        self.short_parts += usize::from(missing > 0);
        self.short_bytes = self.short_bytes.saturating_add(size.saturating_mul(missing as u64));
    }

    /// Shows it to whoever reads the metrics.
    pub(super) fn publish(&self) {
        use crate::metrics::{
            COPIES_KEPT_BYTES, COPIES_MISSING, COPIES_MISSING_BYTES, COPIES_SOLE,
        };
        metrics::gauge!(COPIES_KEPT_BYTES).set(self.bytes as f64);
        metrics::gauge!(COPIES_MISSING).set(self.short_parts as f64);
        metrics::gauge!(COPIES_MISSING_BYTES).set(self.short_bytes as f64);
        metrics::gauge!(COPIES_SOLE).set(self.sole_parts as f64);
    }
}

impl Copies {
    /// How it stands.
    pub(crate) fn status(&self) -> CopiesStatus {
        let tally = *self.tally();
        let (waiting_images, waiting_bytes) = self.line().waiting();
        let survey = tally.survey;
        CopiesStatus {
            wanted: self.parts.settings.copies,
            durability: self.parts.settings.durability,
            images: survey.images,
            parts: survey.parts,
            bytes: survey.bytes,
            short_parts: survey.short_parts,
            short_bytes: survey.short_bytes,
            sole_parts: survey.sole_parts,
            waiting_images,
            waiting_bytes,
            mended_in_s: tally.pace.map(|pace| waiting_bytes / pace.max(1)),
            mended_parts: tally.mended_parts,
            mended_bytes: tally.mended_bytes,
            lost_nodes: survey.lost_nodes,
            surveyed: tally.surveyed,
            leaving: self.is_leaving(),
        }
    }
}
