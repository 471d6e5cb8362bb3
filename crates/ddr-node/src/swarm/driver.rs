//! The loop itself; see [`crate::swarm`].

mod outputs;
mod results;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ddr_net::Client;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::swarm::{AskId, GroupId, Input, Swarm, SwarmConfig, UploadId};
use ddr_proto::wire::{Contact, SwarmPost};
use ddr_store::PartialError;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;

use super::entry::Entry;
use super::errands::{Answer, ChainAnswer, Errands, MAX_CHECKS};
use super::gathering::{End, Gathering};
use super::known::Known;
use super::outbox::{Outbox, Topic};
use super::paths::Paths;
use super::{
    Command, Interest, MAX_COMMANDS, Notice, PieceRequest, Running, SwarmHandle, Verdict, lock,
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
    let running = Running::default();
    let stopped = parts.stopped.clone();
    let driver = Driver::new(parts, notices.clone(), Arc::clone(&running));
    tokio::spawn(driver.run(inbox, heard, stopped));
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
    fn new(parts: Parts, notices: mpsc::UnboundedSender<Notice>, running: Running) -> Self {
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
            notices,
        };
        Self {
            running,
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
        }
    }

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
}

#[cfg(test)]
mod tests {
    use ddr_net::{ClientLimits, MemoryNetwork};
    use ddr_proto::swarm::MAX_BLOBS;

    use super::*;
    use crate::Bandwidth;
    use crate::overlay::OverlayHandle;

    fn driver() -> Driver {
        let own = Contact {
            id: NodeId([1; 32]),
            addrs: vec![([10, 0, 0, 1], 5_001).into()],
            zone: String::new(),
        };
        let carrier = MemoryNetwork::new().carrier(own.addrs[0], own.id);
        let clock = Clock::start();
        let parts = Parts {
            client: Client::new(Arc::new(carrier), ClientLimits::default()),
            peers: Arc::new(Peers::new(clock)),
            traffic: Arc::default(),
            locator: Locator::new(OverlayHandle::to_nobody()),
            buffers: Budget::new(0),
            throttles: Arc::new(Throttles::new(Bandwidth::default())),
            own,
            clock,
            seed: 1,
            stopped: watch::channel(false).1,
        };
        Driver::new(parts, mpsc::unbounded_channel().0, Running::default())
    }

    #[tokio::test]
    async fn nobody_is_looked_for_when_there_is_no_room_for_the_blob() {
        let mut driver = driver();
        let digest = |number: usize| Digest::sha256(&number.to_le_bytes());
        for number in 0..MAX_BLOBS {
            driver.hold(digest(number), Some(1));
            driver.hold(digest(number), Some(1));
            assert_eq!(driver.tasks.len(), number + 1, "one lookup for each");
        }
        driver.hold(digest(MAX_BLOBS), Some(1));
        assert_eq!(driver.tasks.len(), MAX_BLOBS);
    }
}
