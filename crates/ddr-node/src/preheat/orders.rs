//! Preheats that other members ask for.
//!
//! Decides how many run at once and how long an ended one is remembered. A run that has begun goes
//! on when nobody asks after it any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ddr_proto::id::NodeId;
use ddr_proto::wire::{PreheatOrder, PreheatState, RefuseReason, Response};
use tokio::task::JoinHandle;

use super::image::{Bringer, Wanted};
use super::parts::{self, Parts};
use crate::pull::Pull;

/// Runs at once; more are refused as busy.
const MAX_RUNNING: usize = 4;
/// Runs that are remembered; beyond, the one that began first of those that have ended goes.
const MAX_REMEMBERED: usize = 256;

/// Who asked, and what it calls the run.
type RunKey = (NodeId, [u8; 16]);

/// See the module comment.
pub(crate) struct Orders {
    bringer: Bringer,
    runs: Mutex<Runs>,
}

#[derive(Default)]
struct Runs {
    begun: u64,
    known: BTreeMap<RunKey, Run>,
}

struct Run {
    number: u64,
    course: Course,
}

enum Course {
    Running(Arc<Parts>, JoinHandle<()>),
    /// What it came to: the parts are not kept.
    Ended(PreheatState),
}

impl Orders {
    pub(super) fn new(bringer: Bringer) -> Self {
        Self { bringer, runs: Mutex::default() }
    }

    /// Begins the run if it is not known, and says how it stands.
    pub(crate) fn answer(&self, from: NodeId, order: PreheatOrder) -> Response {
        let refused = |reason| Response::Refused { reason };
        let platform = Some(order.platform.as_str()).filter(|text| !text.is_empty());
        let Ok(platform) = platform.map(str::parse).transpose() else {
            return refused(RefuseReason::Malformed);
        };
        let wanted = Wanted { repository: order.repository, manifest: order.manifest, platform };
        match self.run((from, order.run), wanted) {
            Some(state) => Response::Preheat(state),
            None => refused(RefuseReason::Busy),
        }
    }

    /// `None`: too many run.
    fn run(&self, key: RunKey, wanted: Wanted) -> Option<PreheatState> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.known.values_mut().for_each(|run| run.course.settle(&self.bringer.pull));
        if let Some(run) = runs.known.get(&key) {
            return Some(match &run.course {
                Course::Running(parts, _) => parts::state(&parts.now(&self.bringer.pull), false),
                Course::Ended(state) => state.clone(),
            });
        }
        if runs.known.values().filter(|run| run.is_running()).count() >= MAX_RUNNING {
            return None;
        }
        runs.make_room();
        let Wanted { repository, manifest, .. } = &wanted;
        tracing::info!(node = %key.0, %repository, %manifest, "a node asks for a preheat");
        let (bringer, parts) = (self.bringer.clone(), Arc::new(Parts::default()));
        let copy = Arc::clone(&parts);
        let task = tokio::spawn(async move { bringer.bring(&wanted, &copy).await });
        runs.begun += 1;
        let run = Run { number: runs.begun, course: Course::Running(parts, task) };
        runs.known.insert(key, run);
        Some(PreheatState::default())
    }
}

impl Run {
    const fn is_running(&self) -> bool {
        matches!(self.course, Course::Running(..))
    }
}

impl Course {
    /// Notes the end, if it has come.
    fn settle(&mut self, pull: &Pull) {
        if let Self::Running(parts, task) = self
            && task.is_finished()
        {
            *self = Self::Ended(parts::state(&parts.now(pull), true));
        }
    }
}

impl Runs {
    fn make_room(&mut self) {
        if self.known.len() < MAX_REMEMBERED {
            return;
        }
        let ended = self.known.iter().filter(|(_, run)| !run.is_running());
        let oldest = ended.min_by_key(|(_, run)| run.number).map(|(key, _)| *key);
        oldest.map(|key| self.known.remove(&key));
    }
}
