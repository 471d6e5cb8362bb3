//! Invariants of what neighbours of a swarm send: posts, busy answers, have-maps, signed chains.

use ddr_oci::PieceChain;
use ddr_proto::Key;
use ddr_proto::swarm::Bits;
use ddr_proto::wire::{
    BusyAnswer, MAX_MAP_BYTES, MAX_MESSAGE_BYTES, MAX_SIGNED_CHAIN_BYTES, MAX_SWARM_MESSAGES,
    SignedChain, SwarmPost,
};

/// A post of several messages, and an answer to a request for a piece.
pub(crate) fn swarm_post(data: &[u8]) {
    if let Ok(post) = SwarmPost::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_BYTES && post.messages.len() <= MAX_SWARM_MESSAGES);
        assert!(post.check_limits().is_ok());
        assert_eq!(SwarmPost::decode(&post.encode()).as_ref(), Ok(&post));
    }
    if let Ok(answer) = BusyAnswer::decode(data) {
        assert!(data.len() <= MAX_MESSAGE_BYTES);
        assert_eq!(BusyAnswer::decode(&answer.encode()).as_ref(), Ok(&answer));
    }
}

/// A have-map, after two bytes that tell how many pieces the blob has.
pub(crate) fn have_map(data: &[u8]) {
    let Some((len, bytes)) = data.split_first_chunk::<2>() else { return };
    let len = usize::from(u16::from_be_bytes(*len)) % (8 * MAX_MAP_BYTES + 1);
    let Some(have) = Bits::from_bytes(bytes, len) else { return };
    assert_eq!(have.to_bytes(), bytes);
    assert_eq!(have.iter().filter(|piece| *piece < len).count(), have.count());
    let ones: u32 = bytes.iter().map(|byte| byte.count_ones()).sum();
    assert_eq!(have.count(), ones as usize);
    assert_eq!(have.first_missing(&Bits::full(len), 0).is_none(), have.is_full());
}

/// A chain with a signature.
pub(crate) fn signed_chain(data: &[u8]) {
    let Ok(signed) = SignedChain::decode(data) else { return };
    assert!(data.len() <= MAX_SIGNED_CHAIN_BYTES);
    assert_eq!(SignedChain::decode(&signed.encode()).as_ref(), Ok(&signed));
    let (_, _) = (signed.verify(&Key([7; 32])), signed.signer_id());
    if let Ok(chain) = PieceChain::from_bytes(&signed.chain) {
        assert_eq!(chain.to_bytes(), signed.chain);
    }
}
