//! The machines, what they keep, and what is asked of them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::names::{
    FULL, Read, ReadDecision, Write, WriteDecision, common_time, next_stamp, stamp_is_acceptable,
    supersedes, write_quorum,
};
use ddr_proto::time::Timestamp;
use ddr_proto::wire::NameRecord;

use super::{NamesReport, NamesSetup};
use crate::copies::DAY_MS;
use crate::dice::Dice;
use crate::identity::Secret;
use crate::queue::Queue;

/// How long a node that joined abstains from what it lacks.
const YOUNG_MS: u64 = 30_000;
/// How long a machine that went counts as a voter.
const MEMBER_MEMORY_MS: u64 = 5 * 60_000;
/// How long it takes to put another machine in the place of a lost one.
const REPLACE_MS: u64 = 60 * 60 * 1000;
/// When clocks begin: later than any skew.
const EPOCH_MS: u64 = 1_000_000_000;
/// One operation in so many is a write.
const READS_TO_WRITES: u64 = 4;

enum Event {
    Lose(usize),
    Replace(usize),
    Leave(usize),
    Back(usize),
    Rack,
    Settle,
    Operation,
}

struct Machine {
    secret: Secret,
    is_up: bool,
    born: u64,
    /// How far its clock is off.
    skew: i64,
    kept: BTreeMap<usize, NameRecord>,
}

struct Name {
    tag: Tag,
    key: Key,
    /// The newest that was acknowledged or read: no later read may answer with less.
    floor: Option<NameRecord>,
}

/// Why a machine says nothing of a record.
enum Silence {
    /// It is young and does not have it.
    Abstained,
    Failed,
}

struct World<'a> {
    setup: &'a NamesSetup,
    repository: RepositoryName,
    dice: Dice,
    events: Queue<Event>,
    now: u64,
    /// The machine in each place; `None` while it is being replaced.
    places: Vec<Option<NodeId>>,
    machines: BTreeMap<NodeId, Machine>,
    /// Who is not there: since when. The swarm counts them as voters for a while.
    silent: BTreeMap<NodeId, u64>,
    names: Vec<Name>,
    /// A settling is on its way.
    settles: bool,
    report: NamesReport,
}

/// Runs it to its end. `repository` is where the tags are.
#[must_use]
pub fn run(setup: &NamesSetup, repository: &RepositoryName) -> NamesReport {
    let mut world = World::new(setup, repository);
    let end = setup.days * DAY_MS;
    while let Some((at, event)) = world.events.pop(end) {
        world.now = at;
        world.handle(event);
    }
    world.finish()
}

impl<'a> World<'a> {
    fn new(setup: &'a NamesSetup, repository: &RepositoryName) -> Self {
        let report = NamesReport {
            nodes: setup.nodes,
            names: setup.names,
            days: setup.days,
            ..NamesReport::default()
        };
        let name = |number: usize| {
            let tag: Tag = format!("t{number}").parse().ok()?;
            let key = Key::of_name(repository, &tag);
            Some(Name { tag, key, floor: None })
        };
        let mut world = Self {
            setup,
            repository: repository.clone(),
            dice: Dice::new(setup.seed, 0),
            events: Queue::default(),
            now: 0,
            places: vec![None; setup.nodes],
            machines: BTreeMap::new(),
            silent: BTreeMap::new(),
            names: (0..setup.names).filter_map(name).collect(),
            settles: false,
            report,
        };
        for place in 0..setup.nodes {
            world.install(place);
            world.later(setup.away, Event::Leave(place));
        }
        if let Some((_, day, _)) = setup.rack {
            world.events.push(day * DAY_MS, Event::Rack);
        }
        // The machines of the first moment have known each other for long.
        world.machines.values_mut().for_each(|machine| machine.born = 0);
        world.events.push(YOUNG_MS, Event::Operation);
        world
    }

    /// Puts an empty machine in a place.
    fn install(&mut self, place: usize) {
        let secret = Secret::random(&mut self.dice);
        let id = secret.signer().node_id();
        let skew = self.dice.below(2 * self.setup.skew_ms + 1).cast_signed();
        let skew = skew - self.setup.skew_ms.cast_signed();
        let (born, kept) = (self.now, BTreeMap::new());
        self.machines.insert(id, Machine { secret, is_up: true, born, skew, kept });
        self.places[place] = Some(id);
        self.later(self.setup.loss, Event::Lose(place));
        self.changed();
    }

    /// An event that happens so many times a day.
    fn later(&mut self, a_day: f64, event: Event) {
        if a_day > 0.0 {
            let wait = self.exponential(DAY_MS as f64 / a_day);
            self.events.push(self.now + wait, event);
        }
    }

    fn exponential(&mut self, mean_ms: f64) -> u64 {
        (-(1.0 - self.dice.unit()).ln() * mean_ms) as u64
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Lose(place) => {
                let Some(id) = self.places[place].take() else { return };
                self.machines.remove(&id);
                self.silent.entry(id).or_insert(self.now);
                self.report.nodes_lost += 1;
                self.events.push(self.now + REPLACE_MS, Event::Replace(place));
                self.changed();
            }
            Event::Replace(place) => self.install(place),
            Event::Leave(place) => {
                self.later(self.setup.away, Event::Leave(place));
                let wait = self.exponential(self.setup.away_ms as f64);
                self.leave(place, wait);
            }
            Event::Back(place) => {
                self.turn(place, true);
            }
            Event::Rack => {
                let Some((part, _, wait)) = self.setup.rack else { return };
                let count = (part * self.setup.nodes as f64) as usize;
                (0..count).for_each(|place| self.leave(place, wait));
            }
            Event::Settle => {
                self.settles = false;
                (0..self.names.len()).for_each(|name| self.settle(name));
            }
            Event::Operation => {
                let wait = self.exponential(self.setup.every_ms as f64).max(1);
                self.events.push(self.now + wait, Event::Operation);
                self.operation();
            }
        }
    }

    fn leave(&mut self, place: usize, wait: u64) {
        if self.turn(place, false) {
            self.report.outages += 1;
            self.events.push(self.now + wait, Event::Back(place));
        }
    }

    /// Takes a machine up or down; whether it was the other before.
    fn turn(&mut self, place: usize, up: bool) -> bool {
        let id = self.places[place];
        let Some(machine) = id.and_then(|id| self.machines.get_mut(&id)) else { return false };
        let turned = machine.is_up != up;
        machine.is_up = up;
        if turned {
            id.iter().for_each(|id| match up {
                true => drop(self.silent.remove(id)),
                false => drop(self.silent.insert(*id, self.now)),
            });
            self.changed();
        }
        turned
    }

    /// Names settle a while after the swarm has changed.
    fn changed(&mut self) {
        if !self.settles && self.setup.settle_ms > 0 {
            self.settles = true;
            self.events.push(self.now + self.setup.settle_ms, Event::Settle);
        }
    }

    /// The nodes closest to a name that are there, nearest first.
    fn closest(&self, key: &Key, count: usize) -> Vec<NodeId> {
        let up = self.machines.iter().filter(|(_, machine)| machine.is_up);
        let mut near: Vec<NodeId> = up.map(|(id, _)| *id).collect();
        if count < near.len() {
            near.select_nth_unstable_by_key(count, |id| id.distance(key));
            near.truncate(count);
        }
        near.sort_unstable_by_key(|id| id.distance(key));
        near
    }

    /// Who keeps a name as an operation finds them; where they are few, with those who were there lately.
    fn voters(&mut self, name: usize) -> Vec<NodeId> {
        let key = self.names[name].key;
        let mut found = self.closest(&key, 2 * FULL);
        let (dice, miss) = (&mut self.dice, self.setup.miss);
        found.retain(|_| !dice.hits(miss));
        found.truncate(FULL);
        if found.len() < FULL {
            let now = self.now;
            self.silent.retain(|_, since| now - *since < MEMBER_MEMORY_MS);
            let mut silent: Vec<NodeId> = self.silent.keys().copied().collect();
            silent.sort_unstable_by_key(|id| id.distance(&key));
            found.extend(silent.into_iter().take(FULL - found.len()));
        }
        found
    }

    /// Everybody who keeps a name gives it to those who are closest now.
    fn settle(&mut self, name: usize) {
        let up = self.machines.values().filter(|machine| machine.is_up);
        let kept = up.filter_map(|machine| machine.kept.get(&name));
        let Some(newest) = kept.max_by(|a, b| a.cmp_newness(b)).cloned() else { return };
        for node in self.closest(&self.names[name].key, FULL) {
            let lacks = |machine: &&mut Machine| supersedes(&newest, machine.kept.get(&name));
            if let Some(machine) = self.machines.get_mut(&node).filter(lacks) {
                machine.kept.insert(name, newest.clone());
                self.report.settled += 1;
            }
        }
    }

    fn operation(&mut self) {
        let name = self.dice.index(self.names.len());
        let place = self.dice.index(self.places.len());
        let Some(writer) = self.places[place].filter(|id| self.machines[id].is_up) else { return };
        if self.dice.below(READS_TO_WRITES) == 0 {
            self.write(name, &writer);
        } else {
            self.read_and_check(name);
        }
    }

    fn read_and_check(&mut self, name: usize) {
        let voters = self.voters(name);
        let Ok(record) = self.read(name, &voters) else {
            self.report.reads_refused += 1;
            return;
        };
        self.report.reads += 1;
        let floor = &mut self.names[name].floor;
        let order = match (&record, &*floor) {
            (Some(record), Some(floor)) => record.cmp_newness(floor),
            (None, Some(_)) => Ordering::Less,
            (_, None) => Ordering::Greater,
        };
        if order == Ordering::Less {
            self.report.stale_reads += 1;
        } else {
            *floor = record;
        }
    }

    fn ask(&mut self, name: usize, voter: &NodeId) -> Result<Option<NameRecord>, Silence> {
        if self.dice.hits(self.setup.drop) {
            return Err(Silence::Failed);
        }
        match self.machines.get(voter).filter(|machine| machine.is_up) {
            None => Err(Silence::Failed),
            Some(machine) => match machine.kept.get(&name) {
                Some(record) => Ok(Some(record.clone())),
                None if machine.born > 0 && self.now < machine.born + YOUNG_MS => {
                    Err(Silence::Abstained)
                }
                None => Ok(None),
            },
        }
    }

    /// What a majority says, as the driver of the daemon finds it.
    fn read(&mut self, name: usize, voters: &[NodeId]) -> Result<Option<NameRecord>, ()> {
        let mut read = Read::new(voters.iter().copied());
        let (mut abstained, mut any_failed) = (Vec::new(), false);
        for voter in voters {
            match self.ask(name, voter) {
                Ok(record) => read.answered(*voter, record),
                Err(Silence::Abstained) => abstained.push(*voter),
                Err(Silence::Failed) => {
                    any_failed = true;
                    read.failed(*voter);
                }
            }
        }
        if !any_failed {
            abstained.iter().for_each(|voter| read.answered(*voter, None));
        }
        match read.decide() {
            ReadDecision::Newest { record, behind, kept_by } => {
                let needed = write_quorum(voters.len()).saturating_sub(kept_by);
                let told = behind.iter().filter(|voter| self.put(name, voter, &record).is_ok());
                if told.count() >= needed { Ok(Some(record)) } else { Err(()) }
            }
            ReadDecision::Nothing | ReadDecision::NothingYet => Ok(None),
            ReadDecision::Wait | ReadDecision::Impossible { .. } => Err(()),
        }
    }

    /// Tells a voter a record: `Ok` is what it keeps instead, if that is newer.
    fn put(
        &mut self,
        name: usize,
        voter: &NodeId,
        record: &NameRecord,
    ) -> Result<Option<NameRecord>, ()> {
        if self.dice.hits(self.setup.drop) {
            return Err(());
        }
        let now = self.now;
        let machine = self.machines.get_mut(voter).filter(|machine| machine.is_up).ok_or(())?;
        if !stamp_is_acceptable(record.stamp, machine.clock(now)) {
            return Err(());
        }
        match machine.kept.get(&name) {
            Some(kept) if !supersedes(record, Some(kept)) => {
                Ok(Some(kept.clone()).filter(|kept| kept != record))
            }
            _ => {
                machine.kept.insert(name, record.clone());
                Ok(None)
            }
        }
    }

    fn write(&mut self, name: usize, writer: &NodeId) {
        let voters = self.voters(name);
        let acknowledged = self.try_write(name, writer, &voters);
        let Some(record) = acknowledged else {
            self.report.writes_refused += 1;
            return;
        };
        self.report.writes += 1;
        let floor = &mut self.names[name].floor;
        if supersedes(&record, floor.as_ref()) {
            *floor = Some(record);
        } else {
            // It was acknowledged although something newer was, too: nobody will ever read it.
            self.report.stale_reads += 1;
        }
    }

    fn try_write(&mut self, name: usize, writer: &NodeId, voters: &[NodeId]) -> Option<NameRecord> {
        let seen = self.read(name, voters).ok()?.map(|record| record.stamp);
        let up = voters.iter().filter_map(|id| self.machines.get(id).filter(|one| one.is_up));
        let clocks = up.map(|machine| machine.clock(self.now)).collect();
        let machine = &self.machines[writer];
        let now = common_time(machine.clock(self.now), clocks, voters.len());
        let stamp = next_stamp(seen, now);
        let (signer, tag) = (machine.secret.signer(), self.names[name].tag.clone());
        let digest = Digest::sha256(&self.dice.bytes());
        let record = NameRecord::sign(&signer, self.repository.clone(), tag, Some(digest), stamp);
        let mut write = Write::new(record.clone(), voters.iter().copied());
        for voter in voters {
            match self.put(name, voter, &record) {
                Ok(None) => write.stored(*voter),
                Ok(newer) => write.not_stored(*voter, newer),
                Err(()) => write.failed(*voter),
            }
        }
        matches!(write.decide(), WriteDecision::Done { superseded_by: None }).then_some(record)
    }

    /// At the end everybody is there again, and what was acknowledged is looked for.
    fn finish(mut self) -> NamesReport {
        self.machines.values_mut().for_each(|machine| machine.is_up = true);
        for (number, name) in self.names.iter().enumerate() {
            let Some(floor) = &name.floor else { continue };
            let has_it = |machine: &Machine| {
                machine.kept.get(&number).is_some_and(|kept| kept.cmp_newness(floor).is_ge())
            };
            self.report.lost_writes += u64::from(!self.machines.values().any(has_it));
        }
        self.report
    }
}

impl Machine {
    fn clock(&self, now: u64) -> Timestamp {
        Timestamp((EPOCH_MS + now).saturating_add_signed(self.skew))
    }
}
