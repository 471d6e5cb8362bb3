//! One question to all voters at once, and their answers as they come.

use std::time::Duration;

use ddr_proto::id::{Key, NodeId};
use ddr_proto::names::{Ballot, Register, SetPage};
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{
    Contact, Member, NameRecord, RefuseReason, Request, Response, SetEntry, SetName,
};
use tokio::task::JoinSet;

use super::{Parts, Voters};

/// How long one voter may take: a durable write on a slow disk is in it.
pub(super) const VOTER_TIMEOUT: Duration = Duration::from_secs(3);

/// What one voter said.
pub(crate) enum Answer<T> {
    /// It answered the question.
    Said(T),
    /// It joined lately and does not have the name.
    Abstained,
    /// It was away for long and does not trust what it keeps.
    Doubtful,
    /// It cannot be reached, refused, or broke the rules.
    Failed,
}

/// What a voter keeps instead of what it was told; `None`: it keeps what it was told.
pub(crate) type Instead<R> = Option<Box<R>>;

/// What can be told to voters.
pub(crate) trait Kept: Register + std::fmt::Debug + Send + Sync + 'static {
    /// The key whose voters keep it.
    fn place(&self) -> Key;
    /// A key of its own.
    fn slot(&self) -> Key;
    /// Its hybrid logical clock.
    fn stamp(&self) -> u64;
    /// The request that tells it.
    fn put(&self) -> Request;
    /// Whether its signature holds.
    fn is_sound(&self) -> bool;
    /// What the answer to that means.
    fn told(&self, response: Response) -> Answer<Instead<Self>>;
}

impl Kept for NameRecord {
    fn place(&self) -> Key {
        self.key()
    }

    fn slot(&self) -> Key {
        self.key()
    }

    fn stamp(&self) -> u64 {
        self.stamp
    }

    fn put(&self) -> Request {
        Request::PutName { record: self.clone() }
    }

    fn is_sound(&self) -> bool {
        self.verify().is_ok()
    }

    fn told(&self, response: Response) -> Answer<Instead<Self>> {
        match response {
            Response::NameStored { stored: true, .. } => Answer::Said(None),
            Response::NameStored { newest: Some(newest), .. }
                if speaks_for(&newest, &self.key()) =>
            {
                Answer::Said(Some(Box::new(newest)))
            }
            _ => Answer::Failed,
        }
    }
}

impl Kept for SetEntry {
    fn place(&self) -> Key {
        self.set().key()
    }

    fn slot(&self) -> Key {
        Self::slot(self)
    }

    fn stamp(&self) -> u64 {
        Self::stamp(self)
    }

    fn put(&self) -> Request {
        Request::PutEntry { entry: self.clone() }
    }

    fn is_sound(&self) -> bool {
        self.verify().is_ok()
    }

    fn told(&self, response: Response) -> Answer<Instead<Self>> {
        match response {
            Response::EntryStored { stored: true, .. } => Answer::Said(None),
            Response::EntryStored { newest: Some(newest), .. }
                if newest.slot() == self.slot() && newest.verify().is_ok() =>
            {
                Answer::Said(Some(Box::new(newest)))
            }
            _ => Answer::Failed,
        }
    }
}

/// The question under way.
pub(crate) struct Poll<T> {
    answers: JoinSet<(NodeId, Answer<T>)>,
}

/// A page of a set from one voter, and whether that voter may lack members.
pub(crate) type PageAnswer = (SetPage, bool);

/// The record that a voter keeps, and its clock.
pub(crate) type Told = (Option<NameRecord>, Timestamp);

impl Poll<Told> {
    /// Asks every voter that is not silent for the record of `key`.
    pub(crate) fn get(parts: &Parts, key: Key, voters: &Voters) -> Self {
        // What this node keeps it has verified before: most others keep the same.
        let kept = parts.keeper.peek(key).flatten();
        Self::ask(parts, voters, &Request::GetName { key }, move |own, response| match response {
            Response::Name { record: Some(record), .. }
                if !own && kept.as_deref() != Some(&record) && !speaks_for(&record, &key) =>
            {
                Answer::Failed
            }
            Response::Name { record, clock_ms } => Answer::Said((record, Timestamp(clock_ms))),
            Response::Refused { reason: RefuseReason::Unsupported } => Answer::Abstained,
            Response::Refused { reason: RefuseReason::Doubtful } => Answer::Doubtful,
            _ => Answer::Failed,
        })
    }
}

impl Poll<Timestamp> {
    /// Asks every voter that is not silent what its clock says.
    pub(crate) fn clocks(parts: &Parts, voters: &Voters) -> Self {
        let own = parts.clock.now();
        Self::ask(parts, voters, &Request::Time, move |is_own, response| match response {
            _ if is_own => Answer::Said(own),
            Response::Time { clock_ms } => Answer::Said(Timestamp(clock_ms)),
            _ => Answer::Failed,
        })
    }
}

impl Poll<Result<Option<NameRecord>, u64>> {
    /// Asks every voter that is not silent to promise a ballot: what it keeps, or the stamp of the
    /// higher ballot that it has promised.
    pub(crate) fn prepare(parts: &Parts, (key, ballot): (Key, Ballot), voters: &Voters) -> Self {
        let Ballot { stamp, writer } = ballot;
        let request = Request::PrepareName { key, stamp, writer };
        Self::ask(parts, voters, &request, move |own, response| match response {
            Response::Promise { record: Some(record), .. }
                if !own && !speaks_for(&record, &key) =>
            {
                Answer::Failed
            }
            Response::Promise { outbid_by: Some(higher), .. } => Answer::Said(Err(higher)),
            Response::Promise { record: None, young: true, .. } => Answer::Abstained,
            Response::Promise { record, .. } => Answer::Said(Ok(record)),
            _ => Answer::Failed,
        })
    }
}

impl Poll<Instead<NameRecord>> {
    /// Asks every voter that is not silent to accept what it has promised.
    pub(crate) fn accept(parts: &Parts, record: &NameRecord, voters: &Voters) -> Self {
        let request = Request::AcceptName { record: record.clone() };
        Self::ask(parts, voters, &request, |_, response| match response {
            Response::NameStored { stored: true, .. } => Answer::Said(None),
            _ => Answer::Failed,
        })
    }
}

impl Poll<Vec<NameRecord>> {
    /// Asks every voter that is not silent what it keeps and kept of a name. The records are not
    /// verified.
    pub(crate) fn history(parts: &Parts, key: Key, voters: &Voters) -> Self {
        let request = Request::GetHistory { key };
        Self::ask(parts, voters, &request, move |_, response| match response {
            Response::History { records } => Answer::Said(records),
            Response::Refused { reason: RefuseReason::Unsupported } => Answer::Abstained,
            Response::Refused { reason: RefuseReason::Doubtful } => Answer::Doubtful,
            _ => Answer::Failed,
        })
    }
}

impl Poll<PageAnswer> {
    /// Asks every voter that is not silent for its page of `set`. The entries are not verified.
    pub(crate) fn page(
        parts: &Parts,
        (set, from, limit): (&SetName, &Member, u16),
        voters: &Voters,
    ) -> Self {
        let request = Request::GetSet { key: set.key(), from: from.clone(), limit };
        let (set, from) = (set.clone(), from.clone());
        Self::ask(parts, voters, &request, move |_, response| match response {
            Response::Set { entries, more, young } => {
                let page = SetPage { entries, more };
                if page.is_of(&set, &from, limit.into()) {
                    Answer::Said((page, young))
                } else {
                    Answer::Failed
                }
            }
            Response::Refused { reason: RefuseReason::Doubtful } => Answer::Doubtful,
            _ => Answer::Failed,
        })
    }
}

impl<R: Kept> Poll<Instead<R>> {
    /// Tells every voter that is not silent to store `record`. One that rotted on this disk is told
    /// nobody: whoever tells a forged one is struck.
    pub(crate) fn put(parts: &Parts, record: &R, voters: &Voters) -> Self {
        let mut poll = Self { answers: JoinSet::new() };
        if record.is_sound() {
            voters.asked().for_each(|voter| poll.put_to(parts, record, voter));
        } else {
            tracing::error!(?record, "a record that is kept here is damaged");
        }
        poll
    }

    /// Tells one more voter.
    pub(crate) fn put_to(&mut self, parts: &Parts, record: &R, voter: &Contact) {
        let told = record.clone();
        let understand = move |_, response| told.told(response);
        self.ask_one(parts, voter, record.put(), understand);
    }
}

impl<T: Send + 'static> Poll<T> {
    /// The next answer. `None`: all have answered. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<(NodeId, Answer<T>)> {
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

    fn ask(
        parts: &Parts,
        voters: &Voters,
        request: &Request,
        understand: impl Fn(bool, Response) -> Answer<T> + Clone + Send + 'static,
    ) -> Self {
        let mut poll = Self { answers: JoinSet::new() };
        for voter in voters.asked() {
            poll.ask_one(parts, voter, request.clone(), understand.clone());
        }
        poll
    }

    fn ask_one(
        &mut self,
        parts: &Parts,
        voter: &Contact,
        request: Request,
        understand: impl Fn(bool, Response) -> Answer<T> + Send + 'static,
    ) {
        let (voter, keeper, caller) = (voter.clone(), parts.keeper.clone(), parts.caller.clone());
        if voter.id == caller.own().id {
            self.answers.spawn(async move {
                let response = keeper.answer(request).await;
                (voter.id, understand(true, response))
            });
        } else {
            self.answers.spawn(async move {
                let response = caller.call(&voter, request, VOTER_TIMEOUT).await;
                let answer = response.map_or(Answer::Failed, |said| understand(false, said));
                (voter.id, answer)
            });
        }
    }
}

/// A record from a peer counts only under its own key and signature.
pub(super) fn speaks_for(record: &NameRecord, key: &Key) -> bool {
    record.key() == *key && record.verify().is_ok()
}
