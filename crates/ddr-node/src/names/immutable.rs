//! Tags that are neither moved nor deleted once they are there.
//!
//! Decides who of two writers that come first at the same time has the tag: see
//! [`ddr_proto::names::Promises`]. A push is acknowledged only when a majority has accepted its
//! digest, and after that no other digest is accepted by a writer that asks so. It must never write
//! such a tag in the way of others, by a higher stamp alone.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_proto::id::Key;
use ddr_proto::names::{self, Ballot, Read, Write};
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{NameRecord, SetEntry};

use super::read::hear;
use super::vote::Poll;
use super::{Parts, Voters};
use crate::{ReadError, TagWriteError};

/// Ballots of one write before it gives up: others write the same tag all the time.
const MAX_BALLOTS: u64 = 8;
/// The longest random wait before the next ballot, times the number of those that failed.
const BACK_OFF_MS: u64 = 40;

/// What voters said to a ballot.
struct Prepared {
    read: Read,
    /// The highest stamp that kept a voter from a promise, of those that others would take.
    outbid_by: Option<u64>,
}

impl Parts {
    /// Refuses what would move or delete an immutable tag: it points to something else than `wanted`.
    pub(super) async fn check_immutable(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        wanted: Option<&Digest>,
    ) -> Result<(), TagWriteError> {
        if !self.rules.is_immutable(repository, tag) {
            return Ok(());
        }
        let record = self.read(Key::of_name(repository, tag)).await?;
        match record.and_then(|record| record.digest) {
            Some(digest) if wanted != Some(&digest) => {
                Err(TagWriteError::Immutable { tag: tag.clone(), digest })
            }
            _ => Ok(()),
        }
    }

    /// Points an immutable tag to `digest`, in the register, then in the set of tags. Refused when it
    /// points elsewhere.
    pub(super) async fn write_immutable(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), TagWriteError> {
        let key = Key::of_name(repository, tag);
        let mut seen = None;
        let mut failed = self.lost("the tag is written all the time; try again".into());
        for attempt in 1..=MAX_BALLOTS {
            let voters = self.voters(&key).await?;
            // By the clock of most voters: what they have promised before is judged by it, too.
            let now = self.reached_time(&voters).await.unwrap_or_else(|| self.clock.now());
            let stamp = self.new_ballot(names::next_stamp(seen, now));
            let ballot = Ballot { stamp, writer: *self.signer.public_key() };
            let prepared = self.prepare((key, ballot), &voters, now).await;
            let newest = match self.conclude(&prepared.read, &voters).await {
                Ok(newest) => newest,
                Err(error) if prepared.outbid_by.is_none() => return Err(error.into()),
                Err(error) => {
                    (seen, failed) = (seen.max(prepared.outbid_by), error);
                    self.back_off(attempt).await;
                    continue;
                }
            };
            if let Some(other) = newest.as_ref().and_then(|newest| newest.digest)
                && other != *digest
            {
                return Err(TagWriteError::Immutable { tag: tag.clone(), digest: other });
            }
            seen = seen.max(newest.map(|newest| newest.stamp));
            if seen.is_some_and(|seen| seen >= stamp) {
                seen = seen.max(prepared.outbid_by);
                continue;
            }
            // Enough have promised, whatever the others did.
            let name = (repository.clone(), tag.clone());
            let record = NameRecord::sign(&self.signer, name.0, name.1, Some(*digest), stamp);
            match self.accept(&record, &voters).await {
                Ok(()) => return Ok(self.list_immutable(record).await?),
                Err(error) => failed = error,
            }
            seen = seen.max(Some(stamp)).max(prepared.outbid_by);
            self.back_off(attempt).await;
        }
        Err(failed.into())
    }

    async fn list_immutable(&self, record: NameRecord) -> Result<(), ReadError> {
        self.write_entry(&SetEntry::Tag(record.clone())).await?;
        self.list_tag(&record.repository, &record.tag, record.digest).await
    }

    /// `stamp`, or a later one: this node makes no two ballots of one stamp.
    fn new_ballot(&self, stamp: u64) -> u64 {
        let (last, order) = (&self.deciding.last_ballot, Ordering::Relaxed);
        let later = |last: u64| Some(stamp.max(last.saturating_add(1)));
        last.fetch_update(order, order, later).ok().and_then(later).unwrap_or(stamp)
    }

    /// Asks for promises; what is kept counts only from those that promised. A stamp of the future outbids nobody: the
    /// others would refuse a higher one.
    async fn prepare(
        &self,
        (key, ballot): (Key, Ballot),
        voters: &Voters,
        now: Timestamp,
    ) -> Prepared {
        let mut outbid_by = None;
        let promised = |said| match said {
            Ok(record) => Some(record),
            Err(higher) => {
                let higher = Some(higher).filter(|stamp| names::stamp_is_acceptable(*stamp, now));
                outbid_by = outbid_by.max(higher);
                None
            }
        };
        let read = hear(voters, Poll::prepare(self, (key, ballot), voters), promised).await;
        Prepared { read, outbid_by }
    }

    /// Done when a majority has accepted the record itself: that somebody keeps something newer is no
    /// consent.
    async fn accept(&self, record: &NameRecord, voters: &Voters) -> Result<(), ReadError> {
        let mut write = Write::new(record.clone(), voters.all.iter().map(|voter| voter.id));
        voters.silent.iter().for_each(|silent| write.failed(*silent));
        self.count_write(write, Poll::accept(self, record, voters), None).await.map(drop)
    }

    async fn back_off(&self, attempt: u64) {
        let random = getrandom::u64().unwrap_or(0) % (BACK_OFF_MS * attempt);
        tokio::time::sleep(Duration::from_millis(random)).await;
    }
}
