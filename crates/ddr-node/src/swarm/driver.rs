//! The loop itself; see [`crate::swarm`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ddr_net::Client;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::swarm::{
    AskId, Blame, GroupId, Input, Output, Refusal, Swarm, SwarmConfig, UploadId,
};
use ddr_proto::wire::{Contact, SwarmMessage, SwarmPost};
use ddr_store::PartialError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::entry::{Course, Entry};
use super::errands::{Answer, Ask, ChainAnswer, Errands, MAX_CHECKS};
use super::gathering::{End, Gathering};
use super::known::Known;
use super::outbox::{Outbox, Topic};
use super::paths::Paths;
use super::{
    Command, Interest, MAX_COMMANDS, Notice, PieceRequest, Running, SwarmHandle, Upload, Verdict,
    lock,
};
use crate::budget::Budget;
use crate::clock::Clock;
use crate::peers::Peers;
use crate::pull::Locator;
use crate::status::Sums;
use crate::throttle::Throttles;

/// Time between two looks at whether fetches get on.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// What the task is made of.
pub(crate) struct Parts {
    pub(crate) client: Client,
    pub(crate) peers: Arc<Peers>,
    pub(crate) traffic: Arc<Sums>,
    pub(crate) locator: Locator,
    pub(crate) buffers: Budget,
    pub(crate) throttles: Arc<Throttles>,
    pub(crate) own: Contact,
    pub(crate) clock: Clock,
    pub(crate) seed: u64,
    /// True when the node stops.
    pub(crate) stopped: watch::Receiver<bool>,
}

/// Starts the task.
pub(crate) fn spawn(parts: Parts) -> SwarmHandle {
    let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
    let (notices, heard) = mpsc::unbounded_channel();
    let own = Arc::new(parts.own.clone());
    let errands = Errands {
        client: parts.client,
        peers: parts.peers,
        traffic: parts.traffic,
        locator: parts.locator,
        buffers: parts.buffers,
        throttles: parts.throttles,
        checks: Semaphore::new(MAX_CHECKS),
        own: parts.own,
        notices: notices.clone(),
    };
    let running = Running::default();
    let driver = Driver {
        running: Arc::clone(&running),
        core: Swarm::new(SwarmConfig::default(), own, parts.seed),
        clock: parts.clock,
        errands: Arc::new(errands),
        entries: BTreeMap::new(),
        known: Known::default(),
        asks: BTreeMap::new(),
        uploads: BTreeMap::new(),
        outbox: Outbox::default(),
        paths: Paths::default(),
        tasks: JoinSet::new(),
        next_id: 0,
    };
    tokio::spawn(driver.run(inbox, heard, parts.stopped));
    SwarmHandle { commands, notices, running }
}

/// What came of a task.
enum Done {
    Asked { ask: AskId, contact: Arc<Contact>, answer: Answer },
    Chain { key: Key, from: NodeId, answer: ChainAnswer },
    Posted { topic: Topic, reached: bool },
    LookedUp { key: Key },
    Applied { key: Key, void: Result<Vec<u32>, PartialError> },
    Sources { hold: Input, blob: Key },
}

struct Driver {
    running: Running,
    core: Swarm,
    clock: Clock,
    errands: Arc<Errands>,
    entries: BTreeMap<Key, Entry>,
    known: Known,
    asks: BTreeMap<AskId, AbortHandle>,
    uploads: BTreeMap<UploadId, oneshot::Sender<Verdict>>,
    outbox: Outbox,
    paths: Paths,
    tasks: JoinSet<Done>,
    next_id: u64,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Command>,
        mut notices: mpsc::UnboundedReceiver<Notice>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => break,
                // Before the tasks: what a piece is comes before what became of it.
                Some(notice) = notices.recv() => self.notice(notice),
                Some(done) = self.tasks.join_next() => {
                    if let Ok(done) = done {
                        self.done(done);
                    }
                }
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                () = tokio::time::sleep_until(deadline) => self.input(Input::Tick),
                _ = sweep.tick() => self.sweep(),
            }
        }
        for entry in self.entries.values() {
            entry.gathering.end(End::Failed("the node stops".into()));
        }
    }

    fn deadline(&self) -> Instant {
        const IDLE: Duration = Duration::from_secs(60);
        let at = self.core.next_deadline().map(|at| self.clock.instant(at));
        at.unwrap_or_else(|| Instant::now() + IDLE)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Fetch { gathering, have, interest } => {
                self.fetch(gathering, have, interest);
            }
            Command::Interest { key, interest } => self.interest(key, interest),
            Command::Request { request, verdict } => self.request(&request, verdict),
            Command::Heard { digest, whole, post } => self.heard(digest, whole, post),
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Input(input) => self.input(input),
            Notice::Closed { gathering, is_stored } => self.closed(gathering, is_stored),
        }
    }

    fn fetch(&mut self, gathering: Arc<Gathering>, have: Vec<u32>, interest: Interest) {
        // It may have been given up on its way here.
        if gathering.has_ended() {
            return;
        }
        let (key, size) = (gathering.key, gathering.size);
        lock(&self.running).insert(gathering.digest, Arc::clone(&gathering));
        // What was served as whole before is not here any more.
        self.input(Input::Drop { blob: key });
        let group = self.group_of(&gathering.repository);
        let entry = Entry::new(Arc::clone(&gathering), group, Instant::now());
        self.entries.insert(key, entry);
        self.want((key, size, group), interest, have);
        if self.core.view(&key).is_none() {
            gathering.end(End::Failed("too many blobs are served and fetched".into()));
        }
    }

    /// Blobs of one repository that are on their way at the same time share a window: those of an
    /// image are.
    fn group_of(&mut self, repository: &RepositoryName) -> GroupId {
        let same = |entry: &&Entry| entry.gathering.repository == *repository;
        let running = self.entries.values().find(same).map(|entry| entry.group);
        running.unwrap_or_else(|| GroupId(self.fresh()))
    }

    fn interest(&mut self, key: Key, interest: Interest) {
        let Some(entry) = self.entries.get(&key) else { return };
        let (size, group) = (entry.gathering.size, entry.group);
        self.want((key, size, group), interest, Vec::new());
    }

    fn want(&mut self, of: (Key, u64, GroupId), interest: Interest, have: Vec<u32>) {
        let ((blob, size, group), Interest { readers, wanted, class }) = (of, interest);
        self.input(Input::Fetch { blob, size, group, class, wanted, have });
        self.input(Input::ClientAt { blob, readers });
    }

    /// A fetch has ended; if its blob did not become one of the store it is not here any more.
    fn closed(&mut self, gathering: Arc<Gathering>, is_stored: bool) {
        let key = gathering.key;
        let is_known = self.entries.get(&key);
        if !is_known.is_some_and(|entry| Arc::ptr_eq(&entry.gathering, &gathering)) {
            return;
        }
        self.entries.remove(&key);
        if !is_stored {
            self.input(Input::Drop { blob: key });
        }
        tokio::task::spawn_blocking(move || gathering.close());
    }

    fn request(&mut self, request: &PieceRequest, verdict: oneshot::Sender<Verdict>) {
        let (blob, from, piece) = (Key::of_content(&request.digest), request.from, request.piece);
        self.hold(request.digest, request.whole);
        let upload = UploadId(self.fresh());
        self.uploads.insert(upload, verdict);
        self.input(Input::Request { upload, from, blob, piece, class: request.class });
    }

    fn heard(&mut self, digest: Digest, whole: Option<u64>, post: SwarmPost) {
        let key = Key::of_content(&digest);
        let from = Arc::new(post.sender);
        self.hold(digest, whole);
        let is_held = |key: &Key| self.core.view(key).is_some();
        self.known.speaks((from.id, key), (digest, post.repository), is_held);
        self.known.meet(&from);
        for message in post.messages {
            self.input(Input::Message { from: Arc::clone(&from), message });
        }
    }

    /// A blob that is here, and is to be served. The first time others that have it are looked for, to
    /// share the work with them.
    fn hold(&mut self, digest: Digest, whole: Option<u64>) {
        let blob = Key::of_content(&digest);
        let Some(size) = whole.filter(|_| !self.entries.contains_key(&blob)) else { return };
        let is_new = self.core.view(&blob).is_none();
        self.input(Input::Hold { blob, size, sources: Vec::new() });
        // The core takes in no more than it has room for.
        if is_new && self.core.view(&blob).is_some() {
            let errands = Arc::clone(&self.errands);
            self.tasks.spawn(async move {
                let sources = errands.sources(&digest).await;
                Done::Sources { hold: Input::Hold { blob, size, sources }, blob }
            });
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn input(&mut self, input: Input) {
        self.core.handle(self.clock.now(), input);
        while let Some(output) = self.core.poll_output() {
            self.output(output);
        }
        for (topic, messages) in self.outbox.due() {
            self.post(topic, messages);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Ask { ask, node, blob, piece, class } => {
                self.ask(Ask { id: ask, piece, class }, node, &blob);
            }
            Output::Cancel { ask } => {
                if let Some(task) = self.asks.remove(&ask) {
                    task.abort();
                }
            }
            Output::AskChain { blob, node } => self.ask_chain(blob, node),
            Output::UseChain { blob, claim, settled, vouched } => {
                let gathering = self.entries.get(&blob).map(|entry| Arc::clone(&entry.gathering));
                if let Some(gathering) = gathering
                    && gathering.use_chain(claim, (settled, vouched))
                {
                    self.tasks.spawn(async move {
                        let applied = crate::blocking(move || gathering.apply()).await;
                        let void = applied.map_err(PartialError::Io).and_then(|applied| applied);
                        Done::Applied { key: blob, void }
                    });
                }
            }
            Output::Doubt { blob, piece, other } => {
                if let Some(entry) = self.entries.get(&blob) {
                    entry.gathering.doubt(piece, other);
                }
            }
            Output::Send { to, message } => self.send(to, message),
            Output::Serve { upload, blob: _, piece } => {
                let notices = self.errands.notices.clone();
                let guard = Upload { id: upload, is_whole: false, notices };
                if let Some(verdict) = self.uploads.remove(&upload) {
                    // Who is gone meanwhile drops the guard.
                    let _ = verdict.send(Verdict::Serve(piece, guard));
                }
            }
            Output::Refuse { upload, refusal } => self.refuse(upload, refusal),
            Output::WantHolders { blob } => self.look_up(blob),
            Output::Struck { node, blame, .. } => self.struck(node, blame),
            Output::Complete { blob } => {
                if let Some(entry) = self.entries.get(&blob) {
                    entry.gathering.end(End::Complete);
                }
            }
        }
    }

    fn refuse(&mut self, upload: UploadId, refusal: Refusal) {
        if let Some(verdict) = self.uploads.remove(&upload) {
            let _ = verdict.send(Verdict::Refuse(refusal));
        }
    }

    fn contact(&self, node: &NodeId) -> Option<Arc<Contact>> {
        self.core.contact(node).or_else(|| self.known.contact(node)).cloned()
    }

    fn ask(&mut self, ask: Ask, node: NodeId, blob: &Key) {
        let contact = self.contact(&node);
        let entry = self.entries.get_mut(blob);
        let (Some(entry), Some(contact)) = (entry, contact) else {
            // The fetch was given up a moment ago.
            return;
        };
        entry.is_busy(Instant::now());
        let (errands, gathering) = (Arc::clone(&self.errands), Arc::clone(&entry.gathering));
        let (met, id) = (Arc::clone(&contact), ask.id);
        let task = self.tasks.spawn(async move {
            let answer = errands.ask(&gathering, &contact, ask).await;
            Done::Asked { ask: id, contact, answer }
        });
        self.asks.insert(id, task);
        self.known.meet(&met);
    }

    fn ask_chain(&mut self, key: Key, from: NodeId) {
        let (Some(entry), Some(contact)) = (self.entries.get(&key), self.contact(&from)) else {
            return;
        };
        let (errands, gathering) = (Arc::clone(&self.errands), Arc::clone(&entry.gathering));
        self.tasks.spawn(async move {
            let answer = errands.chain(&gathering, &contact).await;
            Done::Chain { key, from, answer }
        });
    }

    fn send(&mut self, to: NodeId, message: Arc<SwarmMessage>) {
        let key = message.blob;
        if !self.outbox.push(to, message) {
            tracing::debug!(peer = %to, ?key, "a peer hears too slowly");
        }
    }

    fn post(&mut self, topic: Topic, messages: Vec<SwarmMessage>) {
        let (to, key) = topic;
        let of_entry = || {
            let gathering = &self.entries.get(&key)?.gathering;
            Some((gathering.digest, gathering.repository.clone()))
        };
        let name = self.known.name(&topic).or_else(of_entry);
        let (Some(name), Some(contact)) = (name, self.contact(&to)) else {
            return self.outbox.posted(&topic, false);
        };
        let errands = Arc::clone(&self.errands);
        self.tasks.spawn(async move {
            let reached = errands.post(&contact, name, messages).await;
            Done::Posted { topic, reached }
        });
    }

    fn look_up(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(anew) = entry.begin_lookup() else { return };
        let digest = entry.gathering.digest;
        let errands = Arc::clone(&self.errands);
        self.tasks.spawn(async move {
            errands.look_up(&digest, anew).await;
            Done::LookedUp { key }
        });
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Asked { ask, contact, answer } => self.asked(ask, contact, answer),
            Done::Chain { key, from, answer } => self.chain_came(key, from, answer),
            Done::Posted { topic, reached } => {
                self.outbox.posted(&topic, reached);
                // Also says what waited meanwhile.
                self.input(match reached {
                    true => Input::Tick,
                    false => Input::Lost { node: topic.0 },
                });
            }
            Done::LookedUp { key } => {
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.looked_up();
                }
                self.judge(key);
            }
            Done::Sources { hold, blob } => {
                if self.core.view(&blob).is_some() && !self.entries.contains_key(&blob) {
                    self.input(hold);
                }
            }
            Done::Applied { key, void: Ok(pieces) } => {
                self.input(Input::Void { blob: key, pieces });
            }
            Done::Applied { key, void: Err(error) } => {
                if let Some(entry) = self.entries.get(&key) {
                    entry.gathering.end(End::Failed(error.to_string().into()));
                }
            }
        }
    }

    fn asked(&mut self, ask: AskId, contact: Arc<Contact>, answer: Answer) {
        if self.asks.remove(&ask).is_none() {
            return;
        }
        let Answer { blob, input, head_us } = answer;
        let node = contact.id;
        match head_us {
            Some(head_us) => {
                let rtt_us = self.paths.heard(node, head_us);
                self.input(Input::Neighbour { blob, contact, complete: false, rtt_us });
                self.input(input);
            }
            None => {
                self.input(input);
                self.input(Input::Lost { node });
            }
        }
    }

    fn chain_came(&mut self, key: Key, from: NodeId, answer: ChainAnswer) {
        let Some(entry) = self.entries.get(&key) else { return };
        let wrong = match answer {
            ChainAnswer::Signed { signer, signed } => match entry.gathering.hear(*signed) {
                Some((claim, differs)) => {
                    let blob = key;
                    return self.input(Input::Chain { blob, from, signer, claim, differs });
                }
                None => true,
            },
            ChainAnswer::Wrong => true,
            ChainAnswer::None => false,
        };
        self.input(Input::NoChain { blob: key, from, wrong });
    }

    fn struck(&self, node: NodeId, blame: Blame) {
        let why = match blame {
            Blame::WrongPiece => "a piece that it gave was wrong",
            Blame::WrongChain => "a piece chain that it signed was wrong",
            Blame::Nonsense => "it answered a request for a piece with something else",
            Blame::BadMap => "what it said about its pieces was wrong",
            // Slow, or too eager, is no lie: only the core leaves it alone.
            Blame::Stalled | Blame::Greedy => {
                return tracing::debug!(peer = %node, ?blame, "a peer is left alone");
            }
        };
        let addr = self.contact(&node).and_then(|contact| contact.addrs.first().copied());
        if let Some(addr) = addr {
            self.errands.peers.strike(node, addr, why);
        }
    }

    /// Looks whether fetches get on.
    fn sweep(&mut self) {
        let keys: Vec<Key> = self.entries.keys().copied().collect();
        for key in keys {
            self.judge(key);
        }
    }

    fn judge(&mut self, key: Key) {
        let (Some(entry), Some(view)) = (self.entries.get_mut(&key), self.core.view(&key)) else {
            return;
        };
        entry.gathering.tally.has_neighbours(view.neighbours.len());
        match entry.course(&view, Instant::now()) {
            Course::Fine => {}
            Course::Lost => self.look_up(key),
            Course::Failed => {
                entry.gathering.end(End::Failed("no holder is left".into()));
            }
        }
    }
}
