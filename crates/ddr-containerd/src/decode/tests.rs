use std::collections::BTreeMap;

use ddr_oci::Digest;
use http::{HeaderMap, HeaderValue};

use super::*;
use crate::messages::{Filters, Namespace, Plugin, Target};

fn bytes(message: &impl prost::Message) -> Bytes {
    message.encode_to_vec().into()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// All messages of a body that comes in pieces of `step` bytes.
fn pop_all(body: &[u8], step: usize) -> Result<Vec<Bytes>, DecodeError> {
    let (mut frames, mut messages) = (Frames::default(), Vec::new());
    for piece in body.chunks(step) {
        frames.push(piece);
        while let Some(message) = frames.pop()? {
            messages.push(message);
        }
    }
    frames.finish()?;
    Ok(messages)
}

#[test]
fn frames_come_together_however_they_are_cut() {
    let body = [b"\0\0\0\0\x03abc".as_slice(), b"\0\0\0\0\0", b"\0\0\0\0\x01d"].concat();
    for step in 1..=body.len() {
        assert_eq!(pop_all(&body, step).expect("frames"), ["abc", "", "d"], "{step}");
    }
}

#[test]
fn frames_that_are_none_are_errors() {
    assert_eq!(pop_all(b"\x01\0\0\0\0", 5), Err(DecodeError::Frame));
    assert_eq!(pop_all(b"\0\x01\0\0\x01", 5), Err(DecodeError::TooLong));
    assert_eq!(pop_all(b"\0\xff\xff\xff\xff", 5), Err(DecodeError::TooLong));
    assert_eq!(pop_all(b"\0\0\0\0\x02a", 6), Err(DecodeError::Cut));
    assert_eq!(pop_all(b"\0\0\0", 3), Err(DecodeError::Cut));
    // As long as a message may be, and not there yet.
    assert_eq!(pop_all(b"\0\x01\0\0\0", 5), Err(DecodeError::Cut));
}

#[test]
fn a_framed_message_is_a_frame() {
    let filters = Filters { filters: vec!["a".to_owned(), "b".to_owned()] };
    assert_eq!(pop_all(&Frames::frame(&filters), 3).expect("frames"), [bytes(&filters)]);
}

#[test]
fn the_field_numbers_are_those_of_containerd() {
    // An `Info` of the digest "d", 300 bytes, with one label, as any writer of protobuf has it.
    let info = b"\x0a\x01d\x10\xac\x02\x2a\x06\x0a\x01k\x12\x01v";
    let expected = Info { digest: "d".to_owned(), size: 300, labels: map(&[("k", "v")]) };
    assert_eq!(Info::decode(info.as_slice()), Ok(expected));
    assert_eq!(part(Bytes::from_static(b"\x08\x05\x12\x02ab")), Ok((5, "ab".into())));
    // An `Image` called "a.b/c", with a label, that points to a `Descriptor` of the digest "d".
    let image = b"\x0a\x05a.b/c\x12\x06\x0a\x01k\x12\x01v\x1a\x08\x0a\x01t\x12\x01d\x18\x07";
    let target = Some(Target { digest: "d".to_owned() });
    let expected = ImageInfo { name: "a.b/c".to_owned(), target };
    assert_eq!(ImageInfo::decode(image.as_slice()), Ok(expected));
    let envelope = Bytes::from_static(b"\x0a\x00\x12\x06k8s.io\x1a\x01t\x22\x00");
    assert_eq!(event(envelope), Ok(("k8s.io".to_owned(), "t".to_owned())));
}

#[test]
fn contents_under_foreign_digests_are_left_out() {
    let digest = Digest::sha256(b"x").to_string();
    let good = Info { digest, size: 1, labels: BTreeMap::new() };
    let bad = Info { digest: "md5:00".to_owned(), ..good.clone() };
    let message = bytes(&Contents { info: vec![bytes(&bad), bytes(&good), bytes(&bad)] });
    let got = contents(message, "default").expect("contents");
    assert_eq!(got.len(), 1);
    assert_eq!((got[0].digest, got[0].namespace.as_str()), (Digest::sha256(b"x"), "default"));
}

#[test]
fn messages_that_are_none_are_errors() {
    for bad in [b"\x0a\x05a".as_slice(), b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b"] {
        let bad = Bytes::copy_from_slice(bad);
        assert_eq!(namespaces(bad.clone()), Err(DecodeError::Message));
        assert_eq!(contents(bad.clone(), "default"), Err(DecodeError::Message));
        assert_eq!(images(bad.clone(), "default"), Err(DecodeError::Message));
        assert_eq!(content_root(bad.clone()), Err(DecodeError::Message));
        assert_eq!(part(bad), Err(DecodeError::Message));
    }
    // An entry that is none within a list that is one.
    let list = Contents { info: vec![Bytes::from_static(b"\x0a\x05a")] };
    assert_eq!(contents(bytes(&list), "default"), Err(DecodeError::Message));
    let negative = ReadPart { offset: -1, data: Bytes::new() };
    assert_eq!(part(bytes(&negative)), Err(DecodeError::Message));
}

#[test]
fn namespaces_that_are_none_are_left_out() {
    let names = ["default", "", "k8s.io", "a\r\nb"].map(|name| Namespace { name: name.to_owned() });
    let message = bytes(&Namespaces { namespaces: names.to_vec() });
    assert_eq!(namespaces(message).expect("namespaces"), ["default", "k8s.io"]);
}

#[test]
fn the_root_is_the_content_stores_own() {
    let (kind, id) = STORE_PLUGIN;
    let root = |kind: &str, id: &str, exports: &[(&str, &str)]| {
        let plugin = Plugin { kind: kind.to_owned(), id: id.to_owned(), exports: map(exports) };
        content_root(bytes(&Plugins { plugins: vec![Plugin::default(), plugin] })).expect("plugins")
    };
    assert_eq!(root(kind, id, &[("root", "/a/b")]), Some("/a/b".into()));
    assert_eq!(root(kind, id, &[("root", "a/b")]), None);
    assert_eq!(root(kind, id, &[]), None);
    assert_eq!(root("io.containerd.snapshotter.v1", id, &[("root", "/a")]), None);
}

#[test]
fn statuses_are_read() {
    let headers = |pairs: &[(&'static str, &'static [u8])]| {
        let value = |bytes| HeaderValue::from_bytes(bytes).expect("a value");
        pairs.iter().map(|(k, v)| (k.parse().expect("a name"), value(v))).collect::<HeaderMap>()
    };
    let got = |pairs: &[_]| status(&headers(pairs));
    assert_eq!(got(&[]), Ok(None));
    for bad in [b"".as_slice(), b"-1", b"x", b"99999999999", b"\xff"] {
        assert_eq!(got(&[("grpc-status", bad)]), Err(DecodeError::Status));
    }
    let text = |message| got(&[("grpc-status", b"5"), ("grpc-message", message)]).expect("one");
    let status = |text: &str| Some(Status { code: 5, text: text.to_owned() });
    assert_eq!(text(b"50%25 of %C3%A4 %0A%zz %4"), status("50% of ä  %zz %4"));
    assert_eq!(text(&[b'a'; 2 * MAX_STATUS_BYTES]), status(&"a".repeat(MAX_STATUS_BYTES)));
}
