//! The way back into the swarm: when this node looks for others, and whom it dials.
//!
//! It decides two rhythms. Alone, it asks every source at once, dials a few addresses of each at
//! random, and waits from [`Rhythm::first_wait`] doubling to [`Rhythm::last_wait`]. In company, it
//! dials one address of each source that it does not know alive, about once in
//! [`Rhythm::look_around`], so that two halves of a torn swarm find each other again. It must never
//! wait for a slow source while a quick one has answered, nor dial in bursts.
//!
//! The core hears of a node only after it has answered ([`OverlayHandle::met`]).

mod book;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ddr_net::discover::{Discovery, Origin, shuffle};
use ddr_proto::wire::Contact;
use futures_util::future::join_all;
use tokio::time::timeout;

pub(crate) use self::book::Book;
use crate::caller::Caller;
use crate::overlay::{CALL_TIMEOUT, OverlayHandle};
use crate::{SourceStatus, blocking};

/// Addresses of one source that are dialled in one round, alone and in company.
const DIALS: (usize, usize) = (4, 1);
/// In company the DNS and the LAN are asked in every so many rounds only.
const OUTSIDE_EVERY: u32 = 10;
/// Bytes of an error that the status shows.
const MAX_ERROR_BYTES: usize = 200;

/// Where a node looks for others beside the addresses of its token. The default is nowhere.
#[derive(Debug, Default)]
pub struct Sources {
    /// The configured ones.
    pub discovery: Discovery,
    /// File for the peers that were met; without one they are forgotten at the end.
    pub book: Option<PathBuf>,
    /// How often it looks.
    pub rhythm: Rhythm,
}

/// How often a node looks for others. Each wait is a random one between half of it and the whole.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// After the first round of a node that is alone. Default 50 ms.
    pub first_wait: Duration,
    /// The longest between two rounds of a node that is alone. Default 10 s.
    pub last_wait: Duration,
    /// Between two rounds of a node in company. Default 60 s.
    pub look_around: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(50),
            last_wait: Duration::from_secs(10),
            look_around: Duration::from_secs(60),
        }
    }
}

/// See the module comment.
pub(crate) struct Bootstrap {
    pub(crate) overlay: OverlayHandle,
    pub(crate) caller: Caller,
    pub(crate) book: Arc<Book>,
    pub(crate) sources: Sources,
    pub(crate) token: Vec<SocketAddr>,
    tallies: Mutex<BTreeMap<Origin, Tally>>,
}

/// What one source brought.
#[derive(Clone, Debug, Default)]
struct Tally {
    found: usize,
    answered: u64,
    error: Option<String>,
}

impl Bootstrap {
    pub(crate) fn new(
        overlay: OverlayHandle,
        caller: Caller,
        book: Arc<Book>,
        sources: Sources,
        token: Vec<SocketAddr>,
    ) -> Self {
        Self { overlay, caller, book, sources, token, tallies: Mutex::default() }
    }

    /// Gives the core the peers that an earlier run knew. It asks each at its address for its ID; those
    /// that moved, and whoever lives where they did, are for [`Origin::Saved`].
    pub(crate) async fn restore(&self) {
        self.overlay.restore(self.book.contacts()).await;
    }

    /// Looks for others until the node stops.
    pub(crate) async fn run(&self) {
        loop {
            self.while_alone().await;
            self.while_in_company().await;
        }
    }

    async fn while_alone(&self) {
        let (mut wait, known, origins) =
            (self.sources.rhythm.first_wait, BTreeSet::new(), self.origins());
        while !self.overlay.has_company() {
            tokio::select! {
                () = self.overlay.company(true) => return,
                () = self.round(&origins, &known, DIALS.0) => {}
            }
            tokio::select! {
                () = self.overlay.company(true) => return,
                // Whoever was just heard on the LAN is dialled at once.
                () = self.sources.discovery.changed() => {}
                () = tokio::time::sleep(with_jitter(wait)) => {}
            }
            wait = (2 * wait).min(self.sources.rhythm.last_wait);
        }
    }

    async fn while_in_company(&self) {
        let mut rounds = 0_u32;
        loop {
            let pause = with_jitter(self.sources.rhythm.look_around);
            if timeout(pause, self.overlay.company(false)).await.is_ok() {
                return;
            }
            rounds = rounds.wrapping_add(1);
            let outside = rounds.is_multiple_of(OUTSIDE_EVERY);
            let mut origins = self.origins();
            origins.retain(|origin| outside || !matches!(origin, Origin::Dns | Origin::Mdns));
            let contacts = self.overlay.view().await.contacts.into_iter();
            let alive = contacts.filter(|peer| peer.alive).flat_map(|peer| peer.contact.addrs);
            self.round(&origins, &alive.collect(), DIALS.1).await;
        }
    }

    fn origins(&self) -> Vec<Origin> {
        let token = (!self.token.is_empty()).then_some(Origin::Token);
        let mut origins = self.sources.discovery.origins();
        origins.extend(token.into_iter().chain([Origin::Saved]));
        origins
    }

    /// Looks at the sources at the same time, and dials `most` addresses of each that are not of
    /// `known`.
    async fn round(&self, origins: &[Origin], known: &BTreeSet<SocketAddr>, most: usize) {
        let own = &self.caller.own().addrs;
        let one = async |origin: Origin| {
            let mut addrs = self.look(origin).await;
            addrs.retain(|addr| !own.contains(addr) && !known.contains(addr));
            shuffle(&mut addrs);
            addrs.truncate(most);
            join_all(addrs.into_iter().map(|addr| self.dial(origin, addr))).await;
        };
        join_all(origins.iter().map(|origin| one(*origin))).await;
    }

    async fn look(&self, origin: Origin) -> Vec<SocketAddr> {
        let found = match origin {
            Origin::Token => Ok(self.token.clone()),
            Origin::Saved => {
                Ok(self.book.contacts().into_iter().flat_map(|contact| contact.addrs).collect())
            }
            other => self.sources.discovery.look(other).await,
        };
        let mut tallies = self.tallies();
        let tally = tallies.entry(origin).or_default();
        match found {
            Ok(found) => {
                (tally.found, tally.error) = (found.len(), None);
                found
            }
            Err(error) => {
                tracing::debug!(source = %origin, %error, "a source of other nodes failed");
                let text: String = error.to_string().chars().take(MAX_ERROR_BYTES).collect();
                (tally.found, tally.error) = (0, Some(text));
                Vec::new()
            }
        }
    }

    async fn dial(&self, origin: Origin, addr: SocketAddr) {
        match self.caller.probe(addr, CALL_TIMEOUT).await {
            Ok(id) => {
                self.tallies().entry(origin).or_default().answered += 1;
                self.overlay.met(Contact { id, addrs: vec![addr], zone: String::new() }).await;
            }
            Err(error) => {
                tracing::debug!(%addr, source = %origin, %error, "no node answers at this address");
            }
        }
    }

    fn tallies(&self) -> MutexGuard<'_, BTreeMap<Origin, Tally>> {
        self.tallies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each source brought so far.
    pub(crate) fn status(&self) -> Vec<SourceStatus> {
        let tallies = self.tallies();
        let row = |origin: Origin| {
            let tally = tallies.get(&origin).cloned().unwrap_or_default();
            let (found, answered, error) = (tally.found, tally.answered, tally.error);
            SourceStatus { source: origin, found, answered, error }
        };
        self.origins().into_iter().map(row).collect()
    }

    /// Notes who is alive, and writes the book.
    pub(crate) async fn save(&self, alive: &[Contact]) {
        alive.iter().for_each(|contact| self.book.heard(contact));
        let Some(path) = self.sources.book.clone() else { return };
        let book = Arc::clone(&self.book);
        let saved = blocking(move || book.save(&path)).await.and_then(|saved| saved);
        if let Err(error) = saved {
            tracing::warn!(%error, "the known peers could not be saved");
        }
    }
}

/// A random time between half of `wait` and all of it.
fn with_jitter(wait: Duration) -> Duration {
    let part = getrandom::u32().unwrap_or_default();
    wait / 2 + (wait / 2).mul_f64(f64::from(part) / f64::from(u32::MAX))
}
