//! One blob on its way here in pieces: the chains that are known of it and the pieces that are here.
//!
//! Decides nothing about peers. It must never count a piece as here that did not pass under the
//! chain that the core uses, nor let clients read what only a chain in doubt proves.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ddr_oci::{Digest, PieceChain, RepositoryName};
use ddr_proto::id::Key;
use ddr_proto::swarm::ClaimId;
use ddr_proto::wire::SignedChain;
use ddr_store::{PartialBlob, PartialError, PartialReader, PieceError, Store, Written};
use tokio::sync::watch;

use crate::pull::Tally;

/// Chains of one blob that are remembered; the oldest that is not in use goes first.
const MAX_CHAINS: usize = 20;

/// Whether a repository may have pieces of the blob.
pub(crate) type Admits = Box<dyn Fn(&RepositoryName) -> bool + Send + Sync>;

/// See the module comment.
pub(crate) struct Gathering {
    pub(crate) digest: Digest,
    pub(crate) key: Key,
    /// Bytes of the blob, as a holder told.
    pub(crate) size: u64,
    /// In whose name others are asked.
    pub(crate) repository: RepositoryName,
    /// What came, from whom.
    pub(super) tally: Arc<Tally>,
    admits: Admits,
    store: Store,
    chains: Mutex<Chains>,
    /// `None` until a chain is known, and after the end.
    partial: RwLock<Option<PartialBlob>>,
    state: watch::Sender<State>,
}

/// What those who wait for the blob are told.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// Reads the pieces, once a chain is known.
    pub(crate) reader: Option<PartialReader>,
    /// Pieces can be held against a chain.
    pub(super) has_chain: bool,
    /// Clients may be given what is here.
    pub(crate) is_settled: bool,
    /// Parts of the blob may be given before the rest is here.
    pub(crate) is_vouched: bool,
    /// How it ended, if it did.
    pub(crate) end: Option<End>,
}

/// The end of a gathering.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// All pieces are here.
    Complete,
    /// No holder is left, or this node failed.
    Failed(Arc<str>),
}

#[derive(Default)]
struct Chains {
    known: Vec<Arc<Claim>>,
    /// What the core uses.
    used: Option<ClaimId>,
    /// What pieces are held against; follows `used`.
    applied: Option<ClaimId>,
    is_settled: bool,
    is_vouched: bool,
    doubt: Option<(u32, ClaimId)>,
}

struct Claim {
    id: ClaimId,
    signed: SignedChain,
    chain: PieceChain,
}

/// What became of a piece that was held against the chains.
pub(super) enum Checked {
    /// It is here, or decides a dispute.
    Passed(ClaimId),
    Wrong,
    /// There is no chain in use.
    Unchecked,
    /// This node cannot store it.
    Stopped(PieceError),
}

impl Gathering {
    /// A blob of `size` bytes that is asked for in the name of `repository`; `partial` is what an
    /// earlier run left, looked at.
    pub(crate) fn new(
        (digest, size): (Digest, u64),
        repository: RepositoryName,
        (admits, tally): (Admits, Arc<Tally>),
        store: Store,
        partial: Option<PartialBlob>,
    ) -> Self {
        let reader = partial.as_ref().map(PartialBlob::reader);
        Self {
            digest,
            key: Key::of_content(&digest),
            size,
            repository,
            tally,
            admits,
            store,
            chains: Mutex::default(),
            partial: RwLock::new(partial),
            state: watch::Sender::new(State { reader, ..State::default() }),
        }
    }

    /// What happens from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Whether pieces may be given in the name of `repository`.
    pub(crate) fn admits(&self, repository: &RepositoryName) -> bool {
        (self.admits)(repository)
    }

    /// Reads the pieces that are here.
    pub(crate) fn reader(&self) -> Option<PartialReader> {
        self.state.borrow().reader.clone()
    }

    /// The chain in use, as it was signed.
    pub(crate) fn signed_chain(&self) -> Option<SignedChain> {
        let chains = self.chains();
        chains.used.and_then(|used| chains.find(used)).map(|claim| claim.signed.clone())
    }

    /// Piece `index`, as bytes of the blob.
    pub(crate) fn piece_range(&self, index: u32) -> Range<u64> {
        piece_range(self.size, index)
    }

    /// Remembers a chain whose signature holds; where it differs from the one in use. `None`: it is
    /// no chain of this blob.
    pub(super) fn hear(&self, signed: SignedChain) -> Option<(ClaimId, Option<u32>)> {
        let chain = PieceChain::from_bytes(&signed.chain).ok()?;
        if chain.size() != self.size || chain.algorithm() != self.digest.algorithm() {
            return None;
        }
        let id = Digest::sha256(&signed.chain);
        let id = ClaimId(id.as_bytes().try_into().ok()?);
        let mut chains = self.chains();
        let used = chains.used.and_then(|used| chains.find(used));
        let differs = used.and_then(|used| differs(&used.chain, &chain));
        if chains.find(id).is_none() {
            chains.remember(Arc::new(Claim { id, signed, chain }));
        }
        Some((id, differs))
    }

    /// The core uses this chain; whether [`Self::apply`] is to be called.
    pub(super) fn use_chain(&self, claim: ClaimId, (is_settled, is_vouched): (bool, bool)) -> bool {
        let mut chains = self.chains();
        let is_new = chains.used.replace(claim) != Some(claim);
        (chains.is_settled, chains.is_vouched, chains.doubt) = (is_settled, is_vouched, None);
        drop(chains);
        self.publish(None);
        is_new
    }

    /// Clients get nothing more before the next [`Self::use_chain`].
    pub(super) fn doubt(&self, piece: u32, other: ClaimId) {
        self.chains().doubt = Some((piece, other));
        self.publish(None);
    }

    /// Holds what is here against the chain in use; which pieces are no longer here. Blocks.
    pub(super) fn apply(&self) -> Result<Vec<u32>, PartialError> {
        let mut partial = self.partial_mut();
        let claim = {
            let chains = self.chains();
            chains.used.filter(|_| chains.applied != chains.used).and_then(|id| chains.find(id))
        };
        let Some(claim) = claim else { return Ok(Vec::new()) };
        let mut before = BTreeSet::new();
        match partial.as_ref() {
            None => *partial = Some(self.store.begin_partial(&self.digest, claim.chain.clone())?),
            Some(partial) => {
                let reader = partial.reader();
                before.extend(reader.have().iter());
                if reader.chain() != claim.chain {
                    partial.rechain(claim.chain.clone())?;
                }
            }
        }
        self.chains().applied = Some(claim.id);
        let reader = partial.as_ref().map(PartialBlob::reader);
        drop(partial);
        self.check_claimed()?;
        let here = self.have();
        self.publish(reader);
        before.retain(|piece| here.binary_search(&(*piece as u32)).is_err());
        Ok(before.into_iter().map(|piece| piece as u32).collect())
    }

    /// Reads and verifies what may be here. Blocks.
    fn check_claimed(&self) -> io::Result<()> {
        let partial = self.partial();
        let Some(partial) = partial.as_ref() else { return Ok(()) };
        while partial.check_next()?.is_some() {}
        Ok(())
    }

    /// The pieces that are here and proven by the chain that they are held against, in order.
    pub(crate) fn have(&self) -> Vec<u32> {
        let partial = self.partial();
        let Some(partial) = partial.as_ref() else { return Vec::new() };
        partial.reader().have().iter().map(|piece| piece as u32).collect()
    }

    /// Holds a piece against the chain in use, and stores it. Blocks.
    pub(super) fn check(&self, piece: u32, bytes: &[u8]) -> Checked {
        let partial = self.partial();
        let applied = {
            let chains = self.chains();
            chains.applied.filter(|_| chains.applied == chains.used)
        };
        let (Some(partial), Some(claim)) = (partial.as_ref(), applied) else {
            return Checked::Unchecked;
        };
        match partial.write_piece(piece as usize, bytes) {
            Ok(Written::New) => {
                self.state.send_modify(|_| {});
                Checked::Passed(claim)
            }
            Ok(Written::Duplicate) => Checked::Passed(claim),
            Err(PieceError::Wrong) => {
                let chains = self.chains();
                let other = chains.doubt.filter(|doubt| doubt.0 == piece);
                let other = other.and_then(|doubt| chains.find(doubt.1));
                drop(chains);
                match other.filter(|o| o.chain.accepts(&self.digest, piece as usize, bytes)) {
                    Some(other) => Checked::Passed(other.id),
                    None => Checked::Wrong,
                }
            }
            Err(error) => Checked::Stopped(error),
        }
    }

    /// Waits until pieces can be checked, or it has ended.
    pub(super) async fn checkable(&self) {
        let ready = |state: &State| state.has_chain || state.end.is_some();
        let _ = self.watch().wait_for(ready).await;
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.state.borrow().end.is_some()
    }

    /// It ends; what comes later changes nothing.
    pub(super) fn end(&self, end: End) {
        self.state.send_if_modified(|state| {
            let is_first = state.end.is_none();
            state.end = state.end.take().or(Some(end));
            is_first
        });
    }

    /// Makes the complete blob one of the store. Blocks.
    pub(crate) fn commit(&self) -> Result<(), PartialError> {
        let partial = self.partial();
        let Some(partial) = partial.as_ref() else { return Err(PartialError::Incomplete) };
        partial.commit().map(drop)
    }

    /// Lets go of the files; what is here stays for the next time. Blocks.
    pub(crate) fn close(&self) {
        drop(self.partial_mut().take());
    }

    /// Tells whether clients may read, and from what if that is new.
    fn publish(&self, reader: Option<PartialReader>) {
        let chains = self.chains();
        let has_chain = chains.used.is_some() && chains.applied == chains.used;
        let is_settled = has_chain && chains.is_settled && chains.doubt.is_none();
        let is_vouched = chains.is_vouched;
        self.state.send_modify(|state| {
            (state.has_chain, state.is_settled) = (has_chain, is_settled);
            state.is_vouched = is_settled && is_vouched;
            state.reader = reader.or_else(|| state.reader.take());
        });
    }

    fn chains(&self) -> MutexGuard<'_, Chains> {
        self.chains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partial(&self) -> RwLockReadGuard<'_, Option<PartialBlob>> {
        self.partial.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn partial_mut(&self) -> RwLockWriteGuard<'_, Option<PartialBlob>> {
        self.partial.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chains {
    fn find(&self, id: ClaimId) -> Option<Arc<Claim>> {
        self.known.iter().find(|claim| claim.id == id).cloned()
    }

    fn remember(&mut self, claim: Arc<Claim>) {
        if self.known.len() >= MAX_CHAINS {
            let needed = [self.used, self.applied, self.doubt.map(|doubt| doubt.1)];
            let spare = self.known.iter().position(|known| !needed.contains(&Some(known.id)));
            spare.map(|at| self.known.remove(at));
        }
        self.known.push(claim);
    }
}

/// Piece `index` of a blob of `size` bytes; empty if there is no such piece.
pub(crate) fn piece_range(size: u64, index: u32) -> Range<u64> {
    let len = PieceChain::piece_len_for(size);
    let start = len.saturating_mul(u64::from(index)).min(size);
    start..size.min(start.saturating_add(len))
}

/// The piece with exactly these bytes, if they are one.
pub(crate) fn piece_at(size: u64, range: &Range<u64>) -> Option<u32> {
    let len = PieceChain::piece_len_for(size);
    let index = u32::try_from(range.start / len).ok()?;
    (!range.is_empty() && piece_range(size, index) == *range).then_some(index)
}

/// The last piece before which the states of two chains differ.
fn differs(used: &PieceChain, other: &PieceChain) -> Option<u32> {
    let last = (0..used.pieces()).rev().find(|piece| !used.agrees_on(other, *piece))?;
    u32::try_from(last).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use ddr_oci::ChainHasher;
    use ddr_store::StoreConfig;

    use super::*;

    const PIECE: usize = 64 * 1024;
    pub(in crate::swarm) const LEN: usize = 3 * PIECE + 5;

    /// A blob on its way into a store of its own.
    pub(in crate::swarm) struct Bench {
        pub(in crate::swarm) gathering: Arc<Gathering>,
        bytes: Vec<u8>,
        _dir: tempfile::TempDir,
    }

    fn bytes_of(seed: u8) -> Vec<u8> {
        (0..LEN).map(|at| (at % 251) as u8 ^ seed).collect()
    }

    /// The chain of some bytes, as somebody signed it.
    fn signed(bytes: &[u8]) -> (Digest, SignedChain) {
        let mut hasher = ChainHasher::new(ddr_oci::Algorithm::Sha256);
        hasher.update(bytes);
        let (digest, chain) = hasher.finish();
        let chain = chain.to_bytes();
        (digest, SignedChain { public_key: [0; 32], signature: [0; 64], chain })
    }

    fn piece(bytes: &[u8], index: usize) -> &[u8] {
        &bytes[index * PIECE..LEN.min((index + 1) * PIECE)]
    }

    impl Bench {
        pub(in crate::swarm) fn new(seed: u8) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let store = Store::open(StoreConfig::new(dir.path().join("store"))).expect("a store");
            let bytes = bytes_of(seed);
            let blob = (Digest::sha256(&bytes), LEN as u64);
            let repository = "team/app".parse().expect("a name");
            let admits: Admits = Box::new(|_| true);
            let open = (admits, Arc::new(Tally::new()));
            let gathering = Gathering::new(blob, repository, open, store, None);
            Self { gathering: Arc::new(gathering), bytes, _dir: dir }
        }

        /// Uses the chain of these bytes; which pieces are not here any more.
        fn use_chain_of(&self, bytes: &[u8], is_settled: bool) -> (ClaimId, Vec<u32>) {
            let (claim, _) = self.gathering.hear(signed(bytes).1).expect("a chain of this size");
            assert!(self.gathering.use_chain(claim, (is_settled, false)), "it is another one");
            (claim, self.gathering.apply().expect("a working disk"))
        }

        fn is_settled(&self) -> bool {
            self.gathering.watch().borrow().is_settled
        }
    }

    #[test]
    fn a_piece_counts_when_it_passes_and_a_blob_when_its_chain_closes() {
        let bench = Bench::new(1);
        let gathering = &bench.gathering;
        let right = |index| gathering.check(index as u32, piece(&bench.bytes, index));
        assert!(matches!(right(0), Checked::Unchecked), "no chain is known");
        let (claim, void) = bench.use_chain_of(&bench.bytes, false);
        assert!(void.is_empty() && !bench.is_settled());
        assert!(!gathering.use_chain(claim, (true, true)), "the same, settled");
        assert!(bench.is_settled());
        for index in [3, 1, 0] {
            assert!(matches!(right(index), Checked::Passed(passed) if passed == claim), "{index}");
        }
        assert!(matches!(gathering.check(2, piece(&bytes_of(2), 2)), Checked::Wrong));
        assert!(gathering.commit().is_err(), "a piece is missing");
        assert!(matches!(right(2), Checked::Passed(_)));
        gathering.commit().expect("the chain has closed");
        gathering.close();
    }

    #[test]
    fn the_piece_that_decides_passes_under_the_other_chain_and_the_rest_goes() {
        let (bench, lie) = (Bench::new(1), bytes_of(2));
        let gathering = &bench.gathering;
        let (false_claim, _) = bench.use_chain_of(&lie, true);
        for index in [0, 1] {
            let checked = gathering.check(index as u32, piece(&lie, index));
            assert!(matches!(checked, Checked::Passed(passed) if passed == false_claim));
        }
        let (claim, differs) = gathering.hear(signed(&bench.bytes).1).expect("a chain");
        assert_eq!(differs, Some(3), "they differ to the end");
        gathering.doubt(3, claim);
        assert!(!bench.is_settled(), "clients get nothing more");
        let decided = gathering.check(3, piece(&bench.bytes, 3));
        assert!(matches!(decided, Checked::Passed(passed) if passed == claim));
        let (_, void) = bench.use_chain_of(&bench.bytes, true);
        assert_eq!(void, [0, 1]);
        assert!(bench.is_settled() && gathering.have().is_empty());
    }

    #[test]
    fn a_chain_of_another_blob_is_none_of_this_one() {
        let bench = Bench::new(1);
        assert!(bench.gathering.hear(signed(&bench.bytes[1..]).1).is_none());
        let (_, mut torn) = signed(&bench.bytes);
        torn.chain.pop();
        assert!(bench.gathering.hear(torn).is_none());
    }

    #[test]
    fn pieces_are_told_by_their_bytes() {
        let size = 200_000;
        assert_eq!(piece_at(size, &(0..65_536)), Some(0));
        assert_eq!(piece_at(size, &(196_608..200_000)), Some(3), "the last one is shorter");
        for none in [0..65_535, 1..65_537, 0..131_072, 200_000..200_000, 262_144..327_680] {
            assert_eq!(piece_at(size, &none), None, "{none:?}");
        }
    }
}
