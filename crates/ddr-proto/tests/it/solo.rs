//! One core in the hands of a test that plays all of its peers.

use std::collections::BTreeSet;

use ddr_proto::kad::{
    CallId, Effort, Input, Kad, KadConfig, LookupKind, OpId, Output, Reason, RequestId,
};
use ddr_proto::wire::{Contact, Request, RequestEnvelope, Response, Signer};
use ddr_proto::{Distance, Key, NodeId, Timestamp};

use crate::net::{START, contact, signer};

pub(crate) struct Solo {
    pub(crate) kad: Kad,
    pub(crate) own: Contact,
    pub(crate) now: Timestamp,
    pub(crate) misbehaviour: Vec<(NodeId, Reason)>,
    pub(crate) outputs: Vec<Output>,
    next_request: u64,
}

/// A peer that the test plays.
pub(crate) fn peer(number: usize) -> (Signer, Contact) {
    let signer = signer(1_000 + number as u64);
    let contact = contact(&signer, 1 + number);
    (signer, contact)
}

pub(crate) fn quiet_config() -> KadConfig {
    // No self-lookups and refreshes in between, so that a test sees only what it asks for.
    let never_ms = u64::MAX / 4;
    KadConfig {
        sibling_refresh_ms: never_ms,
        refresh_ms: never_ms,
        sync_ms: never_ms,
        ..KadConfig::default()
    }
}

impl Solo {
    pub(crate) fn new(cfg: KadConfig) -> Self {
        let signer = signer(7);
        let own = contact(&signer, 0);
        let kad = Kad::new(cfg, own.clone(), signer, 7);
        let (misbehaviour, outputs) = (Vec::new(), Vec::new());
        Self { kad, own, now: START, misbehaviour, outputs, next_request: 0 }
    }

    /// A core that knows these peers and has finished joining.
    pub(crate) fn with_peers(cfg: KadConfig, peers: &[Contact]) -> Self {
        let mut solo = Self::new(cfg);
        for peer in peers {
            solo.input(Input::Probed { contact: peer.clone() });
        }
        solo.settle();
        solo
    }

    /// Answers everything with nothing until the core is quiet.
    pub(crate) fn settle(&mut self) {
        while !self.kad.is_idle() {
            for (call, _, request) in self.take_calls() {
                self.input(Input::Response { call, response: nothing_for(&request) });
            }
        }
        self.outputs.clear();
    }

    /// Answers every call with nothing, and keeps the other outputs.
    pub(crate) fn finish_everything(&mut self) {
        while !self.kad.is_idle() {
            let calls = self.take_calls();
            assert!(!calls.is_empty(), "a call waits that the test does not answer");
            for (call, _, request) in calls {
                self.input(Input::Response { call, response: nothing_for(&request) });
            }
        }
    }

    /// Calls that the core has put out and the test has not taken.
    pub(crate) fn calls_waiting(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, Output::Call { .. })).count()
    }

    /// Lets the calls that a failure caused fail as well.
    pub(crate) fn settle_after_lookup(&mut self) {
        while !self.kad.is_idle() {
            for (call, ..) in self.take_calls() {
                self.input(Input::Failed { call });
            }
        }
    }

    /// The lookups that ended.
    pub(crate) fn done_ops(&self) -> BTreeSet<OpId> {
        let done = |output: &Output| match output {
            Output::LookupDone { op, .. } => Some(*op),
            _ => None,
        };
        self.outputs.iter().filter_map(done).collect()
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.kad.handle(self.now, input);
        while let Some(output) = self.kad.poll_output() {
            if let Output::Misbehaviour { peer, reason } = &output {
                self.misbehaviour.push((*peer, *reason));
            }
            self.outputs.push(output);
        }
    }

    /// Lets so many pings fail, one after the other.
    pub(crate) fn fail_pings(&mut self, count: usize) {
        for _ in 0..count {
            let call =
                self.take_calls().into_iter().find(|(.., request)| *request == Request::Ping);
            let (call, ..) = call.expect("a ping");
            self.input(Input::Failed { call });
        }
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) {
        let end = self.now.after_ms(ms);
        while let Some(at) = self.kad.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now.after_ms(1));
            self.input(Input::Tick);
        }
        self.now = end.max(self.now);
    }

    /// Takes the calls out of what the core put out.
    pub(crate) fn take_calls(&mut self) -> Vec<(CallId, Contact, Request)> {
        let (calls, rest) = std::mem::take(&mut self.outputs)
            .into_iter()
            .partition::<Vec<Output>, _>(|output| matches!(output, Output::Call { .. }));
        self.outputs = rest;
        let parts = |output| match output {
            Output::Call { call, to, request } => Some((call, to, request)),
            _ => None,
        };
        calls.into_iter().filter_map(parts).collect()
    }

    pub(crate) fn ask(&mut self, from: &Contact, body: Request) -> Response {
        let envelope = RequestEnvelope { sender: from.clone(), puzzle: [0; 32], body };
        self.ask_as(from.id, envelope)
    }

    pub(crate) fn ask_as(&mut self, from: NodeId, envelope: RequestEnvelope) -> Response {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.input(Input::Request { id, from, envelope });
        let reply = |output: &Output| match output {
            Output::Reply { id: of, response } if *of == id => Some(response.clone()),
            _ => None,
        };
        let replies: Vec<Response> = self.outputs.iter().filter_map(reply).collect();
        let [reply] = &replies[..] else {
            panic!("exactly one reply each, got {replies:?}");
        };
        reply.clone()
    }

    pub(crate) fn start_lookup(&mut self, target: Key, kind: LookupKind) -> OpId {
        let op = OpId(target.0[0].into());
        self.input(Input::Lookup { op, target, kind, effort: Effort::Cached });
        op
    }

    pub(crate) fn lookup_result(&self) -> Option<(Vec<NodeId>, Vec<NodeId>)> {
        self.outputs.iter().find_map(|output| match output {
            Output::LookupDone { closest, providers, .. } => Some((
                closest.iter().map(|contact| contact.id).collect(),
                providers.iter().map(|record| record.provider.id).collect(),
            )),
            _ => None,
        })
    }

    pub(crate) fn known(&self) -> BTreeSet<NodeId> {
        self.kad.contacts().iter().map(|peer| peer.contact.id).collect()
    }

    pub(crate) fn bucket_of(&self, id: &NodeId) -> u32 {
        Distance::between(&self.own.id.0, &id.0).shared_bits()
    }

    /// Peers whose IDs fall into this bucket of the core.
    pub(crate) fn peers_in_bucket(&self, bucket: u32, count: usize) -> Vec<(Signer, Contact)> {
        let all = (0..).map(peer);
        all.filter(|(_, contact)| self.bucket_of(&contact.id) == bucket).take(count).collect()
    }
}

/// An answer to a ping in a swarm without a dynamic puzzle.
pub(crate) const PONG: Response = Response::Pong { revoked: 0, puzzle: [0; 32] };

/// So many records are kept, and may come again soon.
pub(crate) const fn stored(accepted: u32) -> Response {
    Response::Stored { accepted, not_soon: Vec::new() }
}

/// A proper answer that tells nothing.
pub(crate) fn nothing_for(request: &Request) -> Response {
    match request {
        Request::FindNode { .. } => Response::Nodes { nodes: Vec::new() },
        Request::FindProviders { .. } => {
            Response::Providers { records: Vec::new(), nodes: Vec::new() }
        }
        Request::PutProviders { records } => stored(records.len() as u32),
        Request::Compare { .. } => Response::Compared { marks: Vec::new() },
        _ => PONG,
    }
}
