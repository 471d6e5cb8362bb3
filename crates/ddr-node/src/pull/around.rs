//! Asking one holder after another until one gives what is wanted.
//!
//! Decides when the next is asked: at once when one has nothing to give, and beside one that is slow. Records of
//! dead machines live for a day, so most of those who are named may be dead, and each may take seconds to be
//! known as that.

use std::future::Future;
use std::time::Duration;

use ddr_proto::wire::Contact;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::source::Sources;

/// How long one holder is waited for before the next is asked beside it.
const HEDGE: Duration = Duration::from_millis(200);
/// Holders that are asked at once.
const AT_ONCE: usize = 8;
/// When no more holders are asked.
const BUDGET: Duration = Duration::from_secs(10);

/// How one holder answered.
pub(super) enum Answer<T> {
    Given(T),
    /// It does not have the content, in this repository.
    Absent,
    /// It has it, and what it says is of no use here.
    Useless,
    /// It could not be asked, or broke off.
    Failed,
}

/// What came of asking around.
pub(super) struct Outcome<T> {
    /// What one gave, and who.
    pub(super) given: Option<(T, Contact)>,
    /// Some holders failed, or were not asked in time: "nobody has it" is not known.
    pub(super) any_failed: bool,
}

/// Asks holders until one gives something or nobody is left.
pub(super) async fn ask<T, F>(sources: &mut Sources, question: impl Fn(Contact) -> F) -> Outcome<T>
where
    F: Future<Output = Answer<T>>,
{
    let started = Instant::now();
    let mut asked = FuturesUnordered::new();
    let mut any_failed = false;
    // When the next is asked; `None`: not before one of those who are asked has answered.
    let mut next_at = Some(started);
    loop {
        let is_free = asked.len() < AT_ONCE;
        let next = next_one(next_at.filter(|_| is_free), sources, asked.is_empty());
        tokio::select! {
            biased;
            Some((peer, answer)) = asked.next() => {
                let peer: Contact = peer;
                next_at = Some(Instant::now());
                match answer {
                    Answer::Given(given) => {
                        sources.answered(&peer.id);
                        return Outcome { given: Some((given, peer)), any_failed };
                    }
                    Answer::Absent => sources.dismiss(&peer.id),
                    Answer::Useless => sources.give_up(&peer.id),
                    Answer::Failed => {
                        sources.failed(&peer.id);
                        any_failed = true;
                    }
                }
            }
            peer = next => match peer {
                Some(peer) if started.elapsed() < BUDGET => {
                    next_at = Some(Instant::now() + HEDGE);
                    let answer = question(peer.clone());
                    asked.push(async move { (peer, answer.await) });
                }
                peer => {
                    any_failed |= peer.is_some();
                    if asked.is_empty() {
                        return Outcome { given: None, any_failed };
                    }
                    next_at = None;
                }
            },
        }
    }
}

/// Waits until then and for the next holder. A second try, or another lookup, is for when nobody is asked.
async fn next_one(at: Option<Instant>, sources: &mut Sources, is_idle: bool) -> Option<Contact> {
    let Some(at) = at else { return std::future::pending().await };
    tokio::time::sleep_until(at).await;
    if is_idle { sources.next().await } else { sources.next_new().await }
}
