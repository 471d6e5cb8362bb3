//! One question to all voters at once, and their answers as they come.

use std::time::Duration;

use ddr_proto::id::{Key, NodeId};
use ddr_proto::wire::{NameRecord, RefuseReason, Request, Response};
use tokio::task::JoinSet;

use super::{Parts, Voters};

/// How long one voter may take: a durable write on a slow disk is in it.
const VOTER_TIMEOUT: Duration = Duration::from_secs(3);

/// What one voter said.
pub(crate) enum Answer {
    /// To a read: what it keeps. To a write: `None` for stored, else what it keeps instead.
    Record(Option<Box<NameRecord>>),
    /// It joined lately and does not have the name.
    Abstained,
    /// It cannot be reached, refused, or broke the rules.
    Failed,
}

/// The question under way.
pub(crate) struct Poll {
    answers: JoinSet<(NodeId, Answer)>,
}

impl Poll {
    /// Asks every voter that is not silent for the record of `key`.
    pub(crate) fn get(parts: &Parts, key: Key, voters: &Voters) -> Self {
        Self::ask(parts, voters, &|| Question::Get(key))
    }

    /// Tells every voter that is not silent to store `record`.
    pub(crate) fn put(parts: &Parts, record: &NameRecord, voters: &Voters) -> Self {
        Self::ask(parts, voters, &|| Question::Put(record.clone()))
    }

    /// The next answer. `None`: all have answered. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<(NodeId, Answer)> {
        loop {
            match self.answers.join_next().await? {
                Ok(answer) => return Some(answer),
                Err(error) => tracing::error!(%error, "a vote was lost"),
            }
        }
    }

    /// Lets the rest of the answers come in with nobody waiting, each within its own time limit.
    pub(crate) fn finish_behind(mut self) {
        self.answers.detach_all();
    }

    fn ask(parts: &Parts, voters: &Voters, question: &dyn Fn() -> Question) -> Self {
        let mut answers = JoinSet::new();
        for voter in voters.all.iter().filter(|voter| !voters.silent.contains(&voter.id)) {
            let (voter, question) = (voter.clone(), question());
            let keeper = parts.keeper.clone();
            let caller = parts.caller.clone();
            if voter.id == caller.own().id {
                answers.spawn(async move {
                    let response = keeper.answer(question.request()).await;
                    (voter.id, question.understand(Some(response)))
                });
            } else {
                answers.spawn(async move {
                    let response = caller.call(&voter, question.request(), VOTER_TIMEOUT).await;
                    (voter.id, question.understand(response))
                });
            }
        }
        Self { answers }
    }
}

enum Question {
    Get(Key),
    Put(NameRecord),
}

impl Question {
    fn request(&self) -> Request {
        match self {
            Self::Get(key) => Request::GetName { key: *key },
            Self::Put(record) => Request::PutName { record: record.clone() },
        }
    }

    fn understand(&self, response: Option<Response>) -> Answer {
        match (self, response) {
            (Self::Get(key), Some(Response::Name { record: Some(record) })) => {
                if speaks_for(&record, key) {
                    Answer::Record(Some(Box::new(record)))
                } else {
                    Answer::Failed
                }
            }
            (Self::Get(_), Some(Response::Name { record: None })) => Answer::Record(None),
            (Self::Get(_), Some(Response::Refused { reason: RefuseReason::Unsupported })) => {
                Answer::Abstained
            }
            (Self::Put(_), Some(Response::NameStored { stored: true, .. })) => Answer::Record(None),
            (
                Self::Put(own),
                Some(Response::NameStored { stored: false, newest: Some(newest) }),
            ) if speaks_for(&newest, &own.key()) => Answer::Record(Some(Box::new(newest))),
            _ => Answer::Failed,
        }
    }
}

/// A record from a peer counts only under its own key and signature.
pub(super) fn speaks_for(record: &NameRecord, key: &Key) -> bool {
    record.key() == *key && record.verify().is_ok()
}
