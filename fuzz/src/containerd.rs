//! Invariants of what a containerd says on its socket: frames, messages, statuses.

use bytes::Bytes;
use ddr_containerd::decode::{self, Frames, MAX_MESSAGE_BYTES, MAX_STATUS_BYTES};
use ddr_containerd::{Content, MAX_SOURCES, Source};
use http::{HeaderMap, HeaderValue};

const NAMESPACE: &str = "default";

/// Bytes as the body of an answer, as one message of each kind, and as a status with its text.
pub(crate) fn containerd(data: &[u8]) {
    let whole = messages(data, data.len().max(1));
    for step in [1, 7] {
        assert_eq!(messages(data, step), whole, "cut into pieces of {step}");
    }
    whole.0.into_iter().for_each(message);
    message(Bytes::copy_from_slice(data));
    status(data);
}

/// All messages of a body in pieces of `step` bytes, and whether it ended well.
fn messages(body: &[u8], step: usize) -> (Vec<Bytes>, bool) {
    let (mut frames, mut messages) = (Frames::default(), Vec::new());
    for piece in body.chunks(step) {
        frames.push(piece);
        loop {
            match frames.pop() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, false),
            }
        }
    }
    assert!(messages.iter().all(|message| message.len() <= MAX_MESSAGE_BYTES));
    (messages, frames.finish().is_ok())
}

fn message(message: Bytes) {
    if let Ok(namespaces) = decode::namespaces(message.clone()) {
        assert!(namespaces.iter().all(|name| HeaderValue::from_str(name).is_ok()));
    }
    if let Ok(contents) = decode::contents(message.clone(), NAMESPACE) {
        contents.iter().for_each(content);
    }
    if let Ok(images) = decode::images(message.clone(), NAMESPACE) {
        images.iter().for_each(|image| source(&image.source));
    }
    if let Ok(Some(root)) = decode::content_root(message.clone()) {
        assert!(root.is_absolute());
    }
    if let Ok((_, bytes)) = decode::part(message.clone()) {
        assert!(bytes.len() <= message.len());
    }
    let _ = decode::event(message);
}

fn content(content: &Content) {
    assert_eq!(content.namespace, NAMESPACE);
    assert!(content.sources.len() <= MAX_SOURCES);
    assert!(content.sources.is_sorted());
    content.sources.iter().for_each(source);
}

/// A source has a name here whenever its registry can be mirrored and the name is not too long.
fn source(source: &Source) {
    assert!(!source.host.is_empty());
    let Some(name) = source.name_here() else { return };
    let there = ddr_oci::Mirrored::of(&name).expect("a mirrored name");
    assert_eq!(there.host.as_str(), source.host);
}

fn status(text: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("grpc-status", HeaderValue::from_static("2"));
    let Ok(value) = HeaderValue::from_bytes(text) else { return };
    headers.insert("grpc-message", value.clone());
    let status = decode::status(&headers).expect("a number").expect("a status");
    // What is not UTF-8 may have become three bytes for one.
    assert!(status.text.len() <= 3 * MAX_STATUS_BYTES);
    assert!(!status.text.contains(char::is_control));
    headers.insert("grpc-status", value);
    let _ = decode::status(&headers);
}
