//! What was deleted from a repository, swarm-wide: nobody serves it, and nobody fetches it again.
//!
//! The word lies in a set of its own (`SetName::Deleted`), stamped and kept by a majority as a tag
//! is. Whoever hears it forgets the content at once; see [`crate::forget`]. A push takes the word
//! back before it lets the content in, so the newer of the two holds on every node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ddr_oci::Digest;
use ddr_proto::id::NodeId;
use ddr_proto::wire::{Contact, Fact, Member, Request, SetEntry, SetName};
use ddr_store::IndexError;
use futures_util::stream::{self, StreamExt};

use crate::forget::Content;
use crate::names::{Parts, Settled};
use crate::pull::Locator;
use crate::{ReadError, blocking};

/// Nodes that are told of one delete: those that hold the content, then those that are alive.
const MAX_TOLD: usize = 256;
/// Nodes that are told at once.
const MAX_TOLD_AT_ONCE: usize = 32;
/// How long telling may take in all. Whoever does not hear it in time hears it from the nodes that
/// keep the word; see [`crate::names::settle`].
const TELL_LIMIT: Duration = Duration::from_secs(2);
/// How often a push is taken in again when deletes come between.
const MAX_ROUNDS: usize = 3;

/// See the module comment.
pub(crate) struct Deleted {
    parts: Arc<Parts>,
    locator: Locator,
}

impl Deleted {
    pub(crate) fn new(parts: Arc<Parts>, locator: Locator) -> Self {
        Self { parts, locator }
    }

    /// True when the content was deleted from its repository and not pushed since. Costs a look at the
    /// own disk; the swarm is asked only where there is a mark.
    pub(crate) async fn contains(&self, content: Content<'_>) -> Result<bool, ReadError> {
        let Some(mark) = self.marked(content).await? else { return Ok(false) };
        let (set, member) = place(content);
        let Some(entry) = self.parts.read_entry(&set, &member).await? else { return Ok(true) };
        if entry.cmp_newness(&mark).is_gt() {
            self.parts.keep_here(entry.clone()).await?;
        }
        Ok(entry.is_present())
    }

    /// Asks the nodes that keep such words whether the content was deleted, though this node has heard
    /// nothing; if so it goes here too.
    pub(crate) async fn confirm(&self, content: Content<'_>) -> Result<bool, ReadError> {
        let (set, member) = place(content);
        let Some(entry) = self.parts.read_entry(&set, &member).await? else { return Ok(false) };
        let deleted = entry.is_present();
        self.parts.keep_here(entry).await?;
        Ok(deleted)
    }

    /// True when this node was told that the content was deleted from its repository. Blocks.
    pub(crate) fn is_marked(&self, content: Content<'_>) -> Result<bool, IndexError> {
        let (set, member) = place(content);
        let mark = self.parts.keeper.entry(&set, &member)?;
        Ok(mark.is_some_and(|mark| mark.is_present()))
    }

    /// The content is about to come into its repository by a push: no delete before this moment counts
    /// against it.
    pub(crate) async fn pushing(&self, content: Content<'_>) -> Result<(), ReadError> {
        match self.parts.settle_fact(&fact(content), None).await {
            // Kept here too: an old word that is said again must not be news to this node.
            Ok(Settled { entry: Some(entry), .. }) => self.parts.keep_here(entry).await,
            Ok(Settled { entry: None, is_certain: true }) => Ok(()),
            // Somebody who may know of a delete was not heard. Content is taken in all the same, as
            // a digest needs no agreement; the word that it is here stands on this node with the
            // time of the push, and holds against what was deleted earlier and is heard of later.
            Ok(Settled { entry: None, is_certain: false }) | Err(ReadError::Unavailable(_)) => {
                self.parts.keep_here(self.parts.own_word(&fact(content)).await?).await
            }
            Err(error) => Err(error),
        }
    }

    /// Calls `store` to let the content into its repository, and again when a delete came between.
    pub(crate) async fn push<T, E, F>(
        &self,
        content: Content<'_>,
        unavailable: impl Fn(ReadError) -> E,
        mut store: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        for _ in 0..MAX_ROUNDS {
            self.pushing(content).await.map_err(&unavailable)?;
            let stored = store().await?;
            if self.marked(content).await.map_err(&unavailable)?.is_none() {
                return Ok(stored);
            }
        }
        Err(unavailable(self.parts.lost("the content is deleted all the time; try again".into())))
    }

    /// Has a majority note that the content is deleted from its repository, and every node that can be
    /// reached forget it, this one first.
    pub(crate) async fn delete(&self, content: Content<'_>) -> Result<(), ReadError> {
        let (parts, locator) = (Arc::clone(&self.parts), self.locator.clone());
        let (fact, digest) = (fact(content), *content.1);
        // A task of its own: a client that goes away does not leave half a delete.
        let work = async move {
            let deleted = Vec::new();
            let (entry, nodes) = tokio::join!(
                parts.settle_fact(&fact, Some(&deleted)),
                nodes_to_tell(&parts, &locator, &digest)
            );
            let Some(entry) = entry?.entry else { return Ok(()) };
            parts.keep_here(entry.clone()).await?;
            tell(&parts, nodes, &entry).await;
            Ok(())
        };
        tokio::spawn(work).await.map_err(ReadError::store)?
    }

    async fn marked(&self, content: Content<'_>) -> Result<Option<SetEntry>, ReadError> {
        let keeper = Arc::clone(&self.parts.keeper);
        let (set, member) = place(content);
        let mark = blocking(move || keeper.entry(&set, &member)).await;
        let mark = mark.map_err(ReadError::store)?.map_err(ReadError::store)?;
        Ok(mark.filter(SetEntry::is_present))
    }
}

fn fact((repository, digest, kind): Content<'_>) -> Fact {
    Fact::Deleted { repository: repository.clone(), digest: *digest, kind }
}

fn place(content: Content<'_>) -> (SetName, Member) {
    let fact = fact(content);
    (fact.set(), fact.member())
}

/// Holders first, then who is alive or was so lately, each once, without this node.
async fn nodes_to_tell(parts: &Parts, locator: &Locator, digest: &Digest) -> Vec<Contact> {
    if parts.is_alone() {
        return Vec::new();
    }
    let view = parts.overlay.view().await;
    let alive = view.contacts.into_iter().filter(|peer| peer.alive).map(|peer| peer.contact);
    let holders = locator.holders_anew(digest).all().await.into_iter().map(|holder| holder.contact);
    let members = parts.peers.members_alive_lately();
    let mut seen = BTreeMap::<NodeId, ()>::from([(parts.caller.own().id, ())]);
    let all = holders.chain(alive).chain(members);
    all.filter(|node| seen.insert(node.id, ()).is_none()).take(MAX_TOLD).collect()
}

async fn tell(parts: &Parts, nodes: Vec<Contact>, entry: &SetEntry) {
    let count = nodes.len();
    let calls: Vec<_> = nodes.iter().map(|node| tell_one(parts, node, entry)).collect();
    let calls = stream::iter(calls).buffer_unordered(MAX_TOLD_AT_ONCE).collect::<Vec<()>>();
    if tokio::time::timeout(TELL_LIMIT, calls).await.is_err() {
        tracing::info!(count, "not every node heard of a delete in time; they are told later");
    }
}

async fn tell_one(parts: &Parts, node: &Contact, entry: &SetEntry) {
    let request = Request::PutEntry { entry: entry.clone() };
    if parts.caller.call(node, request, TELL_LIMIT).await.is_none() {
        tracing::debug!(peer = %node.id, "a node did not hear of a delete");
    }
}
