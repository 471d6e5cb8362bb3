//! Real nodes in one process: the memory network, temporary directories, content to push.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ddr_net::{Carrier, Client, ClientLimits, Identity, MemoryNetwork, Swarm};
use ddr_node::{
    Blob, CacheSettings, CopySettings, Durability, JobKind, JobState, JobStatus, Limits, Node,
    NodeConfig, Sources, UpkeepSettings,
};
use ddr_oci::{Descriptor, Digest, Reference, RepositoryName, Tag, media_type};
use ddr_proto::id::NodeId;
use ddr_store::{Store, StoreConfig};
use futures_util::StreamExt;
use tempfile::TempDir;

use crate::gate::{Gate, GatedCarrier};

/// How long a test waits for something that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// No copies but the one of the node that takes content in.
const LONE: CopySettings = CopySettings {
    copies: 1,
    copies_for: Vec::new(),
    durability: Durability::Local,
    grace: ddr_node::COPIES_GRACE,
    rate: None,
};

/// A network and what is common to its nodes.
pub(crate) struct Bed {
    pub(crate) network: MemoryNetwork,
}

/// A machine: its directory, key and address outlive the node that runs on it.
pub(crate) struct Machine {
    pub(crate) dir: TempDir,
    pub(crate) addr: SocketAddr,
    pub(crate) gate: Arc<Gate>,
    pub(crate) zone: String,
    pub(crate) limits: Limits,
    /// Its wall clock at a start.
    pub(crate) now: fn() -> SystemTime,
    identity: Arc<Identity>,
    swarm: Swarm,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self { network: MemoryNetwork::new() }
    }

    /// A new machine; `number` makes its address.
    pub(crate) fn machine(&self, number: u8) -> Machine {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Arc::new(Identity::load_or_create(dir.path()).expect("a key"));
        let swarm = Swarm::create(dir.path(), &identity).expect("a swarm");
        let addr = SocketAddr::from(([10, 0, 0, number], 5001));
        // No copies beyond the node that takes content in, unless a test says so.
        let limits = Limits { copies: LONE, ..Limits::default() };
        let (gate, zone) = (Arc::default(), String::new());
        let now = SystemTime::now;
        Machine { dir, addr, gate, zone, limits, now, identity, swarm }
    }

    /// The client of a member that runs no node.
    pub(crate) fn client(&self, number: u8) -> Client {
        self.client_of(&self.machine(number))
    }

    /// The same for a machine that is known.
    pub(crate) fn client_of(&self, machine: &Machine) -> Client {
        let carrier = self.network.carrier(machine.addr, machine.identity.node_id());
        Client::new(Arc::new(carrier), ClientLimits::default())
    }

    /// Starts the node of `machine`, and waits until it has joined `others`.
    pub(crate) async fn start(&self, machine: &Machine, others: &[&Machine]) -> Node {
        let node = self.start_alone(machine, others).await;
        within(node.wait_ready()).await;
        node
    }

    /// Starts the node of `machine` without waiting for anybody.
    pub(crate) async fn start_alone(&self, machine: &Machine, others: &[&Machine]) -> Node {
        self.start_with(machine, others, Sources::default()).await
    }

    /// The same, with more places to look for others.
    pub(crate) async fn start_with(
        &self,
        machine: &Machine,
        others: &[&Machine],
        sources: Sources,
    ) -> Node {
        let carrier = self.network.carrier(machine.addr, machine.identity.node_id());
        let carrier: Arc<dyn Carrier> = Arc::new(GatedCarrier::new(carrier, &machine.gate));
        let config = NodeConfig {
            store: machine.store(),
            identity: Arc::clone(&machine.identity),
            swarm: machine.swarm.clone(),
            carrier,
            advertise: vec![machine.addr],
            zone: machine.zone.clone(),
            bootstrap: others.iter().map(|other| other.addr).collect(),
            now: (machine.now)(),
            limits: machine.limits.clone(),
        };
        Node::start_with(config, sources).await.expect("the node starts")
    }

    /// `count` machines with nodes that know each other.
    pub(crate) async fn swarm(&self, count: u8) -> Vec<(Machine, Node)> {
        self.swarm_with(count, Limits::default()).await
    }

    /// The same, each with these bounds.
    pub(crate) async fn swarm_with(&self, count: u8, limits: Limits) -> Vec<(Machine, Node)> {
        let mut nodes: Vec<(Machine, Node)> = Vec::new();
        for number in 1..=count {
            let mut machine = self.machine(number);
            machine.limits = Limits { copies: LONE, ..limits.clone() };
            let others: Vec<&Machine> = nodes.iter().take(2).map(|(other, _)| other).collect();
            let node = self.start(&machine, &others).await;
            nodes.push((machine, node));
        }
        let wanted = usize::from(count) - 1;
        for (_, node) in &nodes {
            eventually("all nodes know each other", async || node.peers().await.len() >= wanted)
                .await;
        }
        nodes
    }

    /// A node that holds `bytes` and can be asked for all of them, and a machine whose node was killed
    /// when `part` bytes of them had come.
    pub(crate) async fn killed_in_mid_fetch(
        &self,
        name: &RepositoryName,
        bytes: &Bytes,
        part: usize,
    ) -> (Digest, (Machine, Node), Machine) {
        let mut nodes = self.swarm(2).await;
        let (machine, reader) = nodes.pop().expect("two nodes");
        let (holder, node) = nodes.pop().expect("two nodes");
        let digest = push_blob(&node, name, bytes).await;
        announced(&reader, &digest, 1).await;
        holder.gate.close_after(part);
        let blob = within(reader.open_blob(name, &digest)).await.expect("read").expect("there");
        within(holder.gate.reached()).await;
        self.network.kill(machine.addr);
        drop((reader, blob));
        holder.gate.open();
        (digest, (holder, node), machine)
    }
}

impl Machine {
    /// The same with other settings for copies.
    pub(crate) fn keeping(self, copies: CopySettings) -> Self {
        Self { limits: Limits { copies, ..self.limits }, ..self }
    }

    /// The same with room for so many bytes of blobs, and no patience with what is not used.
    pub(crate) fn caching(self, bytes: u64) -> Self {
        let (high, low, size) = (100, 0, Some(bytes));
        let soon = Duration::from_millis(50);
        let cache = CacheSettings { high, low, size, min_age: Duration::ZERO, look_every: soon };
        let upkeep = UpkeepSettings { cache, ..self.limits.upkeep };
        Self { limits: Limits { upkeep, ..self.limits }, ..self }
    }

    /// The store; only one at a time may be open.
    pub(crate) fn store(&self) -> Store {
        let config = StoreConfig::new(self.dir.path().join("store"));
        let opened = std::time::Instant::now();
        loop {
            // The node before may still be letting go of it.
            match Store::open(StoreConfig {
                root: config.root.clone(),
                disk: Arc::clone(&config.disk),
            }) {
                Ok(store) => return store,
                Err(error) if opened.elapsed() > DEADLINE => panic!("the store opens: {error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    /// Its node ID.
    pub(crate) fn node_id(&self) -> NodeId {
        self.identity.node_id()
    }

    /// The same as the reports print it.
    pub(crate) fn id(&self) -> String {
        self.node_id().to_string()
    }

    /// Turns bytes of a stored blob over, as a liar or a rotten disk would.
    pub(crate) fn corrupt(&self, digest: &Digest) {
        self.change(digest, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
    }

    /// Turns over a bit of every byte.
    pub(crate) fn corrupt_all(&self, digest: &Digest) {
        self.change(digest, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    }

    fn change(&self, digest: &Digest, change: impl FnOnce(&mut [u8])) {
        let hex = digest.hex();
        let path = self.dir.path().join("store/blobs/sha256").join(&hex[..2]).join(&hex);
        let mut bytes = std::fs::read(&path).expect("the blob is a file");
        change(&mut bytes);
        std::fs::write(&path, bytes).expect("the file can be changed");
    }

    /// Files of fetches that were not committed.
    pub(crate) fn fetch_files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("store/fetch")).map_or(0, Iterator::count)
    }
}

/// Waits for `work`, but not for ever.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("done in time")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let holds = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(DEADLINE, holds).await.is_err() {
        panic!("did not happen: {what}");
    }
}

/// Waits for the end of the run of a kind.
pub(crate) async fn ended(node: &Node, kind: JobKind) -> JobStatus {
    within(async {
        while node.job(kind).state == JobState::Running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    node.job(kind)
}

pub(crate) fn repository(name: &str) -> RepositoryName {
    name.parse().expect("a repository name")
}

pub(crate) fn tag(name: &str) -> Tag {
    name.parse().expect("a tag")
}

pub(crate) fn by_tag(name: &str) -> Reference {
    Reference::Tag(tag(name))
}

/// `len` bytes that differ with `seed` and do not repeat.
pub(crate) fn content(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&step());
    }
    bytes.truncate(len);
    Bytes::from(bytes)
}

/// Pushes a blob and waits until it is announced.
pub(crate) async fn push_blob(node: &Node, repository: &RepositoryName, bytes: &Bytes) -> Digest {
    let digest = Digest::sha256(bytes);
    let id = node.begin_upload(repository).await.expect("a session");
    let mut upload = node.upload(repository, &id).await.expect("the session");
    for chunk in bytes.chunks(700_001) {
        upload.append(Bytes::copy_from_slice(chunk)).await.expect("taken");
    }
    let committed = upload.commit(&digest).await.expect("committed");
    assert_eq!((committed.digest, committed.size), (digest, bytes.len() as u64));
    digest
}

/// An image manifest over blobs that were pushed: the first is the config.
pub(crate) fn image(blobs: &[(Digest, u64)]) -> Bytes {
    let descriptors: Vec<_> = blobs
        .iter()
        .map(|(digest, size)| Descriptor::new(media_type::OCTET_STREAM, *digest, *size))
        .collect();
    let (config, layers) = descriptors.split_first().expect("a config");
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": config,
        "layers": layers,
    });
    Bytes::from(json.to_string())
}

/// An image that [`push_image`] pushed.
pub(crate) struct Image {
    pub(crate) manifest: Digest,
    pub(crate) blobs: Vec<(Digest, Bytes)>,
}

/// Pushes an image of one config and one layer under `repository:tag`.
pub(crate) async fn push_image(
    node: &Node,
    name: &RepositoryName,
    reference: &str,
    (seed, layer_len): (u64, usize),
) -> Image {
    let mut blobs = Vec::new();
    for bytes in [content(seed, 300), content(seed + 1, layer_len)] {
        blobs.push((push_blob(node, name, &bytes).await, bytes));
    }
    let sizes: Vec<_> = blobs.iter().map(|(digest, bytes)| (*digest, bytes.len() as u64)).collect();
    let bytes = image(&sizes);
    let put = node
        .put_manifest(name, &by_tag(reference), &[], Some(media_type::OCI_MANIFEST), bytes.clone())
        .await
        .expect("the manifest is taken");
    assert_eq!(put.digest, Digest::sha256(&bytes));
    Image { manifest: put.digest, blobs }
}

/// What `repository:tag` is at `node`.
pub(crate) async fn resolve(node: &Node, name: &RepositoryName, reference: &str) -> Option<Digest> {
    let manifest = node.manifest(name, &by_tag(reference)).await.expect("the name can be read");
    manifest.map(|manifest| manifest.digest)
}

/// Everything that a stream gives: the bytes, and its error if it ended with one.
pub(crate) async fn drain(blob: &Blob) -> (Vec<u8>, Option<std::io::Error>) {
    let mut stream = blob.stream(0..blob.size());
    let mut bytes = Vec::new();
    while let Some(chunk) = within(stream.next()).await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

/// Reads a whole blob that must be there.
pub(crate) async fn pull(node: &Node, name: &RepositoryName, digest: &Digest) -> Vec<u8> {
    let blob =
        within(node.open_blob(name, digest)).await.expect("readable").expect("somebody has it");
    let (bytes, error) = drain(&blob).await;
    assert!(error.is_none(), "the stream ends well: {error:?}");
    assert_eq!(bytes.len() as u64, blob.size());
    bytes
}

/// Waits until `node` finds `count` other holders of `digest`.
pub(crate) async fn announced(node: &Node, digest: &Digest, count: usize) {
    eventually("the content is announced", async || {
        node.find(&digest.to_string()).await.expect("a report").holders.len() >= count
    })
    .await;
}
