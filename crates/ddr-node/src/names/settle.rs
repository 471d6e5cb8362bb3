//! Names go where they belong: late joiners learn what they are to keep.
//!
//! A node that keeps names and entries of lists gives each to the current K closest nodes: on a timer, and soon after a
//! new node was met. It remembers whom it told, so a quiet swarm sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ddr_proto::id::NodeId;
use ddr_proto::names;
use ddr_proto::wire::{Contact, NameRecord, SetEntry};
use ddr_store::IndexError;
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::sets::all_of;
use super::vote::{Answer, Kept};
use super::{COPIES, Parts, Poll, Voters};
use crate::blocking;

/// How often every kept name is looked at.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// How long to wait after a new node was met: others often come with it.
const AFTER_CHANGE: Duration = Duration::from_millis(500);
/// Names read from disk at once.
const PAGE: usize = 256;
/// Names that are told at once.
const MAX_AT_ONCE: usize = 8;
/// Names whose keepers are remembered; the rest is told again each round.
const MAX_TOLD: usize = 16_384;

/// Per name or member: the stamp, and who is known to keep it.
type Told = BTreeMap<[u8; 32], (u64, BTreeSet<NodeId>)>;

/// Runs rounds until `stop`.
pub(crate) async fn run(parts: Arc<Parts>, mut stop: watch::Receiver<bool>) {
    let mut told = Told::new();
    loop {
        let change = async {
            parts.peers.met_somebody().await;
            tokio::time::sleep(AFTER_CHANGE).await;
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = change => {}
            () = tokio::time::sleep(ROUND_EVERY) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = round(&parts, &mut told) => {}
        }
    }
}

async fn round(parts: &Parts, told: &mut Told) {
    if parts.keeper.doubts() {
        // What may have been deleted is passed on to nobody.
        return;
    }
    let contacts: Vec<Contact> = parts
        .overlay
        .view()
        .await
        .contacts
        .into_iter()
        .filter(|peer| peer.alive)
        .map(|peer| peer.contact)
        .collect();
    if let Err(error) = settle_names(parts, &contacts, told).await {
        return tracing::error!(%error, "names cannot be read");
    }
    if let Err(error) = settle_sets(parts, &contacts, told).await {
        tracing::error!(%error, "lists cannot be read");
    }
}

async fn settle_names(parts: &Parts, contacts: &[Contact], told: &mut Told) -> io::Result<()> {
    let mut after = None;
    loop {
        let (store, keeper) = (parts.store.clone(), Arc::clone(&parts.keeper));
        let page = blocking(move || {
            let page = store.names(PAGE, after)?;
            let last = page.last().map(|(key, _)| *key);
            let records = page.iter().filter_map(|(_, bytes)| NameRecord::from_bytes(bytes).ok());
            let records: Vec<NameRecord> = records.collect();
            keeper.drop_ended(&records, &[])?;
            Ok::<_, IndexError>((records, last))
        });
        let (records, last) = page.await??;
        if last.is_none() {
            return Ok(());
        }
        after = last;
        tell_all(parts, contacts, told, records).await;
    }
}

async fn settle_sets(parts: &Parts, contacts: &[Contact], told: &mut Told) -> io::Result<()> {
    let mut after = None::<([u8; 32], Vec<u8>)>;
    loop {
        let (store, keeper) = (parts.store.clone(), Arc::clone(&parts.keeper));
        let from = after.take();
        let page = blocking(move || {
            let from = from.as_ref().map(|(set, member)| (*set, member.as_slice()));
            let rows = store.sets(PAGE, from)?;
            let last = rows.last().map(|(set, member, _)| (*set, member.clone()));
            let entries = rows.iter().filter_map(|(_, _, row)| SetEntry::from_bytes(row).ok());
            let entries: Vec<SetEntry> = entries.collect();
            keeper.drop_ended(&[], &entries)?;
            Ok::<_, IndexError>((entries, last))
        });
        let (entries, last) = page.await??;
        if last.is_none() {
            return Ok(());
        }
        after = last;
        tell_all(parts, contacts, told, entries).await;
    }
}

async fn tell_all<R: Kept>(parts: &Parts, contacts: &[Contact], told: &mut Told, records: Vec<R>) {
    let errands: Vec<_> =
        records.into_iter().filter_map(|record| errand(parts, contacts, told, record)).collect();
    let mut errands =
        stream::iter(errands.into_iter().map(|(record, voters)| tell(parts, record, voters)))
            .buffer_unordered(MAX_AT_ONCE);
    while let Some((record, keepers)) = errands.next().await {
        remember(told, &record, keepers);
    }
}

/// Who is to be told of `record`, if anybody.
fn errand<R: Kept>(
    parts: &Parts,
    contacts: &[Contact],
    told: &Told,
    record: R,
) -> Option<(R, Voters)> {
    let own = parts.caller.own();
    let slot = record.slot();
    let known = told.get(slot.as_bytes()).filter(|(stamp, _)| *stamp == record.stamp());
    let mut all = names::voters(own, contacts, &record.place(), COPIES);
    all.retain(|voter| {
        voter.id != own.id && !known.is_some_and(|(_, keepers)| keepers.contains(&voter.id))
    });
    (!all.is_empty()).then(|| (record, all_of(all)))
}

/// Tells `voters`; answers who keeps it or something newer now.
async fn tell<R: Kept>(parts: &Parts, record: R, voters: Voters) -> (R, Vec<NodeId>) {
    let mut poll = Poll::put(parts, &record, &voters);
    let mut keepers = Vec::new();
    while let Some((voter, answer)) = poll.next().await {
        match answer {
            Answer::Said(None) => keepers.push(voter),
            Answer::Said(Some(newer)) => {
                keepers.push(voter);
                // It is newer than what is kept here: take it.
                parts.keeper.answer(newer.put()).await;
            }
            Answer::Abstained | Answer::Doubtful | Answer::Failed => {}
        }
    }
    (record, keepers)
}

fn remember<R: Kept>(told: &mut Told, record: &R, keepers: Vec<NodeId>) {
    let slot = *record.slot().as_bytes();
    if told.len() >= MAX_TOLD && !told.contains_key(&slot) {
        return;
    }
    let row = told.entry(slot).or_insert((record.stamp(), BTreeSet::new()));
    if row.0 != record.stamp() {
        *row = (record.stamp(), BTreeSet::new());
    }
    row.1.extend(keepers);
}
