//! The machines, what lies on them, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};

use ddr_proto::id::{Key, NodeId};
use ddr_proto::replica::{Candidate, Need, Pace, Task, Vigil, is_surplus, place_in_line, plan};
use ddr_proto::time::Timestamp;

use super::{CopiesReport, CopiesSetup, DAY_MS};
use crate::dice::Dice;
use crate::queue::Queue;

/// Nodes near a key that may become holders.
const NEAR: usize = 20;
/// Parts that one node mends at once.
const AT_ONCE: usize = 4;
/// How long a part has too many copies before one is let go.
const SURPLUS_MS: u64 = DAY_MS;
/// In a storm a machine is lost after so many grace periods.
const STORM_GRACE: u64 = 4;
/// How long it takes to put another machine in the place of a lost one.
const REPLACE_MS: u64 = 60 * 60 * 1000;

enum Event {
    Lose(usize),
    Replace(usize),
    Leave(usize),
    Back(usize),
    Rack,
    /// Somebody may have been silent for long enough.
    Look(NodeId),
    Copied {
        mender: NodeId,
        blob: usize,
        to: NodeId,
    },
    Surplus(usize),
}

struct Machine {
    zone: String,
    is_up: bool,
    blobs: BTreeSet<usize>,
    line: Pace<usize>,
}

struct Blob {
    key: Key,
    holders: Vec<NodeId>,
    /// When it fell short, if it is.
    short_since: Option<u64>,
}

struct World<'a> {
    setup: &'a CopiesSetup,
    dice: Dice,
    events: Queue<Event>,
    now: u64,
    /// The machine in each place; `None` while it is being replaced.
    places: Vec<Option<NodeId>>,
    machines: BTreeMap<NodeId, Machine>,
    blobs: Vec<Blob>,
    vigil: Vigil,
    /// Who is there, or is not known to be lost.
    watched: BTreeSet<NodeId>,
    report: CopiesReport,
    mends_s: Vec<f64>,
}

/// Runs it to its end.
#[must_use]
pub fn run(setup: &CopiesSetup) -> CopiesReport {
    let mut world = World::new(setup);
    let end = setup.days * DAY_MS;
    while let Some((at, event)) = world.events.pop(end) {
        world.now = at;
        world.handle(event);
    }
    world.finish()
}

impl<'a> World<'a> {
    fn new(setup: &'a CopiesSetup) -> Self {
        let report = CopiesReport {
            nodes: setup.nodes,
            blobs: setup.blobs,
            copies: setup.copies,
            days: setup.days,
            ..CopiesReport::default()
        };
        let mut world = Self {
            setup,
            dice: Dice::new(setup.seed, 0),
            events: Queue::default(),
            now: 0,
            places: vec![None; setup.nodes],
            machines: BTreeMap::new(),
            blobs: Vec::new(),
            vigil: Vigil::new(setup.grace_ms),
            watched: BTreeSet::new(),
            report,
            mends_s: Vec::new(),
        };
        for place in 0..setup.nodes {
            world.install(place);
            world.later(setup.away, Event::Leave(place));
        }
        (0..setup.blobs).for_each(|_| world.push());
        if let Some((_, day, _)) = setup.rack {
            world.events.push(day * DAY_MS, Event::Rack);
        }
        world
    }

    /// Puts an empty machine in a place.
    fn install(&mut self, place: usize) {
        let id = NodeId(self.dice.bytes());
        let zone = format!("z{}", place % self.setup.zones.max(1));
        let line = Pace::new(None, AT_ONCE);
        self.machines.insert(id, Machine { zone, is_up: true, blobs: BTreeSet::new(), line });
        self.places[place] = Some(id);
        self.vigil.add(Timestamp(self.now), id);
        self.watched.insert(id);
        self.later(self.setup.loss, Event::Lose(place));
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

    /// A blob comes in at a random machine and lies on as many as there shall be copies.
    fn push(&mut self) {
        let key = Key(self.dice.bytes());
        let first = self.places[self.dice.index(self.setup.nodes)];
        let mut holders: Vec<NodeId> = first.into_iter().collect();
        while holders.len() < self.setup.copies {
            let Some(next) = self.next_holder(&key, &holders) else { break };
            holders.push(next);
        }
        let blob = self.blobs.len();
        for holder in &holders {
            if let Some(machine) = self.machines.get_mut(holder) {
                machine.blobs.insert(blob);
            }
        }
        self.blobs.push(Blob { key, holders, short_since: None });
    }

    /// Whom the plan names first.
    fn next_holder(&self, key: &Key, holders: &[NodeId]) -> Option<NodeId> {
        let mut near: Vec<(&NodeId, &Machine)> =
            self.machines.iter().filter(|(_, machine)| machine.is_up).collect();
        let nearest = NEAR.min(near.len());
        if nearest < near.len() {
            near.select_nth_unstable_by_key(nearest, |(id, _)| id.distance(key));
        }
        let candidate = |id: &NodeId, machine: &Machine| Candidate {
            id: *id,
            zone: machine.zone.clone(),
            free: None,
        };
        let near: Vec<Candidate> =
            near[..nearest].iter().map(|(id, machine)| candidate(id, machine)).collect();
        let held = holders.iter().filter_map(|id| Some(candidate(id, self.machines.get(id)?)));
        let held: Vec<Candidate> = held.collect();
        let need = Need { key: *key, size: self.setup.bytes, holders: &held };
        plan(&need, &near).into_iter().find(|id| !holders.contains(id))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Lose(place) => self.lose(place),
            Event::Replace(place) => self.install(place),
            Event::Leave(place) => {
                self.later(self.setup.away, Event::Leave(place));
                let wait = self.exponential(self.setup.away_ms as f64);
                self.leave(place, wait);
            }
            Event::Back(place) => self.back(place),
            Event::Rack => {
                let Some((part, _, wait)) = self.setup.rack else { return };
                let count = (part * self.setup.nodes as f64) as usize;
                (0..count).for_each(|place| self.leave(place, wait));
            }
            Event::Look(node) => self.look(&node),
            Event::Copied { mender, blob, to } => self.copied(mender, blob, to),
            Event::Surplus(blob) => self.drop_surplus(blob),
        }
    }

    fn lose(&mut self, place: usize) {
        let Some(id) = self.places[place].take() else { return };
        let Some(machine) = self.machines.remove(&id) else { return };
        self.report.nodes_lost += 1;
        self.report.bytes_lost += machine.blobs.len() as u64 * self.setup.bytes;
        for blob in machine.blobs {
            let holders = &self.blobs[blob].holders;
            let left = holders.iter().filter(|node| self.machines.contains_key(node)).count();
            self.report.blobs_lost += u64::from(left == 0);
            self.report.single += u64::from(left == 1);
            if left < self.setup.copies {
                self.blobs[blob].short_since.get_or_insert(self.now);
            }
        }
        self.fall_silent(id);
        self.events.push(self.now + REPLACE_MS, Event::Replace(place));
    }

    fn leave(&mut self, place: usize, wait: u64) {
        let Some(id) = self.places[place] else { return };
        let Some(machine) = self.machines.get_mut(&id).filter(|machine| machine.is_up) else {
            return;
        };
        machine.is_up = false;
        self.report.outages += 1;
        self.fall_silent(id);
        self.events.push(self.now + wait, Event::Back(place));
    }

    fn back(&mut self, place: usize) {
        let Some(id) = self.places[place] else { return };
        let Some(machine) = self.machines.get_mut(&id) else { return };
        machine.is_up = true;
        let blobs: Vec<usize> = machine.blobs.iter().copied().collect();
        self.vigil.heard(Timestamp(self.now), &id);
        let lost = self.lost();
        for blob in blobs {
            self.settle(blob);
            // It may be the only one that can mend what fell short meanwhile.
            self.mend(blob, &lost);
        }
        self.pace(&id);
    }

    fn fall_silent(&mut self, id: NodeId) {
        // It was heard just now.
        self.vigil.heard(Timestamp(self.now), &id);
        for graces in [1, STORM_GRACE] {
            self.events.push(self.now + graces * self.setup.grace_ms, Event::Look(id));
        }
    }

    /// Who is lost, now that all who are up were heard.
    fn lost(&mut self) -> BTreeSet<NodeId> {
        let now = Timestamp(self.now);
        let up = self.machines.iter().filter(|(_, machine)| machine.is_up);
        up.for_each(|(id, _)| self.vigil.heard(now, id));
        self.vigil.lost(now)
    }

    /// Who was silent for long enough is lost: what it held is mended.
    fn look(&mut self, node: &NodeId) {
        if self.machines.get(node).is_some_and(|machine| machine.is_up) {
            return;
        }
        let held = (0..self.blobs.len()).filter(|blob| self.blobs[*blob].holders.contains(node));
        let held: Vec<usize> = held.collect();
        let lost = self.lost();
        held.into_iter().for_each(|blob| self.mend(blob, &lost));
        if !self.machines.contains_key(node) && lost.contains(node) {
            self.blobs.iter_mut().for_each(|blob| blob.holders.retain(|holder| holder != node));
            self.watched.remove(node);
            self.vigil.watch(Timestamp(self.now), &self.watched);
        }
    }

    /// Puts a blob in the line of its mender, if it is short.
    fn mend(&mut self, blob: usize, lost: &BTreeSet<NodeId>) {
        let Blob { key, holders, .. } = &self.blobs[blob];
        let now = Timestamp(self.now);
        let heard = holders.iter().filter(|node| !self.vigil.is_silent(now, node)).copied();
        let mut alive: Vec<NodeId> = heard.collect();
        if alive.len() > 1 {
            alive = holders.iter().filter(|node| !lost.contains(node)).copied().collect();
        }
        if alive.len() >= self.setup.copies {
            return;
        }
        let up = |node: &&NodeId| self.machines.get(node).is_some_and(|machine| machine.is_up);
        let able: Vec<NodeId> = alive.iter().filter(up).copied().collect();
        let mender = able.iter().find(|node| place_in_line(key, node, &able) == 0).copied();
        let Some(mender) = mender else { return };
        self.blobs[blob].short_since.get_or_insert(self.now);
        let task = Task { item: blob, left: alive.len(), bytes: self.setup.bytes };
        if let Some(machine) = self.machines.get_mut(&mender) {
            machine.line.add(task);
        }
        self.pace(&mender);
    }

    /// Begins what a mender may begin now.
    fn pace(&mut self, mender: &NodeId) {
        loop {
            let now = Timestamp(self.now);
            let Some(machine) = self.machines.get_mut(mender).filter(|machine| machine.is_up)
            else {
                return;
            };
            let Some(task) = machine.line.next(now) else { return };
            let blob = task.item;
            let next = self.next_holder(&self.blobs[blob].key, &self.blobs[blob].holders);
            let Some(to) = next else {
                self.ended(mender, blob);
                continue;
            };
            let took = self.setup.bytes.saturating_mul(1_000) / self.setup.rate.max(1);
            self.events.push(self.now + took, Event::Copied { mender: *mender, blob, to });
        }
    }

    fn ended(&mut self, mender: &NodeId, blob: usize) {
        if let Some(machine) = self.machines.get_mut(mender) {
            machine.line.ended(&blob);
        }
    }

    fn copied(&mut self, mender: NodeId, blob: usize, to: NodeId) {
        self.ended(&mender, blob);
        self.report.bytes_moved += self.setup.bytes;
        let is_source_up = self.machines.get(&mender).is_some_and(|machine| machine.is_up);
        if let Some(machine) =
            self.machines.get_mut(&to).filter(|machine| machine.is_up && is_source_up)
        {
            machine.blobs.insert(blob);
            if !self.blobs[blob].holders.contains(&to) {
                self.blobs[blob].holders.push(to);
            }
            self.settle(blob);
        }
        let lost = self.lost();
        self.mend(blob, &lost);
        self.pace(&mender);
    }

    /// Notes the end of a shortage, and when too many are to be looked for.
    fn settle(&mut self, blob: usize) {
        let copies = self.up_holders(blob).len();
        if copies < self.setup.copies {
            return;
        }
        if let Some(since) = self.blobs[blob].short_since.take() {
            self.mends_s.push((self.now - since) as f64 / 1_000.0);
        }
        if copies > self.setup.copies {
            self.events.push(self.now + SURPLUS_MS, Event::Surplus(blob));
        }
    }

    fn up_holders(&self, blob: usize) -> Vec<NodeId> {
        let up = |node: &&NodeId| self.machines.get(node).is_some_and(|machine| machine.is_up);
        self.blobs[blob].holders.iter().filter(up).copied().collect()
    }

    fn drop_surplus(&mut self, blob: usize) {
        let up = self.up_holders(blob);
        let key = self.blobs[blob].key;
        for node in &up {
            let others: Vec<NodeId> = up.iter().filter(|other| *other != node).copied().collect();
            if is_surplus(&key, node, &others, self.setup.copies) {
                self.blobs[blob].holders.retain(|holder| holder != node);
                self.report.bytes_dropped += self.setup.bytes;
                if let Some(machine) = self.machines.get_mut(node) {
                    machine.blobs.remove(&blob);
                }
            }
        }
    }

    fn finish(mut self) -> CopiesReport {
        self.mends_s.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let last = self.mends_s.len().saturating_sub(1);
            self.mends_s.get((last as f64 * part) as usize).copied().unwrap_or_default()
        };
        let moved_part = self.report.bytes_moved as f64 / (self.report.bytes_lost as f64).max(1.0);
        CopiesReport {
            moved_part,
            mend_p50_s: at(0.5),
            mend_p99_s: at(0.99),
            mend_max_s: at(1.0),
            ..self.report
        }
    }
}
