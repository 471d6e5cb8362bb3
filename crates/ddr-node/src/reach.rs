//! Whether this node reaches the others, whether they reach it, and how far clocks are apart.
//!
//! Gathers facts for an operator and decides nothing with them. It must never change whom the node knows or
//! trusts, and never ask without an end: a peer has [`PEER_LIMIT`] for all of it.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ddr_net::Client;
use ddr_proto::wire::{Contact, DialOutcome, DialTry, RefuseReason, Request, Response};
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::caller::Caller;
use crate::clock::Clock;
use crate::overlay::OverlayHandle;
use crate::peers::Peers;
use crate::seed::{DIAL_BACK_EVERY, dial_outcome};

/// Peers that are asked, all at once; of more a random choice.
pub const MAX_ASKED: usize = 20;
/// Times that a clock is asked for; the answer that came soonest counts.
const CLOCK_SAMPLES: usize = 3;
/// How long one question for the time may take.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer may take to dial back: up to four addresses, a second each.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// How long all questions to one peer may take.
const PEER_LIMIT: Duration = Duration::from_secs(15);

/// The ways between this node and others.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Reach {
    /// Nodes that this one knows and does not refuse.
    pub known: usize,
    /// Those that were asked, at most [`MAX_ASKED`].
    pub peers: Vec<PeerReach>,
}

/// The ways between this node and one other.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PeerReach {
    /// Node id, 64 hexadecimal digits.
    pub node_id: String,
    /// Its zone; empty when it has none.
    pub zone: String,
    /// New connections from here to its addresses, until one reached it.
    pub dialled: Vec<DialReport>,
    /// How far its clock is ahead of this node's, to half of `round_trip_us`; `None` when it did not tell.
    pub clock_ahead_ms: Option<i64>,
    /// How long the question for the time took there and back.
    pub round_trip_us: Option<u64>,
    /// New connections from it to the addresses that it knows of this node, until one reached this node.
    pub dialled_back: Vec<DialReport>,
    /// Why it did not dial back, if it did not.
    pub no_dial_back: Option<&'static str>,
}

/// A dial to an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct DialReport {
    /// Where to.
    pub address: SocketAddr,
    /// `reached`, `refused`, `silent`, `stranger`, `failed` or `not dialled`; see [`DialOutcome`].
    pub outcome: &'static str,
}

impl From<DialTry> for DialReport {
    fn from(dial: DialTry) -> Self {
        let outcome = match dial.outcome {
            DialOutcome::Reached => REACHED,
            DialOutcome::Refused => "refused",
            DialOutcome::Silent => "silent",
            DialOutcome::Stranger => "stranger",
            DialOutcome::Failed => "failed",
            DialOutcome::NotDialled => "not dialled",
        };
        Self { address: dial.addr, outcome }
    }
}

const REACHED: &str = "reached";

/// What is needed to find out.
pub(crate) struct Scout<'a> {
    pub(crate) overlay: &'a OverlayHandle,
    pub(crate) peers: &'a Peers,
    pub(crate) client: &'a Client,
    pub(crate) caller: &'a Caller,
    pub(crate) clock: Clock,
}

impl Scout<'_> {
    /// Asks known peers, some of them where they are many.
    pub(crate) async fn look(&self) -> Reach {
        let mut known = self.overlay.view().await.contacts;
        known.retain(|peer| !self.peers.refused(&peer.contact.id));
        let count = known.len();
        known.sort_by_cached_key(|_| getrandom::u32().unwrap_or_default());
        known.truncate(MAX_ASKED);
        let asked = known.iter().map(|peer| self.ask(&peer.contact));
        Reach { known: count, peers: futures_util::future::join_all(asked).await }
    }

    /// Dials a node by new connections until one reaches it.
    pub(crate) async fn dial(&self, contact: &Contact) -> Vec<DialReport> {
        let mut dials = Vec::new();
        for addr in &contact.addrs {
            let outcome = match self.client.knock(*addr, contact.id).await {
                Ok(()) => DialOutcome::Reached,
                Err(error) => dial_outcome(&error),
            };
            dials.push(DialTry { addr: *addr, outcome }.into());
            if outcome == DialOutcome::Reached {
                break;
            }
        }
        dials
    }

    async fn ask(&self, peer: &Contact) -> PeerReach {
        let (node_id, zone) = (peer.id.to_string(), peer.zone.clone());
        let mut reach = PeerReach { node_id, zone, ..PeerReach::default() };
        if timeout(PEER_LIMIT, self.ask_all(peer, &mut reach)).await.is_err() {
            reach.no_dial_back.get_or_insert("it took too long");
        }
        reach
    }

    async fn ask_all(&self, peer: &Contact, reach: &mut PeerReach) {
        reach.dialled = self.dial(peer).await;
        if !reach.dialled.iter().any(|dial| dial.outcome == REACHED) {
            reach.no_dial_back = Some("it was not reached");
            return;
        }
        // This comes first: a peer dials back where it was told before that this node is.
        if let Some((ahead_ms, took)) = self.clock_of(peer).await {
            reach.clock_ahead_ms = Some(ahead_ms);
            reach.round_trip_us = Some(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        }
        match self.dial_back(peer).await {
            Ok(tries) => reach.dialled_back = tries.into_iter().map(DialReport::from).collect(),
            Err(why) => reach.no_dial_back = Some(why),
        }
    }

    /// How far the clock of `peer` is ahead, from the answer that took the shortest time.
    async fn clock_of(&self, peer: &Contact) -> Option<(i64, Duration)> {
        let mut best: Option<(i64, Duration)> = None;
        for _ in 0..CLOCK_SAMPLES {
            let (began, at) = (self.clock.now_ms(), Instant::now());
            let answer = self.caller.call(peer, Request::Time, CLOCK_TIMEOUT).await;
            let took = at.elapsed();
            let Some(Response::Time { clock_ms }) = answer else { continue };
            if best.is_none_or(|(_, before)| took < before) {
                best = Some((ahead_ms(clock_ms, began, took), took));
            }
        }
        best
    }

    /// Has `peer` dial this node.
    async fn dial_back(&self, peer: &Contact) -> Result<Vec<DialTry>, &'static str> {
        let ask = || self.caller.call(peer, Request::DialMe, DIAL_BACK_TIMEOUT);
        let mut answer = ask().await;
        if let Some(Response::Refused { reason: RefuseReason::Busy }) = answer {
            sleep(DIAL_BACK_EVERY).await;
            answer = ask().await;
        }
        match answer {
            Some(Response::Dialled { tries }) if tries.is_empty() => Err("it knows no address"),
            Some(Response::Dialled { tries }) => Ok(tries),
            Some(Response::Refused { reason: RefuseReason::Busy }) => Err("it is busy"),
            Some(Response::Refused { reason: RefuseReason::Struck }) => Err("it refuses this node"),
            Some(_) => Err("it does not dial back"),
            // A version that does not know the question says that it is no message.
            None => Err("no answer: its version may be older"),
        }
    }
}

/// How far a clock that said `theirs_ms` is ahead of one that said `began_ms` when it was asked: it was read in the
/// middle of the time that the question took, or so.
fn ahead_ms(theirs_ms: u64, began_ms: u64, took: Duration) -> i64 {
    let half_ms = u64::try_from(took.as_millis() / 2).unwrap_or(u64::MAX);
    let ours = i128::from(began_ms.saturating_add(half_ms));
    let ahead = i128::from(theirs_ms) - ours;
    i64::try_from(ahead).unwrap_or(if ahead < 0 { i64::MIN } else { i64::MAX })
}

/// How far the machine's clock is ahead of the node's, which was read once, at the start.
pub(crate) fn machine_ahead_ms(clock: &Clock) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let machine_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    ahead_ms(machine_ms, clock.now_ms(), Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_round_trip_counts() {
        let ms = Duration::from_millis;
        assert_eq!(ahead_ms(1_050, 1_000, ms(100)), 0);
        assert_eq!(ahead_ms(1_050, 1_000, ms(0)), 50);
        assert_eq!(ahead_ms(31_000, 1_000, ms(10)), 29_995);
        assert_eq!(ahead_ms(1_000, 41_000, ms(10)), -40_005);
        // What a liar says is shown and harms nobody.
        assert_eq!(ahead_ms(u64::MAX, 0, ms(0)), i64::MAX);
        assert_eq!(ahead_ms(0, u64::MAX, Duration::MAX), i64::MIN);
    }
}
