//! Sets of the swarm: read page by page from a majority, changed on a majority.
//!
//! Decides what of a page is believed: the newest entry of each member that any voter told and that
//! a majority keeps. It must never show a member whose entry could be forgotten again, or end a list
//! because a voter could not be asked.

use std::collections::{BTreeMap, BTreeSet};

use ddr_proto::id::NodeId;
use ddr_proto::names::{self, MergedEntry, SetDecision, SetPage, SetRead};
use ddr_proto::time::Timestamp;
use ddr_proto::wire::{
    Contact, Fact, FactRecord, MAX_ENTRIES_PER_PAGE, MAX_PAGE_BYTES, Member, NameRecord, SetEntry,
    SetName,
};
use futures_util::stream::{self, StreamExt};
use tokio::time::Instant;

use super::keeper::Keeping;
use super::vote::{Answer, PageAnswer, Poll};
use super::{GRACE, LIMIT, MAX_ATTEMPTS, Parts, Voters};
use crate::{ReadError, blocking};

/// Entries of one page that are written back at once.
const MAX_WRITES_AT_ONCE: usize = 8;
/// Pages of one list; beyond, the list is refused. A million members.
const MAX_PAGES: usize = 1_000_000 / MAX_ENTRIES_PER_PAGE;

/// A page of a set as the swarm keeps it.
pub(crate) struct Page {
    /// Deleted members included.
    pub(crate) entries: Vec<SetEntry>,
    /// Where the next page begins.
    pub(crate) next: Option<Member>,
    /// Every voter was heard.
    heard_all: bool,
}

/// What holds of a fact.
pub(crate) struct Settled {
    /// The newest word, if there ever was one.
    pub(crate) entry: Option<SetEntry>,
    /// Every voter was heard, or a majority keeps this word: nobody has a newer one.
    pub(crate) is_certain: bool,
}

impl Parts {
    /// A page of `set` from `from` on, at most `limit` members, deleted ones included.
    pub(crate) async fn read_page(
        &self,
        set: &SetName,
        from: &Member,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let limit = limit.clamp(1, MAX_ENTRIES_PER_PAGE);
        if self.is_alone() {
            let (keeper, key, from) = (self.keeper.clone(), set.key(), from.clone());
            let page = move || keeper.set_page(&key, &from, limit, MAX_PAGE_BYTES);
            let page = blocking(page).await.map_err(ReadError::store)?.map_err(ReadError::store)?;
            let next = page.entries.last().filter(|_| page.more);
            let next = next.map(|last| last.member().successor());
            return Ok(Page { entries: page.entries, next, heard_all: true });
        }
        let voters = self.voters(&set.key()).await?;
        let read = self.ask_page((set, from, limit as u16), &voters).await;
        self.check_page(&read)?;
        let merged = read.merge();
        self.settle_page(&merged.entries, &voters).await?;
        let entries = merged.entries.into_iter().map(|merged| merged.entry).collect();
        Ok(Page { entries, next: merged.next, heard_all: read.has_heard_all() })
    }

    /// The members of `set` from `from` on for which `wanted` gives something, at most `limit`.
    pub(crate) async fn members<T>(
        &self,
        set: &SetName,
        from: Member,
        limit: usize,
        mut wanted: impl FnMut(SetEntry) -> Option<T>,
    ) -> Result<Vec<T>, ReadError> {
        let (mut found, mut from) = (Vec::new(), from);
        for _ in 0..MAX_PAGES {
            if found.len() >= limit {
                found.truncate(limit);
                return Ok(found);
            }
            // Members that were deleted take room in a page, so it is never asked short.
            let page = self.read_page(set, &from, MAX_ENTRIES_PER_PAGE).await?;
            let present = page.entries.into_iter().filter(SetEntry::is_present);
            found.extend(present.filter_map(&mut wanted));
            match page.next {
                Some(next) => from = next,
                None => {
                    found.truncate(limit);
                    return Ok(found);
                }
            }
        }
        Err(ReadError::Busy("members of one list"))
    }

    /// The entry of one member, if a majority keeps one.
    pub(crate) async fn read_entry(
        &self,
        set: &SetName,
        member: &Member,
    ) -> Result<Option<SetEntry>, ReadError> {
        let page = self.read_page(set, member, 1).await?;
        Ok(page.entries.into_iter().find(|entry| entry.member() == *member))
    }

    /// Makes `fact` have `value` on a majority, unless it has it. The entry that holds then.
    pub(crate) async fn settle_fact(
        &self,
        fact: &Fact,
        value: Option<&Vec<u8>>,
    ) -> Result<Settled, ReadError> {
        let (set, member) = (fact.set(), fact.member());
        // The word of a delete takes effect wherever it lands: it is not said before a majority has
        // been heard.
        let blind = value.is_none() || !matches!(fact, Fact::Deleted { .. });
        for _ in 0..MAX_ATTEMPTS {
            let kept = match self.read_page(&set, &member, 1).await {
                Ok(page) => {
                    let is_certain = page.heard_all;
                    let entry = page.entries.into_iter().find(|entry| entry.member() == member);
                    // What nobody ever said does not hold.
                    if entry.as_ref().and_then(SetEntry::value) == value {
                        let is_certain = is_certain || entry.is_some();
                        return Ok(Settled { entry, is_certain });
                    }
                    entry
                }
                // Too few know what holds, as when nodes are young. A majority may still take what
                // is to hold: whoever keeps something newer says so.
                Err(ReadError::Unavailable(_)) if blind => None,
                Err(error) => return Err(error),
            };
            let voters = self.voters(&set.key()).await?;
            let now = self.common_time(&voters).await;
            let stamp = names::next_stamp(kept.as_ref().map(SetEntry::stamp), now);
            let fact = FactRecord::sign(&self.signer, fact.clone(), value.cloned(), stamp);
            let entry = SetEntry::Fact(fact);
            match self.write_to(&entry, &voters).await? {
                None => return Ok(Settled { entry: Some(entry), is_certain: true }),
                Some(newer) if newer.value() == value => {
                    return Ok(Settled { entry: Some(newer), is_certain: true });
                }
                Some(_) => {}
            }
        }
        Err(self.lost("what was to be noted changes all the time; try again".into()))
    }

    /// This node's word that `fact` does not hold, newer than what it has heard of it.
    pub(crate) async fn own_word(&self, fact: &Fact) -> Result<SetEntry, ReadError> {
        let (keeper, set, member) = (self.keeper.clone(), fact.set(), fact.member());
        let heard = blocking(move || keeper.entry(&set, &member)).await;
        let heard = heard.map_err(ReadError::store)?.map_err(ReadError::store)?;
        let stamp = names::next_stamp(heard.as_ref().map(SetEntry::stamp), self.clock.now());
        Ok(SetEntry::Fact(FactRecord::sign(&self.signer, fact.clone(), None, stamp)))
    }

    /// Writes `entry` to a majority; what holds instead, when that is newer.
    pub(crate) async fn write_entry(
        &self,
        entry: &SetEntry,
    ) -> Result<Option<SetEntry>, ReadError> {
        let voters = self.voters(&entry.set().key()).await?;
        self.write_to(entry, &voters).await
    }

    /// Keeps `entry`, which is verified, on this node too, be it a voter or not.
    pub(crate) async fn keep_here(&self, entry: SetEntry) -> Result<(), ReadError> {
        let keeper = self.keeper.clone();
        let keep = move || keeper.keep(Keeping { entries: vec![entry], ..Keeping::default() });
        blocking(keep).await.map_err(ReadError::store)?.map_err(ReadError::store)?;
        Ok(())
    }

    /// What the voters say, as far as they say it in time.
    pub(super) async fn ask_page(
        &self,
        question: (&SetName, &Member, u16),
        voters: &Voters,
    ) -> SetRead {
        let mut read = SetRead::new(voters.all.iter().map(|voter| voter.id));
        voters.silent.iter().for_each(|silent| read.failed(*silent));
        let mut poll = Poll::page(self, question, voters);
        let mut verified = Verified::default();
        let limit = Instant::now() + LIMIT;
        let mut grace: Option<Instant> = None;
        while read.is_open() {
            let until = grace.map_or(limit, |grace| grace.min(limit));
            let Ok(Some((voter, answer))) = tokio::time::timeout_at(until, poll.next()).await
            else {
                break;
            };
            match self.verified(voters, (voter, answer), &mut verified).await {
                Some((page, false)) => read.answered(voter, page),
                Some((page, true)) => read.answered_young(voter, page),
                None => read.failed(voter),
            }
            if read.decide() == SetDecision::Ready && grace.is_none() {
                grace = Some(Instant::now() + GRACE);
            }
        }
        read.count_young();
        read
    }

    /// The pages of those who were there all the time, and who was not; see [`super::doubt`].
    pub(super) async fn hear_pages(
        &self,
        question: (&SetName, &Member, u16),
        voters: &Voters,
    ) -> (Vec<(NodeId, SetPage)>, BTreeSet<NodeId>) {
        let (mut said, mut unfit) = (Vec::new(), BTreeSet::new());
        let mut poll = Poll::history(self, question.0.key(), voters);
        while let Some((voter, answer)) = poll.next().await {
            if matches!(answer, Answer::Abstained | Answer::Doubtful) {
                unfit.insert(voter);
            }
        }
        let mut poll = Poll::page(self, question, voters);
        let mut verified = Verified::default();
        while let Some((voter, answer)) = poll.next().await {
            if unfit.contains(&voter) {
                continue;
            }
            let page = self.verified(voters, (voter, answer), &mut verified).await;
            if let Some((page, _)) = page {
                said.push((voter, page));
            }
        }
        (said, unfit)
    }

    /// Keeps a record, which is verified, on this node too.
    pub(super) async fn keep_name_here(&self, record: NameRecord) -> Result<(), ReadError> {
        let keeper = self.keeper.clone();
        let keep = move || keeper.keep(Keeping { names: vec![record], ..Keeping::default() });
        blocking(keep).await.map_err(ReadError::store)?.map_err(ReadError::store)?;
        Ok(())
    }

    /// Forgets what is kept here, and with a name its row in the local list of tags.
    pub(super) async fn drop_here(
        &self,
        record: Option<NameRecord>,
        entries: Vec<SetEntry>,
    ) -> Result<(), ReadError> {
        let (keeper, listed) = (self.keeper.clone(), record.clone());
        let drop = move || keeper.forget_rows(record.as_slice(), &entries);
        blocking(drop).await.map_err(ReadError::store)?.map_err(ReadError::store)?;
        match listed {
            Some(NameRecord { repository, tag, .. }) => {
                self.list_tag(&repository, &tag, None).await
            }
            None => Ok(()),
        }
    }

    /// Whether what the voters said may be believed.
    fn check_page(&self, read: &SetRead) -> Result<(), ReadError> {
        let of = read.count_voters();
        match read.decide() {
            SetDecision::Ready => Ok(()),
            SetDecision::Wait => {
                let counts = (read.count_answered(), of, names::read_quorum(of));
                Err(self.too_few("that keep this list answered in time", counts))
            }
            SetDecision::Impossible { answered, needed } => {
                Err(self.too_few("that keep this list answered", (answered, of, needed)))
            }
        }
    }

    /// The page of a voter, if every entry in it is signed as it says. What this node keeps is
    /// verified, and what two voters say alike is verified once.
    async fn verified(
        &self,
        voters: &Voters,
        (voter, answer): (NodeId, Answer<PageAnswer>),
        known: &mut Verified,
    ) -> Option<PageAnswer> {
        let Answer::Said((page, young)) = answer else { return None };
        let unknown: Vec<SetEntry> = page
            .entries
            .iter()
            .filter(|entry| {
                !known.entries.get(&entry.member()).is_some_and(|same| same.contains(entry))
            })
            .cloned()
            .collect();
        if voter != self.caller.own().id && !unknown.is_empty() {
            let entries = unknown.clone();
            let sound = move || entries.iter().all(|entry| entry.verify().is_ok());
            let is_sound = blocking(sound).await.unwrap_or(false);
            if !is_sound || !self.is_timely(voters, &unknown, known).await {
                tracing::debug!(peer = %voter, "a list held an entry that is forged or of the future");
                return None;
            }
        }
        for entry in unknown {
            known.entries.entry(entry.member()).or_default().push(entry);
        }
        Some((page, young))
    }

    /// Whether most voters would take the stamps of these entries now, be this node's own clock behind.
    async fn is_timely(&self, voters: &Voters, entries: &[SetEntry], known: &mut Verified) -> bool {
        let Some(latest) = entries.iter().map(SetEntry::stamp).max() else { return true };
        let own = self.clock.now();
        if names::stamp_is_acceptable(latest, own) {
            return true;
        }
        // Once for all voters: whoever sends entries of the future costs one round.
        let reached = match known.reached {
            Some(reached) => reached,
            None => self.reached_time(voters).await.unwrap_or(own),
        };
        known.reached = Some(reached);
        names::stamp_is_acceptable(latest, reached)
    }

    /// Tells the voters that were behind. Waits where fewer than a majority keep an entry.
    async fn settle_page(&self, entries: &[MergedEntry], voters: &Voters) -> Result<(), ReadError> {
        let quorum = names::write_quorum(voters.all.len());
        let mut writes = Vec::new();
        for merged in entries {
            let needed = quorum.saturating_sub(merged.kept_by);
            if needed == 0 && merged.behind.is_empty() {
                continue;
            }
            let behind = voters.all.iter().filter(|voter| merged.behind.contains(&voter.id));
            let behind: Vec<Contact> = behind.cloned().collect();
            writes.push(self.write_back(&merged.entry, behind, needed));
        }
        let mut writes = stream::iter(writes).buffer_unordered(MAX_WRITES_AT_ONCE);
        while let Some(written) = writes.next().await {
            written?;
        }
        Ok(())
    }
}

/// What was checked for one page.
#[derive(Default)]
struct Verified {
    /// Entries whose signature was, by member. At most one page of each voter.
    entries: BTreeMap<Member, Vec<SetEntry>>,
    /// The time that most voters have reached; asked for where an entry is ahead of this node's clock.
    reached: Option<Timestamp>,
}

/// Voters of which none is known to be silent.
pub(super) fn all_of(all: Vec<Contact>) -> Voters {
    Voters { all, silent: BTreeSet::new() }
}
