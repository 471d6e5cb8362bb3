//! Lost copies are made again.
//!
//! Decides when the rows are gone through, which of the holders of a part mends it, and what follows from
//! what the survey finds. The order and the pace are those of [`ddr_proto::replica::Pace`]; how one image is
//! mended is in `image.rs`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ddr_proto::id::NodeId;
use ddr_proto::replica::Task;
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{PlacedPart, Placement, Request};
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use super::image::{Made, key_of, place};
use super::report::Survey;
use super::turn::Turn;
use super::{Copies, ImageKey, PartKey};
use crate::ReadError;

/// Rows that are read at once.
pub(super) const PAGE: usize = 256;
/// Questions to menders that one walk over the rows brings up, and how many of them are asked at once. The others
/// come up when these are answered.
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
    /// When something is to be done about the first part that another node should mend.
    next_step: Option<Timestamp>,
}

/// The mender of a part, and what this node knows of who keeps it.
type Question = (NodeId, Placement);

/// What a walk over the rows finds.
#[derive(Default)]
struct Walk {
    survey: Survey,
    watched: BTreeSet<NodeId>,
    /// Parts that are short.
    short: BTreeSet<PartKey>,
    questions: Vec<Question>,
    /// The most questions.
    room: usize,
}

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
    items: HashMap<task::Id, ImageKey>,
}

impl Mending {
    /// Waits for the end of one, be it a panic. `None`: none runs.
    async fn next_ended(&mut self) -> Option<ImageKey> {
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
        let mut walk = Walk { room, ..Walk::default() };
        let mut after = None;
        memory.next_step = None;
        loop {
            let page = self.ledger.page(after.take(), PAGE).await?;
            page.iter().for_each(|row| self.walk_over(row, memory, &mut walk));
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
            after = Some((last.repository.clone(), last.manifest.digest));
        }
        let Walk { mut survey, watched, short, questions, .. } = walk;
        self.turns.keep_only(&short);
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

    fn walk_over(&self, row: &Placement, memory: &mut Memory, walk: &mut Walk) {
        walk.survey.images += 1;
        let want = self.parts.settings.copies_of(&row.repository).min(memory.nodes + 1);
        let mut task: Option<Task<ImageKey>> = None;
        for part in row.parts().filter(|part| part.is_held_by(&self.own())) {
            walk.watched.extend(part.holders.iter().filter(|node| **node != self.own()));
            let alive = self.watch.alive(&part.holders, &memory.lost);
            walk.survey.count(part.size, alive.len(), want);
            if alive.len() >= want {
                continue;
            }
            let (key, own_place) = (key_of(row, part), place(row, &self.own(), &alive));
            let may_ask = walk.questions.len() < walk.room;
            match self.turns.turn(&key, own_place, may_ask, self.parts.clock.now()) {
                Turn::Mend => add_part(&mut task, row, part, alive.len()),
                Turn::Wait { until, ask } => {
                    memory.look_again(until);
                    let mender = alive.iter().find(|node| ask && place(row, node, &alive) == 0);
                    walk.questions.extend(mender.map(|node| (*node, placement_of(row, part))));
                }
            }
            walk.short.insert(key);
        }
        task.into_iter().for_each(|task| self.line().add(task));
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
                    Ok(made) => copies.mended(made, started.elapsed()),
                    Err(error) => {
                        tracing::warn!(%error, manifest = %task.item.1, "copies were not mended");
                    }
                }
            });
            mending.items.insert(begun.id(), item);
        }
    }

    fn mended(&self, made: Made, took: Duration) {
        let mut tally = self.tally();
        tally.mended_parts += made.parts;
        tally.mended_bytes = tally.mended_bytes.saturating_add(made.bytes);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = made.bytes.saturating_mul(1_000) / millis;
        let smoothed = tally.pace.map_or(rate, |pace| pace / 8 * 7 + rate / 8);
        tally.pace = Some(smoothed).filter(|_| made.parts > 0).or(tally.pace);
        metrics::counter!(crate::metrics::COPIES_MENDED).increment(made.parts);
        metrics::counter!(crate::metrics::COPIES_MENDED_BYTES).increment(made.bytes);
    }
}

impl Memory {
    fn look_again(&mut self, at: Timestamp) {
        self.next_step = Some(self.next_step.map_or(at, |first| first.min(at)));
    }
}

/// One more part of an image that is to be mended.
fn add_part(task: &mut Option<Task<ImageKey>>, row: &Placement, part: &PlacedPart, left: usize) {
    let image = || (row.repository.clone(), row.manifest.digest);
    let task = task.get_or_insert_with(|| Task { item: image(), left, bytes: 0 });
    task.left = task.left.min(left);
    task.bytes = task.bytes.saturating_add(part.size);
}

/// What a row says of one part, with the manifest.
fn placement_of(row: &Placement, part: &PlacedPart) -> Placement {
    let is_blob = part.digest != row.manifest.digest;
    let blobs = if is_blob { vec![part.clone()] } else { Vec::new() };
    Placement { blobs, repository: row.repository.clone(), manifest: row.manifest.clone() }
}
