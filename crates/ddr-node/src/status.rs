//! Sums since start, and the reports made of them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use ddr_proto::id::NodeId;
use ddr_proto::kad::PeerView;
use ddr_proto::time::Timestamp;

use crate::peers::{Peers, Struck};
use crate::{PeerStatus, Traffic};

/// Rows of peers and of images in one report.
pub const MAX_SOURCES: usize = 256;

/// What this node moved since it started.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    fetched_bytes: AtomicU64,
    cross_zone_bytes: AtomicU64,
    served_bytes: AtomicU64,
    served_requests: AtomicU64,
    fetches: AtomicU64,
    fetches_failed: AtomicU64,
    takeovers: AtomicU64,
}

impl Sums {
    pub(crate) fn fetched(&self, bytes: u64) {
        self.fetched_bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::counter!(crate::metrics::FETCHED_BYTES).increment(bytes);
    }

    /// Of the bytes that were fetched these came from another zone.
    pub(crate) fn crossed(&self, bytes: u64) {
        self.cross_zone_bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::counter!(crate::metrics::CROSS_ZONE_BYTES).increment(bytes);
    }

    pub(crate) fn served_request(&self) {
        self.served_requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn served(&self, bytes: u64) {
        self.served_bytes.fetch_add(bytes, Ordering::Relaxed);
        metrics::counter!(crate::metrics::SERVED_BYTES).increment(bytes);
    }

    pub(crate) fn fetch_started(&self) {
        self.fetches.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn fetch_failed(&self) {
        self.fetches_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn took_over(&self) {
        self.takeovers.fetch_add(1, Ordering::Relaxed);
    }

    /// The sums now.
    pub(crate) fn read(&self) -> Traffic {
        Traffic {
            fetched_bytes: self.fetched_bytes.load(Ordering::Relaxed),
            cross_zone_bytes: self.cross_zone_bytes.load(Ordering::Relaxed),
            served_bytes: self.served_bytes.load(Ordering::Relaxed),
            served_requests: self.served_requests.load(Ordering::Relaxed),
            fetches: self.fetches.load(Ordering::Relaxed),
            fetches_failed: self.fetches_failed.load(Ordering::Relaxed),
            takeovers: self.takeovers.load(Ordering::Relaxed),
        }
    }
}

/// The rows of `ddr peers`: the routing table in its order, then who is struck and not in it.
pub(crate) fn peers(table: Vec<PeerView>, peers: &Peers, now: Timestamp) -> Vec<PeerStatus> {
    let known: BTreeSet<NodeId> = table.iter().map(|peer| peer.contact.id).collect();
    let of_table = |peer: PeerView| {
        let (bytes, struck) = peers.about(&peer.contact.id);
        let row = PeerStatus {
            node_id: peer.contact.id.to_string(),
            addresses: peer.contact.addrs,
            zone: peer.contact.zone,
            last_answer_ms: now.since_ms(peer.last_seen),
            alive: peer.alive,
            bytes,
            ..PeerStatus::default()
        };
        match struck {
            Some(struck) => with_strikes(row, &struck, now),
            None => row,
        }
    };
    let strange = peers.struck_now().into_iter().filter(|(node, _)| !known.contains(node));
    let of_strange = |(node, struck): (NodeId, Struck)| {
        let row = PeerStatus {
            node_id: node.to_string(),
            addresses: struck.addrs.clone(),
            last_answer_ms: now.since_ms(Timestamp(struck.at_ms)),
            bytes: peers.about(&node).0,
            ..PeerStatus::default()
        };
        with_strikes(row, &struck, now)
    };
    let mut rows: Vec<PeerStatus> = table.into_iter().map(of_table).collect();
    rows.extend(strange.map(of_strange));
    rows
}

fn with_strikes(row: PeerStatus, struck: &Struck, now: Timestamp) -> PeerStatus {
    PeerStatus {
        strikes: struck.strikes,
        struck_for: Some(struck.why.clone()),
        avoided: struck.avoid_until_ms > now.0,
        refused: struck.refuse_until_ms > now.0,
        avoided_until_ms: Some(struck.avoid_until_ms),
        ..row
    }
}
