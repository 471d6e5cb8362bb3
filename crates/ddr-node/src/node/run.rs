//! Start, the tasks that run meanwhile, shutdown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddr_net::{Carrier, Client, ClientLimits, Identity, ServeLimits, serve};
use ddr_proto::id::NodeId;
use ddr_proto::kad::{Kad, KadConfig, MAX_BOOTSTRAP};
use ddr_proto::wire::{
    Contact, MAX_ADDRS, MAX_ZONE_BYTES, MemberSeen, ProviderRecord, Request, Response, Signer,
};
use ddr_store::Store;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::{Inner, Limits, NodeConfig};
use crate::announce::Announcer;
use crate::bootstrap::{Book, Bootstrap, Sources};
use crate::budget::Budget;
use crate::caller::{Caller, NO_PUZZLE};
use crate::clock::Clock;
use crate::copies::Copies;
use crate::deleted::Deleted;
use crate::driver::{self, Landing, Watch};
use crate::forget::Forget;
use crate::mirror::Mirror;
use crate::names::{self, Keeper, Names, Parts, doubt, settle};
use crate::overlay;
use crate::peers::Peers;
use crate::preheat::{self, Preheat};
use crate::pull::{Locator, Pull, Shared};
use crate::push::Push;
use crate::seed::{DialBacks, MAX_SERVING, Relays, Seed};
use crate::swarm;
use crate::throttle::Throttles;
use crate::tokens::Tokens;
use crate::upkeep::Upkeep;
use crate::{StartError, blocking, spread};

/// How often peers are saved, abandoned uploads ended and revoked tokens told on.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(60);
/// The first time after the start; doubles up to [`HOUSEKEEPING_EVERY`]. A node that is killed soon
/// after it met others must know them when it comes back, or it would be a swarm of its own.
const HOUSEKEEPING_FIRST: Duration = Duration::from_secs(1);
/// Nodes that a node which joins asks for the members.
const MAX_ASKED_FOR_MEMBERS: usize = 8;
/// How long each of them is waited for.
const MEMBERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long to wait before they are asked again, where none has answered.
const MEMBERS_AGAIN: Duration = Duration::from_millis(200);
/// How long leaving may take in all.
const LEAVE_LIMIT: Duration = Duration::from_secs(8);
/// How long the record of having left is kept by others: they need it only to hear it.
const GOODBYE_MS: u64 = 60_000;

/// Tasks that end with the node.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<Vec<JoinHandle<()>>>);

impl Tasks {
    fn add(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(handle);
    }

    async fn ended(&self) {
        let tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            let _ = task.await;
        }
    }
}

/// What is read from disk before anything runs.
struct Loaded {
    peers: Arc<Peers>,
    tokens: Arc<Tokens>,
    book: Arc<Book>,
    kept: names::Counts,
}

/// See [`super::Node::start`].
pub(super) async fn start(config: NodeConfig, sources: Sources) -> Result<Inner, StartError> {
    let own = own_contact(&config)?;
    let beside = config.limits.driver.clone();
    driver::use_outside(&config.store, beside.as_ref()).await?;
    let clock = Clock::start_at(config.now);
    let loaded = load(&config, sources.book.clone(), clock).await?;
    let client = Client::new(Arc::clone(&config.carrier), ClientLimits::default());
    let peers = Arc::clone(&loaded.peers);
    let caller = Caller::new(client.clone(), own.clone(), NO_PUZZLE, peers);
    let signer = signer(Arc::clone(&config.identity));
    let kad = Kad::new(KadConfig::default(), own.clone(), signer.clone(), seed()?);
    let overlay = overlay::spawn(kad, caller.clone(), clock, Arc::clone(&loaded.peers));
    let (stop, stopped) = watch::channel(false);
    let announcer = Announcer::new(overlay.clone());
    let locator = Locator::new(overlay.clone());
    let forget = Arc::new(Forget::new(config.store.clone(), announcer.clone(), locator.clone()));
    let token = bootstrap_addrs(&config, &own);
    let joins = !token.is_empty() || !loaded.peers.members_alive_lately().is_empty();
    let bootstrap = Bootstrap::new(overlay.clone(), caller.clone(), loaded.book, sources, token);
    let store = config.store.clone();
    let parts = Arc::new(Parts {
        store: config.store.clone(),
        overlay: overlay.clone(),
        caller,
        peers: Arc::clone(&loaded.peers),
        keeper: keeper(store, clock, Arc::clone(&forget), loaded.kept, joins).await?,
        forget: Arc::clone(&forget),
        signer,
        clock,
        rules: config.limits.tags.clone(),
        recent: names::Recent::default(),
        deciding: names::Deciding::default(),
    });
    let shared = shared(&config.limits, (client, own), &parts, (announcer, locator), stopped)?;
    let pull = Arc::new(Pull::new(Arc::clone(&shared)));
    let names = Arc::new(Names::new(Arc::clone(&parts)));
    let upkeep = Upkeep::new(Arc::clone(&shared), Arc::clone(&pull), overlay.clone());
    let preheat = Preheat::new(preheat::Parts {
        pull: Arc::clone(&pull),
        shared: Arc::clone(&shared),
        names: Arc::clone(&names),
        overlay: overlay.clone(),
    });
    let copies = Arc::new(Copies::new(&shared, &pull, &parts));
    let landing = Landing::new(beside.as_ref(), &config.store, config.limits.upkeep.cache);
    let push = Arc::new(Push::new(&shared, &pull, &names, &copies, landing));
    let inner = Inner {
        upkeep,
        preheat,
        beside: beside.map(|settings| Arc::new(Watch::new(settings, &shared, &push))),
        push,
        copies,
        shared,
        pull,
        names,
        overlay,
        bootstrap: Arc::new(bootstrap),
        peers: loaded.peers,
        tokens: loaded.tokens,
        swarm: config.swarm,
        clock,
        closing: AtomicBool::new(false),
        stop,
        joined: Arc::new(watch::Sender::new(false)),
        looking: tokio::sync::Mutex::default(),
        tasks: Tasks::default(),
    };
    run_tasks(&inner, config.carrier, parts, joins);
    Ok(inner)
}

fn signer(identity: Arc<Identity>) -> Signer {
    Signer::new(identity.public_key(), move |bytes| identity.sign(bytes))
}

/// Addresses of others that the node is told.
fn bootstrap_addrs(config: &NodeConfig, own: &Contact) -> Vec<SocketAddr> {
    let others = config.bootstrap.iter().copied().filter(|addr| !own.addrs.contains(addr));
    others.take(MAX_BOOTSTRAP).collect()
}

/// The keeper of what is in the store; it doubts that when the node was away for long.
async fn keeper(
    store: Store,
    clock: Clock,
    forget: Arc<Forget>,
    kept: names::Counts,
    joins: bool,
) -> Result<Arc<Keeper>, StartError> {
    let failed = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
    let settings = store.clone();
    let standing = blocking(move || doubt::standing(&settings, &clock, joins)).await;
    let standing = standing.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let keeper = Keeper::new(store, clock, forget, kept, joins);
    keeper.stand(standing);
    Ok(keeper)
}

/// What all reading shares, with the swarm running.
fn shared(
    limits: &Limits,
    (client, own): (Client, Contact),
    parts: &Arc<Parts>,
    (announcer, locator): (Announcer, Locator),
    stopped: watch::Receiver<bool>,
) -> Result<Arc<Shared>, StartError> {
    let (traffic, buffers) = (Arc::default(), Budget::new(limits.buffer_bytes));
    let throttles = Arc::new(Throttles::new(limits.bandwidth));
    let swarm = swarm::spawn(swarm::Parts {
        client: client.clone(),
        peers: Arc::clone(&parts.peers),
        traffic: Arc::clone(&traffic),
        locator: locator.clone(),
        buffers: buffers.clone(),
        throttles: Arc::clone(&throttles),
        own: own.clone(),
        clock: parts.clock,
        seed: seed()?,
        stopped: stopped.clone(),
    });
    Ok(Arc::new(Shared {
        store: parts.store.clone(),
        client,
        deleted: Arc::new(Deleted::new(Arc::clone(parts), locator.clone())),
        forget: Arc::clone(&parts.forget),
        locator,
        peers: Arc::clone(&parts.peers),
        announcer,
        swarm,
        traffic,
        own,
        throttles,
        buffers,
        mirror: Mirror::new(
            limits.mirror.clone(),
            parts.overlay.clone(),
            parts.caller.clone(),
            Arc::clone(&parts.peers),
        ),
        limits: limits.clone(),
        stopped,
    }))
}

/// Everything that runs beside the calls, until the node stops.
fn run_tasks(inner: &Inner, carrier: Arc<dyn Carrier>, parts: Arc<Parts>, joins: bool) {
    let stopped = || inner.stop.subscribe();
    let service = Arc::new(Seed {
        store: inner.shared.store.clone(),
        swarm: inner.swarm.clone(),
        overlay: inner.overlay.clone(),
        keeper: Arc::clone(&parts.keeper),
        peers: Arc::clone(&inner.peers),
        tokens: Arc::clone(&inner.tokens),
        traffic: Arc::clone(&inner.shared.traffic),
        pieces: inner.shared.swarm.clone(),
        throttles: Arc::clone(&inner.shared.throttles),
        signer: parts.signer.clone(),
        turns: Arc::new(Semaphore::new(MAX_SERVING)),
        buffers: inner.shared.buffers.clone(),
        orders: inner.preheat.orders(),
        copies: Arc::clone(&inner.copies),
        push: Arc::clone(&inner.push),
        names: Arc::clone(&inner.names),
        relays: Relays::default(),
        dial_backs: DialBacks::new(inner.shared.client.clone(), inner.shared.own.clone()),
        clock: inner.clock,
    });
    let (announcer, store) = (inner.shared.announcer.clone(), inner.shared.store.clone());
    let joining = join(Arc::clone(&parts), joins, Arc::clone(&inner.joined));
    let bootstrap = Arc::clone(&inner.bootstrap);
    let looking = async move {
        bootstrap.restore().await;
        bootstrap.run().await;
    };
    let tasks = &inner.tasks;
    tasks.add(serve(carrier, service, ServeLimits::default(), stopped()));
    let settings = inner.shared.limits.upkeep;
    tasks.add(inner.upkeep.clone().run(settings, stopped()));
    tasks.add(settle::run(Arc::clone(&parts), stopped()));
    tasks.add(Arc::clone(&inner.copies).run(stopped()));
    tasks.add(doubt::run(Arc::clone(&parts), stopped()));
    tasks.add(until(stopped(), looking));
    tasks.add(until(stopped(), keep_members(Arc::clone(&parts))));
    let bootstrap = Arc::clone(&inner.bootstrap);
    tasks.add(until(stopped(), housekeeping(parts, bootstrap, Arc::clone(&inner.tokens))));
    let beside = inner.beside.clone();
    tasks.add(until(stopped(), async move {
        joining.await;
        announcer.announce_all(store).await;
        if let Some(beside) = beside {
            beside.run().await;
        }
    }));
}

/// See [`super::Node::shutdown`].
pub(super) async fn shutdown(inner: &Inner) {
    if inner.closing.swap(true, Ordering::AcqRel) {
        return;
    }
    inner.copies.leave().await;
    inner.stop.send_replace(true);
    let leave = async {
        let contacts = spread::alive(&inner.overlay).await;
        inner.bootstrap.save(&contacts).await;
        inner.bootstrap.sources.discovery.close().await;
        inner.names.hand_over().await;
        // The goodbye comes last: every other message says that this node lives.
        tokio::join!(inner.tasks.ended(), async {
            inner.overlay.shutdown().await;
            say_goodbye(inner, contacts).await;
        });
        save_members(&inner.peers, &inner.shared.store).await;
    };
    if tokio::time::timeout(LEAVE_LIMIT, leave).await.is_err() {
        tracing::warn!("leaving took too long; records of this node expire by themselves");
    }
}

/// Tells every known node which tokens are revoked.
pub(super) async fn spread_revocations(inner: &Inner) {
    let caller = inner.names.caller();
    let request = Request::Revoked { serials: inner.tokens.revoked() };
    spread::to_all(&inner.overlay, caller, &request).await;
}

/// Tells every known node that one is gone for good, this one first.
pub(super) async fn spread_loss(inner: &Inner, node: NodeId) {
    inner.overlay.gone(node).await;
    inner.peers.left(&node);
    inner.copies.gone(&node);
    let mut others = spread::alive(&inner.overlay).await;
    others.retain(|contact| contact.id != node);
    spread::to(others, inner.names.caller(), &Request::Gone { node }).await;
}

/// Sums over the local index.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) blobs: usize,
    pub(super) blob_bytes: u64,
    pub(super) manifests: usize,
    pub(super) names: usize,
    /// Blobs outside, and their bytes.
    pub(super) outside: (usize, u64),
}

/// Counts what the store holds. Blocks.
pub(super) fn counts(store: &Store, names: &Names) -> std::io::Result<Counts> {
    let blobs = store.blobs()?;
    Ok(Counts {
        blobs: blobs.len(),
        blob_bytes: blobs.iter().map(|(_, size)| size).sum(),
        manifests: store.manifests()?.len(),
        names: names.kept_count(),
        outside: store.outside_sums()?,
    })
}

fn own_contact(config: &NodeConfig) -> Result<Contact, StartError> {
    if config.advertise.is_empty() || config.advertise.len() > MAX_ADDRS {
        return Err(StartError::Config(format!("a node advertises 1 to {MAX_ADDRS} addresses")));
    }
    if config.zone.len() > MAX_ZONE_BYTES {
        return Err(StartError::Config(format!("a zone has at most {MAX_ZONE_BYTES} bytes")));
    }
    Ok(Contact {
        id: config.identity.node_id(),
        addrs: config.advertise.clone(),
        zone: config.zone.clone(),
    })
}

async fn load(
    config: &NodeConfig,
    book_file: Option<PathBuf>,
    clock: Clock,
) -> Result<Loaded, StartError> {
    let (store, swarm) = (config.store.clone(), config.swarm.clone());
    let work = move || {
        let peers = Arc::new(Peers::new(clock));
        peers.restore(&store)?;
        let book = Arc::new(Book::new(clock));
        if let Some(path) = book_file {
            book.load(&path);
        }
        peers.members_alive_lately().iter().for_each(|contact| book.heard(contact));
        let kept = Keeper::count(&store)?;
        let tokens = Arc::new(Tokens::load(store, swarm, clock)?);
        Ok::<_, ddr_store::IndexError>(Loaded { peers, tokens, book, kept })
    };
    let failed = |error: &dyn std::fmt::Display| StartError::Store(error.to_string());
    blocking(work).await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}

fn seed() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Config(format!("no randomness: {error}")))
}

async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Meets the others, learns who is near, and says that it is ready.
async fn join(parts: Arc<Parts>, joins: bool, tell: Arc<watch::Sender<bool>>) {
    if joins {
        parts.overlay.company(true).await;
        parts.keeper.met_another();
        let near = parts.overlay.closest(parts.caller.own().id.to_key()).await.unwrap_or_default();
        near.iter().for_each(|contact| parts.peers.alive(contact));
        learn_members(&parts).await;
        save_members(&parts.peers, &parts.store).await;
        tracing::info!(nodes = near.len(), "joined");
    }
    tell.send_replace(true);
}

/// Hears from others whom they count as members, until one has answered, or so much time has passed that
/// nobody is counted any more of whom they could tell: some may be out of reach now.
async fn learn_members(parts: &Parts) {
    while parts.keeper.is_ignorant() {
        let asked: Vec<_> =
            spread::alive(&parts.overlay)
                .await
                .into_iter()
                .take(MAX_ASKED_FOR_MEMBERS)
                .map(|peer| async move {
                    parts.caller.call(&peer, Request::Members, MEMBERS_TIMEOUT).await
                })
                .collect();
        let mut heard = false;
        for answer in futures_util::future::join_all(asked).await {
            let Some(Response::Members { members }) = answer else { continue };
            heard = true;
            let now_ms = parts.clock.now_ms();
            for MemberSeen { contact, ago_s } in members {
                let seen_ms = now_ms.saturating_sub(u64::from(ago_s) * 1000);
                parts.peers.told_of(contact, seen_ms);
            }
        }
        if heard {
            return parts.keeper.learnt_members();
        }
        tokio::time::sleep(MEMBERS_AGAIN).await;
    }
}

/// Writes down who is known as soon as somebody new was met: a node that is killed and comes back
/// counts them when it asks for a majority.
async fn keep_members(parts: Arc<Parts>) {
    loop {
        parts.peers.has_unsaved().await;
        save_members(&parts.peers, &parts.store).await;
    }
}

async fn save_members(peers: &Arc<Peers>, store: &Store) {
    let (peers, store) = (Arc::clone(peers), store.clone());
    if let Ok(Err(error)) = blocking(move || peers.save(&store)).await {
        tracing::warn!(%error, "the known peers could not be saved");
    }
}

async fn housekeeping(parts: Arc<Parts>, bootstrap: Arc<Bootstrap>, tokens: Arc<Tokens>) {
    let mut pause = HOUSEKEEPING_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(HOUSEKEEPING_EVERY);
        let now = parts.clock.now();
        let recent = HOUSEKEEPING_EVERY.as_millis() as u64;
        let contacts = parts.overlay.view().await.contacts.into_iter();
        let heard = contacts.filter(|peer| peer.alive && now.since_ms(peer.last_seen) < recent);
        let heard: Vec<_> = heard.collect();
        heard.iter().for_each(|peer| parts.peers.alive_at(&peer.contact, peer.last_seen.0));
        let heard: Vec<Contact> = heard.into_iter().map(|peer| peer.contact).collect();
        bootstrap.save(&heard).await;
        save_members(&parts.peers, &parts.store).await;
        note_in_touch(&parts, !heard.is_empty()).await;
        let store = parts.store.clone();
        if let Err(error) = blocking(move || store.drop_stale_uploads()).await {
            tracing::warn!(%error, "abandoned uploads could not be looked for");
        }
        let serials = tokens.revoked();
        if !serials.is_empty() {
            let request = Request::Revoked { serials };
            spread::to_all(&parts.overlay, &parts.caller, &request).await;
        }
    }
}

/// Notes that the node is in touch with its swarm: it hears others, or is the swarm.
async fn note_in_touch(parts: &Parts, hears: bool) {
    if !parts.keeper.is_fit() || !(hears || parts.is_alone()) {
        return;
    }
    let (store, clock) = (parts.store.clone(), parts.clock);
    if let Ok(Err(error)) = blocking(move || doubt::note_in_touch(&store, &clock)).await {
        tracing::warn!(%error, "the time of the last contact could not be saved");
    }
}

async fn say_goodbye(inner: &Inner, contacts: Vec<Contact>) {
    let (caller, signer) = (inner.names.caller(), inner.names.signer());
    let now_ms = inner.clock.now_ms();
    let own = caller.own();
    let key = own.id.to_key();
    let record = ProviderRecord::sign_withdrawn(signer, own, key, now_ms, now_ms + GOODBYE_MS);
    spread::to(contacts, caller, &Request::PutProviders { records: vec![record] }).await;
}
