//! Other nodes are asked to keep parts, until there are as many copies as are wanted.
//!
//! Decides whom to ask next when one is full, leaving, silent or slow. What it returns was said by the
//! holders themselves in this call.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::replica::{Candidate, Need, plan};
use ddr_proto::wire::{
    Contact, KeepAnswer, Keeping, MAX_PARTS_PER_KEEP, PlacedPart, Placement, RefuseReason, Request,
    Response,
};
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::Copies;

/// How long one question may take; the asked node answers within a second.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a node may be on it without a byte more.
const STALL: Duration = Duration::from_secs(15);
/// Questions in a row that a node may leave without an answer.
const MAX_UNANSWERED: u32 = 2;
/// Pause between two rounds in which nobody had anything new to say.
const PAUSE: Duration = Duration::from_millis(100);
/// Lookups of candidates at once.
const MAX_LOOKUPS: usize = 8;

/// Parts of one manifest, and who is presumed to hold each: they are asked first.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) repository: RepositoryName,
    /// The first is the manifest.
    pub(super) parts: Vec<PlacedPart>,
    /// Those of them that are here, and count as one copy.
    pub(super) here: BTreeSet<Digest>,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Raised {
    /// Who holds each part, as they said themselves, with this node where it counts.
    pub(super) held: Vec<BTreeSet<NodeId>>,
    /// Who of those that were asked does not, or did not answer.
    pub(super) refused: Vec<BTreeSet<NodeId>>,
    /// Why a copy is missing.
    pub(super) why: Option<String>,
    /// A node has heard that some of it was deleted.
    pub(super) was_deleted: bool,
}

impl Raised {
    /// The fewest copies that a part has.
    pub(super) fn fewest(&self) -> usize {
        self.held.iter().map(BTreeSet::len).min().unwrap_or(0)
    }
}

/// A part on its way to more holders.
struct Line {
    part: PlacedPart,
    key: Key,
    held: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
    passed_over: BTreeSet<NodeId>,
    candidates: Vec<Candidate>,
}

/// How a node that was asked gets on.
struct Course {
    bytes: u64,
    moved: Instant,
    unanswered: u32,
}

impl Copies {
    /// Has `order` kept by `want` nodes each, or by as many as there are. Ends when that is so or nobody
    /// is left to ask.
    pub(super) async fn raise(&self, order: &Order, want: usize) -> Raised {
        let mut lines = self.lines(order).await;
        let mut courses: BTreeMap<NodeId, Course> = BTreeMap::new();
        let (mut why, mut was_deleted) = (None, false);
        loop {
            lines.iter_mut().for_each(|line| line.choose(want));
            let mut orders: BTreeMap<NodeId, Vec<usize>> = BTreeMap::new();
            for (at, line) in lines.iter().enumerate() {
                line.asked.iter().for_each(|node| orders.entry(*node).or_default().push(at));
            }
            if orders.is_empty() {
                break;
            }
            let asks = orders.iter().map(|(node, at)| self.ask_for(order, &lines, *node, at));
            let answers: Vec<_> = join_all(asks).await;
            let mut news = false;
            for ((node, at), answer) in orders.iter().zip(answers) {
                was_deleted |=
                    answer.iter().flat_map(KeepAnswer::parts).any(|one| one == Keeping::Deleted);
                let course = courses.entry(*node).or_insert_with(Course::new);
                news |= settle(&mut lines, (*node, at), answer, course, &mut why);
            }
            if !news {
                tokio::time::sleep(PAUSE).await;
            }
        }
        let (held, refused) = lines.into_iter().map(|line| (line.held, line.passed_over)).unzip();
        Raised { held, refused, why, was_deleted }
    }

    async fn lines(&self, order: &Order) -> Vec<Line> {
        let lookups = order.parts.iter().map(|part| async {
            let key = Key::of_content(&part.digest);
            let near = self.candidates(key).await;
            let ids: Vec<NodeId> = near.iter().map(|contact| contact.id).collect();
            let held = order.here.contains(&part.digest).then(|| self.own());
            let presumed = part.holders.iter().filter(|node| **node != self.own());
            let mut part = part.clone();
            part.holders = presumed.copied().collect();
            Line {
                part,
                key,
                held: held.into_iter().collect(),
                asked: BTreeSet::new(),
                passed_over: BTreeSet::new(),
                candidates: self.watch.candidates(&ids),
            }
        });
        let lookups: Vec<_> = lookups.collect();
        stream::iter(lookups).buffered(MAX_LOOKUPS).collect().await
    }

    /// Asks a node to keep the manifest and those of the parts at `at`. Named as holders are those who said so
    /// themselves: who was only asked may never become one.
    async fn ask_for(
        &self,
        order: &Order,
        lines: &[Line],
        node: NodeId,
        at: &[usize],
    ) -> Option<KeepAnswer> {
        let named = |at: usize| {
            let mut part = lines[at].part.clone();
            part.holders.clear();
            lines[at].held.iter().for_each(|node| part.add_holder(*node));
            part
        };
        let placement = Placement {
            repository: order.repository.clone(),
            manifest: named(0),
            blobs: at.iter().filter(|at| **at != 0).map(|at| named(*at)).collect(),
        };
        self.ask(node, true, &placement).await
    }

    /// Asks a node to keep parts, or what it keeps of them. `None`: it did not answer.
    pub(super) async fn ask(
        &self,
        node: NodeId,
        take: bool,
        placement: &Placement,
    ) -> Option<KeepAnswer> {
        let contact = self.contact(node).await?;
        let mut chunks: Vec<&[PlacedPart]> = placement.blobs.chunks(MAX_PARTS_PER_KEEP).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let mut all: Option<KeepAnswer> = None;
        for blobs in chunks {
            let placement = Placement { blobs: blobs.to_vec(), ..placement.clone() };
            let answer = self.ask_once(&contact, take, placement).await?;
            if answer.blobs.len() != blobs.len() {
                self.misbehaved(node, "answers to a request to keep parts");
                return None;
            }
            match &mut all {
                None => all = Some(answer),
                Some(all) => {
                    all.blobs.extend(answer.blobs);
                    all.bytes = all.bytes.saturating_add(answer.bytes);
                }
            }
        }
        all
    }

    async fn ask_once(
        &self,
        contact: &Contact,
        take: bool,
        placement: Placement,
    ) -> Option<KeepAnswer> {
        let parts = placement.blobs.len();
        let request = Request::Keep { take, placement };
        match self.parts.caller.call(contact, request, ASK_TIMEOUT).await? {
            Response::Keeping(answer) => {
                self.watch.heard(contact, Some(answer.free));
                Some(answer)
            }
            // It will have a moment later.
            Response::Refused { reason: RefuseReason::Busy } => Some(KeepAnswer {
                manifest: Keeping::Coming,
                blobs: vec![Keeping::Coming; parts],
                bytes: 0,
                free: 0,
            }),
            _ => None,
        }
    }

    /// Where a node is: as it said itself, else as a lookup finds it.
    pub(super) async fn contact(&self, node: NodeId) -> Option<Contact> {
        if let Some(contact) = self.watch.contact(&node) {
            return Some(contact);
        }
        let near = self.parts.overlay.closest(node.to_key()).await.unwrap_or_default();
        let contact = near.into_iter().find(|contact| contact.id == node)?;
        self.watch.knows(&contact);
        Some(contact)
    }
}

impl Line {
    /// Names those who are to be asked, as many as are missing.
    fn choose(&mut self, want: usize) {
        while self.held.len() + self.asked.len() < want {
            let Some(node) = self.next() else { return };
            self.asked.insert(node);
        }
    }

    fn next(&self) -> Option<NodeId> {
        let is_new = |node: &NodeId| {
            !self.held.contains(node)
                && !self.asked.contains(node)
                && !self.passed_over.contains(node)
        };
        if let Some(presumed) = self.part.holders.iter().find(|node| is_new(node)) {
            return Some(*presumed);
        }
        let (holders, others): (Vec<Candidate>, Vec<Candidate>) = self
            .candidates
            .iter()
            .cloned()
            .partition(|one| self.held.contains(&one.id) || self.asked.contains(&one.id));
        let need = Need { key: self.key, size: self.part.size, holders: &holders };
        plan(&need, &others).into_iter().find(is_new)
    }

    fn pass_over(&mut self, node: NodeId) {
        self.asked.remove(&node);
        self.passed_over.insert(node);
    }
}

impl Course {
    fn new() -> Self {
        Self { bytes: 0, moved: Instant::now(), unanswered: 0 }
    }

    /// Whether there are other bytes than before: fewer, where it was asked for less.
    fn moves(&mut self, bytes: u64) -> bool {
        let moves = bytes != self.bytes;
        if moves {
            (self.bytes, self.moved) = (bytes, Instant::now());
        }
        moves
    }
}

/// Notes what a node said about the parts at `at`; whether that was news.
fn settle(
    lines: &mut [Line],
    (node, at): (NodeId, &[usize]),
    answer: Option<KeepAnswer>,
    course: &mut Course,
    why: &mut Option<String>,
) -> bool {
    let Some(answer) = answer else {
        course.unanswered += 1;
        if course.unanswered >= MAX_UNANSWERED {
            *why = Some(format!("node {} does not answer", node.short()));
            at.iter().for_each(|at| lines[*at].pass_over(node));
            return true;
        }
        return false;
    };
    course.unanswered = 0;
    let mut news = course.moves(answer.bytes);
    let is_stalled = course.moved.elapsed() >= STALL;
    if answer.manifest == Keeping::Kept {
        // Whoever keeps a blob keeps its manifest too.
        lines[0].asked.remove(&node);
        news |= lines[0].held.insert(node);
    }
    let blobs = at.iter().filter(|at| **at != 0).zip(&answer.blobs);
    let manifest = at.first().filter(|at| **at == 0).map(|at| (at, &answer.manifest));
    for (at, keeping) in manifest.into_iter().chain(blobs) {
        let line = &mut lines[*at];
        let reason = match keeping {
            Keeping::Kept => {
                line.asked.remove(&node);
                news |= line.held.insert(node);
                continue;
            }
            Keeping::Coming if is_stalled => "makes no progress",
            Keeping::Coming => continue,
            Keeping::Absent => "could not fetch it",
            Keeping::Full => "has no room",
            Keeping::Leaving => "leaves the swarm",
            Keeping::Deleted => "has heard that it was deleted",
        };
        line.pass_over(node);
        *why = Some(format!("node {} {reason}", node.short()));
        news = true;
    }
    news
}
