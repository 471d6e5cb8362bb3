//! Names go where they belong: late joiners learn what they are to keep.
//!
//! A node that keeps names and entries of lists gives each to the current K closest nodes: on a timer, and soon after
//! a new node was met or one has left. It remembers whom it told, so a quiet swarm sends nothing. When it leaves
//! itself, it gives each to the node that takes its place.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ddr_proto::id::{Key, NodeId};
use ddr_proto::names;
use ddr_proto::wire::{Contact, NameRecord, SetEntry};
use ddr_store::IndexError;
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::sets::all_of;
use super::told::Told;
use super::vote::{Answer, Kept};
use super::{COPIES, Parts, Poll, Voters};
use crate::blocking;

/// How often every kept name is looked at.
const ROUND_EVERY: Duration = Duration::from_secs(60);
/// How long to wait after a new node was met, or one has left: others often come or go with it.
const AFTER_CHANGE: Duration = Duration::from_millis(500);
/// Names read from disk at once.
const PAGE: usize = 256;
/// Names that are told at once.
const MAX_AT_ONCE: usize = 8;
/// How long a node that leaves takes for that at most.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(3);

/// One look at all that is kept here.
struct Tour<'a> {
    contacts: Vec<Contact>,
    told: &'a mut Told,
    /// This node is about to leave.
    leaves: bool,
}

/// Runs rounds until `stop`.
pub(crate) async fn run(parts: Arc<Parts>, mut stop: watch::Receiver<bool>) {
    let mut told = Told::default();
    loop {
        let change = async {
            parts.peers.changed().await;
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

/// Gives what this node keeps to those who come to keep it when it leaves: of each name the last of the K
/// closest without this node.
pub(crate) async fn hand_over(parts: &Parts) {
    let (contacts, mut told) = (alive(parts).await, Told::default());
    // In a swarm of up to K nodes everybody keeps everything.
    if contacts.len() < COPIES || parts.keeper.doubts() {
        return;
    }
    let tour = tour(parts, Tour { contacts, told: &mut told, leaves: true });
    if tokio::time::timeout(HAND_OVER_LIMIT, tour).await.is_err() {
        tracing::warn!(
            "not every name was handed over; the other nodes that keep them settle that"
        );
    }
}

async fn round(parts: &Parts, told: &mut Told) {
    // What may have been deleted is passed on to nobody.
    if !parts.keeper.doubts() {
        let contacts = alive(parts).await;
        tour(parts, Tour { contacts, told, leaves: false }).await;
    }
}

async fn alive(parts: &Parts) -> Vec<Contact> {
    let contacts = parts.overlay.view().await.contacts.into_iter();
    contacts.filter(|peer| peer.alive).map(|peer| peer.contact).collect()
}

async fn tour(parts: &Parts, mut tour: Tour<'_>) {
    if let Err(error) = settle_names(parts, &mut tour).await {
        return tracing::error!(%error, "names cannot be read");
    }
    if let Err(error) = settle_sets(parts, &mut tour).await {
        tracing::error!(%error, "lists cannot be read");
    }
}

async fn settle_names(parts: &Parts, tour: &mut Tour<'_>) -> io::Result<()> {
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
        tell_all(parts, tour, records).await;
    }
}

async fn settle_sets(parts: &Parts, tour: &mut Tour<'_>) -> io::Result<()> {
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
        tell_all(parts, tour, entries).await;
    }
}

async fn tell_all<R: Kept>(parts: &Parts, tour: &mut Tour<'_>, records: Vec<R>) {
    let errands: Vec<_> =
        records.into_iter().filter_map(|record| errand(parts, tour, record)).collect();
    let mut errands =
        stream::iter(errands.into_iter().map(|(record, voters)| tell(parts, record, voters)))
            .buffer_unordered(MAX_AT_ONCE);
    while let Some((record, keepers)) = errands.next().await {
        tour.told.remember(&record.slot(), record.stamp(), keepers);
    }
}

/// Who is to be told of `record`, if anybody.
fn errand<R: Kept>(parts: &Parts, tour: &Tour<'_>, record: R) -> Option<(R, Voters)> {
    let (own, place) = (parts.caller.own(), record.place());
    let mut all = if tour.leaves {
        successor(&tour.contacts, &own.id, &place).into_iter().cloned().collect()
    } else {
        names::voters(own, &tour.contacts, &place, COPIES)
    };
    let (slot, stamp) = (record.slot(), record.stamp());
    all.retain(|voter| voter.id != own.id && !tour.told.knows(&slot, stamp, &voter.id));
    (!all.is_empty()).then(|| (record, all_of(all)))
}

/// Who is among the K closest to `place` once `own` is gone, and not before.
fn successor<'a>(contacts: &'a [Contact], own: &NodeId, place: &Key) -> Option<&'a Contact> {
    let mut others: Vec<&Contact> = contacts.iter().filter(|contact| contact.id != *own).collect();
    others.sort_by_key(|contact| contact.id.distance(place));
    let last = *others.get(COPIES - 1)?;
    (own.distance(place) < last.id.distance(place)).then_some(last)
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
