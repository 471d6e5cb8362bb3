//! Other nodes are asked to bring an image to their disks, and how they get on.
//!
//! Decides how often a node is asked again, and when it counts as lost. It must never ask without an
//! end: a node that is silent or busy for too long has failed.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_proto::wire::{
    Contact, PreheatOrder, PreheatStage, PreheatState, RefuseReason, Request, Response,
};
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;

use crate::caller::Caller;

/// Nodes that are asked at once; the others come when one of these has ended.
const MAX_AT_ONCE: usize = 64;
/// How long one question may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two questions to one node: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Questions in a row that a node may leave without an answer.
const MAX_UNANSWERED: u32 = 4;
/// Times in a row that a node may say that it is busy: two minutes, about.
const MAX_BUSY: u32 = 64;

/// How another node gets on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Other {
    pub(super) node_id: String,
    pub(super) addresses: Vec<std::net::SocketAddr>,
    pub(super) zone: String,
    pub(super) state: OtherState,
    pub(super) parts_done: u32,
    pub(super) parts: u32,
    pub(super) bytes_done: u64,
    pub(super) bytes: u64,
    /// Why it failed; empty if it did not.
    pub(super) error: String,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum OtherState {
    Waiting,
    /// It has too many preheats; it is asked again.
    Busy,
    Running,
    Done,
    Failed,
}

/// All of them.
pub(super) struct Others {
    contacts: Vec<Contact>,
    rows: Mutex<Vec<Other>>,
}

impl Others {
    pub(super) fn new(contacts: Vec<Contact>) -> Self {
        let row = |contact: &Contact| Other {
            node_id: contact.id.to_string(),
            addresses: contact.addrs.clone(),
            zone: contact.zone.clone(),
            state: OtherState::Waiting,
            parts_done: 0,
            parts: 0,
            bytes_done: 0,
            bytes: 0,
            error: String::new(),
        };
        let rows = contacts.iter().map(row).collect();
        Self { contacts, rows: Mutex::new(rows) }
    }

    /// How they get on.
    pub(super) fn now(&self) -> Vec<Other> {
        self.lock().clone()
    }

    /// Asks them all, until each has ended well or badly.
    pub(super) async fn ask(&self, caller: &Caller, order: &PreheatOrder) {
        let asks = (0..self.contacts.len()).map(|at| self.ask_one(caller, order, at));
        stream::iter(asks).for_each_concurrent(MAX_AT_ONCE, |ask| ask).await;
    }

    async fn ask_one(&self, caller: &Caller, order: &PreheatOrder, at: usize) {
        let (mut pause, mut unanswered, mut busy) = (FIRST_PAUSE, 0, 0);
        loop {
            let request = Request::Preheat(order.clone());
            match caller.call(&self.contacts[at], request, CALL_TIMEOUT).await {
                Some(Response::Preheat(state)) => {
                    (unanswered, busy) = (0, 0);
                    let has_ended = state.stage != PreheatStage::Running;
                    self.change(at, |row| row.hear(state));
                    if has_ended {
                        return;
                    }
                }
                Some(Response::Refused { reason: RefuseReason::Busy }) if busy < MAX_BUSY => {
                    busy += 1;
                    self.change(at, |row| row.state = OtherState::Busy);
                }
                Some(answer) => return self.change(at, |row| row.fail(why(&answer))),
                None if unanswered < MAX_UNANSWERED => unanswered += 1,
                None => return self.change(at, |row| row.fail("it cannot be reached")),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    fn change(&self, at: usize, change: impl FnOnce(&mut Other)) {
        if let Some(row) = self.lock().get_mut(at) {
            change(row);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Other>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Other {
    fn hear(&mut self, state: PreheatState) {
        self.state = match state.stage {
            PreheatStage::Running => OtherState::Running,
            PreheatStage::Done => OtherState::Done,
            PreheatStage::Failed => OtherState::Failed,
        };
        (self.parts_done, self.parts) = (state.parts_done, state.parts);
        (self.bytes_done, self.bytes) = (state.bytes_done, state.bytes);
        self.error = state.error;
    }

    fn fail(&mut self, why: &str) {
        (self.state, self.error) = (OtherState::Failed, why.to_owned());
    }
}

/// Why an answer that tells no state is the last one.
const fn why(answer: &Response) -> &'static str {
    match answer {
        Response::Refused { reason: RefuseReason::Busy } => "it is busy with other preheats",
        Response::Refused { reason: RefuseReason::Struck } => "it has struck this node",
        _ => "it does not preheat for others",
    }
}
