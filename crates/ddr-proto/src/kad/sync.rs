//! Anti-entropy: neighbours compare the provider records that they keep for the same keys.
//!
//! The papers store a record on the k closest nodes and trust that all of them got it until it is
//! published again (Kademlia, section 2.5). Here each node asks one sibling after the other (the
//! siblings agree on who is closest: S/Kademlia, section 4.2) whether it keeps something newer, so a
//! lost message is made good within a minute or so, withdrawals above all.
//!
//! What is compared is the *home range* of a node: the largest range of keys around its ID in which
//! at most k nodes live. All of them are among the k closest to all of its keys, and each other's
//! siblings, so their records should be the same. A node only takes; what the other lacks, that one
//! takes in its own turn. When nothing differs, one message of 250 bytes and an empty answer is all.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::calls::Purpose;
use super::gone::GoneMemory;
use super::records::Records;
use super::{Kad, Reason};
use crate::id::{Distance, ID_BITS, NodeId};
use crate::time::Timestamp;
use crate::wire::{
    CELLS, Contact, KeyRange, MAX_MARKS, MAX_RECORDS_PER_PUT, Mark, ProviderRecord, RefuseReason,
    Request, Response,
};

/// Most records that one comparison covers; a fuller range is halved at random.
const MAX_COMPARED: usize = 16_384;
/// A key with more holders is not compared but for its withdrawals: it is found anyway.
const MAX_COMPARED_HOLDERS: usize = 32;
/// Records that expire within this are not worth passing on.
const LEAST_LIFE_MS: u64 = 60_000;
/// Requests for records that may follow one comparison.
const MAX_FETCHES: u32 = 8;
/// Comparisons and requests for records that are answered within [`WINDOW_MS`]; more are refused.
const MAX_ANSWERED: u32 = 64;
const WINDOW_MS: u64 = 10_000;

const NEVER: Timestamp = Timestamp(u64::MAX);

/// A comparison that runs.
#[derive(Debug)]
struct Exchange {
    with: Arc<Contact>,
    range: KeyRange,
    salt: Mark,
    /// Marks of records that the other keeps and this node lacks.
    missing: Vec<Mark>,
    asked: BTreeSet<Mark>,
    fetches: u32,
}

/// Whom this node compares with, and how many it has answered lately.
#[derive(Debug)]
pub(super) struct Sync {
    pub(super) next: Timestamp,
    last: Option<Distance>,
    exchange: Option<Box<Exchange>>,
    window: Timestamp,
    answered: u32,
}

impl Default for Sync {
    fn default() -> Self {
        let window = Timestamp::default();
        Self { next: NEVER, last: None, exchange: None, window, answered: 0 }
    }
}

/// The records of a range that two nodes compare, with their marks.
struct Compared<'a> {
    records: &'a Records,
    gone: &'a GoneMemory,
    range: KeyRange,
    /// The two nodes: their own records are no matter between them.
    parties: [NodeId; 2],
    now: Timestamp,
}

impl<'a> Compared<'a> {
    fn records(&self) -> impl Iterator<Item = &'a ProviderRecord> + use<'a> {
        let (range, parties, now, gone) = (self.range, self.parties, self.now, self.gone);
        let keys = self.records.keys_from(range.first());
        let keys = keys.take_while(move |(key, _)| range.contains(key));
        let records = keys.flat_map(|(_, records)| {
            let few = records.len() <= MAX_COMPARED_HOLDERS;
            records.iter().filter(move |record| few || record.withdrawn)
        });
        let wanted = move |record: &&ProviderRecord| {
            record.expires_ms > now.0.saturating_add(LEAST_LIFE_MS)
                && !parties.contains(&record.provider.id)
                && !gone.contains(&record.provider.id)
        };
        records.filter(wanted).take(MAX_COMPARED)
    }

    fn sums(&self, salt: Mark) -> [Mark; CELLS] {
        let mut sums = [Mark::default(); CELLS];
        for record in self.records() {
            sums[self.range.cell_of(&record.key)].add(Mark::of(record, salt));
        }
        sums
    }
}

impl Kad {
    /// There is somebody to compare with.
    pub(super) fn expect_sync(&mut self) {
        if self.sync.next == NEVER {
            self.sync.next = self.now.after_ms(self.chance.jitter_ms(self.cfg.sync_ms));
        }
    }

    /// Begins the comparison that is due.
    pub(super) fn run_sync(&mut self) {
        if self.now < self.sync.next {
            return;
        }
        self.sync.next = NEVER;
        if self.table.live().next().is_none() {
            return;
        }
        self.expect_sync();
        let range = self.home_range();
        let Some(with) = self.next_sibling(&range) else {
            return;
        };
        let range = self.part_to_compare(range);
        let salt = Mark(std::array::from_fn(|_| self.chance.below(256) as u8));
        let sums = self.compared(range, &with.id).sums(salt);
        let (missing, asked, to) = (Vec::new(), BTreeSet::new(), Arc::clone(&with));
        let exchange = Exchange { with, range, salt, missing, asked, fetches: 0 };
        self.sync.exchange = Some(Box::new(exchange));
        self.call(to, Purpose::Sync, Request::Compare { range, salt, sums });
    }

    /// The largest range around the own ID in which at most k nodes live, this one included.
    fn home_range(&self) -> KeyRange {
        let start = self.own.id.to_key();
        let first_outside = self.table.live().nth(self.cfg.k - 1);
        let bits = first_outside
            .map_or(0, |peer| (peer.contact.id.distance(&start).shared_bits() + 1).min(ID_BITS));
        KeyRange { start, bits: bits as u16 }
    }

    /// The next live node of the range, in the order of distance.
    fn next_sibling(&mut self, range: &KeyRange) -> Option<Arc<Contact>> {
        let inside = self.table.live().filter(|peer| range.contains(&peer.contact.id.to_key()));
        let mut inside = inside.map(|peer| (self.table.distance(&peer.contact.id), &peer.contact));
        let first = inside.next()?;
        let after = |last: Distance| {
            if first.0 > last { Some(first) } else { inside.find(|(distance, _)| *distance > last) }
        };
        let (distance, contact) = self.sync.last.and_then(after).unwrap_or(first);
        self.sync.last = Some(distance);
        Some(Arc::clone(contact))
    }

    /// The range, or a random part of it with few enough records.
    fn part_to_compare(&mut self, mut range: KeyRange) -> KeyRange {
        while range.bits < ID_BITS as u16
            && self.compared(range, &self.own.id).records().nth(MAX_COMPARED - 1).is_some()
        {
            range = range.half(self.chance.below(2) == 1);
        }
        range
    }

    fn compared(&self, range: KeyRange, other: &NodeId) -> Compared<'_> {
        let (records, gone, parties) = (&self.records, &self.gone, [self.own.id, *other]);
        Compared { records, gone, range, parties, now: self.now }
    }

    /// The sibling answered: it told its marks, or sent records.
    pub(super) fn on_sync_answer(&mut self, from: &NodeId, response: Response) {
        let Some(exchange) = self.sync.exchange.take() else {
            return;
        };
        match response {
            Response::Compared { marks } if exchange.fetches == 0 => {
                self.on_compared(exchange, marks);
            }
            Response::Records { records } if exchange.fetches > 0 => {
                self.on_records(exchange, records);
            }
            Response::Refused { .. } => {}
            _ => self.report(*from, Reason::WrongAnswer),
        }
    }

    pub(super) fn on_sync_failed(&mut self) {
        self.sync.exchange = None;
    }

    fn on_compared(&mut self, mut exchange: Box<Exchange>, marks: Vec<Mark>) {
        if marks.is_empty() {
            return;
        }
        let (salt, compared) = (exchange.salt, self.compared(exchange.range, &exchange.with.id));
        let known: BTreeSet<Mark> =
            compared.records().map(|record| Mark::of(record, salt)).collect();
        exchange.missing = marks.into_iter().filter(|mark| !known.contains(mark)).collect();
        self.fetch(exchange);
    }

    fn fetch(&mut self, mut exchange: Box<Exchange>) {
        let some = exchange.missing.len().min(MAX_RECORDS_PER_PUT);
        if some == 0 || exchange.fetches >= MAX_FETCHES {
            return;
        }
        let marks: Vec<Mark> = exchange.missing.drain(..some).collect();
        exchange.asked = marks.iter().copied().collect();
        exchange.fetches += 1;
        let (range, salt, to) = (exchange.range, exchange.salt, Arc::clone(&exchange.with));
        self.sync.exchange = Some(exchange);
        self.call(to, Purpose::Sync, Request::GetRecords { range, salt, marks });
    }

    fn on_records(&mut self, exchange: Box<Exchange>, records: Vec<ProviderRecord>) {
        let from = exchange.with.id;
        for record in records {
            let key = record.key;
            if !exchange.asked.contains(&Mark::of(&record, exchange.salt))
                || !exchange.range.contains(&key)
                || record.provider.id == self.own.id
            {
                return self.report(from, Reason::ForeignRecord);
            }
            match self.keep(record) {
                Ok(_) => self.answers.forget(&key),
                Err(error) => return self.report(from, Reason::BadRecord(error)),
            }
        }
        self.upkeep.expect_expiry(self.now);
        self.fetch(exchange);
    }

    /// Answers a comparison: the marks in the cells that differ, whole cells while there is room.
    pub(super) fn compare(
        &mut self,
        from: &NodeId,
        range: KeyRange,
        salt: Mark,
        sums: &[Mark; CELLS],
    ) -> Response {
        if !self.may_sync(from) {
            return Response::Refused { reason: RefuseReason::Busy };
        }
        let compared = self.compared(range, from);
        let own = compared.sums(salt);
        let differs = |record: &&ProviderRecord| {
            let cell = range.cell_of(&record.key);
            own[cell] != sums[cell]
        };
        let marks = compared.records().filter(differs).map(|record| Mark::of(record, salt));
        Response::Compared { marks: marks.take(MAX_MARKS).collect() }
    }

    /// Answers a request for the records behind marks.
    pub(super) fn records_behind(
        &mut self,
        from: &NodeId,
        range: KeyRange,
        salt: Mark,
        marks: Vec<Mark>,
    ) -> Response {
        if !self.may_sync(from) {
            return Response::Refused { reason: RefuseReason::Busy };
        }
        let marks: BTreeSet<Mark> = marks.into_iter().collect();
        let wanted = |record: &&ProviderRecord| marks.contains(&Mark::of(record, salt));
        let records = self.compared(range, from).records().filter(wanted);
        Response::Records { records: records.take(MAX_RECORDS_PER_PUT).cloned().collect() }
    }

    /// Comparing costs time: only peers may ask, and all together not too often.
    fn may_sync(&mut self, from: &NodeId) -> bool {
        if self.now.since_ms(self.sync.window) >= WINDOW_MS {
            (self.sync.window, self.sync.answered) = (self.now, 0);
        }
        let known = self.table.get(from).is_some_and(super::table::Peer::alive);
        if !known || self.sync.answered >= MAX_ANSWERED {
            return false;
        }
        self.sync.answered += 1;
        true
    }
}
