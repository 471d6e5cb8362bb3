//! The loop itself; see [`crate::overlay`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ddr_proto::kad::{CallId, Input, Kad, OpId, Output, RequestId};
use ddr_proto::wire::{Contact, ProviderRecord, Request, Response};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{
    Command, LookupEvent, MAX_CALLS, MAX_COMMANDS, MAX_WAITING_CALLS, OverlayHandle, View,
};
use crate::caller::Caller;
use crate::clock::Clock;
use crate::peers::Peers;

/// How long withdrawing may take at shutdown.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(2);
/// How long one call may take.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_millis(1500);

/// Starts the task.
pub(crate) fn spawn(kad: Kad, caller: Caller, clock: Clock, peers: Arc<Peers>) -> OverlayHandle {
    let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
    let alone = Arc::new(AtomicBool::new(kad.is_alone()));
    let (tell_company, company) = watch::channel(kad.has_live_peer());
    let driver = Driver {
        kad,
        alone: Arc::clone(&alone),
        company: tell_company,
        caller,
        clock,
        peers,
        next_id: 0,
        calls: JoinSet::new(),
        waiting: VecDeque::new(),
        requests: BTreeMap::new(),
        lookups: BTreeMap::new(),
        provides: BTreeMap::new(),
    };
    tokio::spawn(driver.run(inbox));
    OverlayHandle { commands, alone, company }
}

/// Something to ask a peer for the core.
struct Errand {
    call: CallId,
    to: Contact,
    request: Box<Request>,
}

struct Driver {
    kad: Kad,
    alone: Arc<AtomicBool>,
    company: watch::Sender<bool>,
    caller: Caller,
    clock: Clock,
    peers: Arc<Peers>,
    next_id: u64,
    calls: JoinSet<Input>,
    waiting: VecDeque<Errand>,
    requests: BTreeMap<RequestId, oneshot::Sender<Response>>,
    lookups: BTreeMap<OpId, mpsc::Sender<LookupEvent>>,
    provides: BTreeMap<OpId, oneshot::Sender<usize>>,
}

impl Driver {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        self.input(Input::Tick);
        loop {
            let deadline = self.deadline();
            tokio::select! {
                Some(done) = self.calls.join_next() => self.finished(done.ok()),
                command = inbox.recv() => match command {
                    Some(Command::Shutdown(done)) => {
                        self.shutdown().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.command(command),
                    // Every handle is gone: the node was dropped, not shut down.
                    None => return,
                },
                () = tokio::time::sleep_until(deadline) => self.input(Input::Tick),
            }
        }
    }

    fn deadline(&self) -> Instant {
        const IDLE: Duration = Duration::from_secs(60);
        self.kad.next_deadline().map_or_else(|| Instant::now() + IDLE, |at| self.clock.instant(at))
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Request { from, envelope, reply } => {
                let id = RequestId(self.fresh());
                self.requests.insert(id, reply);
                self.input(Input::Request { id, from, envelope: *envelope });
            }
            Command::Heard(contact) => self.input(Input::Heard { contact }),
            Command::Restore(peers) => self.input(Input::Restore { peers }),
            Command::Met(contact) => self.input(Input::Probed { contact }),
            Command::Gone(node) => self.input(Input::Gone { node }),
            Command::Lookup { target, kind, effort, events } => {
                let op = OpId(self.fresh());
                self.lookups.insert(op, events);
                self.input(Input::Lookup { op, target, kind, effort });
            }
            Command::Provide { key, complete, done } => {
                let op = OpId(self.fresh());
                self.provides.insert(op, done);
                self.input(Input::Provide { op, key, complete });
            }
            Command::Withdraw(key) => self.input(Input::Withdraw { key }),
            Command::View(tell) => {
                let _ = tell.send(self.view());
            }
            // Handled by the loop.
            Command::Shutdown(done) => drop(done),
        }
    }

    fn view(&self) -> View {
        let contacts = self.kad.contacts();
        let known = contacts.iter().filter(|peer| peer.alive).count() as u64 + 1;
        View {
            swarm_size: self.kad.size_estimate().unwrap_or(known).max(known),
            contacts,
            stored_records: self.kad.stored_records(),
            provided: self.kad.provided().count(),
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn input(&mut self, input: Input) {
        self.kad.handle(self.clock.now(), input);
        self.alone.store(self.kad.is_alone(), Ordering::Release);
        let company = self.kad.has_live_peer();
        self.company.send_if_modified(|told| std::mem::replace(told, company) != company);
        while let Some(output) = self.kad.poll_output() {
            self.output(output);
        }
    }

    fn output(&mut self, output: Output) {
        match output {
            Output::Call { call, to, request } => {
                self.errand(Errand { call, to, request: Box::new(request) });
            }
            // Asked for after `Input::Bootstrap` only: here addresses are dialled by `bootstrap.rs`.
            Output::Probe { .. } => {}
            Output::Reply { id, response } => {
                if let Some(reply) = self.requests.remove(&id) {
                    let _ = reply.send(response);
                }
            }
            Output::Providers { op, records } => {
                if let Some(events) = self.lookups.get(&op) {
                    // Losing this one loses nothing: `Done` repeats the records. The last place
                    // is kept for `Done`.
                    if events.capacity() > 1 {
                        let _ = events.try_send(LookupEvent::Providers(records));
                    }
                }
            }
            Output::LookupDone { op, closest, providers } => {
                self.lookup_done(op, closest, providers);
            }
            Output::Provided { op, stored } => {
                if let Some(done) = self.provides.remove(&op) {
                    let _ = done.send(stored);
                }
            }
            Output::Misbehaviour { peer, reason } => self.peers.misbehaved(peer, reason),
        }
    }

    fn lookup_done(&mut self, op: OpId, closest: Vec<Contact>, providers: Vec<ProviderRecord>) {
        if let Some(events) = self.lookups.remove(&op) {
            // One place is kept free for this event, see `Output::Providers`.
            let _ = events.try_send(LookupEvent::Done { closest, providers });
        }
    }

    fn errand(&mut self, errand: Errand) {
        if self.waiting.len() >= MAX_WAITING_CALLS {
            self.calls.spawn(std::future::ready(Input::Failed { call: errand.call }));
            return;
        }
        self.waiting.push_back(errand);
        self.start_errands();
    }

    fn start_errands(&mut self) {
        while self.calls.len() < MAX_CALLS {
            let Some(errand) = self.waiting.pop_front() else { return };
            let caller = self.caller.clone();
            self.calls.spawn(errand.run(caller));
        }
    }

    fn finished(&mut self, result: Option<Input>) {
        if let Some(input) = result {
            self.input(input);
        }
        self.start_errands();
    }

    /// Lets the core withdraw its records and carries the calls out, within [`SHUTDOWN_LIMIT`].
    async fn shutdown(&mut self) {
        self.calls.abort_all();
        self.waiting.clear();
        self.input(Input::Shutdown);
        let drain = async {
            while let Some(done) = self.calls.join_next().await {
                self.finished(done.ok());
            }
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, drain).await.is_err() {
            tracing::debug!("not every record was withdrawn in time; they expire");
        }
    }
}

impl Errand {
    async fn run(self, caller: Caller) -> Input {
        let Self { call, to, request } = self;
        match caller.call(&to, *request, CALL_TIMEOUT).await {
            Some(response) => Input::Response { call, response },
            None => Input::Failed { call },
        }
    }
}
