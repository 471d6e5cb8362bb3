//! Tags: one signed register each, on the K nodes closest to its key; and the sets of them.
//!
//! Decides whom to ask, for how long, and what is believed. The arithmetic is
//! [`ddr_proto::names`]. The rules:
//!
//! - The voters are the K closest nodes, K = min(20, N). N counts every node that was alive within
//!   [`crate::peers::MEMBER_MEMORY_MS`], so a node that is cut off has no majority of its own.
//! - A read asks all voters and waits for all, or for a majority and [`GRACE`] more. Newest wins.
//! - A node that joined lately has no say about what it lacks: it abstains. Abstentions count only
//!   when every voter has spoken.
//! - A write reads first, stamps higher, and is done when a majority stored it durably.
//!
//! It must never answer "unknown" because nobody could be asked.

mod cache;
pub(crate) mod doubt;
mod history;
mod immutable;
mod keeper;
mod publish;
mod read;
mod recent;
mod rules;
mod sets;
pub(crate) mod settle;
mod stale;
mod told;
mod vote;

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ddr_oci::{Digest, RepositoryName, Tag};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::kad::EVERYBODY_MS;
use ddr_proto::names::{self, Write, WriteDecision};
use ddr_proto::wire::{Contact, NameRecord, SetEntry, Signer};
use ddr_store::{Batch, Store};
use tokio::sync::Semaphore;
use tokio::time::Instant;

pub(crate) use cache::Cache;
pub(crate) use keeper::{Counts, Keeper};
pub(crate) use publish::{CUT, Publication, Withdrawal};
pub(crate) use recent::Recent;
pub use rules::{TagReads, TagRules};
pub(crate) use sets::Settled;
pub(crate) use stale::Named;
pub use stale::TagList;
use vote::{Answer, Instead, Kept, Poll};

use crate::clock::Clock;
use crate::forget::Forget;
use crate::overlay::OverlayHandle;
use crate::peers::Peers;
use crate::{ReadError, TagWriteError, blocking};

/// Copies of a name.
pub(crate) const COPIES: usize = names::FULL;
/// How long a read waits for the rest once a majority has answered.
const GRACE: Duration = Duration::from_millis(100);
/// The longest a read or a write may take after its voters are known.
const LIMIT: Duration = Duration::from_secs(5);
/// Reads and writes under way at once; more wait for their turn. Each asks up to [`COPIES`] nodes.
const MAX_AT_ONCE: usize = 64;
/// Lists read at once; more wait for their turn, and so do not keep reads of tags waiting.
const MAX_LISTS_AT_ONCE: usize = 16;
/// The longest that one list may take, its wait for a turn included.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// Writes of one name that are tried when another writer was faster.
const MAX_ATTEMPTS: u32 = 3;

type ReadAnswer = Result<Option<NameRecord>, ReadError>;

/// What names are made of.
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) overlay: OverlayHandle,
    pub(crate) caller: crate::caller::Caller,
    pub(crate) peers: Arc<Peers>,
    pub(crate) keeper: Arc<Keeper>,
    pub(crate) forget: Arc<Forget>,
    pub(crate) signer: Signer,
    pub(crate) clock: Clock,
    pub(crate) rules: TagRules,
    /// Who was told by readers.
    pub(crate) recent: Recent,
    pub(crate) deciding: Deciding,
}

/// What writers of immutable tags on this node share.
#[derive(Default)]
pub(crate) struct Deciding {
    /// Held while a node that is alone looks whether such a tag is there and writes it.
    alone: Mutex<()>,
    /// The stamp of the newest ballot.
    last_ballot: AtomicU64,
}

/// See the module comment.
pub(crate) struct Names {
    parts: Arc<Parts>,
    turns: Arc<Semaphore>,
    list_turns: Semaphore,
}

/// Who votes on one name.
pub(crate) struct Voters {
    /// All of them, nearest first.
    pub(crate) all: Vec<Contact>,
    /// Those that did not answer the lookup: counted, not asked.
    pub(crate) silent: BTreeSet<NodeId>,
}

impl Voters {
    /// Whether these are the same nodes, in whatever order, of whom the same answered.
    fn are(&self, others: &Self) -> bool {
        let ids = |voters: &Self| voters.all.iter().map(|one| one.id).collect::<BTreeSet<_>>();
        self.silent == others.silent && ids(self) == ids(others)
    }

    /// Those that are worth a question.
    fn asked(&self) -> impl Iterator<Item = &Contact> {
        self.all.iter().filter(|voter| !self.silent.contains(&voter.id))
    }
}

impl Names {
    pub(crate) fn new(parts: Arc<Parts>) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_AT_ONCE));
        Self { parts, turns, list_turns: Semaphore::new(MAX_LISTS_AT_ONCE) }
    }

    /// What `tag` points to now. `None` as its digest: unknown or deleted. Where no majority answers
    /// the rules of this node may allow an older answer.
    ///
    /// Reads are never shared: one that began before a write ended may miss it, so it must not
    /// answer for one that began after.
    pub(crate) async fn read(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Named, ReadError> {
        let fresh = |digest| Named { digest, is_stale: false };
        let key = Key::of_name(repository, tag);
        if self.parts.is_alone()
            && let Some(known) = self.parts.keeper.peek(key)
        {
            // This node is the only voter, and its word is in memory.
            return Ok(fresh(known.and_then(|record| record.digest)));
        }
        let _turn = self.turns.acquire().await.map_err(ReadError::store)?;
        match self.parts.read_and_told(key).await {
            (Ok(record), _) => Ok(fresh(record.and_then(|record| record.digest))),
            (Err(error), told) => self.parts.stale(repository, tag, told, error).await,
        }
    }

    /// The same, as a majority says: for those who go on to change it.
    pub(crate) async fn read_strictly(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<Digest>, ReadError> {
        let _turn = self.turns.acquire().await.map_err(ReadError::store)?;
        let record = self.parts.read(Key::of_name(repository, tag)).await?;
        Ok(record.and_then(|record| record.digest))
    }

    /// Reads a list in its turn, and not for longer than [`LIST_LIMIT`].
    async fn listing<T>(
        &self,
        work: impl Future<Output = Result<T, ReadError>>,
    ) -> Result<T, ReadError> {
        let in_turn = async {
            let _turn = self.list_turns.acquire().await.map_err(ReadError::store)?;
            work.await
        };
        let too_long = || self.parts.lost("the list took too long; ask for shorter pages".into());
        tokio::time::timeout(LIST_LIMIT, in_turn).await.unwrap_or_else(|_| Err(too_long()))
    }

    /// Runs `work` in its turn, in a task of its own: a client that goes away does not leave half
    /// a write.
    async fn in_turn<T, E, F>(&self, work: impl FnOnce(Arc<Parts>) -> F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<ReadError> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(ReadError::store)?;
        let work = work(Arc::clone(&self.parts));
        let write = async move {
            let _turn = turn;
            work.await
        };
        tokio::spawn(write).await.map_err(ReadError::store)?
    }
}

impl Names {
    /// Asks peers in this node's name.
    pub(crate) fn caller(&self) -> &crate::caller::Caller {
        &self.parts.caller
    }

    /// Gives what this node keeps to those who come to keep it when it leaves.
    pub(crate) async fn hand_over(&self) {
        settle::hand_over(&self.parts).await;
    }

    /// Records that this node keeps. Blocks.
    pub(crate) fn kept_count(&self) -> usize {
        self.parts.keeper.kept_count()
    }

    /// Signs in this node's name.
    pub(crate) fn signer(&self) -> &Signer {
        &self.parts.signer
    }

    /// The local list of tags gets `tag`, if its manifest was stored here just before.
    pub(crate) async fn keep_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) -> Result<(), ReadError> {
        self.parts.list_tag(repository, tag, Some(*digest)).await
    }
}

impl Parts {
    /// Points `tag` to `digest`, or deletes it, in the register and in the set of tags. Done when a
    /// majority of the voters of each stored it durably.
    async fn write_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Option<Digest>,
    ) -> Result<(), TagWriteError> {
        let started = Instant::now();
        if let Some(digest) = digest
            && self.rules.is_immutable(repository, tag)
        {
            return self.write_immutable(repository, tag, &digest).await;
        }
        self.check_immutable(repository, tag, None).await?;
        let key = Key::of_name(repository, tag);
        for _ in 0..MAX_ATTEMPTS {
            let voters = self.voters(&key).await?;
            let stamp = self.next_stamp(key, &voters).await?;
            let name = (repository.clone(), tag.clone());
            let record = NameRecord::sign(&self.signer, name.0, name.1, digest, stamp);
            let entry = SetEntry::Tag(record.clone());
            let listers = self.voters(&entry.set().key()).await?;
            let superseded = if voters.are(&listers) {
                // Who keeps the name keeps its entry in the same durable step.
                self.write_to(&record, &voters).await?
            } else {
                let writes =
                    tokio::join!(self.write_to(&record, &voters), self.write_to(&entry, &listers));
                writes.1?;
                writes.0?
            };
            metrics::histogram!(crate::metrics::NAME_WRITE_SECONDS)
                .record(started.elapsed().as_secs_f64());
            let holds = match superseded {
                None => record,
                // Somebody else's write came after this one. It is as if this one had been done
                // just before; when it is this node's own old stamp, another try settles it.
                Some(newer) if newer.writer != record.writer => newer,
                Some(_) => continue,
            };
            return Ok(self.list_tag(repository, tag, holds.digest).await?);
        }
        Err(self.lost("the tag changes all the time; try again".into()).into())
    }

    /// Tells the voters of `record`. Done when a majority keeps it, or something newer, which is
    /// answered.
    ///
    /// This node keeps it only after another voter has taken it: a record that all others refuse, as
    /// one whose stamp is ahead of their clocks, would be the newest to every reader, and none could
    /// settle it.
    async fn write_to<R: Kept>(&self, record: &R, voters: &Voters) -> Result<Option<R>, ReadError> {
        let mut write = Write::new(record.clone(), voters.all.iter().map(|voter| voter.id));
        voters.silent.iter().for_each(|silent| write.failed(*silent));
        let own = self.caller.own();
        let mut others = Voters { all: voters.all.clone(), silent: voters.silent.clone() };
        let own_votes = voters.all.len() > 1 && voters.all.iter().any(|voter| voter.id == own.id);
        if own_votes {
            others.silent.insert(own.id);
        }
        self.count_write(write, Poll::put(self, record, &others), own_votes.then_some(record)).await
    }

    /// Waits until enough voters have stored what `poll` tells them. `own_later` is told to this node
    /// once another has it.
    async fn count_write<R: Kept>(
        &self,
        mut write: Write<R>,
        mut poll: Poll<Instead<R>>,
        mut own_later: Option<&R>,
    ) -> Result<Option<R>, ReadError> {
        let (of, own) = (write.count_voters(), self.caller.own());
        let limit = Instant::now() + LIMIT;
        loop {
            match write.decide() {
                WriteDecision::Done { superseded_by } => {
                    poll.finish_behind();
                    return Ok(superseded_by);
                }
                WriteDecision::Impossible { kept, needed } => {
                    poll.finish_behind();
                    return Err(self.too_few("stored the name", (kept, of, needed)));
                }
                WriteDecision::Wait => {}
            }
            let answer = tokio::time::timeout_at(limit, poll.next()).await;
            if matches!(answer, Ok(Some((_, Answer::Said(_)))))
                && let Some(record) = own_later.take()
            {
                poll.put_to(self, record, own);
            }
            match answer {
                Ok(Some((voter, Answer::Said(None)))) => write.stored(voter),
                Ok(Some((voter, Answer::Said(Some(newest))))) => {
                    write.not_stored(voter, Some(*newest));
                }
                Ok(Some((voter, Answer::Abstained | Answer::Doubtful | Answer::Failed))) => {
                    write.failed(voter);
                }
                Ok(None) if own_later.is_some() => {
                    own_later = None;
                    write.failed(own.id);
                }
                Ok(None) | Err(_) => {
                    let counts = (write.count_kept(), of, names::write_quorum(of));
                    return Err(self.too_few("stored the name in time", counts));
                }
            }
        }
    }

    /// True while this node has no swarm but itself: then it is the only voter on every name, and
    /// nobody need be asked.
    pub(crate) fn is_alone(&self) -> bool {
        self.overlay.is_alone()
            && self.peers.members_alive_lately().is_empty()
            && !self.keeper.is_stranded(0)
    }

    /// Who votes on `key`: see the module comment.
    pub(crate) async fn voters(&self, key: &Key) -> Result<Voters, ReadError> {
        if self.is_alone() {
            return Ok(sets::all_of(vec![self.caller.own().clone()]));
        }
        let mut answered = self.overlay.closest(*key).await.unwrap_or_default();
        self.peers.alive_but_who_left(&mut answered, EVERYBODY_MS);
        let own = self.caller.own();
        let members = self.peers.members_alive_lately();
        if answered.is_empty() && self.keeper.is_stranded(members.len()) {
            return Err(self.lost("no other node of the swarm has answered this one yet".into()));
        }
        if self.keeper.is_ignorant() {
            return Err(self.lost("no other node has said yet who the members are".into()));
        }
        let expected = members.len().max(answered.len()) + 1;
        let mut all = names::voters(own, &answered, key, COPIES);
        let mut silent = BTreeSet::new();
        let mut missing: Vec<Contact> = members
            .into_iter()
            .filter(|member| member.id != own.id)
            .filter(|member| !answered.iter().any(|contact| contact.id == member.id))
            .collect();
        missing.sort_by_key(|member| member.id.distance(key));
        for member in missing {
            if all.len() >= COPIES.min(expected) {
                break;
            }
            silent.insert(member.id);
            all.push(member);
        }
        Ok(Voters { all, silent })
    }

    /// The local list of tags follows what was read or written. The disk is not touched when the
    /// list is known to say so already.
    async fn list_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        digest: Option<Digest>,
    ) -> Result<(), ReadError> {
        let key = Key::of_name(repository, tag);
        if self.forget.listed.get(key.as_bytes()) == Some(digest) {
            return Ok(());
        }
        let (store, forget) = (self.store.clone(), Arc::clone(&self.forget));
        let (repository, tag) = (repository.clone(), tag.clone());
        let work = move || {
            let since = forget.listed.turns();
            if store.tag(&repository, &tag)? != digest {
                let tags = vec![(repository.clone(), tag.clone(), digest)];
                store.keep(&Batch { tags, ..Batch::default() })?;
                // Where the manifest is not here the tag is not listed yet.
                if store.tag(&repository, &tag)? != digest {
                    return Ok(());
                }
            }
            forget.listed.insert(*key.as_bytes(), digest, Some(since), |_| false);
            Ok::<_, ddr_store::IndexError>(())
        };
        blocking(work).await.map_err(ReadError::store)?.map_err(ReadError::store)
    }

    /// The error of a question or a write that `answered` of `of` nodes answered or stored.
    pub(crate) fn too_few(
        &self,
        what: &str,
        (answered, of, needed): (usize, usize, usize),
    ) -> ReadError {
        self.lost(format!("{answered} of {of} nodes {what}, {needed} are needed"))
    }

    /// The error of what no majority could be had for.
    pub(crate) fn lost(&self, why: String) -> ReadError {
        metrics::counter!(crate::metrics::NAME_QUORUM_LOST).increment(1);
        tracing::warn!(why, "a tag has no majority");
        ReadError::Unavailable(why)
    }
}
