//! A member of the swarm that says what it likes, and answers what it likes.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ddr_net::{
    Carrier, Client, ClientLimits, ContentReply, ContentRequest, GetError, Identity, JoinRefusal,
    JoinReply, JoinRequest, PeerInfo, ServeLimits, Service, UploadFrame, UploadReply, serve,
};
use ddr_node::Node;
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::NodeId;
use ddr_proto::kad::Reason;
use ddr_proto::wire::{
    Contact, RefuseReason, Request, RequestEnvelope, Response, Signer, SwarmPost,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::sync::watch;

use crate::bed::{Bed, Machine};

/// How long a stranger waits for an answer.
const LIMIT: Duration = Duration::from_secs(5);

/// See the module comment.
pub(crate) struct Stranger {
    pub(crate) own: Contact,
    pub(crate) signer: Signer,
    client: Client,
    carrier: Arc<dyn Carrier>,
    heard: Arc<Mutex<Vec<NodeId>>>,
    stop: watch::Sender<bool>,
}

impl Stranger {
    /// A stranger at the address that `number` makes. It does not listen yet.
    pub(crate) fn new(bed: &Bed, number: u8) -> Self {
        let identity = Arc::new(Identity::generate().expect("a key"));
        let addr = std::net::SocketAddr::from(([10, 0, 0, number], 5001));
        let carrier: Arc<dyn Carrier> = Arc::new(bed.network.carrier(addr, identity.node_id()));
        let client = Client::new(Arc::clone(&carrier), ClientLimits::default());
        let own = Contact { id: identity.node_id(), addrs: vec![addr], zone: String::new() };
        let signer = Signer::new(identity.public_key(), move |bytes| identity.sign(bytes));
        let (heard, stop) = (Arc::default(), watch::Sender::new(false));
        Self { own, signer, client, carrier, heard, stop }
    }

    /// Asks the node of `to` in the own name.
    pub(crate) async fn say(&self, to: &Machine, body: Request) -> Option<Response> {
        self.say_as(to, RequestEnvelope { sender: self.own.clone(), puzzle: [0; 32], body }).await
    }

    /// Asks the node of `to` in any name.
    pub(crate) async fn say_as(&self, to: &Machine, envelope: RequestEnvelope) -> Option<Response> {
        let answer = self.client.call(to.addr, None, &envelope, LIMIT).await;
        answer.ok().map(|(_, response)| response)
    }

    /// Asks the node of `from` for content.
    pub(crate) async fn read(&self, from: &Machine, digest: &Digest) -> Result<(), GetError> {
        let path = ddr_net::blob_path(digest, None);
        self.client.get(from.addr, None, &path, None).await.map(drop)
    }

    /// Answers from now on: what `lie` says, and where it says nothing, as an empty node would.
    pub(crate) fn listen(
        &self,
        lie: impl Fn(&Request) -> Option<Response> + Send + Sync + 'static,
    ) {
        let service = Arc::new(Liar { lie, heard: Arc::clone(&self.heard) });
        let (carrier, stopped) = (Arc::clone(&self.carrier), self.stop.subscribe());
        tokio::spawn(serve(carrier, service, ServeLimits::default(), stopped));
    }

    /// Messages that it was sent so far, by whomever.
    pub(crate) fn heard(&self) -> usize {
        self.heard.lock().expect("a lock").len()
    }

    /// Messages that `nodes` sent it so far.
    pub(crate) fn heard_from(&self, nodes: &[(Machine, Node)]) -> usize {
        let heard = self.heard.lock().expect("a lock");
        heard
            .iter()
            .filter(|sender| nodes.iter().any(|(node, _)| node.id() == sender.to_string()))
            .count()
    }
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    since.as_millis() as u64
}

struct Liar<F> {
    lie: F,
    heard: Arc<Mutex<Vec<NodeId>>>,
}

impl<F> Service for Liar<F>
where
    F: Fn(&Request) -> Option<Response> + Send + Sync + 'static,
{
    fn message(&self, _from: PeerInfo, envelope: RequestEnvelope) -> BoxFuture<'_, Response> {
        self.heard.lock().expect("a lock").push(envelope.sender.id);
        let answer = (self.lie)(&envelope.body).unwrap_or_else(|| match envelope.body {
            Request::Ping => Response::Pong { revoked: 0, puzzle: [0; 32] },
            Request::FindNode { .. } => Response::Nodes { nodes: Vec::new() },
            Request::FindProviders { .. } => {
                Response::Providers { records: Vec::new(), nodes: Vec::new() }
            }
            Request::PutProviders { .. } => Response::Stored { accepted: 0, not_soon: Vec::new() },
            _ => Response::Refused { reason: RefuseReason::Unsupported },
        });
        async move { answer }.boxed()
    }

    fn misbehaved(&self, _from: PeerInfo, reason: Reason) {
        panic!("an honest node broke a rule: {reason}");
    }

    fn swarm(&self, _from: PeerInfo, _digest: Digest, _post: SwarmPost) -> BoxFuture<'_, bool> {
        async { false }.boxed()
    }

    fn content(&self, _from: PeerInfo, _request: ContentRequest) -> BoxFuture<'_, ContentReply> {
        async { ContentReply::NotFound }.boxed()
    }

    fn upload(
        &self,
        _from: PeerInfo,
        _repository: RepositoryName,
        _frames: BoxStream<'static, std::io::Result<UploadFrame>>,
    ) -> BoxFuture<'_, UploadReply> {
        Box::pin(async { UploadReply::Refused })
    }

    fn join(
        &self,
        _from: PeerInfo,
        _request: JoinRequest,
    ) -> BoxFuture<'_, Result<JoinReply, JoinRefusal>> {
        async { Err(JoinRefusal::Busy) }.boxed()
    }
}
