//! A node that comes back after the others have forgotten their tombstones.
//!
//! What such a node kept may have been deleted since, and nobody remembers that. So it doubts all that
//! was on its disk when it started: it neither answers with it nor passes it on, until it has compared
//! it with the nodes that were there meanwhile. What a read quorum of those does not know is dropped.
//! Where nobody was there meanwhile, as when a whole swarm was switched off, all is believed again.
//!
//! It must never drop anything on the word of a node that is new or doubts itself. Who is fit to say that
//! something is unknown answers a question for its history.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ddr_oci::Digest;
use ddr_proto::id::Key;
use ddr_proto::names::{Read, ReadDecision, SetDecision, SetRead};
use ddr_proto::wire::{
    Contact, MAX_ENTRIES_PER_PAGE, Member, NameRecord, RefuseReason, Request, Response, SetEntry,
};
use ddr_store::{IndexError, Store};
use tokio::sync::watch;

use super::keeper::TOMBSTONE_MS;
use super::vote::{Answer, Poll, VOTER_TIMEOUT, speaks_for};
use super::{Parts, Voters};
use crate::clock::Clock;
use crate::{ReadError, blocking};

/// When the node was last in touch with its swarm, Unix milliseconds as 8 bytes.
const IN_TOUCH: &str = "in-touch";
/// There while what the node keeps is doubted.
const DOUBT: &str = "doubt";
/// How long to wait before what could not be compared is compared again.
const AGAIN: Duration = Duration::from_secs(2);
/// Rows compared at once.
const PAGE: usize = 64;

/// Notes that the node is in touch now, unless it doubts. Blocks.
pub(crate) fn note_in_touch(store: &Store, clock: &Clock) -> Result<(), IndexError> {
    store.set_setting(IN_TOUCH, &clock.now_ms().to_be_bytes())
}

/// What a node that starts is worth as a witness of what was deleted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// It was never in touch with others: that it lacks something means nothing while it is young.
    New,
    /// It was away for a short time only, or is its own swarm.
    Sound,
    /// It was away for longer than tombstones are kept.
    Doubtful,
}

/// The standing of the node that starts with this store; noted while it is doubtful. Blocks.
pub(crate) fn standing(store: &Store, clock: &Clock, joins: bool) -> Result<Standing, IndexError> {
    if store.get_setting(DOUBT)?.is_some_and(|value| !value.is_empty()) {
        return Ok(Standing::Doubtful);
    }
    let last = store.get_setting(IN_TOUCH)?.and_then(|bytes| bytes.try_into().ok());
    let last = last.map(u64::from_be_bytes);
    let was_away = last.is_some_and(|last| last.saturating_add(TOMBSTONE_MS) < clock.now_ms());
    if joins && was_away {
        store.set_setting(DOUBT, &[1])?;
        return Ok(Standing::Doubtful);
    }
    Ok(if joins && last.is_none() { Standing::New } else { Standing::Sound })
}

/// Compares what is kept until nothing is doubted any more, or `stop`.
pub(crate) async fn run(parts: Arc<Parts>, mut stop: watch::Receiver<bool>) {
    if !parts.keeper.doubts() {
        return;
    }
    tracing::warn!("this node was away for long: what it keeps is compared with the others first");
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = settle(&parts) => tracing::info!("what this node keeps is believed again"),
    }
}

async fn settle(parts: &Parts) {
    let mut sweep = Sweep::default();
    loop {
        let done = match others(parts).await {
            Others::Unknown => Ok(false),
            Others::NoneKnowsBetter => Ok(true),
            Others::SomeKnowBetter => sweep.go_on(parts).await,
        };
        match done {
            Ok(true) => {
                let (store, keeper) = (parts.store.clone(), Arc::clone(&parts.keeper));
                let end = blocking(move || {
                    store.set_setting(DOUBT, &[])?;
                    keeper.believe();
                    Ok::<_, IndexError>(())
                });
                match end.await {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => tracing::error!(%error, "the end of a doubt is not noted"),
                    Err(error) => tracing::error!(%error, "the end of a doubt is not noted"),
                }
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "what is kept could not be compared yet"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What the nodes that are alive are worth as witnesses.
enum Others {
    /// Not all of them have said yet.
    Unknown,
    /// All are new, or doubt too.
    NoneKnowsBetter,
    /// One at least was there meanwhile.
    SomeKnowBetter,
}

/// Asks every member that was alive lately about a name that nobody has: who was there says so.
async fn others(parts: &Parts) -> Others {
    let own = parts.caller.own().id;
    let near = parts.overlay.closest(own.to_key()).await.unwrap_or_default();
    near.iter().for_each(|contact| parts.peers.alive(contact));
    let mut members: Vec<Contact> = parts.peers.members_alive_lately();
    members.retain(|member| member.id != own);
    let Ok(random) = getrandom::u64() else { return Others::Unknown };
    let key = Key::of_content(&Digest::sha256(&random.to_be_bytes()));
    let calls = members
        .iter()
        .map(|member| parts.caller.call(member, Request::GetHistory { key }, VOTER_TIMEOUT));
    let answers = futures_util::future::join_all(calls).await;
    let counts =
        |wanted: fn(&Response) -> bool| answers.iter().flatten().filter(|one| wanted(one)).count();
    if counts(|answer| matches!(answer, Response::History { .. })) > 0 {
        return Others::SomeKnowBetter;
    }
    let unfit = counts(|answer| {
        matches!(
            answer,
            Response::Refused { reason: RefuseReason::Doubtful | RefuseReason::Unsupported }
        )
    });
    if unfit > 0 && unfit == members.len() { Others::NoneKnowsBetter } else { Others::Unknown }
}

/// How far the comparison has come.
#[derive(Default)]
struct Sweep {
    after_name: Option<[u8; 32]>,
    names_done: bool,
    after_entry: Option<([u8; 32], Vec<u8>)>,
}

impl Sweep {
    /// Compares page by page. True: all of it is compared; false: too few witnesses answered.
    async fn go_on(&mut self, parts: &Parts) -> Result<bool, ReadError> {
        while !self.names_done {
            let (records, last) = names_after(parts, self.after_name).await?;
            for record in records {
                if !compare_name(parts, record).await? {
                    return Ok(false);
                }
            }
            match last {
                Some(last) => self.after_name = Some(last),
                None => self.names_done = true,
            }
        }
        loop {
            let (entries, last) = entries_after(parts, self.after_entry.clone()).await?;
            for of_one_set in entries.chunk_by(|one, two| one.set() == two.set()) {
                if !compare_entries(parts, of_one_set).await? {
                    return Ok(false);
                }
            }
            match last {
                Some(last) => self.after_entry = Some(last),
                None => return Ok(true),
            }
        }
    }
}

type NamesPage = (Vec<NameRecord>, Option<[u8; 32]>);
type EntriesPage = (Vec<SetEntry>, Option<([u8; 32], Vec<u8>)>);

async fn names_after(parts: &Parts, after: Option<[u8; 32]>) -> Result<NamesPage, ReadError> {
    let store = parts.store.clone();
    let page = blocking(move || store.names(PAGE, after)).await;
    let page = page.map_err(ReadError::store)?.map_err(ReadError::store)?;
    let last = page.last().map(|(key, _)| *key);
    let records = page.iter().filter_map(|(_, bytes)| NameRecord::from_bytes(bytes).ok());
    Ok((records.collect(), last))
}

async fn entries_after(
    parts: &Parts,
    after: Option<([u8; 32], Vec<u8>)>,
) -> Result<EntriesPage, ReadError> {
    let store = parts.store.clone();
    let page = blocking(move || {
        let from = after.as_ref().map(|(set, member)| (*set, member.as_slice()));
        store.sets(PAGE, from)
    });
    let page = page.await.map_err(ReadError::store)?.map_err(ReadError::store)?;
    let last = page.last().map(|(set, member, _)| (*set, member.clone()));
    let entries = page.iter().filter_map(|(_, _, row)| SetEntry::from_bytes(row).ok());
    Ok((entries.collect(), last))
}

/// The voters on `key` without this node.
async fn witnesses(parts: &Parts, key: &Key) -> Result<Voters, ReadError> {
    let Voters { mut all, silent } = parts.voters(key).await?;
    all.retain(|voter| voter.id != parts.caller.own().id);
    Ok(Voters { all, silent })
}

/// Drops or confirms one record; false where too few witnesses answered.
async fn compare_name(parts: &Parts, record: NameRecord) -> Result<bool, ReadError> {
    if !parts.keeper.is_doubted(record.stamp) {
        return Ok(true);
    }
    let key = record.key();
    let voters = witnesses(parts, &key).await?;
    let mut poll = Poll::history(parts, key, &voters);
    let (mut said, mut unfit) = (Vec::new(), BTreeSet::new());
    while let Some((voter, answer)) = poll.next().await {
        match answer {
            Answer::Said(records) => said.push((voter, records)),
            Answer::Abstained | Answer::Doubtful => drop(unfit.insert(voter)),
            Answer::Failed => {}
        }
    }
    if voters.all.len() == unfit.len() {
        return Ok(true);
    }
    let fit = voters.all.iter().map(|voter| voter.id).filter(|voter| !unfit.contains(voter));
    let mut read = Read::new(fit);
    for (voter, records) in said {
        let newest = records.into_iter().next();
        match newest.as_ref().is_none_or(|newest| speaks_for(newest, &key)) {
            true => read.answered(voter, newest),
            false => read.failed(voter),
        }
    }
    voters.all.iter().for_each(|voter| read.failed(voter.id));
    match read.decide() {
        ReadDecision::Newest { record: newest, .. } => {
            parts.keep_name_here(newest).await?;
            Ok(true)
        }
        ReadDecision::Nothing | ReadDecision::NothingYet => {
            tracing::info!(repository = %record.repository, tag = %record.tag, "it was deleted meanwhile");
            parts.drop_here(Some(record), Vec::new()).await?;
            Ok(true)
        }
        ReadDecision::Wait | ReadDecision::Impossible { .. } => Ok(false),
    }
}

/// Drops or confirms entries of one set, in the order of members.
async fn compare_entries(parts: &Parts, entries: &[SetEntry]) -> Result<bool, ReadError> {
    let mut rest: Vec<SetEntry> =
        entries.iter().filter(|entry| parts.keeper.is_doubted(entry.stamp())).cloned().collect();
    while let Some(first) = rest.first() {
        let (set, from) = (first.set(), first.member());
        let voters = witnesses(parts, &set.key()).await?;
        let question = (&set, &from, MAX_ENTRIES_PER_PAGE as u16);
        let (said, unfit) = parts.hear_pages(question, &voters).await;
        if voters.all.len() == unfit.len() {
            return Ok(true);
        }
        let fit = voters.all.iter().map(|voter| voter.id).filter(|voter| !unfit.contains(voter));
        let mut read = SetRead::new(fit);
        said.into_iter().for_each(|(voter, page)| read.answered(voter, page));
        voters.all.iter().for_each(|voter| read.failed(voter.id));
        if read.decide() != SetDecision::Ready {
            return Ok(false);
        }
        let page = read.merge();
        let known: BTreeSet<Member> =
            page.entries.iter().map(|merged| merged.entry.member()).collect();
        for merged in page.entries {
            parts.keep_here(merged.entry).await?;
        }
        let reached =
            |entry: &SetEntry| page.next.as_ref().is_none_or(|next| entry.member() < *next);
        let (compared, later): (Vec<_>, Vec<_>) = rest.into_iter().partition(reached);
        let lost = compared.into_iter().filter(|entry| !known.contains(&entry.member())).collect();
        parts.drop_here(None, lost).await?;
        rest = later;
    }
    Ok(true)
}
