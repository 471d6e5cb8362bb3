//! Wiring: from a checked configuration to a node that serves, and back.
//!
//! Order of start: data directory, client ports, peer port, membership, node, registry. Nothing
//! that outlives a failure is made before the ports are known to be free: a first start that fails
//! must not leave a swarm behind that a later `--join` would meet.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use ddr_net::{Carrier, Identity, JoinToken, RevocationCheck, Swarm, TlsCarrier};
use ddr_node::{DriverSettings, MirrorSettings, Node, NodeConfig};
use ddr_store::disk::RealDisk;
use ddr_store::{Store, StoreConfig};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::descriptors::Descriptors;
use super::{DaemonError, advertise, bootstrap, discovery, driver, join_token, listen, mirror};
use crate::admin::{self, Admin};
use crate::config::Config;
use crate::telemetry::Metrics;

/// Wait for the node to leave; it has a limit of its own, which is shorter.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait for the first answer of another node before the daemon says that it serves.
const JOIN_PATIENCE: Duration = Duration::from_secs(5);
/// How often histograms are folded.
const UPKEEP_EVERY: Duration = Duration::from_secs(10);

/// A daemon that serves.
pub(super) struct Running {
    node: Node,
    admin: Arc<Admin>,
    stop_registry: oneshot::Sender<()>,
    registry: Mutex<JoinHandle<()>>,
    background: Vec<JoinHandle<()>>,
}

impl Running {
    pub(super) async fn start(
        config: Config,
        metrics: Metrics,
        descriptors: Descriptors,
    ) -> Result<Self, DaemonError> {
        ddr_registry::describe_metrics();
        ddr_node::metrics::describe();
        let token = config.join.as_deref().map(join_token::given).transpose()?;
        let store = open_store(config.data_dir.clone()).await?;
        let tls = listen::tls(config.registry_tls.clone()).await?;
        let mirror = mirror::settings(config.mirror.clone())?;
        let driver = driver::settings(config.driver.clone())?;
        let registry = listen::listen_each("registry-listen", config.registry_listen)?;
        let admin = listen::listen("admin-listen", config.admin_listen)?;
        let (registry_addr, admin_addr) = (local(&registry[0])?, local(&admin)?);
        let node = start_node(&config, store, token.as_ref(), (mirror, driver)).await?;

        let admin_state = Arc::new(Admin {
            node: node.node.clone(),
            metrics,
            registry: registry_addr,
            registry_tls: tls.is_some(),
            peers: node.peers,
            admin: admin_addr,
            data_dir: config.data_dir.clone(),
            gc_grace: config.upkeep.gc_grace,
            draining: AtomicBool::new(false),
        });
        let (stop_registry, stopped) = oneshot::channel();
        let limits = ddr_registry::Limits {
            hosts: config.registry_hosts.clone(),
            bare: config.mirror.bare.clone(),
            ..ddr_registry::Limits::within(descriptors.limit())
        };
        let secure = tls.is_some();
        let node_of_registry = node.node.clone();
        let serving = ddr_registry::serve_all(registry, tls, node_of_registry, limits, stopped);
        let registry = tokio::spawn(serving);
        let token = join_token::provide(&config.data_dir, &node.node, node.advertise).await;
        if timeout(JOIN_PATIENCE, node.node.wait_ready()).await.is_err() {
            tracing::warn!("no other node answers yet; serving what is here, trying on");
        }
        let background = vec![
            tokio::spawn(admin::serve(admin, Arc::clone(&admin_state))),
            tokio::spawn(upkeep(Arc::clone(&admin_state))),
            tokio::spawn(renew_token(config.data_dir.clone(), node.node.clone(), node.advertise)),
        ];
        announce(&admin_state, token, secure);
        descriptors.say();
        Ok(Self {
            node: node.node,
            admin: admin_state,
            stop_registry,
            registry: Mutex::new(registry),
            background,
        })
    }

    /// Ends only if a part of the daemon ends by itself.
    pub(super) async fn failed(&self) -> DaemonError {
        let mut registry = self.registry.lock().await;
        let _ = (&mut *registry).await;
        DaemonError::Ended("registry")
    }

    /// Drains the registry and leaves the swarm; both are bounded.
    pub(super) async fn stop(self) {
        self.admin.draining.store(true, Ordering::Relaxed);
        // It is gone when the registry has ended by itself.
        let _ = self.stop_registry.send(());
        let _ = self.registry.into_inner().await;
        if timeout(LEAVE_TIMEOUT, self.node.shutdown()).await.is_err() {
            tracing::warn!("peers were not told in time that this node leaves");
        }
        self.background.iter().for_each(JoinHandle::abort);
    }
}

/// A started node and how it is reached.
struct Started {
    node: Node,
    peers: SocketAddr,
    advertise: SocketAddr,
}

async fn start_node(
    config: &Config,
    store: Store,
    token: Option<&JoinToken>,
    (mirror, driver): (MirrorSettings, Option<DriverSettings>),
) -> Result<Started, DaemonError> {
    let bind =
        |source| DaemonError::Bind { setting: "peer-listen", address: config.peer_listen, source };
    drop(TcpListener::bind(config.peer_listen).await.map_err(bind)?);
    let identity = Identity::load_or_create(&config.data_dir)?;
    let (swarm, bootstrap) = membership(config, &store, &identity, token).await?;
    // The node refuses revoked tokens itself, with a reason that the joiner can show.
    let in_handshake: RevocationCheck = Arc::new(|_| false);
    let carrier = TlsCarrier::bind(config.peer_listen, &identity, &swarm, in_handshake)
        .await
        .map_err(bind)?;
    let peers = carrier.local_addr();
    let advertise = advertise::choose(config.peer_advertise, peers, &bootstrap);
    let sources = discovery::sources(config, &identity, swarm.swarm_id(), advertise);
    let node = NodeConfig {
        store,
        identity: Arc::new(identity),
        swarm,
        carrier: Arc::new(carrier),
        advertise: vec![advertise],
        zone: config.zone.clone(),
        bootstrap,
        now: SystemTime::now(),
        limits: ddr_node::Limits {
            require_blobs: config.require_blobs,
            tags: config.tags.clone(),
            upkeep: config.upkeep,
            bandwidth: config.bandwidth,
            copies: config.copies.clone(),
            mirror,
            driver,
            ..ddr_node::Limits::default()
        },
    };
    let node = Node::start_with(node, sources).await?;
    Ok(Started { node, peers, advertise })
}

/// The swarm of the data directory, else that of the token, else a new one; and where to find its
/// other members.
async fn membership(
    config: &Config,
    store: &Store,
    identity: &Identity,
    token: Option<&JoinToken>,
) -> Result<(Swarm, Vec<SocketAddr>), DaemonError> {
    let dir = &config.data_dir;
    let own = Swarm::load(dir, identity)?;
    match (own, token) {
        (Some(own), None) => Ok((own, bootstrap::remembered(store))),
        (own, Some(token)) => {
            let doors = if own.is_some() { Vec::new() } else { discovery::doors(config).await };
            if own.is_none_or(|own| own.swarm_id() == token.swarm_id()) {
                bootstrap::remember(store, token.addresses());
            }
            Ok((Swarm::join_by(dir, identity, token, &doors).await?, token.addresses().to_vec()))
        }
        (None, None) => {
            // What an earlier, failed join left is of another swarm.
            bootstrap::remember(store, &[]);
            Ok((Swarm::create(dir, identity)?, Vec::new()))
        }
    }
}

async fn open_store(root: PathBuf) -> Result<Store, DaemonError> {
    let open = move || Store::open(StoreConfig { root, disk: Arc::new(RealDisk) });
    match tokio::task::spawn_blocking(open).await {
        Ok(store) => Ok(store?),
        Err(error) => Err(DaemonError::Runtime(error.to_string())),
    }
}

fn local(listener: &TcpListener) -> Result<SocketAddr, DaemonError> {
    listener.local_addr().map_err(|error| DaemonError::Runtime(error.to_string()))
}

/// Says on standard output where this node serves, and how others join.
fn announce(admin: &Admin, token: io::Result<PathBuf>, secure: bool) {
    let join = match token {
        Ok(path) => format!("ddrd --join @{}", path.display()),
        Err(error) => {
            // Worth a warning, not an end: content can be served all the same.
            tracing::warn!(%error, "the join token could not be written");
            format!("ddrd --join TOKEN, made by: ddr --admin {} token create", admin.admin)
        }
    };
    let scheme = if secure { "https" } else { "http" };
    let text = format!(
        "registry {scheme}://{}\npeers {}\nadmin http://{}\njoin: {join}\n",
        admin.registry, admin.peers, admin.admin,
    );
    let mut out = io::stdout().lock();
    // Nobody may be listening; the node serves all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    tracing::info!(registry = %admin.registry, peers = %admin.peers, admin = %admin.admin, "serving");
}

async fn upkeep(admin: Arc<Admin>) {
    let mut ticks = interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        admin.metrics.upkeep();
    }
}

async fn renew_token(dir: PathBuf, node: Node, advertise: SocketAddr) {
    let mut ticks = interval(join_token::CHECK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once; the start has provided the file already.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if let Err(error) = join_token::provide(&dir, &node, advertise).await {
            tracing::warn!(%error, "the join token could not be renewed");
        }
    }
}
