//! The rows: who keeps the parts of which manifest, as far as this node has a part in it.
//!
//! Decides that a row is changed by one at a time. It must never name this node for a part that is not here:
//! the store refuses that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::NodeId;
use ddr_proto::wire::{PlacedPart, Placement};
use ddr_store::{IndexError, ReplicaRecord, Store};

use crate::{ReadError, blocking};

/// Locks that manifests share, so that one row is changed by one at a time.
const LOCKS: usize = 64;
/// Manifests of one repository that are looked at for who else holds a part.
const MAX_KEPT_FOR: usize = 8;

/// What became of a change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// The row said so already.
    Same,
    /// It is written.
    Written,
    /// Something that this node is named for is not here: nothing was changed.
    Refused,
}

/// See the module comment. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ledger {
    store: Store,
    own: NodeId,
    locks: Arc<[Mutex<()>; LOCKS]>,
}

impl Ledger {
    pub(super) fn new(store: Store, own: NodeId) -> Self {
        Self { store, own, locks: Arc::new(std::array::from_fn(|_| Mutex::new(()))) }
    }

    /// The row of a manifest.
    pub(super) async fn get(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<Option<Placement>, ReadError> {
        let (ledger, repository, manifest) = (self.clone(), repository.clone(), *manifest);
        run(move || ledger.read(&repository, &manifest)).await
    }

    /// At most `limit` rows after the one of this manifest.
    pub(super) async fn page(
        &self,
        after: Option<(RepositoryName, Digest)>,
        limit: usize,
    ) -> Result<Vec<Placement>, ReadError> {
        let store = self.store.clone();
        let rows = run(move || store.replicas(after.as_ref(), limit)).await?;
        Ok(rows.iter().map(placement_of).collect())
    }

    /// Changes the row of a manifest; it is made if there is none. A row in which this node holds nothing
    /// goes.
    pub(super) async fn change(
        &self,
        repository: &RepositoryName,
        manifest: (Digest, u64),
        change: impl FnOnce(&mut Placement) + Send + 'static,
    ) -> Result<Change, ReadError> {
        let (ledger, repository) = (self.clone(), repository.clone());
        run(move || ledger.change_now(repository, manifest, change)).await
    }

    fn change_now(
        &self,
        repository: RepositoryName,
        (digest, size): (Digest, u64),
        change: impl FnOnce(&mut Placement),
    ) -> Result<Change, IndexError> {
        let lock = digest.as_bytes().first().map_or(0, |byte| usize::from(*byte) % LOCKS);
        let _held = self.locks[lock].lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.read(&repository, &digest)?;
        let mut placement = before.clone().unwrap_or_else(|| Placement {
            repository: repository.clone(),
            manifest: PlacedPart { digest, size, holders: Vec::new() },
            blobs: Vec::new(),
        });
        change(&mut placement);
        if before.as_ref() == Some(&placement) {
            return Ok(Change::Same);
        }
        let kept: Vec<Digest> = placement
            .parts()
            .filter(|part| part.is_held_by(&self.own))
            .map(|part| part.digest)
            .collect();
        if kept.is_empty() {
            let was_there = self.store.drop_replica(&repository, &digest)?;
            return Ok(if was_there { Change::Written } else { Change::Same });
        }
        let record = placement.encode();
        let replica = ReplicaRecord { repository, manifest: digest, record };
        let written = self.store.keep_replica(&replica, &kept)?;
        Ok(if written { Change::Written } else { Change::Refused })
    }

    /// Who else is known to keep a part in a repository, for whatever manifest.
    pub(super) async fn holders(
        &self,
        repository: &RepositoryName,
        part: &Digest,
    ) -> Result<Vec<NodeId>, ReadError> {
        let (ledger, repository, part) = (self.clone(), repository.clone(), *part);
        run(move || {
            let mut holders = Vec::new();
            for manifest in ledger.store.kept_for(&part, &repository, MAX_KEPT_FOR)? {
                let placement = ledger.read(&repository, &manifest)?;
                let parts = placement.iter().flat_map(Placement::parts);
                let named = parts.filter(|one| one.digest == part).flat_map(|one| &one.holders);
                holders.extend(named.filter(|node| **node != ledger.own));
            }
            holders.sort_unstable();
            holders.dedup();
            Ok(holders)
        })
        .await
    }

    /// The row of a manifest. Blocks.
    pub(super) fn read(
        &self,
        repository: &RepositoryName,
        manifest: &Digest,
    ) -> Result<Option<Placement>, IndexError> {
        let record = self.store.replica(repository, manifest)?;
        Ok(record.map(|record| {
            let (repository, manifest) = (repository.clone(), *manifest);
            placement_of(&ReplicaRecord { repository, manifest, record })
        }))
    }
}

/// Names more holders of a part, and no more those of before who are `lost`: so the dead never push out the
/// living. However many these are, this node stays named where it was.
pub(super) fn add_holders(
    part: &mut PlacedPart,
    holders: impl IntoIterator<Item = NodeId>,
    (own, lost): (NodeId, &BTreeSet<NodeId>),
) {
    let mut is_mine = part.is_held_by(&own);
    part.holders.retain(|node| *node != own && !lost.contains(node));
    for node in holders {
        is_mine |= node == own;
        part.add_holder(node);
    }
    if is_mine {
        part.add_holder(own);
    }
}

/// What a row says. One that cannot be read says nothing: it is filled anew by the next audit.
fn placement_of(row: &ReplicaRecord) -> Placement {
    Placement::decode(&row.record).unwrap_or_else(|error| {
        tracing::error!(%error, repository = %row.repository, manifest = %row.manifest, "a row of copies is damaged");
        Placement {
            repository: row.repository.clone(),
            manifest: PlacedPart { digest: row.manifest, size: 0, holders: Vec::new() },
            blobs: Vec::new(),
        }
    })
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IndexError> + Send + 'static,
) -> Result<T, ReadError> {
    blocking(work).await.map_err(ReadError::store)?.map_err(ReadError::store)
}

#[cfg(test)]
mod tests {
    use ddr_proto::wire::MAX_REPLICA_HOLDERS;

    use super::*;

    #[test]
    fn this_node_stays_named_however_many_others_are() {
        let own = NodeId([0; 32]);
        let others = |count: u8| (1..=count).map(|number| NodeId([number; 32]));
        let digest = Digest::sha256(b"part");
        let mut part = PlacedPart { digest, size: 4, holders: vec![own] };
        let nobody = BTreeSet::new();
        add_holders(&mut part, others(20), (own, &nobody));
        assert!(part.is_held_by(&own), "{part:?}");
        assert_eq!(part.holders.len(), MAX_REPLICA_HOLDERS);

        part.holders.clear();
        add_holders(&mut part, others(2), (own, &nobody));
        assert!(!part.is_held_by(&own), "it never names itself where it was not");
    }

    #[test]
    fn the_dead_make_room_for_the_living() {
        let node = |number: u8| NodeId([number; 32]);
        let (own, living, newcomer) = (node(1), node(2), node(3));
        let dead: BTreeSet<NodeId> = (4..10).map(node).collect();
        let mut holders = vec![own, living];
        holders.extend(&dead);
        let mut part = PlacedPart { digest: Digest::sha256(b"part"), size: 4, holders };
        add_holders(&mut part, [newcomer], (own, &dead));
        assert_eq!(part.holders, [living, newcomer, own]);
        // One that was lost and is heard again is named again.
        add_holders(&mut part, [node(4)], (own, &dead));
        assert!(part.is_held_by(&node(4)) && part.is_held_by(&own));
    }
}
