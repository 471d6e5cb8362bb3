//! Lost copies are made again.
//!
//! Decides when the rows are gone through, which of the holders of a part mends it, and what follows from
//! what the survey finds. The order and the pace are those of [`ddr_proto::replica::Pace`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ddr_oci::Digest;
use ddr_proto::id::{Key, NodeId};
use ddr_proto::replica::{MAX_MENDING, Task, place_in_line};
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{PlacedPart, Placement, Request};
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use super::ledger::add_holders;
use super::raise::Order;
use super::report::Survey;
use super::{Copies, PartKey};
use crate::ReadError;

/// Rows that are read at once.
pub(super) const PAGE: usize = 256;
/// How long the next in line waits for the mender before it.
const STEP_IN_MS: u64 = 30_000;
/// After this long it asks the mender who else keeps the part: it may have missed that it was mended.
const ASK_MENDER_MS: u64 = 2_000;
/// Such questions that one walk over the rows brings up, and how many of them are asked at once. The others come up
/// when these are answered.
const MAX_QUESTIONS: usize = 256;
const QUESTIONS_AT_ONCE: usize = 8;
/// The longest that nothing is looked at.
const MAX_TICK: Duration = Duration::from_secs(1);
/// Of the time, one in so many parts goes into that.
const SURVEY_SHARE: u32 = 10;
/// The shortest pause between two walks.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The rows are gone through at least this often.
const SURVEY_EVERY: Duration = Duration::from_secs(60);
/// The rows are checked with their other holders once in so many grace periods.
const AUDIT_GRACES: u32 = 6;
/// The first time after a start, or after a grace period if that is shorter.
const FIRST_AUDIT: Duration = Duration::from_secs(10);
/// Signs of life that are asked for at once.
const MAX_PINGS: usize = 16;
/// How long each may take.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// What the task remembers from one walk to the next.
#[derive(Default)]
struct Memory {
    lost: BTreeSet<NodeId>,
    nodes: usize,
    /// Parts that are short and that another node should mend; at most [`MAX_MENDING`].
    short: BTreeMap<PartKey, Short>,
    /// When something is to be done about the first of them.
    next_step: Option<Timestamp>,
}

/// A part that another node should mend.
struct Short {
    since: Timestamp,
    /// The mender was asked who else keeps it.
    was_asked: bool,
}

/// The mender of a part, and what this node knows of who keeps it.
type Question = (NodeId, Placement);

/// When the rows are gone through: when that is wanted, and in between for so long that it costs
/// little.
#[derive(Default)]
struct Rhythm {
    wanted: bool,
    ended: Option<Instant>,
    took: Duration,
}

impl Rhythm {
    /// How long to wait for the next time at most.
    fn wait(&self) -> Duration {
        if self.wanted { self.pause() } else { MAX_TICK }
    }

    fn pause(&self) -> Duration {
        let pause = (self.took * SURVEY_SHARE).clamp(MIN_PAUSE, SURVEY_EVERY);
        self.ended.map_or(Duration::ZERO, |ended| pause.saturating_sub(ended.elapsed()))
    }

    fn is_due(&self) -> bool {
        let is_old = self.ended.is_none_or(|ended| ended.elapsed() >= SURVEY_EVERY);
        is_old || (self.wanted && self.pause().is_zero())
    }

    fn done(&mut self, started: Instant) {
        self.wanted = false;
        self.took = started.elapsed();
        self.ended = Some(Instant::now());
    }
}

/// What is mended right now.
#[derive(Default)]
struct Mending {
    tasks: JoinSet<()>,
    items: HashMap<task::Id, PartKey>,
}

impl Mending {
    /// Waits for the end of one, be it a panic. `None`: none runs.
    async fn next_ended(&mut self) -> Option<PartKey> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.items.remove(&id)
    }
}

impl Copies {
    /// Watches and mends, until the node stops.
    pub(crate) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.work() => {}
        }
    }

    async fn work(self: &Arc<Self>) {
        if let Err(error) = self.adopt().await {
            tracing::error!(%error, "content of an earlier version is not noted as kept");
        }
        let mut memory = Memory::default();
        let grace = self.parts.settings.grace;
        let mut audit_at = Instant::now() + FIRST_AUDIT.min(grace);
        let mut rhythm = Rhythm::default();
        let mut mending = Mending::default();
        let mut asking: JoinSet<()> = JoinSet::new();
        loop {
            rhythm.wanted |= self.tick(&mut mending, &rhythm).await;
            self.ping().await;
            let news = self.tally().news;
            rhythm.wanted |= self.has_changed(&mut memory).await;
            rhythm.wanted |= memory.next_step.is_some_and(|at| self.parts.clock.now() >= at);
            if rhythm.wanted {
                self.tally().surveyed = false;
            }
            if rhythm.is_due() {
                let started = Instant::now();
                while asking.try_join_next().is_some() {}
                let room = if asking.is_empty() { MAX_QUESTIONS } else { 0 };
                match self.survey(&mut memory, news, room).await {
                    Ok(questions) if questions.is_empty() => {}
                    Ok(questions) => drop(asking.spawn(Arc::clone(self).ask_menders(questions))),
                    Err(error) => tracing::error!(%error, "the rows of copies cannot be read"),
                }
                rhythm.done(started);
            }
            if Instant::now() >= audit_at {
                if let Err(error) = self.audit().await {
                    tracing::error!(%error, "copies were not checked");
                }
                audit_at = Instant::now() + grace * AUDIT_GRACES;
                rhythm.wanted = true;
            }
            self.begin(&mut mending);
        }
    }

    /// Waits for something to do; whether the rows have to be gone through. What was mended is taken note of.
    async fn tick(&self, mending: &mut Mending, rhythm: &Rhythm) -> bool {
        let now = self.parts.clock.now();
        let pace = self.line().next_deadline(now);
        let pace = pace.map_or(MAX_TICK, |at| Duration::from_millis(at.0.saturating_sub(now.0)));
        let ask = Duration::from_millis(self.watch.ask_every_ms());
        tokio::select! {
            () = self.wake.notified() => true,
            () = tokio::time::sleep(pace.min(ask).min(rhythm.wait())) => false,
            Some(item) = mending.next_ended() => {
                self.line().ended(&item);
                mending.tasks.is_empty() && self.line().waiting().0 == 0
            }
        }
    }

    /// Asks those for a sign of life who were silent for a while.
    async fn ping(&self) {
        let due = self.watch.due();
        let pings = due.into_iter().map(|node| self.is_alive(node));
        stream::iter(pings)
            .for_each_concurrent(MAX_PINGS, |ping| async move {
                ping.await;
            })
            .await;
    }

    /// Asks a node for a sign of life; whether it gave one.
    pub(super) async fn is_alive(&self, node: NodeId) -> bool {
        let Some(contact) = self.contact(node).await else { return false };
        let answer = self.parts.caller.call(&contact, Request::Ping, PING_TIMEOUT).await;
        if answer.is_some() {
            self.watch.heard(&contact, None);
        }
        answer.is_some()
    }

    /// Whether nodes were lost or came back, or came while copies are missing.
    async fn has_changed(&self, memory: &mut Memory) -> bool {
        let lost = self.watch.lost();
        let view = self.parts.overlay.view().await;
        let nodes = view.contacts.iter().filter(|peer| peer.alive).count();
        let is_short =
            self.tally().survey.short_parts > 0 || nodes < self.parts.settings.most_copies();
        let changed =
            lost != memory.lost || (nodes > memory.nodes && (is_short || memory.nodes == 0));
        for node in lost.difference(&memory.lost) {
            tracing::warn!(%node, "a node that keeps copies is lost: they are made again elsewhere");
        }
        (memory.lost, memory.nodes) = (lost, nodes);
        changed
    }

    /// Goes through all rows: who is watched, what is short, what this node has to mend, what it asks others
    /// who should: at most `room` questions.
    async fn survey(
        &self,
        memory: &mut Memory,
        news: u64,
        room: usize,
    ) -> Result<Vec<Question>, ReadError> {
        let (mut survey, mut watched) = (Survey::default(), BTreeSet::new());
        let (mut short, mut questions) = (BTreeSet::new(), Vec::new());
        let mut after = None;
        memory.next_step = None;
        loop {
            let page = self.ledger.page(after.take(), PAGE).await?;
            for row in &page {
                survey.images += 1;
                let want = self.parts.settings.copies_of(&row.repository).min(memory.nodes + 1);
                for part in row.parts().filter(|part| part.is_held_by(&self.own())) {
                    watched.extend(part.holders.iter().filter(|node| **node != self.own()));
                    let alive = self.watch.alive(&part.holders, &memory.lost);
                    survey.count(part.size, alive.len(), want);
                    if alive.len() < want {
                        let key = (row.repository.clone(), row.manifest.digest, part.digest);
                        let may_ask = questions.len() < room;
                        questions.extend(self.see_to(row, (part, &alive), memory, may_ask));
                        short.insert(key);
                    }
                }
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
            after = Some((last.repository.clone(), last.manifest.digest));
        }
        memory.short.retain(|key, _| short.contains(key));
        self.watch.watch(&watched);
        survey.lost_nodes = memory.lost.len();
        let (parts, missing) = (survey.parts, survey.short_parts);
        tracing::debug!(parts, missing, lost = memory.lost.len(), "the rows were gone through");
        survey.publish();
        let mut tally = self.tally();
        tally.survey = survey;
        tally.surveyed = tally.news == news;
        Ok(questions)
    }

    /// Sees to a part that is short: it is mended here, if it is this node's turn, else its mender may be asked.
    fn see_to(
        &self,
        row: &Placement,
        (part, alive): (&PlacedPart, &[NodeId]),
        memory: &mut Memory,
        may_ask: bool,
    ) -> Option<Question> {
        let key = (row.repository.clone(), row.manifest.digest, part.digest);
        let (content, now) = (Key::of_content(&part.digest), self.parts.clock.now());
        let place = place_in_line(&content, &self.own(), alive);
        tracing::trace!(part = %part.digest, place, holders = ?part.holders, ?alive, "a part is short");
        if place > 0 {
            if memory.short.len() >= MAX_MENDING && !memory.short.contains_key(&key) {
                return None;
            }
            let short = memory.short.entry(key.clone());
            let short = short.or_insert(Short { since: now, was_asked: false });
            let (ask_at, step_in) = (
                short.since.after_ms(ASK_MENDER_MS),
                short.since.after_ms(place as u64 * STEP_IN_MS),
            );
            if now < step_in {
                let ask = may_ask && !short.was_asked && now >= ask_at;
                short.was_asked |= ask;
                let next = match short.was_asked {
                    true => step_in,
                    false if now < ask_at => ask_at,
                    // It waits for room among the questions.
                    false => step_in.min(now.after_ms(ASK_MENDER_MS)),
                };
                memory.next_step = Some(memory.next_step.map_or(next, |first| first.min(next)));
                let mender = alive.iter().find(|node| place_in_line(&content, node, alive) == 0);
                return mender.filter(|_| ask).map(|mender| (*mender, placement_of(row, part)));
            }
        }
        self.line().add(Task { item: key, left: alive.len(), bytes: part.size });
        None
    }

    /// Asks menders about parts that are still short here; they tell back whom they know.
    async fn ask_menders(self: Arc<Self>, questions: Vec<Question>) {
        let ask = |(mender, placement): Question| {
            let copies = &self;
            async move { drop(copies.ask(mender, false, &placement).await) }
        };
        stream::iter(questions).for_each_concurrent(QUESTIONS_AT_ONCE, ask).await;
    }

    /// Begins what may begin now.
    fn begin(self: &Arc<Self>, mending: &mut Mending) {
        loop {
            let task = self.line().next(self.parts.clock.now());
            let Some(task) = task else { return };
            let (copies, item) = (Arc::clone(self), task.item.clone());
            let begun = mending.tasks.spawn(async move {
                let started = Instant::now();
                match copies.mend(&task.item).await {
                    Ok(made) => copies.mended(made, task.bytes, started.elapsed()),
                    Err(error) => {
                        tracing::warn!(%error, part = %task.item.2, "copies were not mended");
                    }
                }
            });
            mending.items.insert(begun.id(), item);
        }
    }

    fn mended(&self, made: u64, bytes: u64, took: Duration) {
        let bytes = bytes.saturating_mul(made);
        let mut tally = self.tally();
        tally.mended_parts += made;
        tally.mended_bytes = tally.mended_bytes.saturating_add(bytes);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = bytes.saturating_mul(1_000) / millis;
        let smoothed = tally.pace.map_or(rate, |pace| pace / 8 * 7 + rate / 8);
        tally.pace = Some(smoothed).filter(|_| made > 0).or(tally.pace);
        metrics::counter!(crate::metrics::COPIES_MENDED).increment(made);
        metrics::counter!(crate::metrics::COPIES_MENDED_BYTES).increment(bytes);
    }

    /// Has a part copied to as many nodes as are missing; how many copies were made.
    async fn mend(&self, (repository, manifest, digest): &PartKey) -> Result<u64, ReadError> {
        let Some(row) = self.ledger.get(repository, manifest).await? else { return Ok(0) };
        let Some(part) = row.parts().find(|part| part.digest == *digest) else { return Ok(0) };
        if !part.is_held_by(&self.own()) {
            return Ok(0);
        }
        let lost = self.watch.lost();
        let alive = self.watch.alive(&part.holders, &lost);
        let others = self.candidates(Key::of_content(digest)).await.len();
        let want = self.parts.settings.copies_of(repository).min(others + 1);
        if alive.len() >= want {
            return Ok(0);
        }
        let order = self.order_of(&row, digest, &alive);
        let raised = self.raise(&order, want).await;
        let made = self.note_raised(&row, &order, &raised.held).await?;
        let copies = raised.fewest();
        tracing::debug!(part = %digest, made, copies, want, why = ?raised.why, "a part was mended");
        Ok(made)
    }

    /// Writes down new holders, and tells the others of them. How many there are.
    pub(super) async fn note_raised(
        &self,
        row: &Placement,
        order: &Order,
        held: &[BTreeSet<NodeId>],
    ) -> Result<u64, ReadError> {
        let last = order.parts.len() - 1;
        let before: BTreeSet<NodeId> = order.parts[last].holders.iter().copied().collect();
        let made =
            held[last].difference(&before).filter(|node| **node != self.own()).count() as u64;
        held.iter()
            .flatten()
            .filter(|node| **node != self.own())
            .for_each(|node| self.watch.add(*node));
        let (own, lost) = (self.own(), self.watch.lost());
        // Each of them was asked just now. Who was lost may be named again when it is back.
        let refused: BTreeSet<NodeId> = before.difference(&held[last]).copied().collect();
        let known: Vec<(Digest, BTreeSet<NodeId>)> =
            order.parts.iter().map(|part| part.digest).zip(held.iter().cloned()).collect();
        let raised = order.parts[last].digest;
        let change = move |row: &mut Placement| {
            for (digest, held) in known {
                if let Some(part) = row.parts_mut().find(|part| part.digest == digest) {
                    let is_raised = digest == raised;
                    part.holders.retain(|node| {
                        !(lost.contains(node) || is_raised && refused.contains(node))
                    });
                    add_holders(part, held, own);
                }
            }
        };
        let manifest = (row.manifest.digest, row.manifest.size);
        self.ledger.change(&row.repository, manifest, change).await?;
        self.tell(order, held).await;
        Ok(made)
    }

    /// Tells all that hold something of the image who holds what was raised, and its manifest: others keep
    /// other blobs of it, and count the copies of the manifest too.
    async fn tell(&self, order: &Order, held: &[BTreeSet<NodeId>]) {
        let mut parts = order.parts.iter().zip(held).map(|(part, held)| {
            let mut part = PlacedPart { holders: Vec::new(), ..part.clone() };
            held.iter().for_each(|node| part.add_holder(*node));
            part
        });
        let Some(mut manifest) = parts.next() else { return };
        order.parts[0].holders.iter().for_each(|node| manifest.add_holder(*node));
        let mut others: BTreeSet<NodeId> = held.iter().flatten().copied().collect();
        others.extend(&manifest.holders);
        others.remove(&self.own());
        let placement =
            Placement { repository: order.repository.clone(), manifest, blobs: parts.collect() };
        let placement = &placement;
        let tells =
            others.into_iter().map(|node| async move { self.ask(node, false, placement).await });
        futures_util::future::join_all(tells).await;
    }

    /// One part of a row with its manifest before it. `alive` are the holders of the part; of the manifest those
    /// who are not lost are presumed to hold it.
    pub(super) fn order_of(&self, row: &Placement, digest: &Digest, alive: &[NodeId]) -> Order {
        let mut parts = vec![row.manifest.clone()];
        parts[0].holders = self.watch.alive(&row.manifest.holders, &self.watch.lost());
        parts.extend(row.blobs.iter().filter(|part| part.digest == *digest).cloned());
        if let Some(part) = parts.last_mut() {
            part.holders = alive.to_vec();
        }
        let here = parts.iter().map(|part| part.digest).collect();
        Order { repository: row.repository.clone(), parts, here }
    }
}

/// What a row says of one part, with the manifest.
fn placement_of(row: &Placement, part: &PlacedPart) -> Placement {
    let is_blob = part.digest != row.manifest.digest;
    let blobs = if is_blob { vec![part.clone()] } else { Vec::new() };
    Placement { blobs, repository: row.repository.clone(), manifest: row.manifest.clone() }
}
