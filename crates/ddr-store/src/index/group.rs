//! Group commit: changes that come at the same time share one transaction and so one sync.
//!
//! Decides who commits. Each caller runs its job itself, in the transaction that is open. If
//! others are on their way, it leaves the transaction to them and waits; the last one commits for
//! all. A caller that is alone commits at once: nobody ever waits for company. While one
//! transaction is being synced, those who come gather for the next one.
//!
//! A job that fails among others would leave its half in their transaction, and its failure may
//! rest on changes that are not durable yet. So the transaction is thrown away and each of them
//! runs again alone, where its result is final. A job runs at most twice.
//!
//! Nothing is visible to readers before it is durable. That is why the jobs share a transaction
//! and not only a sync: a vote of a name register that was read and then lost would go back.

use crate::error::IndexError;
use redb::WriteTransaction;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// Changes that share one transaction at most.
pub(super) const MAX_GROUP: usize = 64;

/// See the module comment.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Callers whose job has yet to run; raised before the lock is asked for.
    coming: AtomicUsize,
    state: Mutex<State>,
    changed: Condvar,
    /// The generation whose disk failed, plus one. What is in its memory is not to be trusted: the
    /// next transaction is one of a database that was opened again.
    failed: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Left open for those who are coming. Never while `alone` is not 0.
    open: Option<Round>,
    /// A transaction is being committed; the database takes no second one.
    committing: bool,
    /// Callers that run again, each in a transaction of its own.
    alone: usize,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("committing", &self.committing).finish_non_exhaustive()
    }
}

/// One transaction and those whose changes are in it.
struct Round {
    transaction: WriteTransaction,
    generation: u64,
    members: usize,
    verdict: Arc<OnceLock<Verdict>>,
}

/// What became of a transaction.
enum Verdict {
    Stored,
    /// Nothing of it is stored: each runs again alone.
    Again,
    Failed(IndexError),
}

/// How one attempt of a caller ended.
enum Attempt<T> {
    Done(Result<T, IndexError>),
    Again,
}

impl Group {
    /// Runs `job` in a transaction of `begin` and makes it durable; beside the result, the
    /// generation of the database that it ran on.
    pub(super) fn write<T>(
        &self,
        begin: &impl Fn() -> (Result<WriteTransaction, IndexError>, u64),
        job: &impl Fn(&WriteTransaction) -> Result<T, IndexError>,
    ) -> (Result<T, IndexError>, u64) {
        let mut again = false;
        loop {
            let (attempt, generation) = self.attempt(begin, job, again);
            match attempt {
                Attempt::Done(result) => return (result, generation),
                Attempt::Again => again = true,
            }
        }
    }

    /// Runs `work` while no transaction is open.
    pub(super) fn quiet<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut state = self.idle(self.lock());
        if let Some(round) = state.open.take() {
            self.undo(&mut state, round);
        }
        work()
    }

    fn attempt<T>(
        &self,
        begin: &impl Fn() -> (Result<WriteTransaction, IndexError>, u64),
        job: &impl Fn(&WriteTransaction) -> Result<T, IndexError>,
        again: bool,
    ) -> (Attempt<T>, u64) {
        // Who runs again is counted in `alone` already, and nobody shall wait for it.
        self.coming.fetch_add(usize::from(!again), Ordering::SeqCst);
        let mut state = self.idle(self.lock());
        self.coming.fetch_sub(usize::from(!again), Ordering::SeqCst);
        let alone = state.alone > 0;
        state.alone -= usize::from(again);
        let mut round = match state.open.take() {
            Some(round) => round,
            None => match begin() {
                (Ok(transaction), generation) => Round::new(transaction, generation),
                (Err(error), generation) => return (Attempt::Done(Err(error)), generation),
            },
        };
        let generation = round.generation;
        let value = match catch_unwind(AssertUnwindSafe(|| job(&round.transaction))) {
            Ok(Ok(value)) => value,
            Ok(Err(error)) if round.members == 0 => {
                self.distrust(&error, generation);
                return (Attempt::Done(Err(error)), generation);
            }
            Ok(Err(error)) => {
                self.distrust(&error, generation);
                state.alone += 1;
                self.undo(&mut state, round);
                return (Attempt::Again, generation);
            }
            Err(panic) => {
                self.undo(&mut state, round);
                drop(state);
                resume_unwind(panic)
            }
        };
        round.members += 1;
        let company = !alone && self.coming.load(Ordering::SeqCst) > 0;
        let attempt = if company && round.members < MAX_GROUP {
            self.leave_to_others(state, round, value)
        } else {
            self.commit(state, round, value)
        };
        (attempt, generation)
    }

    /// Leaves the transaction to one who is coming and waits for what becomes of it.
    fn leave_to_others<T>(
        &self,
        mut state: MutexGuard<'_, State>,
        round: Round,
        value: T,
    ) -> Attempt<T> {
        let verdict = Arc::clone(&round.verdict);
        state.open = Some(round);
        loop {
            match verdict.get() {
                Some(Verdict::Stored) => return Attempt::Done(Ok(value)),
                Some(Verdict::Again) => return Attempt::Again,
                Some(Verdict::Failed(error)) => return Attempt::Done(Err(same(error))),
                None => state = self.wait(state),
            }
        }
    }

    /// Commits for all members.
    fn commit<T>(&self, mut state: MutexGuard<'_, State>, round: Round, value: T) -> Attempt<T> {
        state.committing = true;
        drop(state);
        let Round { transaction, members, verdict, generation } = round;
        let committed = catch_unwind(AssertUnwindSafe(|| transaction.commit()));
        let mut state = self.lock();
        state.committing = false;
        let (attempt, others) = match committed {
            Ok(Ok(())) => (Attempt::Done(Ok(value)), Verdict::Stored),
            Ok(Err(error)) => {
                let error = IndexError::from(error);
                self.distrust(&error, generation);
                if members > 1 && is_not_stored(&error) {
                    state.alone += members;
                    (Attempt::Again, Verdict::Again)
                } else {
                    let others = Verdict::Failed(same(&error));
                    (Attempt::Done(Err(error)), others)
                }
            }
            Err(panic) => {
                let error = io::Error::other("a commit was broken off by a panic");
                settle(&verdict, Verdict::Failed(IndexError::Io(error)));
                self.changed.notify_all();
                drop(state);
                resume_unwind(panic)
            }
        };
        settle(&verdict, others);
        self.changed.notify_all();
        attempt
    }

    /// The generation that must be opened again before anything else, if any.
    pub(super) fn failed(&self) -> Option<u64> {
        self.failed.load(Ordering::SeqCst).checked_sub(1)
    }

    fn distrust(&self, error: &IndexError, generation: u64) {
        if matches!(error, IndexError::Io(_) | IndexError::NoSpace) {
            self.failed.fetch_max(generation + 1, Ordering::SeqCst);
        }
    }

    /// Throws a transaction away; its members run again.
    fn undo(&self, state: &mut State, round: Round) {
        state.alone += round.members;
        settle(&round.verdict, Verdict::Again);
        drop(round);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing is being committed.
    fn idle<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.committing {
            state = self.wait(state);
        }
        state
    }
}

impl Round {
    fn new(transaction: WriteTransaction, generation: u64) -> Self {
        Self { transaction, generation, members: 0, verdict: Arc::default() }
    }
}

/// A transaction ends once, so the verdict is never there already.
fn settle(verdict: &OnceLock<Verdict>, is: Verdict) {
    let fresh = verdict.set(is).is_ok();
    debug_assert!(fresh, "a transaction ended twice");
}

/// Whether a failed commit has surely stored nothing: the disk was full, or the database refused
/// because of an earlier failure.
fn is_not_stored(error: &IndexError) -> bool {
    matches!(error, IndexError::NoSpace) || super::is_earlier_failure(error)
}

/// The error once more, for another member.
fn same(error: &IndexError) -> IndexError {
    match error {
        IndexError::NoSpace => IndexError::NoSpace,
        IndexError::Damaged(reason) => IndexError::Damaged(reason.clone()),
        IndexError::Io(error) => IndexError::Io(io::Error::new(error.kind(), error.to_string())),
        other => IndexError::Io(io::Error::other(other.to_string())),
    }
}

#[cfg(test)]
mod tests;
