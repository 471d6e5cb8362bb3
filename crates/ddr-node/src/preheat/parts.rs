//! The parts of an image, manifests and blobs, and how far each of them is.
//!
//! Decides nothing; it is where the run writes and the reports read.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ddr_oci::Digest;
use ddr_proto::wire::{MAX_PREHEAT_ERROR_BYTES, PreheatStage, PreheatState};
use serde::Serialize;

use crate::pull::Pull;

/// What a part is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PartKind {
    Manifest,
    Blob,
}

/// How far a part is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PartState {
    Waiting,
    Running,
    Done,
    Failed,
}

/// One part.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) digest: Digest,
    /// Bytes of it, as the manifest above says.
    pub(super) size: u64,
    /// Those that are here.
    pub(super) bytes: u64,
    pub(super) state: PartState,
    /// Why it failed; empty if it did not.
    pub(super) error: String,
}

/// All parts that are known, in the order in which they were found.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<Vec<Part>>);

impl Parts {
    /// One more part; where it stands. `None`: it is known already.
    pub(super) fn add(&self, kind: PartKind, digest: Digest, size: u64) -> Option<usize> {
        let mut parts = self.lock();
        if parts.iter().any(|part| part.digest == digest) {
            return None;
        }
        let state = PartState::Waiting;
        parts.push(Part { kind, digest, size, bytes: 0, state, error: String::new() });
        Some(parts.len() - 1)
    }

    pub(super) fn begin(&self, at: usize) {
        self.change(at, |part| part.state = PartState::Running);
    }

    /// It is here.
    pub(super) fn done(&self, at: usize) {
        self.change(at, |part| (part.state, part.bytes) = (PartState::Done, part.size));
    }

    /// It is here, and so large.
    pub(super) fn done_with(&self, at: usize, size: u64) {
        self.change(at, |part| part.size = size);
        self.done(at);
    }

    pub(super) fn failed(&self, at: usize, error: String) {
        self.change(at, |part| (part.state, part.error) = (PartState::Failed, error));
    }

    /// All of them now.
    pub(super) fn now(&self, pull: &Pull) -> Vec<Part> {
        let mut parts = self.lock().clone();
        for part in parts.iter_mut().filter(|part| part.state == PartState::Running) {
            part.bytes = pull.bytes_here(&part.digest).unwrap_or(0).min(part.size);
        }
        parts
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut Part)) {
        if let Some(part) = self.lock().get_mut(at) {
            change(part);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one of them did not come.
pub(super) fn any_failed(parts: &[Part]) -> bool {
    parts.iter().any(|part| part.state == PartState::Failed)
}

/// Bytes that are here, and all.
pub(super) fn bytes(parts: &[Part]) -> (u64, u64) {
    let sum = |of: fn(&Part) -> u64| parts.iter().map(of).fold(0, u64::saturating_add);
    (sum(|part| part.bytes), sum(|part| part.size))
}

/// The same in one message; `has_ended` says whether the run has.
pub(super) fn state(parts: &[Part], has_ended: bool) -> PreheatState {
    let count = |of: usize| u32::try_from(of).unwrap_or(u32::MAX);
    let done = parts.iter().filter(|part| part.state == PartState::Done).count();
    let (bytes_done, bytes) = bytes(parts);
    let mut error = match parts.iter().find(|part| part.state == PartState::Failed) {
        Some(part) => format!("{}: {}", part.digest, part.error),
        None if has_ended && done < parts.len() => "the run was cut off".to_owned(),
        None => String::new(),
    };
    error.truncate(error.floor_char_boundary(MAX_PREHEAT_ERROR_BYTES));
    let stage = match (has_ended, error.is_empty()) {
        (false, _) => PreheatStage::Running,
        (true, true) => PreheatStage::Done,
        (true, false) => PreheatStage::Failed,
    };
    PreheatState {
        stage,
        parts_done: count(done),
        parts: count(parts.len()),
        bytes_done,
        bytes,
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(state: PartState, error: &str) -> Part {
        let (kind, digest) = (PartKind::Blob, Digest::sha256(error.as_bytes()));
        Part { kind, digest, size: 10, bytes: 5, state, error: error.to_owned() }
    }

    #[test]
    fn a_part_is_known_once() {
        let parts = Parts::default();
        assert_eq!(parts.add(PartKind::Manifest, Digest::sha256(b"a"), 1), Some(0));
        assert_eq!(parts.add(PartKind::Blob, Digest::sha256(b"b"), 1), Some(1));
        assert_eq!(parts.add(PartKind::Blob, Digest::sha256(b"a"), 1), None);
    }

    #[test]
    fn a_run_is_done_when_it_ended_with_all_its_parts() {
        let (done, waiting) = (part(PartState::Done, ""), part(PartState::Waiting, ""));
        let failed = part(PartState::Failed, &"é".repeat(MAX_PREHEAT_ERROR_BYTES));
        let all = state(std::slice::from_ref(&done), true);
        assert_eq!((all.stage, all.parts_done, all.bytes), (PreheatStage::Done, 1, 10));
        assert_eq!(state(&[done.clone(), waiting.clone()], false).stage, PreheatStage::Running);
        assert_eq!(state(&[done.clone(), waiting], true).stage, PreheatStage::Failed, "cut off");
        let broken = state(&[failed, done], true);
        assert_eq!(broken.stage, PreheatStage::Failed);
        assert_eq!(broken.check_limits(), Ok(()), "however long the reason was");
    }
}
