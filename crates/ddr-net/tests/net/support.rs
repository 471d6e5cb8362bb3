//! Nodes to test with, on either carrier.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ddr_net::{
    Carrier, Client, ClientLimits, ContentReply, ContentRequest, Identity, JoinRefusal, JoinReply,
    JoinRequest, MemoryNetwork, PeerInfo, ServeLimits, Service, Swarm, TlsCarrier, UploadFrame,
    UploadReply, serve,
};
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::kad::Reason;
use ddr_proto::wire::{BusyAnswer, Contact, Request, RequestEnvelope, Response, SwarmPost};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use tempfile::TempDir;
use tokio::sync::watch;

/// Nothing in these tests takes as long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// What [`TestService`] gives when the choice is left to it.
pub(crate) const PIECE: std::ops::Range<u64> = 65_536..131_072;
pub(crate) const REPOSITORY: &str = "team/app";

/// Fails the test instead of hanging it.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("hangs")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = tokio::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(crate) fn repository() -> RepositoryName {
    REPOSITORY.parse().unwrap()
}

/// Bytes that differ along their length.
pub(crate) fn pattern(length: usize) -> Bytes {
    (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
}

pub(crate) fn envelope(sender: &Identity) -> RequestEnvelope {
    let sender = Contact {
        id: sender.node_id(),
        addrs: vec!["127.0.0.1:5001".parse().unwrap()],
        zone: "z".into(),
    };
    RequestEnvelope { sender, puzzle: [0; 32], body: Request::Ping }
}

/// Answers `Pong` with the number of messages so far, and gives its blobs to [`REPOSITORY`].
#[derive(Default)]
pub(crate) struct TestService {
    pub(crate) blobs: BTreeMap<Digest, Bytes>,
    /// Bodies break off after so many bytes.
    pub(crate) break_after: Option<usize>,
    /// Bodies stop for ever after so many bytes.
    pub(crate) stop_after: Option<usize>,
    /// What messages are answered with; else `Pong`.
    pub(crate) answer: Option<Response>,
    /// Admits joiners.
    pub(crate) swarm: Option<Swarm>,
    pub(crate) messages: AtomicUsize,
    pub(crate) contents: AtomicUsize,
    /// Bytes of content that were asked of it by the server.
    pub(crate) given: Arc<AtomicUsize>,
    /// Messages of posts about its blobs.
    pub(crate) heard: AtomicUsize,
    /// Pieces are refused with these words.
    pub(crate) busy: Option<BusyAnswer>,
    pub(crate) joins: AtomicUsize,
    /// What peers sent whole.
    pub(crate) uploaded: Mutex<Vec<Bytes>>,
    pub(crate) misbehaviour: Mutex<Vec<Reason>>,
}

impl TestService {
    pub(crate) fn with_blob(mut self, bytes: Bytes) -> Self {
        self.blobs.insert(Digest::sha256(&bytes), bytes);
        self
    }

    /// What peers were blamed for since the last call.
    pub(crate) fn blamed(&self) -> Vec<Reason> {
        std::mem::take(&mut self.misbehaviour.lock().unwrap())
    }

    fn give(&self, request: &ContentRequest) -> ContentReply {
        let Some(bytes) = self.blobs.get(&request.digest) else { return ContentReply::NotFound };
        if request.repository.as_ref() != Some(&repository()) {
            return ContentReply::NotFound;
        }
        if let Some(answer) = &self.busy {
            return ContentReply::Busy(answer.clone());
        }
        let size = bytes.len() as u64;
        let any = (request.any_piece && !request.head_only).then_some(PIECE);
        let Some(range) = any.or_else(|| request.resolve(size)) else {
            return ContentReply::Unsatisfiable { size };
        };
        let wanted = bytes.slice(range.start as usize..range.end as usize);
        let until = self.break_after.or(self.stop_after).unwrap_or(wanted.len());
        let given = wanted.slice(..until.min(wanted.len()));
        let frames: Vec<_> = given.chunks(100_000).map(|part| Ok(given.slice_ref(part))).collect();
        let counter = Arc::clone(&self.given);
        let count = move |frame: &std::io::Result<Bytes>| {
            counter.fetch_add(frame.as_ref().map_or(0, Bytes::len), Ordering::SeqCst);
        };
        let mut body = stream::iter(frames).inspect(count).boxed();
        if self.break_after.is_some() {
            body = body.chain(stream::iter([Err(std::io::Error::other("disk"))])).boxed();
        }
        if self.stop_after.is_some() {
            body = body.chain(stream::pending()).boxed();
        }
        ContentReply::Found { size, range, media_type: Some("text/x".into()), body }
    }
}

impl Service for TestService {
    fn message(&self, _from: PeerInfo, _envelope: RequestEnvelope) -> BoxFuture<'_, Response> {
        let revoked = self.messages.fetch_add(1, Ordering::SeqCst) as u32 + 1;
        let pong = Response::Pong { revoked, puzzle: [0; 32] };
        let answer = self.answer.clone().unwrap_or(pong);
        async move { answer }.boxed()
    }

    fn misbehaved(&self, _from: PeerInfo, reason: Reason) {
        self.misbehaviour.lock().unwrap().push(reason);
    }

    fn swarm(&self, _from: PeerInfo, digest: Digest, post: SwarmPost) -> BoxFuture<'_, bool> {
        let known = self.blobs.contains_key(&digest) && post.repository == repository();
        if known {
            self.heard.fetch_add(post.messages.len(), Ordering::SeqCst);
        }
        async move { known }.boxed()
    }

    fn content(&self, _from: PeerInfo, request: ContentRequest) -> BoxFuture<'_, ContentReply> {
        self.contents.fetch_add(1, Ordering::SeqCst);
        async move { self.give(&request) }.boxed()
    }

    fn upload(
        &self,
        _from: PeerInfo,
        name: RepositoryName,
        mut frames: BoxStream<'static, std::io::Result<UploadFrame>>,
    ) -> BoxFuture<'_, UploadReply> {
        async move {
            if self.busy.is_some() || name != repository() {
                return UploadReply::Busy;
            }
            let mut bytes = Vec::new();
            while let Some(frame) = frames.next().await {
                match frame {
                    Ok(UploadFrame::Bytes(more)) => bytes.extend_from_slice(&more),
                    Ok(UploadFrame::End(digest)) if digest == Digest::sha256(&bytes) => {
                        self.uploaded.lock().unwrap().push(bytes.into());
                        return UploadReply::Stored;
                    }
                    Ok(UploadFrame::End(_)) | Err(_) => return UploadReply::Broken,
                }
            }
            UploadReply::Broken
        }
        .boxed()
    }

    fn join(
        &self,
        _from: PeerInfo,
        request: JoinRequest,
    ) -> BoxFuture<'_, Result<JoinReply, JoinRefusal>> {
        self.joins.fetch_add(1, Ordering::SeqCst);
        async move {
            let swarm = self.swarm.as_ref().ok_or(JoinRefusal::Busy)?;
            swarm.admit(&request.public_key).map_err(|_| JoinRefusal::Failed)
        }
        .boxed()
    }
}

/// Who the node is, in a directory of its own.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) identity: Identity,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity::load_or_create(dir.path()).unwrap();
        Self { dir, identity }
    }

    pub(crate) fn found_swarm(&self) -> Swarm {
        Swarm::create(self.dir.path(), &self.identity).unwrap()
    }
}

/// A node that serves until it is dropped.
pub(crate) struct TestNode {
    pub(crate) home: Home,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) service: Arc<TestService>,
    stop: watch::Sender<bool>,
}

impl TestNode {
    pub(crate) fn start(home: Home, carrier: Arc<dyn Carrier>, service: TestService) -> Self {
        Self::start_with(home, carrier, service, ServeLimits::default())
    }

    pub(crate) fn start_with(
        home: Home,
        carrier: Arc<dyn Carrier>,
        service: TestService,
        limits: ServeLimits,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let service = Arc::new(service);
        tokio::spawn(serve(carrier.clone(), service.clone(), limits, stopped));
        Self { home, carrier, service, stop }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.carrier.local_addr()
    }

    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub(crate) fn client(&self) -> Client {
        self.client_with(ClientLimits::default())
    }

    pub(crate) fn client_with(&self, limits: ClientLimits) -> Client {
        Client::new(self.carrier.clone(), limits)
    }
}

/// A TLS carrier on a free loopback port, with no token revoked.
pub(crate) async fn tls(identity: &Identity, swarm: &Swarm) -> Arc<dyn Carrier> {
    let listen = "127.0.0.1:0".parse().unwrap();
    Arc::new(TlsCarrier::bind(listen, identity, swarm, Arc::new(|_| false)).await.unwrap())
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Memory,
    Tls,
}

pub(crate) const KINDS: [Kind; 2] = [Kind::Memory, Kind::Tls];

/// Carriers of members of one swarm with who they are.
pub(crate) async fn carriers(kind: Kind, count: usize) -> Vec<(Home, Arc<dyn Carrier>)> {
    match kind {
        Kind::Memory => {
            let network = MemoryNetwork::new();
            let homes = (0..count).map(|index| {
                let home = Home::new();
                let carrier = network.carrier(memory_addr(index), home.identity.node_id());
                (home, Arc::new(carrier) as Arc<dyn Carrier>)
            });
            homes.collect()
        }
        Kind::Tls => {
            let founder = Home::new();
            let swarm = founder.found_swarm();
            let gate = Gate::open(&founder.identity, &swarm).await;
            let first = tls(&founder.identity, &swarm).await;
            let mut made = vec![(founder, first)];
            while made.len() < count {
                let home = Home::new();
                let own = gate.admit(&home).await;
                let carrier = tls(&home.identity, &own).await;
                made.push((home, carrier));
            }
            made
        }
    }
}

/// A member that admits joiners, on a port of its own.
pub(crate) struct Gate {
    pub(crate) swarm: Swarm,
    pub(crate) addr: SocketAddr,
    pub(crate) service: Arc<TestService>,
    _stop: watch::Sender<bool>,
}

impl Gate {
    pub(crate) async fn open(identity: &Identity, swarm: &Swarm) -> Self {
        let carrier = tls(identity, swarm).await;
        let addr = carrier.local_addr();
        let (stop, stopped) = watch::channel(false);
        let service = TestService { swarm: Some(swarm.clone()), ..TestService::default() };
        let service = Arc::new(service);
        tokio::spawn(serve(carrier, service.clone(), ServeLimits::default(), stopped));
        Self { swarm: swarm.clone(), addr, service, _stop: stop }
    }

    pub(crate) async fn admit(&self, home: &Home) -> Swarm {
        let token = self.swarm.create_token(vec![self.addr], Duration::from_secs(60)).unwrap();
        within(Swarm::join(home.dir.path(), &home.identity, &token)).await.unwrap()
    }
}

pub(crate) fn memory_addr(index: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, (index / 250) as u8, (index % 250) as u8 + 1], 5001))
}

/// Serving members of one swarm, all with the same service.
pub(crate) async fn nodes(
    kind: Kind,
    count: usize,
    service: impl Fn() -> TestService,
) -> Vec<TestNode> {
    let made = carriers(kind, count).await;
    made.into_iter().map(|(home, carrier)| TestNode::start(home, carrier, service())).collect()
}
