//! How fast one blob goes from node to node over TLS on loopback, beside a bare hyper and rustls pair:
//! `cargo run --release -p ddr-node --example node_to_node [MIB] [ROUNDS]`.
//!
//! Both sides of both pairs run in this process, in turn. The node reads its blob from the disk (from
//! the page cache, since it was just written); the bare pair sends one buffer again and again. Readers
//! count the bytes and drop them. Medians, and their ratio.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement may end by a panic")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ddr_net::{Carrier, Client, ClientLimits, Identity, Swarm, TlsCarrier};
use ddr_node::{Limits, Node, NodeConfig};
use ddr_oci::{Digest, Hasher, RepositoryName};
use ddr_store::{Store, StoreConfig};
use futures_util::stream;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const MIB: usize = 1 << 20;
/// Bytes of one frame, as the node sends them too.
const FRAME: usize = 256 * 1024;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse().expect("a number"));
    let (mib, rounds) = (arguments.next().unwrap_or(2048), arguments.next().unwrap_or(5));
    let pair = Pair::start(mib).await;
    let nodes = Nodes::start(mib).await;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let times = (pair.read().await, nodes.read().await);
        // The first round opens connections and warms the cache.
        if round > 0 {
            bare.push(times.0);
            ours.push(times.1);
        }
    }
    let (bare, ours) = (rate(mib, bare), rate(mib, ours));
    println!(
        "{mib} MiB, {rounds} rounds: hyper + rustls {bare:.0} MB/s, node to node {ours:.0} MB/s"
    );
    println!("ratio {:.2} (goal 0.9)", ours / bare);
}

/// MB/s of the median.
fn rate(mib: usize, mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    (mib * MIB) as f64 / 1e6 / times[times.len() / 2].as_secs_f64()
}

/// hyper and rustls, and nothing else.
struct Pair {
    addr: SocketAddr,
    bytes: usize,
    connector: TlsConnector,
}

impl Pair {
    async fn start(mib: usize) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(server)), mib * MIB / FRAME));
        Self { addr, bytes: mib * MIB, connector: TlsConnector::from(Arc::new(client)) }
    }

    async fn read(&self) -> Duration {
        let tcp = TcpStream::connect(self.addr).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = self.connector.connect(name, tcp).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let began = Instant::now();
        let request = Request::get("/").header("host", "localhost");
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let mut body = sender.send_request(request).await.unwrap().into_body();
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            count += frame.unwrap().data_ref().map_or(0, Bytes::len);
        }
        assert_eq!(count, self.bytes);
        began.elapsed()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, frames: usize) {
    let frame = Bytes::from(vec![7_u8; FRAME]);
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (acceptor, frame) = (acceptor.clone(), frame.clone());
        tokio::spawn(async move {
            let tls = acceptor.accept(tcp).await.unwrap();
            let answer = service_fn(|_: Request<Incoming>| {
                let frames = std::iter::repeat_n(frame.clone(), frames);
                let body =
                    stream::iter(frames.map(|frame| Ok::<_, Infallible>(Frame::data(frame))));
                let reply = Response::builder().header("content-length", frames_len(&frame, &body));
                async move { reply.body(StreamBody::new(body)) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            // It ends when the reader does.
            let _ = connection.serve_connection(TokioIo::new(tls), answer).await;
        });
    }
}

/// Bytes of all frames.
fn frames_len(frame: &Bytes, frames: &impl stream::Stream) -> usize {
    frame.len() * frames.size_hint().0
}

/// A node with a blob, and a member that reads it.
struct Nodes {
    _node: Node,
    _dirs: [tempfile::TempDir; 2],
    addr: SocketAddr,
    path: String,
    bytes: u64,
    client: Client,
}

impl Nodes {
    async fn start(mib: usize) -> Self {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let identities = [(); 2].map(|()| Identity::generate().unwrap());
        let swarm = Swarm::create(dirs[0].path(), &identities[0]).unwrap();
        let carrier = tls(&identities[0], &swarm).await;
        let addr = carrier.local_addr();
        let [identity, other] = identities;
        let node = Node::start(NodeConfig {
            store: Store::open(StoreConfig::new(dirs[0].path().join("store"))).unwrap(),
            identity: Arc::new(identity),
            swarm: swarm.clone(),
            carrier,
            advertise: vec![addr],
            zone: String::new(),
            bootstrap: Vec::new(),
            now: SystemTime::now(),
            limits: Limits::default(),
        });
        let node = node.await.unwrap();
        let token = swarm.create_token(vec![addr], Duration::from_secs(3600)).unwrap();
        let member = Swarm::join_by(dirs[1].path(), &other, &token, &[]).await.unwrap();
        let client = Client::new(tls(&other, &member).await, ClientLimits::default());
        let name: RepositoryName = "bench/one-blob".parse().unwrap();
        let digest = push(&node, &name, mib).await;
        let path = ddr_net::blob_path(&digest, Some(&name));
        Self { _node: node, _dirs: dirs, addr, path, bytes: (mib * MIB) as u64, client }
    }

    async fn read(&self) -> Duration {
        let began = Instant::now();
        let mut body = self.client.get(self.addr, None, &self.path, None).await.unwrap();
        let mut count = 0;
        while let Some(bytes) = body.next().await {
            count += bytes.unwrap().len() as u64;
        }
        assert_eq!(count, self.bytes);
        began.elapsed()
    }
}

async fn tls(identity: &Identity, swarm: &Swarm) -> Arc<dyn Carrier> {
    let listen = "127.0.0.1:0".parse().unwrap();
    Arc::new(TlsCarrier::bind(listen, identity, swarm, Arc::new(|_| false)).await.unwrap())
}

async fn push(node: &Node, name: &RepositoryName, mib: usize) -> Digest {
    let chunk = Bytes::from(vec![7_u8; MIB]);
    let mut hasher = Hasher::new(ddr_oci::Algorithm::Sha256);
    let id = node.begin_upload(name).await.unwrap();
    let mut upload = node.upload(name, &id).await.unwrap();
    for _ in 0..mib {
        hasher.update(&chunk);
        upload.append(chunk.clone()).await.unwrap();
    }
    let digest = hasher.finish();
    upload.commit(&digest).await.unwrap();
    digest
}
