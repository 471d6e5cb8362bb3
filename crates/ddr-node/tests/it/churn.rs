//! More nodes than a name has voters: nodes join and leave one after another while tags are written and
//! read, and no write that was acknowledged is lost or read stale.
//!
//! Real nodes on the memory network and on disks in memory, on the paused clock. A failure is replayed
//! with `DDR_SEED`; `DDR_SEEDS` runs more of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ddr_net::{Identity, MemoryNetwork, Swarm};
use ddr_node::{Limits, Node, NodeConfig};
use ddr_oci::{Digest, RepositoryName, media_type};
use ddr_store::disk::FaultyDisk;
use ddr_store::{Store, StoreConfig};

use crate::bed::{by_tag, repository};

/// Nodes at first: so many that lookups find other voters for each name.
const NODES: usize = 40;
/// Joins and leaves in one run.
const CHANGES: usize = 8;
/// Tags, each written by one writer after another.
const TAGS: usize = 2;
/// Virtual time between two changes.
const BETWEEN: Duration = Duration::from_secs(2);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 16) % limit as u64) as usize
    }
}

struct Crowd {
    network: MemoryNetwork,
    live: Mutex<Vec<(SocketAddr, Node)>>,
}

impl Crowd {
    async fn join(&self, number: usize) {
        let dir = tempfile::tempdir().expect("a directory");
        let identity = Arc::new(Identity::load_or_create(dir.path()).expect("a key"));
        let swarm = Swarm::create(dir.path(), &identity).expect("a swarm");
        let addr = SocketAddr::from(([10, 1, (number / 250) as u8, (number % 250) as u8], 5001));
        let disk = Arc::new(FaultyDisk::new());
        let store = Store::open(StoreConfig { root: "/store".into(), disk }).expect("a store");
        let bootstrap = self.live().iter().take(3).map(|(addr, _)| *addr).collect();
        let config = NodeConfig {
            store,
            carrier: Arc::new(self.network.carrier(addr, identity.node_id())),
            identity,
            swarm,
            advertise: vec![addr],
            zone: String::new(),
            bootstrap,
            now: SystemTime::now(),
            limits: Limits::default(),
        };
        let node = Node::start(config).await.expect("the node starts");
        node.wait_ready().await;
        self.live().push((addr, node));
    }

    async fn leave(&self, at: usize) {
        let (_, node) = self.live().remove(at);
        node.shutdown().await;
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Vec<(SocketAddr, Node)>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn any(&self, random: &mut Random) -> Node {
        let live = self.live();
        live[random.below(live.len())].1.clone()
    }
}

/// An image index of nothing: it needs no blobs.
fn version(tag: usize, number: u64) -> Bytes {
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [],
        "annotations": { "tag": tag.to_string(), "number": number.to_string() },
    });
    Bytes::from(json.to_string())
}

/// What was acknowledged of one tag, and what is under way.
#[derive(Default)]
struct Register {
    numbers: BTreeMap<Digest, u64>,
    acknowledged: u64,
}

struct Run {
    seed: u64,
    crowd: Crowd,
    name: RepositoryName,
    registers: Mutex<Vec<Register>>,
}

impl Run {
    fn registers(&self) -> std::sync::MutexGuard<'_, Vec<Register>> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the next version of a tag at some node. Only one writer at a time writes a tag.
    async fn write(&self, tag: usize, number: u64, random: &mut Random) -> bool {
        let bytes = version(tag, number);
        self.registers()[tag].numbers.insert(Digest::sha256(&bytes), number);
        let node = self.crowd.any(random);
        let (label, kind) = (by_tag(&format!("t{tag}")), Some(media_type::OCI_INDEX));
        let done = node.put_manifest(&self.name, &label, &[], kind, bytes).await.is_ok();
        if done {
            self.registers()[tag].acknowledged = number;
        }
        done
    }

    /// Reads a tag at some node; false: no quorum. Content does not matter here, and neither does it
    /// that a node leaves while it answers.
    async fn read(&self, tag: usize, random: &mut Random) -> bool {
        let floor = self.registers()[tag].acknowledged;
        let node = self.crowd.any(random);
        let Ok(found) = node.find(&format!("{}:t{tag}", self.name)).await else { return false };
        let digest = found.digest.map(|digest| digest.parse::<Digest>().expect("a digest"));
        let number = digest.map_or(0, |digest| self.registers()[tag].numbers[&digest]);
        assert!(
            number >= floor,
            "seed {}: t{tag} is {number}, {floor} was acknowledged",
            self.seed
        );
        true
    }
}

async fn run(seed: u64) {
    println!("seed {seed}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let crowd = Crowd { network: MemoryNetwork::new(), live: Mutex::default() };
    for number in 0..NODES {
        crowd.join(number).await;
    }
    tokio::time::sleep(Duration::from_secs(35)).await;
    let registers = Mutex::new((0..TAGS).map(|_| Register::default()).collect());
    let run = Arc::new(Run { seed, crowd, name: repository("churn"), registers });
    let stop = Arc::new(tokio::sync::Notify::new());
    let (mut tasks, mut written) = (Vec::new(), 0);
    for tag in 0..TAGS {
        let (run, stop) = (Arc::clone(&run), Arc::clone(&stop));
        let mut random =
            Random(seed.wrapping_add(tag as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d) | 1);
        tasks.push(tokio::spawn(async move {
            let (mut number, mut written, mut read) = (0, 0, 0);
            let work = async {
                loop {
                    number += 1;
                    written += u64::from(run.write(tag, number, &mut random).await);
                    for _ in 0..3 {
                        read += u64::from(run.read(tag, &mut random).await);
                        let pause = Duration::from_millis(random.below(700) as u64);
                        tokio::time::sleep(pause).await;
                    }
                }
            };
            tokio::select! {
                () = stop.notified() => {}
                () = work => {}
            }
            (written, read)
        }));
    }
    for change in 0..CHANGES {
        tokio::time::sleep(BETWEEN).await;
        if random.below(2) == 0 {
            run.crowd.join(NODES + change).await;
        } else {
            let at = random.below(run.crowd.live().len());
            run.crowd.leave(at).await;
        }
    }
    tokio::time::sleep(BETWEEN).await;
    for _ in 0..TAGS {
        stop.notify_one();
    }
    let mut read = 0;
    for task in tasks {
        let (writes, reads) = task.await.expect("nothing was lost or stale");
        (written, read) = (written + writes, read + reads);
    }
    println!("seed {seed}: {written} writes, {read} reads");
    assert!(written > CHANGES as u64 && read > written, "seed {seed}: work was done");
}

#[tokio::test(start_paused = true)]
async fn no_acknowledged_write_is_lost_while_nodes_join_and_leave() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("DDR_SEED").unwrap_or(1);
    for seed in first..first + number("DDR_SEEDS").unwrap_or(1) {
        run(seed).await;
    }
}
