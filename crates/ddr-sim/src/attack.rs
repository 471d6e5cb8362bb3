//! What adversarial nodes do.
//!
//! All of them know each other and the whole network. They cannot take an ID that they have no key
//! for, nor sign for others. What each attack does is told in `docs/simulator.md`.

use std::fmt;
use std::str::FromStr;

use ddr_proto::kad::LookupKind;
use ddr_proto::wire::{Contact, ProviderRecord, Request, Response};
use ddr_proto::{Key, NodeId};

use crate::dice::Dice;
use crate::identity::{self, NOBODY};
use crate::latency::Micros;
use crate::ring::Ring;

/// A strategy that all adversarial nodes follow.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum Attack {
    /// They behave like everybody else, but store nothing: an accident, not an attack.
    #[default]
    None,
    /// They answer pings and nothing else.
    Drop,
    /// They name the colluders closest to the target, and no holder.
    Misroute,
    /// They name invented nodes next to the target, which swallow all calls.
    Dead,
    /// They are honest but for one key, near which they made their IDs.
    Eclipse,
    /// They come with many identities for each host, push into tables, then misroute.
    Sybil,
    /// They sign themselves as holders, and misroute.
    Poison,
    /// They forge records of others, and misroute.
    Forge,
    /// They give out expired records, and misroute.
    Stale,
    /// They are honest, but fill the looked-up keys with records of their own.
    Flood,
    /// They answer just before they would be given up, and misroute.
    SlowLoris,
}

/// All attacks, the names as on the command line.
const NAMES: &[(&str, Attack)] = &[
    ("none", Attack::None),
    ("drop", Attack::Drop),
    ("misroute", Attack::Misroute),
    ("dead", Attack::Dead),
    ("eclipse", Attack::Eclipse),
    ("sybil", Attack::Sybil),
    ("poison", Attack::Poison),
    ("forge", Attack::Forge),
    ("stale", Attack::Stale),
    ("flood", Attack::Flood),
    ("slow-loris", Attack::SlowLoris),
];

impl Attack {
    /// Every real attack.
    pub fn all() -> impl Iterator<Item = Self> {
        NAMES.iter().map(|(_, attack)| *attack).filter(|attack| *attack != Self::None)
    }

    /// The attacks that apply to lookups of this kind.
    pub fn against(kind: LookupKind) -> impl Iterator<Item = Self> {
        let records_only = [Self::Poison, Self::Forge, Self::Stale, Self::Flood, Self::Eclipse];
        let applies =
            move |attack: &Self| kind == LookupKind::Providers || !records_only.contains(attack);
        Self::all().filter(applies)
    }

    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, attack)| *attack == self).map_or("none", |(name, _)| name)
    }

    /// Whether adversarial nodes need a routing table of their own.
    #[must_use]
    pub const fn acts_honest(self) -> bool {
        matches!(self, Self::None | Self::Eclipse | Self::Flood)
    }
}

impl FromStr for Attack {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, attack)| *attack).ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("unknown attack {text}; there are {}, all, worst", names.join(", "))
        })
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How an adversarial node takes a request.
#[derive(Debug)]
pub(crate) enum Reaction {
    /// As an honest node would, by its own core.
    Honest,
    /// Not at all.
    Silence,
    /// With this, held back so long.
    Answer(Box<Response>, Micros),
}

impl Reaction {
    fn answer(response: Response, held_back: Micros) -> Self {
        Self::Answer(Box::new(response), held_back)
    }
}

/// Invented nodes in one answer.
const INVENTED: usize = 20;
/// Leading bits that invented IDs share with the target.
const INVENTED_SHARE_BYTES: usize = 6;
/// How long a slow-loris node holds an answer back: calls are given up after 500 ms at least.
const LORIS_US: Micros = 440_000;

/// The adversary as a whole.
#[derive(Debug)]
pub(crate) struct Adversary {
    pub(crate) attack: Attack,
    pub(crate) ring: Ring,
    /// Nodes named in one answer: as many as an honest node names.
    pub(crate) k: usize,
    pub(crate) dice: Dice,
    /// The keys under attack, in order, each with an expired record of its holder.
    pub(crate) targets: Vec<(Key, Option<ProviderRecord>)>,
}

impl Adversary {
    /// What the colluder `own` does about a request; `contact_of` tells how colluders are reached,
    /// `sign` makes a record of this node for a key.
    pub(crate) fn react(
        &mut self,
        request: &Request,
        contact_of: impl Fn(u32) -> Contact,
        sign: impl Fn(&Key) -> ProviderRecord,
    ) -> Reaction {
        let (target, with_records) = match request {
            Request::FindNode { target } => (*target, false),
            Request::FindProviders { key } => (*key, true),
            Request::PutProviders { records } => return self.on_put(records),
            _ if self.attack.acts_honest() => return Reaction::Honest,
            _ => return Reaction::answer(Response::Pong { revoked: 0, puzzle: [0; 32] }, 0),
        };
        let nodes = match self.attack {
            Attack::None | Attack::Flood => return Reaction::Honest,
            Attack::Eclipse if !self.is_target(&target) => return Reaction::Honest,
            Attack::Drop => return Reaction::Silence,
            Attack::Dead => self.invent(&target),
            _ => self.colluders(&target, contact_of),
        };
        if !with_records {
            return Reaction::answer(Response::Nodes { nodes }, self.delay());
        }
        let records = match self.attack {
            Attack::Poison => vec![sign(&target)],
            Attack::Forge => {
                let mut record = sign(&target);
                record.signature[0] ^= 1;
                vec![record]
            }
            Attack::Stale => self.expired(&target).into_iter().collect(),
            _ => Vec::new(),
        };
        Reaction::answer(Response::Providers { records, nodes }, self.delay())
    }

    /// Records are taken with thanks and thrown away.
    fn on_put(&self, records: &[ProviderRecord]) -> Reaction {
        let about_target = records.iter().any(|record| self.is_target(&record.key));
        match self.attack {
            Attack::Flood => Reaction::Honest,
            Attack::Eclipse if !about_target => Reaction::Honest,
            _ => {
                let (accepted, not_soon) = (records.len() as u32, Vec::new());
                Reaction::answer(Response::Stored { accepted, not_soon }, 0)
            }
        }
    }

    fn colluders(&self, target: &Key, contact_of: impl Fn(u32) -> Contact) -> Vec<Contact> {
        self.ring.closest(target, self.k, |_| true).into_iter().map(contact_of).collect()
    }

    fn invent(&mut self, target: &Key) -> Vec<Contact> {
        let one = |dice: &mut Dice| {
            let mut id = dice.bytes();
            id[..INVENTED_SHARE_BYTES].copy_from_slice(&target.0[..INVENTED_SHARE_BYTES]);
            let addr = identity::host_addr(NOBODY);
            Contact { id: NodeId(id), addrs: vec![addr], zone: String::new() }
        };
        (0..INVENTED).map(|_| one(&mut self.dice)).collect()
    }

    fn is_target(&self, key: &Key) -> bool {
        self.targets.binary_search_by_key(key, |(target, _)| *target).is_ok()
    }

    fn expired(&self, key: &Key) -> Option<ProviderRecord> {
        let place = self.targets.binary_search_by_key(key, |(target, _)| *target).ok()?;
        self.targets[place].1.clone()
    }

    fn delay(&self) -> Micros {
        if self.attack == Attack::SlowLoris { LORIS_US } else { 0 }
    }
}
