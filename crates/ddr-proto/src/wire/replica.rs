//! Who keeps the parts of an image, as nodes tell each other and as they write it down.
//!
//! Decides the form only. What stands in a placement is a claim of the sender: a node believes of
//! another that it keeps a part when that one has said so itself.

use ddr_oci::{Digest, RepositoryName};
use serde::{Deserialize, Serialize};

use super::{MAX_MESSAGE_BYTES, WireError, at_most, decode_any_length, encode};
use crate::id::NodeId;

/// Most blobs in one request to keep.
pub const MAX_PARTS_PER_KEEP: usize = 128;
/// Most blobs in a placement that is written down.
pub const MAX_PLACED_BLOBS: usize = 4096;
/// Most holders of one part.
pub const MAX_REPLICA_HOLDERS: usize = 8;
/// Largest placement that is written down, bytes.
const MAX_PLACEMENT_BYTES: usize = 32 * MAX_MESSAGE_BYTES;

/// Who keeps the parts of one manifest in one repository.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Placement {
    /// The repository that may read them.
    pub repository: RepositoryName,
    /// The manifest, which is a part itself.
    pub manifest: PlacedPart,
    /// Its blobs, or some of them.
    pub blobs: Vec<PlacedPart>,
}

/// A manifest or blob, and who keeps it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PlacedPart {
    /// Which.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// At most [`MAX_REPLICA_HOLDERS`].
    pub holders: Vec<NodeId>,
}

/// What a node says about a part.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Keeping {
    /// It is durable here, and stays.
    Kept,
    /// It is on its way here.
    Coming,
    /// I do not keep it.
    Absent,
    /// I cannot: no room.
    Full,
    /// I cannot: I leave the swarm.
    Leaving,
    /// It was deleted from the repository.
    Deleted,
}

/// What a node says about the parts of a placement.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct KeepAnswer {
    /// About the manifest.
    pub manifest: Keeping,
    /// About the blobs, in the order of the request; at most [`MAX_PARTS_PER_KEEP`].
    pub blobs: Vec<Keeping>,
    /// Bytes of all these that are here, also of those on their way.
    pub bytes: u64,
    /// Bytes that I have left for copies.
    pub free: u64,
}

impl Placement {
    /// The placement as bytes, to be written down.
    ///
    /// # Panics
    /// Never: it has a postcard form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_PLACEMENT_BYTES {
            return Err(WireError::TooLarge);
        }
        let placement: Self = decode_any_length(bytes)?;
        at_most(placement.blobs.len(), MAX_PLACED_BLOBS, "MAX_PLACED_BLOBS")?;
        placement.check_holders()?;
        Ok(placement)
    }

    /// Checks a request's lists against their limits.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(self.blobs.len(), MAX_PARTS_PER_KEEP, "MAX_PARTS_PER_KEEP")?;
        self.check_holders()
    }

    fn check_holders(&self) -> Result<(), WireError> {
        self.parts().try_for_each(|part| {
            at_most(part.holders.len(), MAX_REPLICA_HOLDERS, "MAX_REPLICA_HOLDERS")
        })
    }

    /// The manifest, then the blobs.
    pub fn parts(&self) -> impl Iterator<Item = &PlacedPart> {
        std::iter::once(&self.manifest).chain(&self.blobs)
    }

    /// The same, to be changed.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut PlacedPart> {
        std::iter::once(&mut self.manifest).chain(&mut self.blobs)
    }
}

impl PlacedPart {
    /// Whether `node` is named as a holder.
    #[must_use]
    pub fn is_held_by(&self, node: &NodeId) -> bool {
        self.holders.contains(node)
    }

    /// One more holder. Of too many the one that was named first goes.
    pub fn add_holder(&mut self, node: NodeId) {
        if self.is_held_by(&node) {
            return;
        }
        if self.holders.len() >= MAX_REPLICA_HOLDERS {
            self.holders.remove(0);
        }
        self.holders.push(node);
    }
}

impl KeepAnswer {
    /// About the manifest, then about the blobs.
    pub fn parts(&self) -> impl Iterator<Item = Keeping> {
        std::iter::once(self.manifest).chain(self.blobs.iter().copied())
    }

    /// Checks the list against its limit.
    pub fn check_limits(&self) -> Result<(), WireError> {
        at_most(self.blobs.len(), MAX_PARTS_PER_KEEP, "MAX_PARTS_PER_KEEP")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(holders: usize) -> PlacedPart {
        let id = |n: usize| NodeId([n as u8; 32]);
        PlacedPart {
            digest: Digest::sha256(b"x"),
            size: 1,
            holders: (0..holders).map(id).collect(),
        }
    }

    fn placement(blobs: usize, holders: usize) -> Placement {
        let repository = "team/app".parse().expect("valid");
        Placement { repository, manifest: part(holders), blobs: vec![part(holders); blobs] }
    }

    #[test]
    fn what_was_written_down_is_read_and_limits_hold() {
        let full = placement(MAX_PLACED_BLOBS, MAX_REPLICA_HOLDERS);
        assert_eq!(Placement::decode(&full.encode()), Ok(full.clone()));
        assert_eq!(full.check_limits(), Err(WireError::OverLimit("MAX_PARTS_PER_KEEP")));
        let many = placement(1, MAX_REPLICA_HOLDERS + 1);
        assert_eq!(
            Placement::decode(&many.encode()),
            Err(WireError::OverLimit("MAX_REPLICA_HOLDERS"))
        );
        let long = placement(MAX_PLACED_BLOBS + 1, 0);
        assert_eq!(
            Placement::decode(&long.encode()),
            Err(WireError::OverLimit("MAX_PLACED_BLOBS"))
        );
        assert_eq!(Placement::decode(&full.encode()[1..]), Err(WireError::Malformed));
    }

    #[test]
    fn the_largest_request_fits_into_a_message() {
        let mut full = placement(MAX_PARTS_PER_KEEP, MAX_REPLICA_HOLDERS);
        let long = Digest::of(ddr_oci::Algorithm::Sha512, b"x");
        full.parts_mut().for_each(|part| (part.digest, part.size) = (long, u64::MAX));
        assert!(full.encode().len() + 2048 < MAX_MESSAGE_BYTES, "{}", full.encode().len());
    }

    #[test]
    fn a_holder_is_named_once_and_the_first_makes_room() {
        let mut part = part(MAX_REPLICA_HOLDERS);
        part.add_holder(NodeId([3; 32]));
        assert_eq!(part.holders.len(), MAX_REPLICA_HOLDERS);
        part.add_holder(NodeId([99; 32]));
        assert!(part.is_held_by(&NodeId([99; 32])) && !part.is_held_by(&NodeId([0; 32])));
    }
}
