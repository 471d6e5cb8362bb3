//! Content of mirrored repositories, for nodes that take this one for its warden.
//!
//! Decides how many are given a blob while it arrives: one, and another each [`RELAY_EVERY`]; more are told who is given
//! it, so that these give it on. So nodes that ask at once stand in a row, in which each sends the blob once: a row is
//! as fast as its slowest link, and where the first sent it to eight, each would have an eighth of its link. What is not
//! here is brought from the registry only: no node waits for another that waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ddr_net::{ContentReply, ContentRequest, PeerInfo};
use ddr_oci::{Digest, RepositoryName};
use ddr_proto::id::NodeId;
use ddr_proto::wire::{BusyAnswer, Holder, ResolveAnswer};
use tokio::time::Instant;

use super::Seed;
use crate::mirror;
use crate::pull::{Purpose, Reach};

/// Nodes that are given one arriving blob at once.
const MAX_RELAYS: usize = 8;

/// How long after one another is given a blob, too.
const RELAY_EVERY: Duration = Duration::from_secs(1);

/// Who is given which blob.
#[derive(Clone, Default)]
pub(crate) struct Relays(Arc<Mutex<BTreeMap<Digest, Row>>>);

/// Who is given one blob.
struct Row {
    nodes: Vec<NodeId>,
    /// When the last of them came.
    last: Instant,
}

/// A place among them, until it is dropped.
struct Relay {
    relays: Relays,
    digest: Digest,
    node: NodeId,
}

impl Relays {
    /// A place for `node`, or who has the places.
    fn enter(&self, digest: Digest, node: NodeId) -> Result<Relay, Vec<NodeId>> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let row = places.entry(digest).or_insert_with(|| Row { nodes: Vec::new(), last: now });
        let is_full = row.nodes.len() >= MAX_RELAYS || now < row.last + RELAY_EVERY;
        if is_full && !row.nodes.is_empty() {
            return Err(row.nodes.clone());
        }
        row.nodes.push(node);
        row.last = now;
        Ok(Relay { relays: self.clone(), digest, node })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let mut places = self.relays.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(row) = places.get_mut(&self.digest) else { return };
        if let Some(place) = row.nodes.iter().position(|node| *node == self.node) {
            row.nodes.swap_remove(place);
        }
        if row.nodes.is_empty() {
            places.remove(&self.digest);
        }
    }
}

impl Seed {
    /// What the registry says of a tag.
    pub(super) async fn resolve(
        &self,
        repository: &RepositoryName,
        tag: &ddr_oci::Tag,
    ) -> ResolveAnswer {
        mirror::answer(&self.names, &self.push.pull, repository, tag).await
    }

    /// Brings a manifest here, if it is not.
    pub(super) async fn bring_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> bool {
        if self.push.pull.mirror().source(repository).is_none() {
            return false;
        }
        match self.push.pull.manifest_within(Reach::Upstream, repository, digest).await {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(%repository, %digest, %error, "nothing to give to a peer");
                false
            }
        }
    }

    /// Gives a blob while it arrives. A node that does not mirror the registry, or cannot reach it, says that it failed:
    /// "not found" is the word of the registry.
    pub(super) async fn give_arriving(
        &self,
        from: &PeerInfo,
        request: ContentRequest,
        repository: RepositoryName,
    ) -> ContentReply {
        let pull = &self.push.pull;
        if pull.mirror().source(&repository).is_none() {
            return ContentReply::Failed;
        }
        let relay = match self.relays.enter(request.digest, from.node) {
            Ok(relay) => relay,
            Err(nodes) => return self.ask_those(&nodes),
        };
        let opened =
            pull.open_blob_within(Reach::Upstream, &repository, &request.digest, Purpose::Read);
        let blob = match opened.await {
            Ok(Some(blob)) => blob,
            Ok(None) => return ContentReply::NotFound,
            Err(error) => {
                let digest = &request.digest;
                tracing::debug!(%repository, %digest, %error, "nothing to give to a peer");
                return ContentReply::Failed;
            }
        };
        let size = blob.size();
        let Some(range) = request.resolve(size) else {
            return ContentReply::Unsatisfiable { size };
        };
        self.send(&blob, range, relay)
    }

    fn ask_those(&self, nodes: &[NodeId]) -> ContentReply {
        let holder = |node: &NodeId| {
            let contact = self.peers.contact(node)?;
            Some(Holder { contact, complete: false })
        };
        let others: Vec<Holder> = nodes.iter().filter_map(holder).collect();
        ContentReply::Busy(BusyAnswer { load: MAX_RELAYS as u16, others })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_is_given_a_blob_and_later_more_up_to_the_limit() {
        let (relays, digest) = (Relays::default(), Digest::sha256(b"blob"));
        let node = |byte| NodeId([byte; 32]);
        let mut taken = Vec::new();
        for number in 0..8 {
            let Ok(relay) = relays.enter(digest, node(number)) else { panic!("no place") };
            taken.push(relay);
            let told = relays.enter(digest, node(9)).err().expect("not yet");
            assert_eq!(told, (0..=number).map(node).collect::<Vec<_>>());
            tokio::time::advance(RELAY_EVERY).await;
        }
        assert!(relays.enter(digest, node(9)).is_err());
        assert!(relays.enter(Digest::sha256(b"other"), node(9)).is_ok());
        taken.pop();
        assert!(relays.enter(digest, node(9)).is_ok());
        drop(taken);
        assert!(relays.0.lock().unwrap().is_empty());
    }
}
