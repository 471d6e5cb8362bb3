//! Which other nodes are to have an image too.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use ddr_proto::kad::PeerView;
use ddr_proto::wire::{Contact, MAX_ZONE_BYTES};

/// Other nodes that one pull asks; of more, these are chosen at random.
pub(super) const MAX_NODES: usize = 1024;

/// The nodes beside this one that an image is brought to: `N`, `all` or `zone=Z`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum PullNodes {
    /// None.
    #[default]
    None,
    /// So many that this node knows, chosen at random.
    Count(usize),
    /// All that this node knows.
    All,
    /// All that this node knows in this zone.
    Zone(String),
}

/// Not a choice of nodes.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} names no nodes: use a number from 1 to {MAX_NODES}, all, or zone=NAME")]
pub struct PullNodesError(String);

impl FromStr for PullNodes {
    type Err = PullNodesError;

    fn from_str(text: &str) -> Result<Self, PullNodesError> {
        let wrong = || PullNodesError(text.to_owned());
        if text == "all" {
            return Ok(Self::All);
        }
        if let Some(zone) = text.strip_prefix("zone=") {
            let fits = (1..=MAX_ZONE_BYTES).contains(&zone.len());
            return if fits { Ok(Self::Zone(zone.to_owned())) } else { Err(wrong()) };
        }
        let is_number = text.bytes().all(|b| b.is_ascii_digit());
        let count = text.parse().ok().filter(|count| is_number && (1..=MAX_NODES).contains(count));
        count.map(Self::Count).ok_or_else(wrong)
    }
}

impl fmt::Display for PullNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("0"),
            Self::Count(count) => write!(f, "{count}"),
            Self::All => f.write_str("all"),
            Self::Zone(zone) => write!(f, "zone={zone}"),
        }
    }
}

impl PullNodes {
    /// Those of `known` that are meant. `chance` draws a number. The error says why there are too few.
    pub(super) fn choose(
        &self,
        known: Vec<PeerView>,
        mut chance: impl FnMut() -> u32,
    ) -> Result<Vec<Contact>, String> {
        let is_meant = |peer: &PeerView| match self {
            Self::Zone(zone) => peer.contact.zone == *zone,
            _ => true,
        };
        let meant = known.into_iter().filter(is_meant);
        // Who is thought to be away is asked for want of others only.
        let keyed = meant.map(|peer| ((!peer.alive, chance(), peer.contact.id), peer.contact));
        let order: BTreeMap<_, Contact> = keyed.collect();
        let wanted = match self {
            Self::None => return Ok(Vec::new()),
            Self::Count(count) => *count,
            Self::All | Self::Zone(_) => MAX_NODES,
        };
        match (self, order.len()) {
            (Self::Zone(zone), 0) => Err(format!("this node knows no other in the zone {zone:?}")),
            (_, 0) => Err("this node knows no other".into()),
            (Self::Count(count), few) if few < *count => {
                Err(format!("this node knows {few} others, not {count}; see: ddr peers"))
            }
            _ => Ok(order.into_values().take(wanted).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use ddr_proto::id::NodeId;
    use ddr_proto::time::Timestamp;

    use super::*;

    fn peer(number: u8, zone: &str, alive: bool) -> PeerView {
        PeerView {
            contact: Contact { id: NodeId([number; 32]), addrs: Vec::new(), zone: zone.into() },
            last_seen: Timestamp::default(),
            alive,
            sibling: true,
            bucket: 0,
            round_trip_ms: None,
        }
    }

    fn chosen(nodes: &PullNodes) -> Result<Vec<u8>, String> {
        let known = vec![peer(1, "a", true), peer(2, "b", false), peer(3, "b", true)];
        let mut drawn = 0;
        let chosen = nodes.choose(known, || {
            drawn += 1;
            drawn
        });
        chosen.map(|contacts| contacts.iter().map(|contact| contact.id.0[0]).collect())
    }

    #[test]
    fn a_number_all_and_a_zone_are_read_and_nothing_else() {
        for text in ["1", "1024", "all", "zone=rack-1"] {
            assert_eq!(text.parse::<PullNodes>().map(|n| n.to_string()).as_deref(), Ok(text));
        }
        let long = format!("zone={}", "z".repeat(MAX_ZONE_BYTES + 1));
        for text in ["", "0", "-1", "+1", "1025", "ALL", "zone=", "zone", "all,2", &long] {
            assert!(text.parse::<PullNodes>().is_err(), "{text}");
        }
    }

    #[test]
    fn those_that_are_alive_come_first_and_too_few_is_an_error() {
        assert_eq!(chosen(&PullNodes::None), Ok(vec![]));
        assert_eq!(chosen(&PullNodes::Count(2)), Ok(vec![1, 3]));
        assert_eq!(chosen(&PullNodes::All), Ok(vec![1, 3, 2]));
        assert_eq!(chosen(&PullNodes::Zone("b".into())), Ok(vec![3, 2]));
        let few = chosen(&PullNodes::Count(4)).expect_err("three are known");
        assert!(few.contains("3 others, not 4"), "{few}");
        assert!(chosen(&PullNodes::Zone("c".into())).is_err());
        assert!(PullNodes::All.choose(Vec::new(), || 0).is_err());
    }
}
