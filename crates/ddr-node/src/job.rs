//! One run at a time, and how it stands.
//!
//! Decides who may begin: nobody while an operator's run goes on; an operator's run ends one in
//! the background first. Must never lose the end of a run: the last one stays to be read.

use std::time::Duration;

use ddr_store::now_ms;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

/// What a run does.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobKind {
    /// Collects garbage.
    Gc,
    /// Verifies the store.
    Verify,
    /// Brings an image here, and to other nodes.
    Pull,
    /// Hands over what this node keeps for its swarm.
    Drain,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// There was none since the start.
    #[default]
    Never,
    /// Under way.
    Running,
    /// Ran to its end.
    Done,
    /// Was asked to stop; the report says how far it came.
    Stopped,
    /// The disk or the index failed.
    Failed,
}

/// The run of a kind that goes on, or the last one.
#[derive(Clone, Debug, Serialize)]
pub struct JobStatus {
    /// What it does.
    pub kind: JobKind,
    /// Counts runs since the start.
    pub id: u64,
    /// How it stands.
    pub state: JobState,
    /// True if nobody asked for it.
    pub background: bool,
    /// Unix milliseconds.
    pub started_ms: u64,
    /// Unix milliseconds; 0 while it runs.
    pub ended_ms: u64,
    /// What it is at.
    pub phase: String,
    /// Of `total`, what is done: rows of a collection, blobs of a verification, bytes of an image. About.
    pub done: u64,
    /// See `done`.
    pub total: u64,
    /// What it found and did so far.
    pub report: Value,
    /// True if damage was found that is still there, or if a part of an image did not come.
    pub damage: bool,
    /// Why it failed; empty if it did not.
    pub error: String,
    #[serde(skip)]
    stop: bool,
}

/// A run of that kind is under way.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("a run is under way; wait for its end, or stop it with --stop")]
pub struct JobBusy;

/// Where runs of one kind are noted.
pub(crate) struct Board(watch::Sender<JobStatus>);

/// The right to run, and to tell how it stands. Dropped without an end, the run has failed.
pub(crate) struct Job {
    board: watch::Sender<JobStatus>,
    id: u64,
}

/// How a run ended well: to its end, or stopped.
pub(crate) struct Ended {
    pub(crate) stopped: bool,
    pub(crate) damage: bool,
}

impl Board {
    pub(crate) fn new(kind: JobKind) -> Self {
        Self(watch::Sender::new(JobStatus {
            kind,
            id: 0,
            state: JobState::Never,
            background: false,
            started_ms: 0,
            ended_ms: 0,
            phase: String::new(),
            done: 0,
            total: 0,
            report: Value::Null,
            damage: false,
            error: String::new(),
            stop: false,
        }))
    }

    pub(crate) fn status(&self) -> JobStatus {
        self.0.borrow().clone()
    }

    pub(crate) fn stop(&self) -> bool {
        self.0.send_if_modified(|status| {
            let runs = status.state == JobState::Running;
            status.stop |= runs;
            runs
        })
    }

    /// Begins a run if none is under way.
    pub(crate) fn begin(&self, background: bool) -> Option<Job> {
        let mut begun = None;
        self.0.send_if_modified(|status| {
            if status.state == JobState::Running {
                return false;
            }
            let (kind, id) = (status.kind, status.id + 1);
            *status = Self::new(kind).status();
            (status.id, status.state, status.background) = (id, JobState::Running, background);
            status.started_ms = now_ms();
            begun = Some(id);
            true
        });
        begun.map(|id| Job { board: self.0.clone(), id })
    }

    /// Begins a run that an operator asked for.
    pub(crate) async fn take_over(&self, patience: Duration) -> Result<Job, JobBusy> {
        let preempt = async {
            loop {
                if let Some(job) = self.begin(false) {
                    return Ok(job);
                }
                if !self.0.borrow().background {
                    return Err(JobBusy);
                }
                self.stop();
                let mut status = self.0.subscribe();
                let _ = status.wait_for(|status| status.state != JobState::Running).await;
            }
        };
        tokio::time::timeout(patience, preempt).await.unwrap_or(Err(JobBusy))
    }
}

impl Job {
    pub(crate) fn status(&self) -> JobStatus {
        self.board.borrow().clone()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.board.borrow().stop
    }

    /// Does some work to its end, unless the run is asked to stop first: then nothing comes back.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut status = self.board.subscribe();
        tokio::select! {
            biased;
            _ = status.wait_for(|status| status.stop) => None,
            done = work => Some(done),
        }
    }

    /// Waits, unless it is asked to stop.
    pub(crate) async fn pause(&self, time: Duration) {
        let mut status = self.board.subscribe();
        let _ = tokio::time::timeout(time, status.wait_for(|status| status.stop)).await;
    }

    pub(crate) fn tell(
        &self,
        phase: &impl Serialize,
        (done, total): (u64, u64),
        report: &impl Serialize,
    ) {
        let phase = serde_json::to_value(phase).ok();
        let phase = phase.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        let report = serde_json::to_value(report).unwrap_or_default();
        self.board.send_modify(|status| {
            (status.phase, status.done, status.total) = (phase, done, total);
            status.report = report;
        });
    }

    pub(crate) fn end(&self, ended: Result<Ended, String>) {
        self.board.send_modify(|status| {
            status.ended_ms = now_ms();
            status.state = match &ended {
                Ok(Ended { stopped: true, .. }) => JobState::Stopped,
                Ok(_) => JobState::Done,
                Err(_) => JobState::Failed,
            };
            status.damage = ended.as_ref().is_ok_and(|ended| ended.damage);
            status.error = ended.err().unwrap_or_default();
        });
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Another run may have begun since this one ended.
        let runs = {
            let status = self.board.borrow();
            status.state == JobState::Running && status.id == self.id
        };
        if runs {
            self.end(Err("the run was cut off".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_run_at_a_time_and_an_operator_goes_before_the_background() {
        let board = Board::new(JobKind::Gc);
        assert!(!board.stop());
        let job = board.begin(true).expect("nothing runs");
        assert!(board.begin(true).is_none());
        let (taken, ()) = tokio::join!(board.take_over(Duration::from_secs(5)), async {
            let work = std::future::pending::<()>();
            assert!(job.unless_stopped(work).await.is_none());
            job.pause(Duration::from_secs(3600)).await;
            assert!(job.is_stopped());
            job.end(Ok(Ended { stopped: true, damage: false }));
        });
        let job = taken.expect("the background made room");
        assert!(board.take_over(Duration::from_secs(5)).await.is_err());
        assert_eq!((board.status().id, board.status().background), (2, false));
        let id = board.status().id;
        job.end(Ok(Ended { stopped: false, damage: false }));
        let next = board.begin(false).expect("it has ended");
        drop(job);
        assert_eq!(board.status().state, JobState::Running, "a late drop ends no other run");
        assert_eq!(board.status().id, id + 1);
        drop(next);
        assert_eq!(board.status().state, JobState::Failed);
        let job = board.begin(true).expect("it has ended");
        let stubborn = board.take_over(Duration::from_secs(5)).await;
        assert!(stubborn.is_err(), "patience ends");
        assert!(job.is_stopped());
    }
}
