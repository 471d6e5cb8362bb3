//! Requests as known clients write them, byte for byte: line, order of the fields, spelling.
//!
//! What no installed client covers. Each module is a client, each test one of its ways.

mod containerd;
mod crane;
mod docker;
mod oras;
mod podman;
mod regctl;
mod stargz;

use ddr_oci::digest::Digest;

use crate::client::{Answer, Connection};

/// The head of a request from its lines, with the line ends of HTTP.
fn head(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().map(str::trim).collect();
    lines.join("\r\n") + "\r\n\r\n"
}

/// Sends the request and reads the answer. `text` is the head, a line each.
async fn say(connection: &mut Connection, text: &str, body: &[u8]) -> Answer {
    connection.send(head(text).as_bytes()).await;
    connection.try_send(body).await;
    connection.read_answer(text.trim_start().starts_with("HEAD ")).await
}

/// As a digest stands in a query: the colon encoded.
fn encoded(digest: &Digest) -> String {
    digest.to_string().replace(':', "%3A")
}

/// The session's path in an answer.
fn location(answer: &Answer) -> String {
    let location = answer.header("location").expect("a location");
    assert!(location.starts_with("/v2/"), "relative: {location}");
    location.to_owned()
}
