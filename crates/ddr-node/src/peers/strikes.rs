//! Who is struck, for what, and until when it is left alone.
//!
//! Decides how long: [`FIRST_MS`] after the first strike, twice as long after each further one, up to
//! [`MAX_DOUBLINGS`]; and how much. Wrong content may come from a rotten disk: who gave it is
//! *avoided*, not read from, but may go on asking, or it could not repair itself. No node that runs
//! this program breaks the rules of the overlay: who does is *refused*, neither dialled nor asked nor
//! answered. It must never strike for what a wrong clock, an old address or a newer version does.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ddr_proto::id::NodeId;
use ddr_proto::kad::Reason;

/// How long a peer is left alone after its first strike.
const FIRST_MS: u64 = 30_000;
/// Doublings of it: 30 s to 8.5 h.
const MAX_DOUBLINGS: u32 = 10;
/// Peers with strikes; beyond, the one goes whose time is over first.
const MAX_STRUCK: usize = 1024;

/// What a peer is struck for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Offence {
    /// It gave wrong content, or told something false about it; in words.
    Content(&'static str),
    /// It broke a rule of the overlay.
    Rules(Reason),
}

impl Offence {
    /// The label of the metric.
    const fn label(&self) -> &'static str {
        match self {
            Self::Content(_) => "content",
            Self::Rules(reason) => reason.label(),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Content(words) => (*words).to_owned(),
            Self::Rules(reason) => reason.to_string(),
        }
    }
}

/// The strikes against one peer.
#[derive(Clone, Debug)]
pub(crate) struct Struck {
    pub(crate) strikes: u32,
    /// Where it says that it lives, or else where it spoke from.
    pub(crate) addrs: Vec<SocketAddr>,
    /// The last offence, in words.
    pub(crate) why: String,
    /// When that was, Unix milliseconds.
    pub(crate) at_ms: u64,
    /// Not read from until then, Unix milliseconds.
    pub(crate) avoid_until_ms: u64,
    /// Not dialled, asked or answered until then, Unix milliseconds.
    pub(crate) refuse_until_ms: u64,
}

/// See the module comment. Strikes are by node ID, whatever its address, and end with the process.
#[derive(Debug, Default)]
pub(crate) struct Strikes(BTreeMap<NodeId, Struck>);

impl Strikes {
    /// Strikes `node`, met at `addrs`, and answers until when it is left alone, Unix milliseconds.
    /// `None`: it is refused already. What comes of calls that were under way then is one offence
    /// with the one that it was struck for.
    pub(crate) fn strike(
        &mut self,
        node: NodeId,
        addrs: Vec<SocketAddr>,
        offence: Offence,
        now_ms: u64,
    ) -> Option<u64> {
        if self.is_refused(&node, now_ms) {
            return None;
        }
        self.make_room(&node);
        let before = self.0.remove(&node);
        let strikes = before.as_ref().map_or(0, |struck| struck.strikes);
        let refuse_until_ms = before.map_or(0, |struck| struck.refuse_until_ms);
        let until_ms = now_ms + (FIRST_MS << strikes.min(MAX_DOUBLINGS));
        let struck = Struck {
            strikes: strikes.saturating_add(1),
            addrs,
            why: offence.words(),
            at_ms: now_ms,
            avoid_until_ms: until_ms,
            refuse_until_ms: match offence {
                Offence::Content(_) => refuse_until_ms,
                Offence::Rules(_) => until_ms,
            },
        };
        metrics::counter!(crate::metrics::STRIKES, "reason" => offence.label()).increment(1);
        self.0.insert(node, struck);
        Some(until_ms)
    }

    /// Notes where `node` speaks from, when nothing better is known of where it lives.
    pub(crate) fn met_at(&mut self, node: &NodeId, remote: SocketAddr) {
        if let Some(struck) = self.0.get_mut(node).filter(|struck| struck.addrs.is_empty()) {
            struck.addrs.push(remote);
        }
    }

    fn make_room(&mut self, node: &NodeId) {
        if self.0.len() < MAX_STRUCK || self.0.contains_key(node) {
            return;
        }
        let soonest = self.0.iter().min_by_key(|(_, struck)| struck.avoid_until_ms);
        if let Some(soonest) = soonest.map(|(node, _)| *node) {
            self.0.remove(&soonest);
        }
    }

    /// What there is against `node`.
    pub(crate) fn of(&self, node: &NodeId) -> Option<&Struck> {
        self.0.get(node)
    }

    /// True while `node` must not be read from.
    pub(crate) fn is_avoided(&self, node: &NodeId, now_ms: u64) -> bool {
        self.0.get(node).is_some_and(|struck| struck.avoid_until_ms > now_ms)
    }

    /// True while `node` must not be dialled, asked or answered.
    pub(crate) fn is_refused(&self, node: &NodeId, now_ms: u64) -> bool {
        self.0.get(node).is_some_and(|struck| struck.refuse_until_ms > now_ms)
    }

    /// Whose time is not over, by ID.
    pub(crate) fn now(&self, now_ms: u64) -> impl Iterator<Item = (&NodeId, &Struck)> {
        self.0.iter().filter(move |(_, struck)| struck.avoid_until_ms > now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIE: Offence = Offence::Content("a lie");
    const BREACH: Offence = Offence::Rules(Reason::WrongAnswer);

    fn node(number: u32) -> NodeId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        NodeId(id)
    }

    fn strike(strikes: &mut Strikes, offence: Offence, now_ms: u64) -> Option<u64> {
        strikes.strike(node(1), Vec::new(), offence, now_ms)
    }

    #[test]
    fn each_strike_doubles_the_time_up_to_the_cap() {
        for offence in [LIE, BREACH] {
            let (mut strikes, mut now_ms) = (Strikes::default(), 1_000);
            for count in 0..20 {
                let until_ms = strike(&mut strikes, offence, now_ms).expect("struck");
                assert_eq!(until_ms - now_ms, FIRST_MS << count.min(MAX_DOUBLINGS), "{count}");
                assert!(strikes.is_avoided(&node(1), until_ms - 1));
                assert!(!strikes.is_avoided(&node(1), until_ms));
                assert!(!strikes.is_avoided(&node(2), now_ms), "nobody else");
                now_ms = until_ms;
            }
        }
    }

    #[test]
    fn a_rotten_disk_is_avoided_and_a_breach_is_refused() {
        let mut strikes = Strikes::default();
        let until_ms = strike(&mut strikes, LIE, 0).expect("struck");
        assert!(strikes.is_avoided(&node(1), 0) && !strikes.is_refused(&node(1), 0));
        let until_ms = strike(&mut strikes, BREACH, until_ms).expect("struck");
        assert!(strikes.is_avoided(&node(1), until_ms - 1));
        assert!(strikes.is_refused(&node(1), until_ms - 1));
        assert!(!strikes.is_refused(&node(1), until_ms));
    }

    #[test]
    fn one_burst_of_offences_is_one_strike() {
        let mut strikes = Strikes::default();
        let until_ms = strike(&mut strikes, BREACH, 0).expect("struck");
        for now_ms in [0, 1, until_ms - 1] {
            assert_eq!(strike(&mut strikes, BREACH, now_ms), None);
        }
        assert_eq!(strikes.of(&node(1)).map(|struck| struck.strikes), Some(1));
        assert!(strike(&mut strikes, BREACH, until_ms).is_some());
    }

    #[test]
    fn the_struck_are_limited_and_who_is_free_first_goes_first() {
        let mut strikes = Strikes::default();
        for number in 0..3_000 {
            strikes.strike(node(number), Vec::new(), BREACH, u64::from(number));
        }
        assert_eq!(strikes.now(0).count(), MAX_STRUCK);
        assert!(strikes.of(&node(2_999)).is_some() && strikes.of(&node(0)).is_none());
    }
}
