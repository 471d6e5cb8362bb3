//! Names go where they belong: late joiners learn what they are to keep.
//!
//! A node that keeps names gives each to the current K closest nodes: on a timer, and soon after a
//! new node was met. It remembers whom it told, so a quiet swarm sends nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ddr_proto::id::NodeId;
use ddr_proto::names;
use ddr_proto::wire::{Contact, NameRecord};
use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::vote::Answer;
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
const MAX_TOLD: usize = 8192;

/// Per key: the stamp, and who is known to keep it.
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
    let contacts: Vec<Contact> = parts
        .overlay
        .view()
        .await
        .contacts
        .into_iter()
        .filter(|peer| peer.alive)
        .map(|peer| peer.contact)
        .collect();
    if contacts.is_empty() {
        return;
    }
    let mut after = None;
    loop {
        let store = parts.store.clone();
        let page = match blocking(move || store.names(PAGE, after)).await {
            Ok(Ok(page)) => page,
            Ok(Err(error)) => return tracing::error!(%error, "names cannot be read"),
            Err(error) => return tracing::error!(%error, "names cannot be read"),
        };
        let Some((last, _)) = page.last() else { return };
        after = Some(*last);
        let records = page.iter().filter_map(|(_, bytes)| NameRecord::from_bytes(bytes).ok());
        let errands: Vec<_> =
            records.filter_map(|record| errand(parts, &contacts, told, record)).collect();
        let mut errands =
            stream::iter(errands.into_iter().map(|(record, voters)| tell(parts, record, voters)))
                .buffer_unordered(MAX_AT_ONCE);
        while let Some((record, keepers)) = errands.next().await {
            remember(told, &record, keepers);
        }
    }
}

/// Who is to be told of `record`, if anybody.
fn errand(
    parts: &Parts,
    contacts: &[Contact],
    told: &Told,
    record: NameRecord,
) -> Option<(NameRecord, Voters)> {
    let key = record.key();
    let own = parts.caller.own();
    let known = told.get(key.as_bytes()).filter(|(stamp, _)| *stamp == record.stamp);
    let mut all = names::voters(own, contacts, &key, COPIES);
    all.retain(|voter| {
        voter.id != own.id && !known.is_some_and(|(_, keepers)| keepers.contains(&voter.id))
    });
    (!all.is_empty()).then(|| (record, Voters { all, silent: BTreeSet::new() }))
}

/// Tells `voters`; answers who keeps it or something newer now.
async fn tell(parts: &Parts, record: NameRecord, voters: Voters) -> (NameRecord, Vec<NodeId>) {
    let mut poll = Poll::put(parts, &record, &voters);
    let mut keepers = Vec::new();
    while let Some((voter, answer)) = poll.next().await {
        match answer {
            Answer::Record(None) => keepers.push(voter),
            Answer::Record(Some(newer)) => {
                keepers.push(voter);
                // It is newer than what is kept here: take it.
                let request = ddr_proto::wire::Request::PutName { record: *newer };
                parts.keeper.answer(request).await;
            }
            Answer::Abstained | Answer::Failed => {}
        }
    }
    (record, keepers)
}

fn remember(told: &mut Told, record: &NameRecord, keepers: Vec<NodeId>) {
    let key = *record.key().as_bytes();
    if told.len() >= MAX_TOLD && !told.contains_key(&key) {
        return;
    }
    let row = told.entry(key).or_insert((record.stamp, BTreeSet::new()));
    if row.0 != record.stamp {
        *row = (record.stamp, BTreeSet::new());
    }
    row.1.extend(keepers);
}
