//! Messages of the swarm: they survive their bytes, and the longest of them fit.

use std::net::SocketAddr;

use ddr_oci::ChainHasher;
use ddr_oci::piece_chain::{MAX_CHAIN_BYTES, MAX_PIECES};
use ddr_proto::wire::{
    BusyAnswer, Contact, HaveMap, Holder, MAX_ADDRS, MAX_HAVE_PIECES, MAX_HOLDERS, MAX_MAP_BYTES,
    MAX_MESSAGE_BYTES, MAX_SIGNED_CHAIN_BYTES, MAX_SWARM_MESSAGES, MAX_ZONE_BYTES, SignedChain,
    SwarmBody, SwarmMessage, SwarmPost, WireError,
};
use ddr_proto::{Key, NodeId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::net::signer;

fn holders() -> impl Strategy<Value = Vec<Holder>> {
    let contact = (any::<[u8; 32]>(), vec(any::<([u8; 4], u16)>(), 0..=MAX_ADDRS), "[a-z]{0,32}")
        .prop_map(|(id, addrs, zone)| {
            let addrs = addrs.into_iter().map(SocketAddr::from).collect();
            Contact { id: NodeId(id), addrs, zone }
        });
    let holder =
        (contact, any::<bool>()).prop_map(|(contact, complete)| Holder { contact, complete });
    vec(holder, 0..=MAX_HOLDERS)
}

fn bodies() -> impl Strategy<Value = SwarmBody> {
    let have = prop_oneof![
        Just(HaveMap::All),
        vec(any::<u8>(), 0..=MAX_MAP_BYTES).prop_map(HaveMap::Bits)
    ];
    let pieces = vec(0..MAX_PIECES as u16, 0..=MAX_HAVE_PIECES);
    prop_oneof![
        (any::<u64>(), have, any::<(bool, u16, bool)>()).prop_map(
            |(size, have, (chooses, load, reply))| SwarmBody::Hello {
                size,
                have,
                chooses,
                load,
                reply
            }
        ),
        (pieces, any::<u16>()).prop_map(|(pieces, load)| SwarmBody::Have { pieces, load }),
        holders().prop_map(|holders| SwarmBody::Holders { holders }),
        holders().prop_map(|others| SwarmBody::Goodbye { others }),
    ]
}

fn sender() -> Contact {
    Contact { id: NodeId([1; 32]), addrs: vec![([10, 0, 0, 1], 5_001).into()], zone: String::new() }
}

fn post(bodies: Vec<SwarmBody>) -> SwarmPost {
    let message = |body| SwarmMessage { blob: Key([5; 32]), body };
    let repository = "team/app".parse().expect("a name");
    SwarmPost { sender: sender(), repository, messages: bodies.into_iter().map(message).collect() }
}

/// Holders of the greatest length.
fn long_holders(count: usize) -> Vec<Holder> {
    let addrs = vec![([0xffff_u16; 8], u16::MAX).into(); MAX_ADDRS];
    let zone = "z".repeat(MAX_ZONE_BYTES);
    vec![Holder { contact: Contact { id: NodeId([255; 32]), addrs, zone }, complete: true }; count]
}

proptest! {
    #[test]
    fn posts_survive_their_bytes(bodies in vec(bodies(), 0..=MAX_SWARM_MESSAGES)) {
        let post = post(bodies);
        prop_assert_eq!(SwarmPost::decode(&post.encode()), Ok(post));
    }

    #[test]
    fn busy_answers_survive_their_bytes(load: u16, others in holders()) {
        let answer = BusyAnswer { load, others };
        prop_assert_eq!(BusyAnswer::decode(&answer.encode()), Ok(answer));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..600)) {
        let _ = (SwarmPost::decode(&bytes), BusyAnswer::decode(&bytes), SignedChain::decode(&bytes));
    }
}

#[test]
fn the_longest_post_fits_into_a_message() {
    let body = SwarmBody::Holders { holders: long_holders(MAX_HOLDERS) };
    let mut post = post(vec![body; MAX_SWARM_MESSAGES]);
    post.sender = long_holders(1).remove(0).contact;
    post.repository = "a".repeat(255).parse().expect("a name");
    let bytes = post.encode();
    assert!(bytes.len() <= MAX_MESSAGE_BYTES, "{} bytes", bytes.len());
    assert_eq!(SwarmPost::decode(&bytes), Ok(post));
}

#[test]
fn what_goes_over_a_limit_is_no_message() {
    let hello = |bits| SwarmBody::Hello {
        size: 1,
        have: HaveMap::Bits(bits),
        chooses: false,
        load: 0,
        reply: false,
    };
    let have = |pieces| SwarmBody::Have { pieces, load: 0 };
    for (bodies, limit) in [
        (vec![have(Vec::new()); MAX_SWARM_MESSAGES + 1], "MAX_SWARM_MESSAGES"),
        (vec![hello(vec![0; MAX_MAP_BYTES + 1])], "MAX_MAP_BYTES"),
        (vec![have(vec![0; MAX_HAVE_PIECES + 1])], "MAX_HAVE_PIECES"),
        (vec![have(vec![MAX_PIECES as u16])], "MAX_PIECES"),
        (vec![SwarmBody::Holders { holders: long_holders(MAX_HOLDERS + 1) }], "MAX_HOLDERS"),
        (vec![SwarmBody::Goodbye { others: long_holders(MAX_HOLDERS + 1) }], "MAX_HOLDERS"),
    ] {
        let read = SwarmPost::decode(&post(bodies).encode());
        assert_eq!(read, Err(WireError::OverLimit(limit)));
    }
    let answer = BusyAnswer { load: 0, others: long_holders(MAX_HOLDERS + 1) };
    assert_eq!(BusyAnswer::decode(&answer.encode()), Err(WireError::OverLimit("MAX_HOLDERS")));
}

#[test]
fn a_chain_is_signed_for_one_blob_by_one_node() {
    let signer = signer(1);
    let mut hasher = ChainHasher::new(ddr_oci::Algorithm::Sha256);
    hasher.update(&vec![3; 200_000]);
    let (digest, chain) = hasher.finish();
    let key = Key::of_content(&digest);
    let signed = SignedChain::sign(&signer, &key, &chain);
    let read = SignedChain::decode(&signed.encode()).expect("its own bytes");
    assert_eq!((read.verify(&key), read.signer_id()), (Ok(()), signer.node_id()));
    assert!(read.verify(&Key([0; 32])).is_err());
    let mut changed = read.clone();
    changed.chain[30] ^= 1;
    assert!(changed.verify(&key).is_err());
}

#[test]
fn the_longest_chain_fits_and_a_longer_one_is_refused() {
    let longest = SignedChain {
        public_key: [255; 32],
        signature: [255; 64],
        chain: vec![255; MAX_CHAIN_BYTES],
    };
    assert_eq!(longest.encode().len(), MAX_SIGNED_CHAIN_BYTES);
    assert_eq!(SignedChain::decode(&longest.encode()), Ok(longest.clone()));
    let mut longer = longest;
    longer.chain.push(0);
    assert_eq!(SignedChain::decode(&longer.encode()), Err(WireError::TooLarge));
}
