//! Writes the binary seeds into `corpus/`: `cargo run --no-default-features --example seeds`.
//!
//! The text seeds are kept by hand. Run this again when a message or file format changes.

use std::fs;
use std::path::Path;

use ddr_oci::piece_chain::{ChainHasher, PieceChain};
use ddr_oci::{Algorithm, Digest, RepositoryName, Tag};
use ddr_proto::id::{Key, NodeId};
use ddr_proto::wire::{
    BusyAnswer, CELLS, Contact, DialOutcome, DialTry, Fact, FactRecord, HaveMap, Holder, KeyRange,
    Mark, Member, MemberSeen, NameRecord, NotSoon, PreheatOrder, PreheatStage, PreheatState,
    ProviderRecord, RefuseReason, Request, RequestEnvelope, ResolveAnswer, Response, SetEntry,
    SignedChain, Signer, SwarmBody, SwarmMessage, SwarmPost, UpstreamFailure,
};
use ed25519_dalek::SigningKey;

fn main() -> std::io::Result<()> {
    containerd()?;
    chains()?;
    let signer = Signer::from(SigningKey::from_bytes(&[7; 32]));
    posts(&signer)?;
    have_maps()?;
    signed_chains(&signer)?;
    let records = name_records(&signer);
    for (name, record) in &records {
        write("name_record", name, &record.to_bytes())?;
    }
    messages(&signer, &records[0].1)
}

fn write(target: &str, name: &str, data: &[u8]) -> std::io::Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join(name), data)
}

/// A field of protobuf that is bytes. Its length always takes two bytes, which is allowed.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).ok().filter(|length| *length < 1 << 14).expect("short");
    let [high, low] = (length << 1).to_be_bytes();
    [&[number << 3 | 2, low >> 1 | 0x80, high], bytes].concat()
}

/// A label or an export.
fn pair(key: &str, value: &str) -> Vec<u8> {
    field(5, &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat())
}

/// A frame of gRPC.
fn frame(flags: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    [&[flags], length.as_slice(), message].concat()
}

/// Messages in frames, as containerd answers, and as no containerd does.
fn containerd() -> std::io::Result<()> {
    let digest = Digest::sha256(b"x").to_string();
    let info = |labels: &[u8]| {
        field(1, &[&field(1, digest.as_bytes()), b"\x10\x05".as_slice(), labels].concat())
    };
    let pulled = "containerd.io/distribution.source.";
    let source = pair(&format!("{pulled}docker.io"), "library/alpine,team/app");
    let port = pair(&format!("{pulled}registry.example:5000"), "app,Upper,");
    let child = pair("containerd.io/gc.ref.content.0", &digest);
    let target = field(3, &field(2, digest.as_bytes()));
    let image = [field(1, b"docker.io/library/alpine:3"), target].concat();
    let store = [field(1, b"io.containerd.content.v1"), field(2, b"content")].concat();
    let contents = [info(&source), info(&[port, child].concat()), info(b"")].concat();
    for (name, body) in [
        ("namespaces", frame(0, &[field(1, &field(1, b"k8s.io")), field(1, b"")].concat())),
        ("plugins", frame(0, &field(1, &[store, pair("root", "/var/lib/x")].concat()))),
        ("images", frame(0, &field(1, &image))),
        ("contents", frame(0, &contents)),
        ("contents-unframed", contents),
        ("parts", [frame(0, b"\x08\x05\x12\x02ab"), frame(0, b"\x08\x07")].concat()),
        ("event", frame(0, &[field(2, b"k8s.io"), field(3, b"/images/create")].concat())),
        ("compressed", frame(1, b"")),
        ("too-long", b"\0\xff\xff\xff\xff".to_vec()),
        ("status", b"50%25 of %C3%A4 %zz".to_vec()),
    ] {
        write("containerd", name, &body)?;
    }
    Ok(())
}

fn chains() -> std::io::Result<()> {
    for (algorithm, prefix) in [(Algorithm::Sha256, ""), (Algorithm::Sha512, "sha512-")] {
        for (name, size) in [("empty", 0), ("one-piece", 100), ("five-pieces", 300_000)] {
            let mut hasher = ChainHasher::new(algorithm);
            hasher.update(&vec![1; size]);
            let (_, chain) = hasher.finish();
            write("piece_chain", &format!("{prefix}{name}"), &chain.to_bytes())?;
            if name == "five-pieces" {
                bad_chains(prefix, &chain)?;
            }
        }
    }
    Ok(())
}

fn bad_chains(prefix: &str, chain: &PieceChain) -> std::io::Result<()> {
    let bytes = chain.to_bytes();
    let write = |name: &str, data: &[u8]| write("piece_chain", &format!("{prefix}{name}"), data);
    write("cut-in-a-state", &bytes[..bytes.len() - 1])?;
    let state = vec![0; chain.algorithm().len_bytes()];
    write("one-state-more", &[bytes.as_slice(), &state].concat())?;
    write("size-over-limit", &[&bytes[..13], &[0xff; 8], &bytes[21..]].concat())?;
    write("piece-length-zero", &[&bytes[..5], &[0; 8], &bytes[13..]].concat())?;
    write("newer-version", &[&b"DDRC\x03"[..], &bytes[5..]].concat())
}

fn posts(signer: &Signer) -> std::io::Result<()> {
    let addrs = vec![([127, 0, 0, 1], 5001).into()];
    let sender = Contact { id: signer.node_id(), addrs, zone: "rack-1".to_owned() };
    let blob = Key::of_content(&Digest::sha256(b"x"));
    let holder = |complete| Holder { contact: sender.clone(), complete };
    let hello =
        |have| SwarmBody::Hello { size: 300_000, have, chooses: true, load: 3, reply: true };
    let full: RepositoryName = "team/app".parse().expect("a name");
    for (name, bodies) in [
        ("hello", vec![hello(HaveMap::All), hello(HaveMap::Bits(vec![5]))]),
        ("have", vec![SwarmBody::Have { pieces: vec![0, 3, 2_047], load: 300 }]),
        ("holders", vec![SwarmBody::Holders { holders: vec![holder(true), holder(false)] }]),
        ("goodbye", vec![SwarmBody::Goodbye { others: vec![holder(true)] }]),
        ("piece-too-high", vec![SwarmBody::Have { pieces: vec![2_048], load: 0 }]),
        ("map-too-long", vec![hello(HaveMap::Bits(vec![0; 257]))]),
        ("too-many-holders", vec![SwarmBody::Holders { holders: vec![holder(true); 21] }]),
        ("too-many-messages", vec![SwarmBody::Goodbye { others: Vec::new() }; 17]),
    ] {
        let messages = bodies.into_iter().map(|body| SwarmMessage { blob, body }).collect();
        let post = SwarmPost { sender: sender.clone(), repository: full.clone(), messages };
        write("swarm_post", name, &post.encode())?;
    }
    let answer = BusyAnswer { load: 32, others: vec![holder(true); 3] };
    write("swarm_post", "busy", &answer.encode())
}

fn have_maps() -> std::io::Result<()> {
    for (name, pieces, bytes) in [
        ("none", 0_u16, &[][..]),
        ("eight", 8, &[0xa5]),
        ("twelve", 12, &[0xff, 0x0f]),
        ("past-the-end", 12, &[0xff, 0x1f]),
        ("too-short", 12, &[0xff]),
        ("longest", 2_048, &[0xff; 256]),
    ] {
        write("have_map", name, &[&pieces.to_be_bytes(), bytes].concat())?;
    }
    Ok(())
}

fn signed_chains(signer: &Signer) -> std::io::Result<()> {
    let mut hasher = ChainHasher::new(Algorithm::Sha256);
    hasher.update(&vec![1; 300_000]);
    let signed = SignedChain::sign(signer, &Key([7; 32]), &hasher.finish().1);
    write("signed_chain", "five-pieces", &signed.encode())?;
    let no_chain = SignedChain { chain: Vec::new(), ..signed.clone() };
    write("signed_chain", "no-chain", &no_chain.encode())?;
    let other_key = SignedChain { public_key: [9; 32], ..signed };
    write("signed_chain", "no-key", &other_key.encode())?;
    write("signed_chain", "one-byte-more", &[other_key.encode(), vec![0]].concat())?;
    write("signed_chain", "empty", &[])
}

fn name_records(signer: &Signer) -> [(&'static str, NameRecord); 2] {
    let repository: RepositoryName = "team/app".parse().expect("a name");
    let tag: Tag = "v1".parse().expect("a tag");
    let digest = Some(Digest::sha256(b"manifest"));
    let live = NameRecord::sign(signer, repository.clone(), tag.clone(), digest, 1 << 40);
    let tombstone = NameRecord::sign(signer, repository, tag, None, u64::MAX);
    [("live", live), ("tombstone", tombstone)]
}

fn messages(signer: &Signer, record: &NameRecord) -> std::io::Result<()> {
    let contact = |id: NodeId, port: u16| Contact {
        id,
        addrs: vec![([127, 0, 0, 1], port).into(), ([0_u16, 0, 0, 0, 0, 0, 0, 1], port).into()],
        zone: "rack-1".to_owned(),
    };
    let sender = contact(signer.node_id(), 5001);
    let key = Key::of_content(&Digest::sha256(b"x"));
    let provider = ProviderRecord::sign(signer, &sender, key, true, 1_000, 2_000);
    let withdrawn = ProviderRecord::sign_withdrawn(signer, &sender, key, 1_500, 2_000);
    let fact = Fact::Referrer {
        repository: record.repository.clone(),
        subject: Digest::sha256(b"subject"),
        referrer: Digest::sha256(b"referrer"),
    };
    let entry = SetEntry::Fact(FactRecord::sign(signer, fact, Some(b"{}".to_vec()), 1 << 40));
    let (range, salt) = (KeyRange { start: key, bits: 9 }, Mark([7; 8]));
    let order = |platform: &str| PreheatOrder {
        run: [4; 16],
        repository: record.repository.clone(),
        manifest: Digest::sha256(b"manifest"),
        platform: platform.to_owned(),
    };
    for (name, body) in [
        ("ping", Request::Ping),
        ("find-node", Request::FindNode { target: key }),
        ("find-providers", Request::FindProviders { key }),
        ("put-providers", Request::PutProviders { records: vec![provider.clone(), withdrawn] }),
        ("get-name", Request::GetName { key }),
        ("put-name", Request::PutName { record: record.clone() }),
        ("prepare-name", Request::PrepareName { key, stamp: 1 << 40, writer: [5; 32] }),
        ("accept-name", Request::AcceptName { record: record.clone() }),
        ("get-history", Request::GetHistory { key }),
        ("revoked", Request::Revoked { serials: vec![[9; 16]; 3] }),
        ("get-set", Request::GetSet { key, from: Member::text("v1"), limit: 9 }),
        ("put-entry", Request::PutEntry { entry: entry.clone() }),
        ("compare", Request::Compare { range, salt, sums: [salt; CELLS] }),
        ("get-records", Request::GetRecords { range, salt, marks: vec![salt; 3] }),
        ("preheat", Request::Preheat(order("linux/arm64/v8"))),
        ("preheat-long-platform", Request::Preheat(order(&"p".repeat(65)))),
        (
            "resolve",
            Request::Resolve { repository: record.repository.clone(), tag: record.tag.clone() },
        ),
        ("get-members", Request::Members),
        ("dial-me", Request::DialMe),
        ("get-time", Request::Time),
        (
            "paused",
            Request::Paused { host: "registry.example:5000".parse().expect("a host"), for_s: 60 },
        ),
    ] {
        let envelope = RequestEnvelope { sender: sender.clone(), puzzle: [0; 32], body };
        write("wire", name, &envelope.encode())?;
    }
    let crowded = Contact { addrs: vec![([127, 0, 0, 1], 1).into(); 99], ..sender.clone() };
    let envelope = RequestEnvelope { sender: crowded, puzzle: [0; 32], body: Request::Ping };
    write("wire", "too-many-addresses", &envelope.encode())?;
    let nodes = vec![sender.clone(), contact(NodeId([3; 32]), 1)];
    let record = Some(record.clone());
    let seen = MemberSeen { contact: contact(NodeId([4; 32]), 1), ago_s: 9 };
    let dialled = DialTry { addr: ([10, 0, 0, 7], 5001).into(), outcome: DialOutcome::Silent };
    let hint = NotSoon { record: 1, wait_s: 3_600 };
    let preheating = PreheatState {
        stage: PreheatStage::Failed,
        parts_done: 2,
        parts: 3,
        bytes_done: 1 << 20,
        bytes: 3 << 20,
        error: "nobody has a blob of it".to_owned(),
    };
    for (name, response) in [
        ("pong", Response::Pong { revoked: 3, puzzle: [1; 32] }),
        ("nodes", Response::Nodes { nodes: nodes.clone() }),
        ("too-many-nodes", Response::Nodes { nodes: vec![sender; 99] }),
        ("providers", Response::Providers { records: vec![provider.clone()], nodes }),
        ("stored", Response::Stored { accepted: 1, not_soon: vec![hint; 2] }),
        ("compared", Response::Compared { marks: vec![salt; 3] }),
        ("preheating", Response::Preheat(preheating)),
        ("records", Response::Records { records: vec![provider; 2] }),
        ("promise", Response::Promise { outbid_by: Some(9), record: record.clone(), young: true }),
        (
            "history",
            Response::History { records: record.iter().cloned().cycle().take(3).collect() },
        ),
        (
            "history-too-long",
            Response::History { records: record.iter().cloned().cycle().take(17).collect() },
        ),
        ("name", Response::Name { record: record.clone(), clock_ms: 9 }),
        ("name-stored", Response::NameStored { stored: false, newest: record }),
        ("refused", Response::Refused { reason: RefuseReason::Busy }),
        ("set", Response::Set { entries: vec![entry.clone(); 2], more: true, young: false }),
        ("entry-stored", Response::EntryStored { stored: false, newest: Some(entry) }),
        ("resolved", Response::Resolved(ResolveAnswer::Is { digest: None, age_ms: 9 })),
        ("members", Response::Members { members: vec![seen.clone(); 2] }),
        ("too-many-members", Response::Members { members: vec![seen; 65] }),
        ("time", Response::Time { clock_ms: 9 }),
        ("dialled", Response::Dialled { tries: vec![dialled; 2] }),
        ("too-many-dials", Response::Dialled { tries: vec![dialled; 5] }),
        ("not-resolved", Response::Resolved(ResolveAnswer::Failed(UpstreamFailure::Down))),
    ] {
        write("wire", name, &response.encode())?;
    }
    // A list that claims 2^64 - 1 members, and one that ends in the middle.
    let endless = [&[1][..], &[0xff; 9], &[1]].concat();
    write("wire", "endless-list", &endless)
}
