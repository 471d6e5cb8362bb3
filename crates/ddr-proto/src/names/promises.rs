//! The word of a voter to a writer that must not overwrite: single-decree Paxos for one name
//! (Lamport, "Paxos Made Simple", 2001), with the stamps of name records as ballots.
//!
//! A writer first has a read quorum promise its ballot; each tells what it keeps. Only where none
//! keeps another digest it asks the voters to accept. A voter accepts from the writer that it has
//! promised last, and only over nothing, a tombstone, or the same digest. So of two writers the one
//! with the lower ballot is refused by a voter of every quorum, or the other one has seen it.
//!
//! Promises live in memory. A voter that was restarted has none and so accepts nothing that was
//! prepared before; and it promises nothing below what it may have promised before, which is the
//! highest stamp that it would have taken. This is safe, and costs a writer another attempt.

use std::collections::BTreeMap;

use super::{MAX_AHEAD_MS, next_stamp};
use crate::id::Key;
use crate::time::Timestamp;
use crate::wire::NameRecord;

/// How long who has a promise may make use of it. Nothing lower is ever promised after it.
pub const PROMISE_MS: u64 = 10_000;
/// Promises of one voter; beyond, writers are told to come back.
pub const MAX_PROMISES: usize = 4_096;

/// The order of writes of one name: stamp, then writer.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Ballot {
    /// The stamp that the record will have.
    pub stamp: u64,
    /// Who will sign it.
    pub writer: [u8; 32],
}

impl Ballot {
    /// That of a record.
    #[must_use]
    pub const fn of(record: &NameRecord) -> Self {
        Self { stamp: record.stamp, writer: record.writer }
    }
}

/// Why there is no promise.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoPromise {
    /// A higher ballot has one, or may have had one; its stamp.
    Outbid(u64),
    /// [`MAX_PROMISES`] hold.
    Full,
}

/// The promises of one voter.
#[derive(Clone, Debug)]
pub struct Promises {
    held: BTreeMap<Key, (Ballot, Timestamp)>,
    /// The highest stamp of a promise that is not remembered.
    floor: u64,
}

impl Promises {
    /// None yet, of a voter that starts at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        // The last stamp within the millisecond that it would have taken at most.
        let floor = next_stamp(None, now.after_ms(MAX_AHEAD_MS + 1)).saturating_sub(1);
        Self { held: BTreeMap::new(), floor }
    }

    /// Promises to accept nothing below `ballot`, unless something higher has the promise.
    pub fn promise(&mut self, key: Key, ballot: Ballot, now: Timestamp) -> Result<(), NoPromise> {
        match self.held.get(&key) {
            Some((held, _)) if *held > ballot => return Err(NoPromise::Outbid(held.stamp)),
            Some(_) => {}
            None if ballot.stamp <= self.floor => return Err(NoPromise::Outbid(self.floor)),
            None => self.make_room(now)?,
        }
        self.held.insert(key, (ballot, now.after_ms(PROMISE_MS)));
        Ok(())
    }

    /// Whether `offered` may be kept in the place of `kept`: it has the promise, and takes no other
    /// digest away.
    #[must_use]
    pub fn may_accept(
        &self,
        offered: &NameRecord,
        kept: Option<&NameRecord>,
        now: Timestamp,
    ) -> bool {
        let is_promised = self.live(&offered.key(), now) == Some(Ballot::of(offered));
        let kept = kept.and_then(|kept| kept.digest);
        is_promised && (kept.is_none() || kept == offered.digest)
    }

    /// Forgets promises of which nobody can make use any more.
    fn make_room(&mut self, now: Timestamp) -> Result<(), NoPromise> {
        if self.held.len() < MAX_PROMISES {
            return Ok(());
        }
        let floor = &mut self.floor;
        self.held.retain(|_, (ballot, until)| {
            let is_live = *until > now;
            if !is_live {
                *floor = (*floor).max(ballot.stamp);
            }
            is_live
        });
        if self.held.len() < MAX_PROMISES { Ok(()) } else { Err(NoPromise::Full) }
    }

    fn live(&self, key: &Key, now: Timestamp) -> Option<Ballot> {
        self.held.get(key).filter(|(_, until)| *until > now).map(|(ballot, _)| *ballot)
    }
}
