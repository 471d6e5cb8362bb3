//! Reads of tags: all voters are asked, and what they say is settled before it is believed.
//!
//! Decides how long the voters are waited for and who is told what. It must never answer with a record that a
//! later read may miss.

use ddr_proto::id::Key;
use ddr_proto::names::{self, Read, ReadDecision};
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{Contact, NameRecord};
use tokio::time::Instant;

use super::vote::{Answer, Kept, Poll};
use super::{GRACE, LIMIT, Parts, ReadAnswer, Voters, sets};
use crate::ReadError;

impl Parts {
    pub(super) async fn read(&self, key: Key) -> ReadAnswer {
        self.read_and_told(key).await.0
    }

    /// The answer, and the newest record that any voter told, however few they are.
    pub(super) async fn read_and_told(&self, key: Key) -> (ReadAnswer, Option<NameRecord>) {
        let started = Instant::now();
        let voters = match self.voters(&key).await {
            Ok(voters) => voters,
            Err(error) => return (Err(error), None),
        };
        let (read, _) = self.ask(key, &voters).await;
        let answer = self.conclude(&read, &voters).await;
        metrics::histogram!(crate::metrics::NAME_READ_SECONDS)
            .record(started.elapsed().as_secs_f64());
        if let Ok(Some(record)) = &answer {
            // The answer is known; that the local list lags behind must not withhold it.
            let listed = self.list_tag(&record.repository, &record.tag, record.digest).await;
            if let Err(error) = listed {
                let (repository, tag) = (&record.repository, &record.tag);
                tracing::warn!(%repository, %tag, %error, "the local list of tags lags behind");
            }
        }
        (answer, read.newest().cloned())
    }

    /// The stamp of a write that follows what the voters keep.
    pub(super) async fn next_stamp(&self, key: Key, voters: &Voters) -> Result<u64, ReadError> {
        let (read, clocks) = self.ask(key, voters).await;
        let seen = self.conclude(&read, voters).await?.map(|record| record.stamp);
        let now = names::common_time(self.clock.now(), clocks, voters.all.len());
        Ok(names::next_stamp(seen, now))
    }

    /// The time by which this node stamps what these voters shall keep.
    pub(super) async fn common_time(&self, voters: &Voters) -> Timestamp {
        names::common_time(self.clock.now(), self.clocks(voters).await, voters.all.len())
    }

    /// The time that most of these voters have reached, however far this node's own clock is behind. `None`: too few
    /// tell theirs.
    pub(super) async fn reached_time(&self, voters: &Voters) -> Option<Timestamp> {
        let (clocks, of) = (self.clocks(voters).await, voters.all.len());
        let is_most = clocks.len() >= names::write_quorum(of);
        names::reached_time(clocks, of).filter(|_| is_most)
    }

    /// The clocks of the voters, also of those that are young.
    async fn clocks(&self, voters: &Voters) -> Vec<Timestamp> {
        let (mut clocks, mut poll) = (Vec::new(), Poll::clocks(self, voters));
        let quorum = names::write_quorum(voters.all.len());
        let mut until = Instant::now() + LIMIT;
        while let Ok(Some((_, answer))) = tokio::time::timeout_at(until, poll.next()).await {
            if let Answer::Said(clock) = answer {
                clocks.push(clock);
            }
            if clocks.len() == quorum {
                until = until.min(Instant::now() + GRACE);
            }
        }
        clocks
    }

    /// What the voters say, and their clocks.
    async fn ask(&self, key: Key, voters: &Voters) -> (Read, Vec<Timestamp>) {
        let mut clocks = Vec::new();
        let kept = |(record, clock)| {
            clocks.push(clock);
            Some(record)
        };
        let read = hear(voters, Poll::get(self, key, voters), kept).await;
        (read, clocks)
    }

    pub(super) async fn conclude(&self, read: &Read, voters: &Voters) -> ReadAnswer {
        match read.decide() {
            ReadDecision::Nothing | ReadDecision::NothingYet => Ok(None),
            ReadDecision::Newest { record, behind, kept_by } => {
                let others: Vec<Contact> =
                    voters.all.iter().filter(|voter| behind.contains(&voter.id)).cloned().collect();
                let needed = names::write_quorum(voters.all.len()).saturating_sub(kept_by);
                self.write_back(&record, others, needed).await?;
                Ok(Some(record))
            }
            ReadDecision::Wait => {
                let (answered, of) = (read.count_answered(), voters.all.len());
                // Of an even number one more than a read quorum, to say that nobody knows the tag.
                let needed = names::write_quorum(of);
                Err(self.too_few("that keep this tag answered in time", (answered, of, needed)))
            }
            ReadDecision::Impossible { answered, needed } => {
                let counts = (answered, voters.all.len(), needed);
                Err(self.too_few("that keep this tag answered", counts))
            }
        }
    }

    /// Tells those that were behind. Waits for `needed` of them, so that what was read once is
    /// read by all from then on.
    pub(super) async fn write_back<R: Kept>(
        &self,
        record: &R,
        mut behind: Vec<Contact>,
        needed: usize,
    ) -> Result<(), ReadError> {
        if behind.len() < needed {
            let what = "that lack the newest record can be told";
            return Err(self.too_few(what, (0, behind.len(), needed)));
        }
        if needed == 0 {
            let (slot, stamp) = (record.slot(), record.stamp());
            behind.retain(|voter| !self.recent.knows(slot, stamp, voter.id));
        }
        if behind.is_empty() {
            return Ok(());
        }
        let asked = behind.len();
        let mut poll = Poll::put(self, record, &sets::all_of(behind));
        let mut stored = 0;
        let limit = Instant::now() + LIMIT;
        while stored < needed {
            match tokio::time::timeout_at(limit, poll.next()).await {
                Ok(Some((_, Answer::Said(_)))) => stored += 1,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    let what = "that lacked the newest record took it";
                    return Err(self.too_few(what, (stored, asked, needed)));
                }
            }
        }
        poll.finish_behind();
        Ok(())
    }
}

/// What the voters say of a record, as far as they say it in time. `kept` takes an answer for what the voter
/// keeps, or for a failure.
pub(super) async fn hear<T: Send + 'static>(
    voters: &Voters,
    mut poll: Poll<T>,
    mut kept: impl FnMut(T) -> Option<Option<NameRecord>>,
) -> Read {
    let mut read = Read::new(voters.all.iter().map(|voter| voter.id));
    let mut abstained = Vec::new();
    let mut any_failed = !voters.silent.is_empty();
    voters.silent.iter().for_each(|silent| read.failed(*silent));
    let limit = Instant::now() + LIMIT;
    let mut grace: Option<Instant> = None;
    loop {
        let until = grace.map_or(limit, |grace| grace.min(limit));
        let Ok(Some((voter, answer))) = tokio::time::timeout_at(until, poll.next()).await else {
            break;
        };
        let said = match answer {
            Answer::Said(said) => kept(said),
            Answer::Abstained => {
                abstained.push(voter);
                continue;
            }
            Answer::Doubtful | Answer::Failed => None,
        };
        if let Some(record) = said {
            read.answered(voter, record);
        } else {
            any_failed = true;
            read.failed(voter);
        }
        let is_open = matches!(read.decide(), ReadDecision::Wait | ReadDecision::Impossible { .. });
        if !is_open && grace.is_none() {
            grace = Some(Instant::now() + GRACE);
        }
    }
    if !any_failed {
        abstained.iter().for_each(|voter| read.answered(*voter, None));
    }
    read
}
