use super::*;

/// Bytes that differ from piece to piece.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ ((i >> 16) * 7)) as u8).collect()
}

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

fn chain_of(algorithm: Algorithm, bytes: &[u8]) -> (Digest, PieceChain) {
    let mut hasher = ChainHasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

fn piece<'a>(chain: &PieceChain, bytes: &'a [u8], index: usize) -> &'a [u8] {
    let range = chain.piece_range(index).unwrap();
    &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()]
}

/// Checks every piece alone and the tail against the digest.
fn assert_proven(chain: &PieceChain, digest: &Digest, bytes: &[u8]) {
    let last = chain.pieces() - 1;
    for index in (0..last).rev() {
        assert!(chain.verify_piece(index, piece(chain, bytes, index)), "piece {index}");
    }
    assert!(chain.proves(digest, piece(chain, bytes, last)));
}

#[test]
fn sizes_around_blocks_and_borders() {
    let border = usize::try_from(MIN_PIECE_BYTES).unwrap();
    let blocks = [0, 1, 55, 56, 63, 64, 65, 111, 112, 119, 120, 127, 128, 129, 239, 240, 256];
    let borders = [-1, 0, 1, 7].map(|off| border.strict_add_signed(off));
    let ends = [2 * border - 64, 2 * border - 128, 2 * border, 3 * border + 7];
    for (algorithm, size) in ALGORITHMS.into_iter().flat_map(|algorithm| {
        blocks.into_iter().chain(borders).chain(ends).map(move |size| (algorithm, size))
    }) {
        let bytes = content(size);
        let (digest, chain) = chain_of(algorithm, &bytes);
        assert_eq!(digest, Digest::of(algorithm, &bytes), "size {size}");
        assert_eq!((chain.algorithm(), chain.size()), (algorithm, size as u64));
        assert_eq!(chain.piece_len(), MIN_PIECE_BYTES);
        assert_eq!(chain.pieces(), size.div_ceil(border).max(1));
        assert_eq!(chain.piece_range(chain.pieces()), None);
        assert_proven(&chain, &digest, &bytes);
        let one = PieceChain::of_one_piece(algorithm, size as u64);
        assert_eq!(one, (size <= border).then(|| chain.clone()));
        assert_eq!(PieceChain::from_bytes(&chain.to_bytes()), Ok(chain));
    }
}

#[test]
fn resolution_halves_past_the_bound() {
    for algorithm in ALGORITHMS {
        let most = MIN_PIECE_BYTES * MAX_PIECES as u64;
        let block = content(1 << 20);
        let mut hasher = ChainHasher::new(algorithm);
        while hasher.len() < most {
            hasher.update(&block);
        }
        let (digest, full) = hasher.clone().finish();
        assert_eq!((full.piece_len(), full.pieces()), (MIN_PIECE_BYTES, MAX_PIECES));
        assert!(full.to_bytes().len() <= MAX_CHAIN_BYTES);
        assert_eq!(PieceChain::from_bytes(&full.to_bytes()).as_ref(), Ok(&full));

        hasher.update(b"x");
        let (longer, half) = hasher.finish();
        assert_ne!(longer, digest);
        assert_eq!((half.piece_len(), half.pieces()), (2 * MIN_PIECE_BYTES, MAX_PIECES / 2 + 1));
        assert!(half.proves(&longer, b"x"));

        let period = 1 << 20;
        for index in 0..half.pieces() - 1 {
            let start = usize::try_from(half.piece_range(index).unwrap().start % period).unwrap();
            assert!(half.verify_piece(index, &block[start..][..2 * (64 << 10)]), "piece {index}");
        }
        assert_eq!(PieceChain::from_bytes(&half.to_bytes()), Ok(half));
    }
}

#[test]
fn the_largest_chain_is_one_of_sha512() {
    let size = MIN_PIECE_BYTES * MAX_PIECES as u64;
    let states = vec![7; (MAX_PIECES - 1) * 64];
    let chain = PieceChain::from_recorded(Algorithm::Sha512, size, MIN_PIECE_BYTES, states);
    assert_eq!(chain.to_bytes().len(), MAX_CHAIN_BYTES);
}

#[test]
fn digest_so_far_does_not_disturb() {
    for algorithm in ALGORITHMS {
        let bytes = content(200_000);
        let mut hasher = ChainHasher::new(algorithm);
        assert!(hasher.is_empty());
        assert_eq!(hasher.digest(), Digest::of(algorithm, b""));
        for (index, part) in bytes.chunks(777).enumerate() {
            hasher.update(part);
            let seen = bytes.len().min((index + 1) * 777);
            assert_eq!(hasher.digest(), Digest::of(algorithm, &bytes[..seen]));
        }
        assert_eq!(hasher.finish(), chain_of(algorithm, &bytes));
    }
}

#[test]
fn one_wrong_bit_is_found_in_its_piece() {
    for (algorithm, other) in ALGORITHMS.into_iter().zip([Algorithm::Sha512, Algorithm::Sha256]) {
        let bytes = content(3 * 65_536 + 100);
        let (digest, chain) = chain_of(algorithm, &bytes);
        for index in 0..chain.pieces() {
            assert!(chain.accepts(&digest, index, piece(&chain, &bytes, index)));
            let mut wrong = piece(&chain, &bytes, index).to_vec();
            wrong[50] ^= 4;
            assert!(!chain.verify_piece(index, &wrong));
            assert!(!chain.proves(&digest, &wrong));
            assert!(!chain.accepts(&digest, index, &wrong));
        }
        let tail = piece(&chain, &bytes, 3);
        assert!(!chain.proves(&digest, &tail[1..]));
        assert!(!chain.proves(&digest, b""));
        assert!(!chain.proves(&Digest::of(algorithm, b"other"), tail));
        assert!(!chain.proves(&Digest::of(other, &bytes), tail));
        assert!(!chain.verify_piece(3, tail), "the last piece has no state after it");
        assert!(!chain.verify_piece(0, &bytes[..65_535]));
        assert!(!chain.verify_piece(1, piece(&chain, &bytes, 0)));
        assert!(!chain.verify_piece(usize::MAX, b""));
        assert!(!chain.accepts(&digest, 4, b""));
    }
}

#[test]
fn a_forged_state_breaks_the_two_pieces_beside_it() {
    for algorithm in ALGORITHMS {
        let bytes = content(3 * 65_536 + 100);
        let (digest, chain) = chain_of(algorithm, &bytes);
        let mut forged = chain.to_bytes();
        let last_state = forged.len() - 1;
        forged[last_state] ^= 1;
        let forged = PieceChain::from_bytes(&forged).unwrap();
        assert_ne!(forged, chain);
        for (index, same) in [true, true, false, false].into_iter().enumerate() {
            assert_eq!(forged.accepts(&digest, index, piece(&chain, &bytes, index)), same);
            assert_eq!(forged.agrees_on(&chain, index), same, "piece {index}");
        }
        assert!(!forged.agrees_on(&forged, 4), "no such piece");
    }
}

#[test]
fn chains_of_other_sizes_or_algorithms_agree_on_what_has_the_same_states() {
    let bytes = content(3 * 65_536 + 100);
    let (_, chain) = chain_of(Algorithm::Sha256, &bytes);
    let (_, shorter) = chain_of(Algorithm::Sha256, &bytes[..2 * 65_536 + 5]);
    assert!(chain.agrees_on(&shorter, 0) && chain.agrees_on(&shorter, 1));
    assert!(!chain.agrees_on(&shorter, 2) && !shorter.agrees_on(&chain, 2));
    let (_, other) = chain_of(Algorithm::Sha512, &bytes);
    assert!(!chain.agrees_on(&other, 0));
    let of_one = |size| PieceChain::of_one_piece(Algorithm::Sha256, size).unwrap();
    assert!(of_one(7).agrees_on(&of_one(7), 0));
    assert!(!of_one(7).agrees_on(&of_one(8), 0));
}

#[test]
fn malformed_chains_are_refused() {
    for (algorithm, version) in [(Algorithm::Sha256, 1), (Algorithm::Sha512, 2)] {
        let (_, chain) = chain_of(algorithm, &content(200_000));
        let good = chain.to_bytes();
        assert_eq!(good[4], version);
        for cut in 0..good.len() {
            assert!(PieceChain::from_bytes(&good[..cut]).is_err(), "cut at {cut}");
        }
        let changed = |at: usize, to: u8| {
            let mut bytes = good.clone();
            bytes[at] = to;
            PieceChain::from_bytes(&bytes)
        };
        assert_eq!(changed(0, b'X'), Err(ChainError::NotAChain));
        assert_eq!(changed(4, 0), Err(ChainError::Version(0)));
        assert_eq!(changed(4, 3), Err(ChainError::Version(3)));
        assert_eq!(changed(4, 3 - version), Err(ChainError::Lengths), "states of another length");
        assert_eq!(changed(5, 1), Err(ChainError::Lengths), "piece length");
        assert_eq!(changed(12, 1), Err(ChainError::Lengths), "piece length");
        assert_eq!(changed(13, 255), Err(ChainError::Lengths), "size over 2^61");
        assert_eq!(changed(18, 0), Err(ChainError::Lengths), "size of one piece");
        let longer = [good.as_slice(), &vec![0; algorithm.len_bytes()]].concat();
        assert_eq!(PieceChain::from_bytes(&longer), Err(ChainError::Lengths));
        let endless = [&good[..21], &vec![0; algorithm.len_bytes() * MAX_PIECES]].concat();
        assert_eq!(PieceChain::from_bytes(&endless), Err(ChainError::Lengths));
    }
}

#[test]
fn piece_length_is_the_smallest_that_fits() {
    let most = MIN_PIECE_BYTES * MAX_PIECES as u64;
    for (size, expected) in [
        (0, MIN_PIECE_BYTES),
        (1, MIN_PIECE_BYTES),
        (most, MIN_PIECE_BYTES),
        (most + 1, 2 * MIN_PIECE_BYTES),
        (2 * most, 2 * MIN_PIECE_BYTES),
        (2 * most + 1, 4 * MIN_PIECE_BYTES),
        (MAX_CHAINED_BYTES, 1 << 50),
    ] {
        assert_eq!(PieceChain::piece_len_for(size), expected, "{size}");
    }
}
