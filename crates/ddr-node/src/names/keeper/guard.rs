//! The storing side of writes that must not overwrite; the rules are in
//! [`ddr_proto::names::Promises`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use ddr_proto::id::Key;
use ddr_proto::names::{Ballot, NoPromise, Promises, stamp_is_acceptable};
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{NameRecord, RefuseReason, Response};
use ddr_store::IndexError;

use super::{Keeper, refused};

/// Parts of the names, each with a lock of its own.
const SHARDS: usize = 64;

/// Promises, by name. The lock of a name is held from the look at what is kept until that is
/// changed, so that no writer is told of a record that another one is about to replace.
pub(super) struct Guards([Mutex<Promises>; SHARDS]);

impl Guards {
    pub(super) fn new(now: Timestamp) -> Self {
        Self(std::array::from_fn(|_| Mutex::new(Promises::new(now))))
    }

    fn of(&self, key: &Key) -> MutexGuard<'_, Promises> {
        let shard = usize::from(key.as_bytes()[31]) % SHARDS;
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Promises a ballot, and says what is kept. Blocks.
    pub(super) fn prepare(&self, key: Key, ballot: Ballot) -> Result<Response, IndexError> {
        let now = self.clock.now();
        if !stamp_is_acceptable(ballot.stamp, now) {
            return Ok(refused(RefuseReason::ClockAhead));
        }
        let mut promises = self.guards.of(&key);
        let outbid_by = match promises.promise(key, ballot, now) {
            Ok(()) => None,
            Err(NoPromise::Outbid(stamp)) => Some(stamp),
            Err(NoPromise::Full) => return Ok(refused(RefuseReason::Busy)),
        };
        let record = self.record(key)?.map(std::sync::Arc::unwrap_or_clone);
        if self.must_not_say(record.as_ref()) {
            return Ok(refused(RefuseReason::Doubtful));
        }
        let young = record.is_none() && self.is_young();
        Ok(Response::Promise { outbid_by, record, young })
    }

    /// Keeps a record that was promised and takes nothing away. Blocks until it is durable.
    pub(super) fn accept(&self, record: NameRecord) -> Result<Response, IndexError> {
        let key = record.key();
        let promises = self.guards.of(&key);
        let kept = self.record(key)?;
        if !promises.may_accept(&record, kept.as_deref(), self.clock.now()) {
            let newest = kept.map(std::sync::Arc::unwrap_or_clone);
            return Ok(Response::NameStored { stored: false, newest });
        }
        self.put(record)
    }
}
