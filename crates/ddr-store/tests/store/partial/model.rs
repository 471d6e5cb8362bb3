//! Partial blobs against a model, through random pieces, lies, chains, crashes and resumes.

use super::{PIECE, false_chain, piece, sha256_chain};
use crate::support::{blob, check_sound, content, names, open, path};
use ddr_oci::Digest;
use ddr_oci::piece_chain::PieceChain;
use ddr_store::disk::FaultyDisk;
use ddr_store::{PartialBlob, PieceError, Store, Written};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Lengths in play, bytes: one short piece, two whole ones, several with a short end.
const LENGTHS: [usize; 4] = [100, 2 * PIECE, 4 * PIECE + 1, 5 * PIECE + 700];

#[derive(Debug, Clone)]
enum Step {
    /// A piece of the true content, or of the forged one.
    Write {
        index: usize,
        is_forged: bool,
    },
    /// A piece with one flipped bit, or of another length.
    WriteGarbage {
        index: usize,
        flip: usize,
        is_short: bool,
    },
    /// The next claimed piece is looked at.
    Check,
    Rechain {
        is_false: bool,
    },
    /// The disk fails one operation while a piece is written.
    WriteFails {
        index: usize,
        after: u64,
    },
    WriteOnFullDisk {
        index: usize,
        room: u64,
    },
    /// Let go and taken up, maybe with another chain.
    LetGo {
        restart: bool,
        is_false: bool,
    },
    Kill,
    PowerCut {
        seed: u64,
    },
    /// A bit of the file flips while nobody has it open.
    Rot {
        at: usize,
    },
    Commit,
}

fn step() -> impl Strategy<Value = Step> {
    let index = || 0..7_usize;
    prop_oneof![
        8 => (index(), any::<bool>()).prop_map(|(index, is_forged)| Step::Write { index, is_forged }),
        2 => (index(), any::<usize>(), any::<bool>())
            .prop_map(|(index, flip, is_short)| Step::WriteGarbage { index, flip, is_short }),
        3 => Just(Step::Check),
        2 => any::<bool>().prop_map(|is_false| Step::Rechain { is_false }),
        1 => (index(), 0..2_u64).prop_map(|(index, after)| Step::WriteFails { index, after }),
        1 => (index(), 0..70_000_u64).prop_map(|(index, room)| Step::WriteOnFullDisk { index, room }),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(restart, is_false)| Step::LetGo { restart, is_false }),
        1 => Just(Step::Kill),
        1 => any::<u64>().prop_map(|seed| Step::PowerCut { seed }),
        1 => any::<usize>().prop_map(|at| Step::Rot { at }),
        1 => Just(Step::Commit),
    ]
}

/// The true content with its chain, or the one that a liar made up.
struct Side {
    bytes: Vec<u8>,
    chain: PieceChain,
}

struct Model {
    disk: FaultyDisk,
    digest: Digest,
    sides: [Side; 2],
    /// Which chain is in force: 1 is the false one.
    side: usize,
    store: Option<Store>,
    partial: Option<PartialBlob>,
    /// What must be readable, by piece: under one chain a piece is one side's.
    present: BTreeMap<usize, usize>,
}

impl Model {
    fn new(len: usize, wrong: usize) -> Self {
        let bytes = content(len as u64, len);
        let (digest, chain) = sha256_chain(&bytes);
        let wrong = wrong % len.div_ceil(PIECE);
        let (forged, claim) = false_chain(&bytes, wrong.min((len - 6) / PIECE));
        let sides = [Side { bytes, chain }, Side { bytes: forged, chain: claim }];
        let disk = FaultyDisk::new();
        let store = open(&disk);
        let mut model = Self {
            disk,
            digest,
            sides,
            side: 1,
            store: None,
            partial: None,
            present: BTreeMap::new(),
        };
        model.begin(store, 1);
        model
    }

    fn partial(&self) -> &PartialBlob {
        self.partial.as_ref().expect("it has an owner")
    }

    fn begin(&mut self, store: Store, side: usize) {
        self.side = side;
        self.present.clear();
        let chain = self.sides[side].chain.clone();
        self.partial = Some(store.begin_partial(&self.digest, chain).unwrap());
        self.store = Some(store);
    }

    fn pieces(&self) -> usize {
        self.sides[0].chain.pieces()
    }

    /// Whether the chain in force takes these bytes.
    fn accepts(&self, index: usize, bytes: &[u8]) -> bool {
        self.sides[self.side].chain.accepts(&self.digest, index, bytes)
    }

    fn write(&mut self, index: usize, bytes: &[u8], side: usize) {
        let written = self.partial().write_piece(index, bytes);
        match written {
            Ok(Written::Duplicate) => assert!(self.present.contains_key(&index)),
            Ok(Written::New) => {
                assert!(self.accepts(index, bytes), "piece {index} does not fit the chain");
                assert_eq!(self.present.insert(index, side), None);
            }
            Err(PieceError::Wrong) => {
                assert!(index >= self.pieces() || !self.accepts(index, bytes));
            }
            // A fault was asked for.
            Err(PieceError::NoSpace | PieceError::Io(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn bytes_of(&self, index: usize, side: usize) -> Vec<u8> {
        let index = index.min(self.pieces() - 1);
        piece(&self.sides[side].bytes, index).to_vec()
    }

    /// After a change of chain: what was right stays right, and some is claimed. A chain that was
    /// proven is not changed.
    fn rechain(&mut self, side: usize) {
        let (old, new) = (&self.sides[self.side].chain, &self.sides[side].chain);
        self.partial().rechain(new.clone()).unwrap();
        if self.present.len() < self.pieces() {
            self.present.retain(|index, _| old.agrees_on(new, *index));
            self.side = side;
        }
    }

    /// Looks at one claimed piece; what it finds must be the bytes of a side that the chain takes.
    fn check(&mut self) -> bool {
        let Some(checked) = self.partial().check_next().unwrap() else { return false };
        if checked.is_present {
            let index = checked.index;
            let sides = [0, 1].map(|side| self.accepts(index, &self.bytes_of(index, side)));
            let side = sides.iter().position(|is_right| *is_right);
            self.present.insert(index, side.expect("a piece of nobody was taken"));
        }
        true
    }

    /// What was not damaged must be found again, once all is checked.
    fn expect_back(&mut self, before: &BTreeMap<usize, usize>) {
        while self.check() {}
        for (index, side) in before {
            if self.accepts(*index, &self.bytes_of(*index, *side)) {
                assert!(self.present.contains_key(index), "piece {index} was lost");
            }
        }
    }

    /// The owner lets go; the process may end.
    fn let_go(&mut self, restart: bool) -> Store {
        self.partial = None;
        let store = self.store.take().expect("a store");
        if !restart {
            return store;
        }
        drop(store);
        open(&self.disk)
    }

    fn crash(&mut self, power: Option<u64>) {
        // What the process does in its end does not reach the disk.
        self.disk.crash_after(0);
        (self.partial, self.store) = (None, None);
        match power {
            None => self.disk.restart(),
            Some(seed) => self.disk.power_cut(seed),
        }
        self.begin(open(&self.disk), self.side);
    }

    fn rot(&mut self, at: usize) {
        let store = self.let_go(false);
        let data = names(&self.disk, "partial").into_iter().find(|name| name.len() == 32);
        if let Some(data) = data.map(|name| path("partial").join(name)) {
            let mut bytes = self.disk.peek(&data).unwrap();
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte ^= 1;
            }
            self.disk.plant(&data, &bytes).unwrap();
        }
        self.begin(store, self.side);
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write { index, is_forged } => {
                let side = usize::from(is_forged);
                self.write(index, &self.bytes_of(index, side), side);
            }
            Step::WriteGarbage { index, flip, is_short } => {
                let mut bytes = self.bytes_of(index, 0);
                // A bit that the two sides do not differ in.
                let at = flip % bytes.len();
                bytes[at] ^= 2;
                bytes.truncate(bytes.len() - usize::from(is_short));
                self.write(index, &bytes, 9);
            }
            Step::Check => {
                self.check();
            }
            Step::Rechain { is_false } => self.rechain(usize::from(is_false)),
            Step::WriteFails { index, after } => {
                self.disk.fail_after(Some(after));
                self.write(index, &self.bytes_of(index, 0), 0);
                self.disk.fail_after(None);
            }
            Step::WriteOnFullDisk { index, room } => {
                self.disk.set_capacity(Some(self.disk.used_bytes() + room));
                self.write(index, &self.bytes_of(index, 0), 0);
                self.disk.set_capacity(None);
            }
            Step::LetGo { restart, is_false } => {
                let before = self.present.clone();
                let store = self.let_go(restart);
                self.begin(store, usize::from(is_false));
                self.expect_back(&before);
            }
            Step::Kill => self.crash(None),
            Step::PowerCut { seed } => self.crash(Some(seed)),
            Step::Rot { at } => self.rot(at),
            Step::Commit => self.commit(),
        }
        self.check_readers();
    }

    /// Readers see exactly what the model says.
    fn check_readers(&self) {
        let Some(partial) = &self.partial else { return };
        let (reader, mut buffer) = (partial.reader(), vec![0; PIECE]);
        let have: Vec<_> = reader.have().iter().collect();
        assert_eq!(have, self.present.keys().copied().collect::<Vec<_>>());
        for index in 0..self.pieces() {
            let read = reader.read_at((index * PIECE) as u64, &mut buffer).unwrap();
            match self.present.get(&index) {
                None => assert_eq!(read, 0, "piece {index} was not verified"),
                Some(side) => {
                    let right = self.bytes_of(index, *side);
                    assert!(buffer[..right.len()] == right && read >= right.len(), "piece {index}");
                }
            }
        }
    }

    /// Only the true chain closes. What was committed is deleted, and all begins anew.
    fn commit(&mut self) {
        let is_complete = self.present.len() == self.pieces();
        assert_eq!(self.partial().commit().is_ok(), is_complete);
        if is_complete {
            let store = self.let_go(false);
            assert_eq!(blob(&store, &self.digest).as_ref(), Some(&self.sides[0].bytes));
            check_sound(&store, &self.disk, "after a commit");
            let app = crate::support::repository("app");
            store.link(&app, &self.digest).unwrap();
            store.delete_blob(&app, &self.digest).unwrap();
            self.begin(store, 0);
        }
    }

    /// An honest holder of everything, and the true chain: the blob must come out.
    fn finish(mut self) {
        self.rechain(0);
        while self.check() {}
        for index in 0..self.pieces() {
            self.write(index, &self.bytes_of(index, 0), 0);
        }
        self.check_readers();
        assert_eq!(self.present.len(), self.pieces());
        self.commit();
        drop(self.let_go(true));
        assert!(names(&self.disk, "partial").is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_schedule_of_pieces_lies_and_crashes_ends_with_the_right_bytes(
        len in proptest::sample::select(&LENGTHS[..]),
        wrong in 0..6_usize,
        steps in proptest::collection::vec(step(), 1..50),
    ) {
        let mut model = Model::new(len, wrong);
        for step in steps {
            model.step(step);
        }
        model.finish();
    }
}
