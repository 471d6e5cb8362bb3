//! The order in which holders are best asked: near ones first.
//!
//! Who is known to be dead comes last. Near is, first, the own failure zone, then a short round trip. Round trips are compared by
//! [`class`]: those within a factor of two count as equal, and equals come in random order, so that
//! not all of a zone fall upon the one holder that is nearest by a hair.

use super::Kad;
use super::calls::DeadMemory;
use super::table::{Peer, Table};
use crate::id::{Key, NodeId};
use crate::time::Timestamp;
use crate::wire::{Contact, ProviderRecord};

/// Round trips up to this count as equally short.
const SHORTEST_CLASS_MS: u32 = 4;

/// Sorts holders nearest first, and leaves those equally near in the order they come in.
///
/// `own_zone` is this node's zone, empty when unknown; `round_trip_ms` gives the round trip to a
/// node, measured or guessed, `is_dead` says who failed lately.
pub(super) fn sort_nearest_first(
    holders: &mut [ProviderRecord],
    own_zone: &str,
    is_dead: impl Fn(&Contact) -> bool,
    round_trip_ms: impl Fn(&NodeId) -> u32,
) {
    holders.sort_by_cached_key(|record| {
        let holder = &record.provider;
        let elsewhere = own_zone.is_empty() || holder.zone != own_zone;
        (is_dead(holder), elsewhere, class(round_trip_ms(&holder.id)))
    });
}

/// The number of the power of two up to which a round trip reaches.
const fn class(round_trip_ms: u32) -> u32 {
    let ms = if round_trip_ms > SHORTEST_CLASS_MS { round_trip_ms } else { SHORTEST_CLASS_MS };
    ms.next_power_of_two().ilog2()
}

impl Kad {
    /// Holders in the order in which they are best asked; whom this node never asked counts as far
    /// away as its calls are on average.
    pub(super) fn nearest_first(
        &mut self,
        mut holders: Vec<ProviderRecord>,
    ) -> Vec<ProviderRecord> {
        let count = holders.len();
        self.chance.choose(&mut holders, count);
        let typical = self.rtt.smoothed_ms();
        let measured = |id: &NodeId| self.table.get(id).and_then(|peer| peer.round_trip_ms());
        let round_trip = |id: &NodeId| measured(id).unwrap_or(typical);
        let stranger = self.knows_everybody();
        let is_dead =
            |holder: &Contact| seems_dead((&self.table, stranger), &self.dead, holder, self.now);
        sort_nearest_first(&mut holders, &self.own.zone, is_dead, round_trip);
        holders
    }

    /// Up to `limit` of the records kept for a key, without those of `except` and of who is gone.
    pub(super) fn choose_kept(
        &mut self,
        key: &Key,
        limit: usize,
        except: &NodeId,
    ) -> Vec<ProviderRecord> {
        let (table, stranger) = (&self.table, self.knows_everybody());
        let (dead, now) = (&self.dead, self.now);
        let is_dead = |holder: &Contact| seems_dead((table, stranger), dead, holder, now);
        let is_left_out = |node: &NodeId| node == except || self.gone.contains(node);
        self.records.choose(key, limit, is_left_out, is_dead, (now, &mut self.chance))
    }
}

/// Whether a node did not answer when it was asked last, at the addresses at which it is named. Of who is not
/// in the table nothing is known, or, where everybody would be in it, that it was forgotten: `stranger`.
fn seems_dead(
    (table, stranger): (&Table, bool),
    dead: &DeadMemory,
    node: &Contact,
    now: Timestamp,
) -> bool {
    let is_dead = |peer: &Peer| !peer.alive() && peer.contact.addrs == node.addrs;
    dead.contains(node, now) || table.get(&node.id).map_or(stranger, is_dead)
}
