//! Answers that are none end in an error.

use ddr_containerd::ContainerdError;

use crate::fake::{Fake, Reply};

/// What a list makes of it.
async fn list(reply: Reply) -> ContainerdError {
    let fake = Fake::always(reply);
    fake.connect().await.list().await.expect_err("an error")
}

fn failed(error: &ContainerdError, text: &str) {
    assert!(matches!(error, ContainerdError::Failed(_)), "{error:?}");
    assert!(error.to_string().contains(text), "{error}");
}

fn ended(status: &str, message: &str) -> Reply {
    let trailers = vec![("grpc-status", status.to_owned()), ("grpc-message", message.to_owned())];
    Reply { trailers: Some(trailers), ..Reply::ok(&[]) }
}

/// Without a body: the status is in the headers.
fn at_once(status: &str) -> Reply {
    let mut reply = Reply { trailers: None, ..Reply::ok(&[]) };
    reply.headers.push(("grpc-status", status.to_owned()));
    reply
}

#[tokio::test]
async fn a_good_answer_is_none_of_these() {
    let fake = Fake::always(Reply::ok(&[b"", b""]));
    assert!(fake.connect().await.list().await.expect("a list").contents.is_empty());
    let fake = Fake::always(at_once("0"));
    assert!(fake.connect().await.list().await.expect("a list").contents.is_empty());
}

#[tokio::test]
async fn other_servers_are_known_by_their_answers() {
    failed(&list(Reply { status: 404, ..Reply::ok(&[]) }).await, "no containerd");
    failed(&list(Reply { headers: Vec::new(), ..Reply::ok(&[]) }).await, "no containerd");
    let html = vec![("content-type", "text/html".to_owned())];
    failed(&list(Reply { headers: html, ..Reply::ok(&[]) }).await, "no containerd");
    failed(&list(at_once("12")).await, "too old");
}

#[tokio::test]
async fn a_status_says_what_happened() {
    failed(&list(ended("13", "disk%20full")).await, "disk full");
    failed(&list(at_once("7")).await, "code 7");
    for status in ["1", "4", "14"] {
        let error = list(ended(status, "")).await;
        assert!(matches!(error, ContainerdError::Unreachable(_)), "{error:?}");
    }
    assert!(matches!(list(at_once("5")).await, ContainerdError::Absent));
}

#[tokio::test]
async fn an_answer_without_status_is_none() {
    failed(&list(Reply { trailers: None, ..Reply::ok(&[b""]) }).await, "no status");
    failed(&list(Reply { trailers: Some(Vec::new()), ..Reply::ok(&[]) }).await, "no status");
    failed(&list(ended("fine", "")).await, "no status");
}

#[tokio::test]
async fn bad_frames_and_messages_are_errors() {
    for (body, text) in [
        (b"\x01\0\0\0\0".as_slice(), "unknown kind"),
        (b"\0\xff\xff\xff\xff", "more than"),
        (b"\0\0\0\0\x05ab", "within a message"),
        (b"\0\0\0", "within a message"),
        (b"\0\0\0\0\x02\x0a\x05", "cannot be read"),
    ] {
        failed(&list(Reply { body: body.to_vec(), ..Reply::ok(&[]) }).await, text);
    }
}

#[tokio::test]
async fn a_question_with_one_answer_gets_one() {
    for reply in [Reply::ok(&[]), Reply::ok(&[b"", b""])] {
        let error = Fake::always(reply).connect().await.images().await.expect_err("an error");
        failed(&error, "cannot be read");
    }
}

#[tokio::test]
async fn a_content_store_that_nobody_may_read_has_no_root() {
    let plugin = |root: &str| {
        let (kind, id) = ("io.containerd.content.v1", "content");
        let pair = [field(1, b"root"), field(2, root.as_bytes())].concat();
        let plugin = [field(1, kind.as_bytes()), field(2, id.as_bytes()), field(5, &pair)].concat();
        Reply::ok(&[&field(1, &plugin)])
    };
    for root in ["relative", "/none/there"] {
        let fake = Fake::always(plugin(root));
        assert_eq!(fake.connect().await.content_root().await.expect("an answer"), None);
    }
    let here = tempfile::tempdir().expect("a directory");
    let fake = Fake::always(plugin(here.path().to_str().expect("plain")));
    let root = fake.connect().await.content_root().await.expect("an answer");
    assert_eq!(root.as_deref(), Some(here.path()));
}

/// A field of protobuf that is bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).ok().filter(|length| *length < 128).expect("short");
    [&[number << 3 | 2, length], bytes].concat()
}
