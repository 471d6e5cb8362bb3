//! One fetch through the swarm: all pieces of one blob from whoever has them, into the store.
//!
//! Decides when a fetch goes on, starts over with another size, or fails, and what its readers are
//! told. It must never commit content whose digest is not proven; the store checks that, and this
//! module never goes around it.

use std::sync::Arc;
use std::time::Duration;

use ddr_oci::{PieceChain, RepositoryName};
use ddr_store::{PartialBlob, PartialError};
use tokio::time::Instant;

use super::fetch::link_all;
use super::progress::{Phase, Trust};
use super::slot::Slot;
use super::wanted::Wants;
use super::{Shared, probe};
use crate::blocking;
use crate::swarm::{End, Gathering, MAX_PIECE_BYTES, State, Ticket};

/// How often a fetch looks whether anybody still reads it.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Why a blob was not brought here.
enum Why {
    /// Nobody reads it any more.
    Left,
    Failed(Arc<str>),
}

/// Whether a blob of this size goes through the swarm: it has pieces, and they are not too large.
pub(super) fn fits(size: u64) -> bool {
    let len = PieceChain::piece_len_for(size);
    size > len && len <= MAX_PIECE_BYTES
}

/// Runs the fetch of `slot` to its end. `Err`: the size seems to be this one, and is none for the
/// swarm.
pub(super) async fn run(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    repository: &RepositoryName,
    size: u64,
) -> Result<Phase, u64> {
    metrics::counter!(crate::metrics::FETCHES).increment(1);
    shared.traffic.fetch_started();
    let first = match attempt(shared, slot, repository, size).await {
        Ok(()) => return Ok(Phase::Committed),
        Err(Why::Left) => return Ok(Phase::Left),
        Err(Why::Failed(why)) => why,
    };
    if !slot.take_back() {
        return Ok(Phase::Failed(first));
    }
    // Nobody could fill that size: others may tell another one.
    match probe::first_size(shared, repository, &slot.digest, Some(size)).await {
        probe::First::Size(other, _) if !fits(other) => Err(other),
        probe::First::Size(other, _) => match attempt(shared, slot, repository, other).await {
            Ok(()) => Ok(Phase::Committed),
            Err(Why::Left) => Ok(Phase::Left),
            Err(Why::Failed(why)) => Ok(Phase::Failed(why)),
        },
        probe::First::Absent | probe::First::Unknown => Ok(Phase::Failed(first)),
    }
}

/// One try with this size.
async fn attempt(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    repository: &RepositoryName,
    size: u64,
) -> Result<(), Why> {
    let (gathering, have) = begin(shared, slot, repository, size).await.map_err(Why::Failed)?;
    let gathering = Arc::new(gathering);
    shared.announcer.announce_part(slot.digest);
    let mut wants = Wants::new(size, Instant::now());
    let interest = wants.interest(slot.readers().wish().as_ref(), false, Instant::now());
    let ticket = shared.swarm.fetch(Arc::clone(&gathering), have, interest).await;
    let gathered = follow(shared, slot, &gathering, wants).await;
    let ended = match gathered {
        Ok(()) => store(shared, slot, &gathering).await.map_err(Why::Failed),
        Err(why) => Err(why),
    };
    close(shared, slot, ticket, ended).await
}

/// Takes up what an earlier run left, and looks at every piece of it.
async fn begin(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    repository: &RepositoryName,
    size: u64,
) -> Result<(Gathering, Vec<u32>), Arc<str>> {
    let (store, digest) = (shared.store.clone(), slot.digest);
    let found = blocking(move || resume(&store, &digest, size));
    let found = found.await.map_err(text)?.map_err(text)?;
    let admitted = Arc::downgrade(slot);
    let admits =
        move |name: &RepositoryName| admitted.upgrade().is_some_and(|slot| slot.admits(name));
    let (store, repository) = (shared.store.clone(), repository.clone());
    let tally = Arc::clone(&slot.tally);
    let admits = Box::new(admits);
    let gathering = Gathering::new((digest, size), repository, (admits, tally), store, found);
    let have = gathering.have();
    if !have.is_empty() {
        tracing::info!(%digest, pieces = have.len(), "a fetch goes on where it was");
    }
    Ok((gathering, have))
}

/// Blocks for as long as it takes to read what is here.
fn resume(
    store: &ddr_store::Store,
    digest: &ddr_oci::Digest,
    size: u64,
) -> Result<Option<PartialBlob>, PartialError> {
    let Some(partial) = store.resume_partial(digest)? else { return Ok(None) };
    if partial.reader().size() != size {
        partial.discard();
        return Ok(None);
    }
    while partial.check_next()?.is_some() {}
    Ok(Some(partial))
}

/// Tells readers what comes, and the swarm where they read, until all is here.
async fn follow(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    gathering: &Arc<Gathering>,
    mut wants: Wants,
) -> Result<(), Why> {
    let mut states = gathering.watch();
    let mut places = slot.readers().watch();
    let mut said = None;
    loop {
        let State { reader, is_settled, is_vouched, end, .. } = states.borrow_and_update().clone();
        if let Some(reader) = reader {
            let trust = match (is_settled, is_vouched) {
                (false, _) => Trust::Doubted,
                (true, false) => Trust::Settled,
                (true, true) => Trust::Vouched,
            };
            slot.pieces(gathering.size, reader, trust);
        }
        match end {
            Some(End::Complete) => return Ok(()),
            Some(End::Failed(why)) => return Err(Why::Failed(why)),
            None => {}
        }
        let (wish, now) = (places.wish(), Instant::now());
        let interest = wants.interest(wish.as_ref(), is_vouched, now);
        if said.as_ref() != Some(&interest) {
            shared.swarm.interest(gathering.key, interest.clone()).await;
            said = Some(interest);
        }
        if wants.is_abandoned(wish.is_some(), now) {
            return Err(Why::Left);
        }
        tokio::select! {
            changed = states.changed() => changed.map_err(|gone| Why::Failed(text(gone)))?,
            () = places.changed() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// All pieces are here: makes them a blob that is linked where it was asked for.
async fn store(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    gathering: &Arc<Gathering>,
) -> Result<(), Arc<str>> {
    // The chain has closed on the digest: clients get the end now, not after the disk has caught up.
    if gathering.reader().is_some_and(|reader| reader.is_complete()) {
        slot.proven();
    }
    let (shared, slot, gathering) = (Arc::clone(shared), Arc::clone(slot), Arc::clone(gathering));
    let work = move || {
        gathering.commit().map_err(text)?;
        link_all(&shared, &slot).map_err(text)
    };
    blocking(work).await.map_err(text)?
}

/// Ends the gathering and says to others what is here now.
async fn close(
    shared: &Arc<Shared>,
    slot: &Arc<Slot>,
    ticket: Ticket,
    ended: Result<(), Why>,
) -> Result<(), Why> {
    ticket.close(ended.is_ok()).await;
    match &ended {
        Ok(()) => shared.announcer.announce_again(slot.digest),
        Err(_) => shared.announcer.withdraw(&slot.digest).await,
    }
    ended
}

fn text(error: impl std::fmt::Display) -> Arc<str> {
    error.to_string().into()
}
