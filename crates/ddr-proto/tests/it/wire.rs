//! Messages: they survive their bytes, and nothing else is taken for one.

use std::net::SocketAddr;

use ddr_oci::platform::MAX_PLATFORM_BYTES;
use ddr_oci::{Algorithm, Digest};
use ddr_proto::wire::{
    CELLS, Contact, ContentKind, DialOutcome, DialTry, Fact, FactRecord, KeepAnswer, Keeping,
    KeyRange, MAX_ADDRS, MAX_ENTRIES_PER_PAGE, MAX_HISTORY, MAX_MARKS, MAX_MEMBER_BYTES,
    MAX_MEMBERS_TOLD, MAX_MESSAGE_BYTES, MAX_NODES, MAX_PAGE_BYTES, MAX_PREHEAT_ERROR_BYTES,
    MAX_RECORDS_PER_ANSWER, MAX_RECORDS_PER_PUT, MAX_REPLICA_HOLDERS, MAX_REVOKED, MAX_VALUE_BYTES,
    MAX_ZONE_BYTES, Mark, Member, MemberSeen, NameRecord, NotSoon, PlacedPart, Placement,
    PreheatOrder, PreheatStage, PreheatState, ProviderRecord, RecordError, RefuseReason, Request,
    RequestEnvelope, ResolveAnswer, Response, SetEntry, UpstreamFailure, WireError,
};
use ddr_proto::{Key, NodeId};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::net::{key, signer};
use crate::solo::peer;

fn addrs() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
}

fn contacts() -> impl Strategy<Value = Contact> {
    (any::<[u8; 32]>(), vec(addrs(), 0..=MAX_ADDRS), "[a-z0-9-]{0,32}")
        .prop_map(|(id, addrs, zone)| Contact { id: NodeId(id), addrs, zone })
}

fn keys() -> impl Strategy<Value = Key> {
    any::<[u8; 32]>().prop_map(Key)
}

fn signatures() -> impl Strategy<Value = [u8; 64]> {
    any::<([u8; 32], [u8; 32])>().prop_map(|(first, second)| {
        std::array::from_fn(|i| if i < 32 { first[i] } else { second[i - 32] })
    })
}

fn providers() -> impl Strategy<Value = ProviderRecord> {
    let flags = any::<(bool, bool, u64, u64)>();
    (keys(), contacts(), any::<[u8; 32]>(), flags, signatures()).prop_map(
        |(key, provider, public_key, (complete, withdrawn, issued_ms, expires_ms), signature)| {
            ProviderRecord {
                key,
                provider,
                public_key,
                complete,
                issued_ms,
                expires_ms,
                withdrawn,
                signature,
            }
        },
    )
}

fn names() -> impl Strategy<Value = NameRecord> {
    let digests = any::<[u8; 32]>().prop_map(|bytes| Digest::from_parts(Algorithm::Sha256, &bytes));
    let texts = ("[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}", "[A-Za-z0-9_][A-Za-z0-9._-]{0,12}");
    (texts, digests, any::<bool>(), any::<u64>(), any::<[u8; 32]>(), signatures()).prop_map(
        |((repository, tag), digest, tombstone, stamp, writer, signature)| NameRecord {
            repository: repository.parse().expect("the pattern is a name"),
            tag: tag.parse().expect("the pattern is a tag"),
            digest: digest.filter(|_| !tombstone),
            stamp,
            writer,
            signature,
        },
    )
}

fn entries() -> impl Strategy<Value = SetEntry> {
    let digests = || any::<[u8; 32]>().prop_map(|bytes| Digest::sha256(&bytes));
    let repositories = || "[a-z0-9]{1,8}".prop_map(|name| name.parse().expect("a name"));
    let facts = prop_oneof![
        repositories().prop_map(Fact::Repository),
        (repositories(), digests(), digests()).prop_map(|(repository, subject, referrer)| {
            Fact::Referrer { repository, subject, referrer }
        }),
        (repositories(), digests(), any::<bool>()).prop_map(|(repository, digest, blob)| {
            let kind = if blob { ContentKind::Blob } else { ContentKind::Manifest };
            Fact::Deleted { repository, digest, kind }
        }),
    ];
    let values = option::of(vec(any::<u8>(), 0..64));
    let facts = (facts, values, any::<u64>(), any::<[u8; 32]>(), signatures()).prop_map(
        |(fact, value, stamp, writer, signature)| {
            SetEntry::Fact(FactRecord { fact, value, stamp, writer, signature })
        },
    );
    prop_oneof![names().prop_map(SetEntry::Tag), facts]
}

fn members() -> impl Strategy<Value = Member> {
    vec(any::<u8>(), 0..=MAX_MEMBER_BYTES)
        .prop_map(|bytes| Member::from_bytes(&bytes).expect("within the limit"))
}

fn marks() -> impl Strategy<Value = Mark> {
    any::<[u8; 8]>().prop_map(Mark)
}

fn ranges() -> impl Strategy<Value = KeyRange> {
    (keys(), 0..=256_u16).prop_map(|(start, bits)| KeyRange { start, bits })
}

fn placements() -> impl Strategy<Value = Placement> {
    let part = || {
        let holders = vec(any::<[u8; 32]>().prop_map(NodeId), 0..=MAX_REPLICA_HOLDERS);
        (any::<[u8; 4]>(), any::<u64>(), holders).prop_map(|(seed, size, holders)| PlacedPart {
            digest: Digest::sha256(&seed),
            size,
            holders,
        })
    };
    (part(), vec(part(), 0..20)).prop_map(|(manifest, blobs)| Placement {
        repository: "team/app".parse().expect("valid"),
        manifest,
        blobs,
    })
}

fn requests() -> impl Strategy<Value = RequestEnvelope> {
    let bodies = prop_oneof![
        Just(Request::Ping),
        keys().prop_map(|target| Request::FindNode { target }),
        keys().prop_map(|key| Request::FindProviders { key }),
        vec(providers(), 0..8).prop_map(|records| Request::PutProviders { records }),
        keys().prop_map(|key| Request::GetName { key }),
        keys().prop_map(|key| Request::GetHistory { key }),
        (keys(), any::<u64>(), any::<[u8; 32]>())
            .prop_map(|(key, stamp, writer)| Request::PrepareName { key, stamp, writer }),
        names().prop_map(|record| Request::AcceptName { record }),
        names().prop_map(|record| Request::PutName { record }),
        (keys(), members(), any::<u16>()).prop_map(|(key, from, limit)| Request::GetSet {
            key,
            from,
            limit
        }),
        entries().prop_map(|entry| Request::PutEntry { entry }),
        vec(any::<[u8; 16]>(), 0..20).prop_map(|serials| Request::Revoked { serials }),
        any::<[u8; 32]>().prop_map(|node| Request::Gone { node: NodeId(node) }),
        (any::<bool>(), placements())
            .prop_map(|(take, placement)| Request::Keep { take, placement }),
        (ranges(), marks(), any::<[[u8; 8]; 16]>()).prop_map(|(range, salt, sums)| {
            Request::Compare { range, salt, sums: sums.map(Mark) }
        }),
        (ranges(), marks(), vec(marks(), 0..20))
            .prop_map(|(range, salt, marks)| Request::GetRecords { range, salt, marks }),
        (any::<[u8; 16]>(), names(), "[a-z/0-9]{0,64}").prop_map(|(run, name, platform)| {
            let (repository, manifest) = (name.repository, Digest::sha256(&run));
            Request::Preheat(PreheatOrder { run, repository, manifest, platform })
        }),
        names().prop_map(|name| Request::Resolve { repository: name.repository, tag: name.tag }),
        Just(Request::Members),
        Just(Request::DialMe),
        Just(Request::Time),
        any::<u32>().prop_map(|for_s| {
            let host = "registry.example:5000".parse().expect("a host");
            Request::Paused { host, for_s }
        }),
    ];
    (contacts(), any::<[u8; 32]>(), bodies).prop_map(|(sender, puzzle, body)| RequestEnvelope {
        sender,
        puzzle,
        body,
    })
}

const fn dial_outcome(number: u8) -> DialOutcome {
    match number {
        0 => DialOutcome::Reached,
        1 => DialOutcome::Refused,
        2 => DialOutcome::Silent,
        3 => DialOutcome::Stranger,
        4 => DialOutcome::Failed,
        _ => DialOutcome::NotDialled,
    }
}

fn responses() -> impl Strategy<Value = Response> {
    let nodes = || vec(contacts(), 0..=MAX_NODES);
    prop_oneof![
        any::<(u32, [u8; 32])>().prop_map(|(revoked, puzzle)| Response::Pong { revoked, puzzle }),
        nodes().prop_map(|nodes| Response::Nodes { nodes }),
        (vec(providers(), 0..=MAX_RECORDS_PER_ANSWER), nodes())
            .prop_map(|(records, nodes)| Response::Providers { records, nodes }),
        (any::<u32>(), vec(any::<(u8, u16)>(), 0..9)).prop_map(|(accepted, hints)| {
            let hint = |(record, wait_s)| NotSoon { record, wait_s };
            Response::Stored { accepted, not_soon: hints.into_iter().map(hint).collect() }
        }),
        vec(marks(), 0..20).prop_map(|marks| Response::Compared { marks }),
        vec(providers(), 0..8).prop_map(|records| Response::Records { records }),
        (option::of(names()), any::<u64>())
            .prop_map(|(record, clock_ms)| Response::Name { record, clock_ms }),
        (any::<bool>(), option::of(names()))
            .prop_map(|(stored, newest)| Response::NameStored { stored, newest }),
        (vec(entries(), 0..20), any::<(bool, bool)>())
            .prop_map(|(entries, (more, young))| Response::Set { entries, more, young }),
        (any::<bool>(), option::of(entries()))
            .prop_map(|(stored, newest)| Response::EntryStored { stored, newest }),
        (any::<(u32, u32, u64, u64)>(), ".{0,64}").prop_map(|((parts_done, parts, ..), error)| {
            let stage = PreheatStage::Failed;
            Response::Preheat(PreheatState {
                stage,
                parts_done,
                parts,
                error,
                ..PreheatState::default()
            })
        }),
        (vec(0..6_u8, 0..20), any::<(u64, u64)>()).prop_map(|(said, (bytes, free))| {
            let keeping = |one: u8| match one {
                0 => Keeping::Kept,
                1 => Keeping::Coming,
                2 => Keeping::Absent,
                3 => Keeping::Full,
                4 => Keeping::Leaving,
                _ => Keeping::Deleted,
            };
            let blobs = said.into_iter().map(keeping).collect();
            Response::Keeping(KeepAnswer { manifest: Keeping::Coming, blobs, bytes, free })
        }),
        Just(Response::Refused { reason: RefuseReason::ClockAhead }),
        any::<u64>().prop_map(|clock_ms| Response::Time { clock_ms }),
        (option::of(any::<u64>()), option::of(names()), any::<bool>())
            .prop_map(|(outbid_by, record, young)| Response::Promise { outbid_by, record, young }),
        vec(names(), 0..=MAX_HISTORY).prop_map(|records| Response::History { records }),
        (option::of(any::<[u8; 8]>()), any::<u32>()).prop_map(|(bytes, age_ms)| {
            let digest = bytes.map(|bytes| Digest::sha256(&bytes));
            Response::Resolved(ResolveAnswer::Is { digest, age_ms })
        }),
        vec((contacts(), any::<u32>()), 0..=MAX_MEMBERS_TOLD).prop_map(|members| {
            let seen = |(contact, ago_s)| MemberSeen { contact, ago_s };
            Response::Members { members: members.into_iter().map(seen).collect() }
        }),
        vec((0..6_u8, any::<u16>()), 0..=MAX_ADDRS).prop_map(|tries| {
            let one = |(outcome, port)| DialTry {
                addr: ([10, 0, 0, 1], port).into(),
                outcome: dial_outcome(outcome),
            };
            Response::Dialled { tries: tries.into_iter().map(one).collect() }
        }),
        any::<u32>().prop_map(|for_s| {
            Response::Resolved(ResolveAnswer::Failed(UpstreamFailure::Paused { for_s }))
        }),
    ]
}

proptest! {
    #[test]
    fn messages_survive_their_bytes(request in requests(), response in responses()) {
        prop_assert_eq!(RequestEnvelope::decode(&request.encode()), Ok(request));
        prop_assert_eq!(Response::decode(&response.encode()), Ok(response));
    }

    #[test]
    fn a_message_cut_short_is_malformed(request in requests(), response in responses(), at: usize) {
        let bytes = request.encode();
        let cut = RequestEnvelope::decode(&bytes[..at % bytes.len()]);
        prop_assert_eq!(cut, Err(WireError::Malformed));
        let bytes = response.encode();
        prop_assert_eq!(Response::decode(&bytes[..at % bytes.len()]), Err(WireError::Malformed));
    }

    #[test]
    fn a_message_with_more_behind_it_is_malformed(request in requests(), more: u8) {
        let mut bytes = request.encode();
        bytes.push(more);
        prop_assert_eq!(RequestEnvelope::decode(&bytes), Err(WireError::Malformed));
    }

    #[test]
    fn garbage_is_no_message_over_a_limit(bytes in vec(any::<u8>(), 0..2_000)) {
        if let Ok(request) = RequestEnvelope::decode(&bytes) {
            prop_assert_eq!(request.check_limits(), Ok(()));
        }
        if let Ok(response) = Response::decode(&bytes) {
            prop_assert_eq!(response.check_limits(), Ok(()));
        }
    }

    #[test]
    fn a_flipped_bit_is_never_a_panic(request in requests(), at: usize, bit in 0..8_u32) {
        let mut bytes = request.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(other) = RequestEnvelope::decode(&bytes) {
            prop_assert_eq!(other.check_limits(), Ok(()));
        }
    }

    #[test]
    fn a_signature_holds_for_exactly_what_was_signed(at: usize, bit in 0..8_u32) {
        let (signer, contact) = peer(1);
        let record = ProviderRecord::sign(&signer, &contact, key(1), true, 5, 50);
        prop_assert_eq!(record.verify(), Ok(()));
        let put = Request::PutProviders { records: vec![record.clone()] };
        let envelope = RequestEnvelope { sender: contact, puzzle: [0; 32], body: put };
        let mut bytes = envelope.encode();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let Ok(RequestEnvelope { body: Request::PutProviders { records }, .. }) =
            RequestEnvelope::decode(&bytes)
        else {
            return Ok(());
        };
        for changed in records.iter().filter(|changed| **changed != record) {
            prop_assert!(changed.verify().is_err());
        }
    }
}

#[test]
fn lists_over_their_limit_are_named() {
    let (signer, contact) = peer(1);
    let record = ProviderRecord::sign(&signer, &contact, key(1), true, 5, 50);
    let ask = |body| RequestEnvelope { sender: contact.clone(), puzzle: [0; 32], body }.encode();
    let put = |count| Request::PutProviders { records: vec![record.clone(); count] };
    assert!(RequestEnvelope::decode(&ask(put(MAX_RECORDS_PER_PUT))).is_ok());
    let over = RequestEnvelope::decode(&ask(put(MAX_RECORDS_PER_PUT + 1)));
    assert_eq!(over, Err(WireError::OverLimit("MAX_RECORDS_PER_PUT")));
    let revoked = |count| Request::Revoked { serials: vec![[1; 16]; count] };
    assert!(RequestEnvelope::decode(&ask(revoked(MAX_REVOKED))).is_ok());
    let over = RequestEnvelope::decode(&ask(revoked(MAX_REVOKED + 1)));
    assert_eq!(over, Err(WireError::OverLimit("MAX_REVOKED")));
    let range = KeyRange { start: key(1), bits: 9 };
    let salt = Mark([1; 8]);
    let wanted = |count| Request::GetRecords { range, salt, marks: vec![salt; count] };
    assert!(RequestEnvelope::decode(&ask(wanted(MAX_RECORDS_PER_PUT))).is_ok());
    let over = RequestEnvelope::decode(&ask(wanted(MAX_RECORDS_PER_PUT + 1)));
    assert_eq!(over, Err(WireError::OverLimit("MAX_RECORDS_PER_PUT")));
    let wide = KeyRange { start: key(1), bits: 257 };
    let compare = Request::Compare { range: wide, salt, sums: [salt; CELLS] };
    let over = RequestEnvelope::decode(&ask(compare));
    assert_eq!(over, Err(WireError::OverLimit("ID_BITS")));
    let compared = |count| Response::Compared { marks: vec![salt; count] };
    assert!(Response::decode(&compared(MAX_MARKS).encode()).is_ok());
    let over = Response::decode(&compared(MAX_MARKS + 1).encode());
    assert_eq!(over, Err(WireError::OverLimit("MAX_MARKS")));
    let records = |count| Response::Records { records: vec![record.clone(); count] };
    assert!(Response::decode(&records(MAX_RECORDS_PER_PUT).encode()).is_ok());
    let over = Response::decode(&records(MAX_RECORDS_PER_PUT + 1).encode());
    assert_eq!(over, Err(WireError::OverLimit("MAX_RECORDS_PER_PUT")));
    let order = |bytes| {
        let (repository, manifest) = ("team/app".parse().expect("a name"), Digest::sha256(b"x"));
        let platform = "p".repeat(bytes);
        Request::Preheat(PreheatOrder { run: [1; 16], repository, manifest, platform })
    };
    assert!(RequestEnvelope::decode(&ask(order(MAX_PLATFORM_BYTES))).is_ok());
    let over = RequestEnvelope::decode(&ask(order(MAX_PLATFORM_BYTES + 1)));
    assert_eq!(over, Err(WireError::OverLimit("MAX_PLATFORM_BYTES")));
    let failed = |bytes| {
        Response::Preheat(PreheatState { error: "e".repeat(bytes), ..PreheatState::default() })
    };
    assert!(Response::decode(&failed(MAX_PREHEAT_ERROR_BYTES).encode()).is_ok());
    let over = Response::decode(&failed(MAX_PREHEAT_ERROR_BYTES + 1).encode());
    assert_eq!(over, Err(WireError::OverLimit("MAX_PREHEAT_ERROR_BYTES")));
    let hints = |count| Response::Stored {
        accepted: 0,
        not_soon: vec![NotSoon { record: 1, wait_s: 2 }; count],
    };
    assert!(Response::decode(&hints(MAX_RECORDS_PER_PUT).encode()).is_ok());
    let over = Response::decode(&hints(MAX_RECORDS_PER_PUT + 1).encode());
    assert_eq!(over, Err(WireError::OverLimit("MAX_RECORDS_PER_PUT")));
    let nodes = |count| Response::Nodes { nodes: vec![contact.clone(); count] };
    assert!(Response::decode(&nodes(MAX_NODES).encode()).is_ok());
    let over = Response::decode(&nodes(MAX_NODES + 1).encode());
    assert_eq!(over, Err(WireError::OverLimit("MAX_NODES")));
    let repository: ddr_oci::RepositoryName = "r".repeat(255).parse().expect("a name");
    let tag: ddr_oci::Tag = "t".repeat(128).parse().expect("a tag");
    let digest = Some(Digest::of(Algorithm::Sha512, b"x"));
    let record = NameRecord::sign(&signer, repository, tag, digest, u64::MAX);
    let history = |count| Response::History { records: vec![record.clone(); count] };
    assert!(Response::decode(&history(MAX_HISTORY).encode()).is_ok());
    let over = Response::decode(&history(MAX_HISTORY + 1).encode());
    assert_eq!(over, Err(WireError::OverLimit("MAX_HISTORY")));
    let one = DialTry { addr: ([10, 0, 0, 1], 1).into(), outcome: DialOutcome::Reached };
    let tries = Response::Dialled { tries: vec![one; MAX_ADDRS + 1] };
    assert_eq!(Response::decode(&tries.encode()), Err(WireError::OverLimit("MAX_ADDRS")));
    let oversized = vec![0; MAX_MESSAGE_BYTES + 1];
    assert_eq!(Response::decode(&oversized), Err(WireError::TooLarge));
}

#[test]
fn a_length_beyond_the_bytes_takes_no_memory_and_is_malformed() {
    // Variant 1 of a response is a list of nodes; the length that follows claims 2^40 of them.
    let bytes = [1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20];
    assert_eq!(Response::decode(&bytes), Err(WireError::Malformed));
}

#[test]
fn the_largest_messages_within_all_limits_fit() {
    let (signer, mut contact) = peer(1);
    contact.addrs = vec![SocketAddr::from(([0xff; 16], 65_535)); MAX_ADDRS];
    contact.zone = "z".repeat(MAX_ZONE_BYTES);
    let record = ProviderRecord::sign(&signer, &contact, key(1), true, u64::MAX, u64::MAX);
    let put = Request::PutProviders { records: vec![record.clone(); MAX_RECORDS_PER_PUT] };
    let request = RequestEnvelope { sender: contact.clone(), puzzle: [0xff; 32], body: put };
    assert!(request.encode().len() <= MAX_MESSAGE_BYTES);
    let response = Response::Providers {
        records: vec![record.clone(); MAX_RECORDS_PER_ANSWER],
        nodes: vec![contact; MAX_NODES],
    };
    assert!(response.encode().len() <= MAX_MESSAGE_BYTES);
    let response = Response::Records { records: vec![record; MAX_RECORDS_PER_PUT] };
    assert!(response.encode().len() <= MAX_MESSAGE_BYTES);
}

#[test]
fn a_name_record_speaks_for_its_writer_only() {
    let writer = signer(1);
    let (repository, tag) = ("team/app", "1.0");
    let (repository, tag) = (repository.parse().expect("name"), tag.parse().expect("tag"));
    let record = NameRecord::sign(&writer, repository, tag, Some(Digest::sha256(b"manifest")), 77);
    assert_eq!(record.verify(), Ok(()));
    assert_eq!(record.writer_id(), writer.node_id());
    assert_eq!(NameRecord::from_bytes(&record.to_bytes()), Ok(record.clone()));
    let later = NameRecord { stamp: 78, ..record.clone() };
    let other = NameRecord { writer: *signer(2).public_key(), ..record.clone() };
    let deleted = NameRecord { digest: None, ..record };
    for forged in [later, other, deleted] {
        assert_eq!(forged.verify(), Err(RecordError::BadSignature));
    }
}

fn referrer(value: Vec<u8>) -> SetEntry {
    let repository = "a/".repeat(127) + "a";
    let fact = Fact::Referrer {
        repository: repository.parse().expect("a name of 255 bytes"),
        subject: Digest::of(Algorithm::Sha512, b"subject"),
        referrer: Digest::of(Algorithm::Sha512, b"referrer"),
    };
    SetEntry::Fact(FactRecord::sign(&signer(1), fact, Some(value), u64::MAX))
}

#[test]
fn entries_over_a_limit_are_named_and_the_largest_fit() {
    let contact = peer(1).1;
    let ask = |body| RequestEnvelope { sender: contact.clone(), puzzle: [0; 32], body };
    let largest = referrer(vec![1; MAX_VALUE_BYTES]);
    assert_eq!(SetEntry::from_bytes(&largest.to_bytes()), Ok(largest.clone()));
    let put = ask(Request::PutEntry { entry: largest.clone() }).encode();
    assert!(RequestEnvelope::decode(&put).is_ok());
    let over = referrer(vec![1; MAX_VALUE_BYTES + 1]);
    let limit = WireError::OverLimit("MAX_VALUE_BYTES");
    assert_eq!(SetEntry::from_bytes(&over.to_bytes()), Err(limit));
    let put = ask(Request::PutEntry { entry: over.clone() }).encode();
    assert_eq!(RequestEnvelope::decode(&put), Err(limit));
    let told = Response::EntryStored { stored: false, newest: Some(over.clone()) };
    assert_eq!(Response::decode(&told.encode()), Err(limit));
    let page = |entry: SetEntry, count| Response::Set {
        entries: vec![entry; count],
        more: true,
        young: true,
    };
    assert_eq!(Response::decode(&page(over, 1).encode()), Err(limit));
    let small = referrer(Vec::new());
    let many = Response::decode(&page(small, MAX_ENTRIES_PER_PAGE + 1).encode());
    assert!(many.is_err(), "by number or by bytes");

    // A page is cut when its entries have that many bytes; one is always given.
    let half = referrer(vec![1; MAX_PAGE_BYTES / 2 - 1024]);
    assert!(2 * half.to_bytes().len() <= MAX_PAGE_BYTES);
    assert!(Response::decode(&page(half, 2).encode()).is_ok());
    assert!(Response::decode(&page(largest, 1).encode()).is_ok());

    let from = Member::from_bytes(&[9; MAX_MEMBER_BYTES]).expect("within the limit");
    assert_eq!(Member::from_bytes(&[9; MAX_MEMBER_BYTES + 1]), None);
    let mut bytes = ask(Request::GetSet { key: key(1), from, limit: 1 }).encode();
    let at = bytes.windows(2).position(|two| two == [0x80, 2]).expect("the length, as a varint");
    bytes[at] = 0x81;
    let limit = bytes.len() - 1;
    bytes.insert(limit, 9);
    assert_eq!(RequestEnvelope::decode(&bytes), Err(WireError::OverLimit("MAX_MEMBER_BYTES")));
}

#[test]
fn a_fact_speaks_for_its_writer_only() {
    let SetEntry::Fact(record) = referrer(b"{}".to_vec()) else { panic!("a fact") };
    let entry = SetEntry::Fact(record.clone());
    assert_eq!(entry.verify(), Ok(()));
    let later = FactRecord { stamp: 5, ..record.clone() };
    let other = FactRecord { writer: *signer(2).public_key(), ..record.clone() };
    let taken_back = FactRecord { value: None, ..record.clone() };
    let repository = "other".parse().expect("a name");
    let foreign = FactRecord { fact: Fact::Repository(repository), ..record };
    for forged in [later, other, taken_back, foreign] {
        assert_eq!(SetEntry::Fact(forged).verify(), Err(RecordError::BadSignature));
    }
}
