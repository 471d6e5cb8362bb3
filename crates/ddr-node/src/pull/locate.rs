//! Finding holders: single flight, a short memory, a budget.
//!
//! Decides how long an answer holds: [`POSITIVE_MS`] when somebody has the content. "Nobody has it"
//! is not remembered here, because a push that has ended since must be found at once; the overlay
//! core remembers it for a moment where it would hear of that push itself. A lookup ends after [`LOOKUP_BUDGET`] whatever the network
//! does, so "nobody has it" is a fast answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddr_oci::Digest;
use ddr_proto::id::Key;
use ddr_proto::kad::Effort;
use ddr_proto::wire::{Contact, ProviderRecord};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::overlay::{LookupEvent, OverlayHandle};

/// How long an answer with holders holds.
const POSITIVE_MS: Duration = Duration::from_millis(5000);
/// The longest a lookup may take.
const LOOKUP_BUDGET: Duration = Duration::from_secs(2);
/// Answers kept; beyond, the oldest goes.
const MAX_ANSWERS: usize = 1024;
/// Holders of one digest that are remembered.
const MAX_HOLDERS: usize = 64;

/// What is known of one digest so far.
#[derive(Clone, Debug, Default)]
struct Found {
    holders: Vec<Holder>,
    done: bool,
}

/// A node that says it holds the content.
#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub(crate) contact: Contact,
    pub(crate) complete: bool,
}

struct Answer {
    found: watch::Receiver<Found>,
    asked: Instant,
}

/// See the module comment. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Locator {
    overlay: OverlayHandle,
    answers: Arc<Mutex<BTreeMap<Digest, Answer>>>,
}

impl Locator {
    pub(crate) fn new(overlay: OverlayHandle) -> Self {
        Self { overlay, answers: Arc::default() }
    }

    /// Holders of `digest`, from memory when that is fresh.
    pub(crate) fn holders(&self, digest: &Digest) -> Holders {
        self.answer(digest, false, None)
    }

    /// Holders of `digest`, after those found before proved false. Looked for thoroughly, unless a
    /// lookup runs right now.
    pub(crate) fn holders_anew(&self, digest: &Digest) -> Holders {
        self.answer(digest, true, None)
    }

    /// A node that was just heard says that it holds `digest`: it is known at once, before those that
    /// the lookup brings.
    pub(crate) fn hint(&self, digest: &Digest, holder: &Contact) {
        let holder = Holder { contact: holder.clone(), complete: true };
        self.answer(digest, false, Some(holder));
    }

    /// Forgets what was found, because this node changed it.
    pub(crate) fn forget(&self, digest: &Digest) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    fn answer(&self, digest: &Digest, anew: bool, hint: Option<Holder>) -> Holders {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = answers.get(digest)
            && answer.is_usable(anew)
        {
            return Holders { found: answer.found.clone(), next: 0 };
        }
        if answers.len() >= MAX_ANSWERS {
            let oldest = answers.iter().min_by_key(|(_, answer)| answer.asked);
            if let Some(oldest) = oldest.map(|(digest, _)| *digest) {
                answers.remove(&oldest);
            }
        }
        let known = Found { holders: hint.into_iter().collect(), done: false };
        let (tell, found) = watch::channel(known);
        let before =
            answers.insert(*digest, Answer { found: found.clone(), asked: Instant::now() });
        // The core's memory serves after "nobody" only: holders are remembered here already.
        let nobody_before = before.is_some_and(|answer| answer.found_nobody());
        let effort = match (anew, nobody_before) {
            (true, _) => Effort::Thorough,
            (false, true) => Effort::Cached,
            (false, false) => Effort::Fresh,
        };
        tokio::spawn(look_up(self.overlay.clone(), Key::of_content(digest), effort, tell));
        Holders { found, next: 0 }
    }
}

impl Answer {
    fn is_usable(&self, anew: bool) -> bool {
        let found = self.found.borrow();
        if !found.done {
            // The lookup runs, unless its task is gone.
            return self.found.has_changed().is_ok();
        }
        !anew && !found.holders.is_empty() && self.asked.elapsed() < POSITIVE_MS
    }

    fn found_nobody(&self) -> bool {
        let found = self.found.borrow();
        found.done && found.holders.is_empty()
    }
}

async fn look_up(overlay: OverlayHandle, key: Key, effort: Effort, tell: watch::Sender<Found>) {
    let started = Instant::now();
    let work = async {
        let mut events = overlay.find_providers(key, effort).await;
        while let Some(event) = events.recv().await {
            let records = match event {
                LookupEvent::Providers(records) => records,
                LookupEvent::Done { providers, .. } => {
                    publish(&tell, providers);
                    break;
                }
            };
            publish(&tell, records);
        }
    };
    if tokio::time::timeout(LOOKUP_BUDGET, work).await.is_err() {
        tracing::debug!(%key, "a lookup ran out of its budget");
    }
    metrics::histogram!(crate::metrics::LOOKUP_SECONDS).record(started.elapsed().as_secs_f64());
    tell.send_modify(|found| found.done = true);
}

fn publish(tell: &watch::Sender<Found>, records: Vec<ProviderRecord>) {
    tell.send_if_modified(|found| {
        let before = found.holders.len();
        for record in records {
            let known = found.holders.iter().any(|holder| holder.contact.id == record.provider.id);
            if !known && !record.withdrawn && found.holders.len() < MAX_HOLDERS {
                let holder = Holder { contact: record.provider, complete: record.complete };
                found.holders.push(holder);
            }
        }
        found.holders.len() > before
    });
}

/// The holders of one digest, in the order in which they become known.
pub(crate) struct Holders {
    found: watch::Receiver<Found>,
    next: usize,
}

impl Holders {
    /// The next holder that is known already.
    pub(crate) fn ready(&mut self) -> Option<Holder> {
        let holder = self.found.borrow().holders.get(self.next).cloned()?;
        self.next += 1;
        Some(holder)
    }

    /// The next holder; waits for the lookup. `None`: there are no more.
    pub(crate) async fn next(&mut self) -> Option<Holder> {
        let next = self.next;
        let more = |found: &Found| found.done || found.holders.len() > next;
        self.found.wait_for(more).await.ok()?;
        self.ready()
    }

    /// All of them, once the lookup has ended.
    pub(crate) async fn all(mut self) -> Vec<Holder> {
        match self.found.wait_for(|found| found.done).await {
            Ok(found) => found.holders.clone(),
            Err(_) => Vec::new(),
        }
    }
}
