use super::*;

/// Bytes that differ from piece to piece.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ ((i >> 16) * 7)) as u8).collect()
}

fn chain_of(bytes: &[u8]) -> (Digest, PieceChain) {
    let mut hasher = ChainHasher::new();
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
    for size in [0, 1, 55, 56, 63, 64, 65, 119, 120, 128].into_iter().chain([
        border - 1,
        border,
        border + 1,
        2 * border - 64,
        2 * border,
        3 * border + 7,
    ]) {
        let bytes = content(size);
        let (digest, chain) = chain_of(&bytes);
        assert_eq!(digest, Digest::sha256(&bytes), "size {size}");
        assert_eq!(chain.size(), size as u64);
        assert_eq!(chain.piece_len(), MIN_PIECE_BYTES);
        assert_eq!(chain.pieces(), size.div_ceil(border).max(1));
        assert_eq!(chain.piece_range(chain.pieces()), None);
        assert_proven(&chain, &digest, &bytes);
        assert_eq!(PieceChain::from_bytes(&chain.to_bytes()), Ok(chain));
    }
}

#[test]
fn resolution_halves_past_the_bound() {
    let most = MIN_PIECE_BYTES * MAX_PIECES as u64;
    let block = content(1 << 20);
    let mut hasher = ChainHasher::new();
    while hasher.len() < most {
        hasher.update(&block);
    }
    let (digest, full) = hasher.clone().finish();
    assert_eq!((full.piece_len(), full.pieces()), (MIN_PIECE_BYTES, MAX_PIECES));
    assert_eq!(full.to_bytes().len(), MAX_CHAIN_BYTES);
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

#[test]
fn digest_so_far_does_not_disturb() {
    let bytes = content(200_000);
    let mut hasher = ChainHasher::default();
    assert!(hasher.is_empty());
    assert_eq!(hasher.digest(), Digest::sha256(b""));
    for (index, part) in bytes.chunks(777).enumerate() {
        hasher.update(part);
        let seen = bytes.len().min((index + 1) * 777);
        assert_eq!(hasher.digest(), Digest::sha256(&bytes[..seen]));
    }
    assert_eq!(hasher.finish(), chain_of(&bytes));
}

#[test]
fn one_wrong_bit_is_found_in_its_piece() {
    let bytes = content(3 * 65_536 + 100);
    let (digest, chain) = chain_of(&bytes);
    for index in 0..chain.pieces() {
        let mut wrong = piece(&chain, &bytes, index).to_vec();
        wrong[50] ^= 4;
        assert!(!chain.verify_piece(index, &wrong));
        assert!(!chain.proves(&digest, &wrong));
    }
    let tail = piece(&chain, &bytes, 3);
    assert!(!chain.proves(&digest, &tail[1..]));
    assert!(!chain.proves(&digest, b""));
    assert!(!chain.proves(&Digest::sha256(b"other"), tail));
    assert!(!chain.proves(&Digest::of(Algorithm::Sha512, &bytes), tail));
    assert!(!chain.verify_piece(3, tail), "the last piece has no state after it");
    assert!(!chain.verify_piece(0, &bytes[..65_535]));
    assert!(!chain.verify_piece(1, piece(&chain, &bytes, 0)));
    assert!(!chain.verify_piece(usize::MAX, b""));
}

#[test]
fn a_forged_state_breaks_the_two_pieces_beside_it() {
    let bytes = content(3 * 65_536 + 100);
    let (digest, chain) = chain_of(&bytes);
    let mut forged = chain.to_bytes();
    let last_state = forged.len() - 1;
    forged[last_state] ^= 1;
    let forged = PieceChain::from_bytes(&forged).unwrap();
    assert_ne!(forged, chain);
    assert!(forged.verify_piece(1, piece(&chain, &bytes, 1)));
    assert!(!forged.verify_piece(2, piece(&chain, &bytes, 2)));
    assert!(!forged.proves(&digest, piece(&chain, &bytes, 3)));
}

#[test]
fn malformed_chains_are_refused() {
    let (_, chain) = chain_of(&content(200_000));
    let good = chain.to_bytes();
    for cut in 0..good.len() {
        assert!(PieceChain::from_bytes(&good[..cut]).is_err(), "cut at {cut}");
    }
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        PieceChain::from_bytes(&bytes)
    };
    assert_eq!(changed(0, b'X'), Err(ChainError::NotAChain));
    assert_eq!(changed(4, 2), Err(ChainError::Version(2)));
    assert_eq!(changed(5, 1), Err(ChainError::Lengths), "piece length");
    assert_eq!(changed(12, 1), Err(ChainError::Lengths), "piece length");
    assert_eq!(changed(13, 255), Err(ChainError::Lengths), "size over 2^61");
    assert_eq!(changed(18, 0), Err(ChainError::Lengths), "size of one piece");
    let longer = [good.as_slice(), &[0; 32]].concat();
    assert_eq!(PieceChain::from_bytes(&longer), Err(ChainError::Lengths));
    let endless = [&good[..21], &vec![0; 32 * MAX_PIECES]].concat();
    assert_eq!(PieceChain::from_bytes(&endless), Err(ChainError::Lengths));
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
