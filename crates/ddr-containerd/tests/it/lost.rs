//! Connections that end.

use ddr_containerd::ContainerdError;
use tokio::net::UnixListener;

use crate::fake::{Fake, Reply};
use crate::real::soon;

/// An event of a namespace.
fn event(namespace: &str) -> Vec<u8> {
    let length = u8::try_from(namespace.len()).expect("short");
    [&[0x12, length], namespace.as_bytes(), b"\x1a\x01t"].concat()
}

#[tokio::test]
async fn a_question_goes_over_a_new_connection_when_the_old_one_ended() {
    let fake = Fake::start(Reply::ok(&[b""]), usize::MAX, 1);
    let containerd = fake.connect().await;
    for _ in 0..3 {
        containerd.list().await.expect("a list");
    }
}

#[tokio::test]
async fn a_socket_that_speaks_no_http_is_an_error() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let closing = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let settings = ddr_containerd::Settings { socket, namespaces: Vec::new() };
    let error = ddr_containerd::Containerd::connect(settings).await.expect_err("an error");
    assert!(matches!(error, ContainerdError::Unreachable(_)), "{error:?}");
    closing.abort();
}

/// A watch over one namespace, whose subscription gives `events`, then ends with everything else.
async fn changed(events: &[&[u8]]) -> Result<(), ContainerdError> {
    let fake = Fake::start(Reply::ok(events), 1, 2);
    let mut watch = fake.connect().await.watch().await.expect("a subscription");
    soon(watch.changed()).await
}

#[tokio::test]
async fn events_of_other_namespaces_are_no_change() {
    changed(&[&event("two"), &event("one")]).await.expect("a change");
    let gone = changed(&[&event("two")]).await;
    assert!(matches!(gone, Err(ContainerdError::Unreachable(_))), "{gone:?}");
}

#[tokio::test]
async fn a_subscription_that_ends_is_made_anew() {
    let fake = Fake::always(Reply::ok(&[]));
    let mut watch = fake.connect().await.watch().await.expect("a subscription");
    for _ in 0..3 {
        soon(watch.changed()).await.expect("what changed meanwhile is not known");
    }
}
