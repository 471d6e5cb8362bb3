//! kill -9 in the middle of things: nothing that was acknowledged is lost, nothing half is served.

use std::io::Write;

use ddr_oci::digest::Digest;

use super::daemon::{Daemon, until};
use super::http;
use super::image::{begin, bytes, end, pull, pull_blob, push, push_blob};

/// Large enough that a kill meets the transfer in its middle.
const LARGE: usize = 48 << 20;

/// Bytes that an upload session holds, from its `Range` header (`0-n`, inclusive).
fn held(answer: &http::Answer) -> usize {
    let range = answer.header("range").unwrap();
    range.split_once('-').unwrap().1.parse::<usize>().unwrap() + 1
}

#[test]
fn killed_in_the_middle_of_an_upload() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    let image = push(daemon.registry, "team/app", "1", &[&bytes(1, 500_000)]);
    let content = bytes(2, 8 << 20);
    let digest = Digest::sha256(&content);
    let session = begin(daemon.registry, "team/app");
    let first = 3 << 20;
    let patch = http::request(daemon.registry, "PATCH", &session, &[], &content[..first]);
    assert_eq!(patch.status, 202, "{}", patch.text());
    assert_eq!(held(&patch), first, "the first chunk is acknowledged");

    let length = (content.len() - first).to_string();
    let headers = [("Content-Length", length.as_str())];
    let mut stream = http::open(daemon.registry, "PATCH", &session, &headers);
    stream.write_all(&content[first..first + (2 << 20)]).unwrap();
    let daemon = Daemon::start(&daemon.kill(), &[]);

    assert_eq!(pull(daemon.registry, "team/app", "1"), image, "what was pushed is there");
    assert_eq!(pull_blob(daemon.registry, "team/app", &digest).status, 404);
    let status = http::get(daemon.registry, &session);
    assert_eq!(status.status, 204, "{}", status.text());
    let offset = held(&status);
    assert!((first..=first + (2 << 20)).contains(&offset), "{offset}");
    let done = end(daemon.registry, &session, &digest, &content[offset..]);
    assert_eq!(done.status, 201, "{}", done.text());
    assert_eq!(pull_blob(daemon.registry, "team/app", &digest).body, content);
}

#[test]
fn killed_right_after_an_acknowledgement() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    let mut images = Vec::new();
    for round in 0..5 {
        let daemon = Daemon::start(&data, &[]);
        let tag = format!("t{round}");
        let image = push(daemon.registry, "team/app", &tag, &[&bytes(10 + round, 300_000)]);
        images.push((tag, image));
        daemon.kill();
    }
    let daemon = Daemon::start(&data, &[]);
    for (tag, image) in images {
        assert_eq!(pull(daemon.registry, "team/app", &tag), image, "{tag}");
    }
}

#[test]
fn a_commit_that_was_cut_off_is_whole_or_absent() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("a");
    let content = bytes(20, 16 << 20);
    let digest = Digest::sha256(&content);
    for _ in 0..4 {
        let daemon = Daemon::start(&data, &[]);
        let session = begin(daemon.registry, "team/app");
        let length = content.len().to_string();
        let path = format!("{session}?digest={digest}");
        let headers = [("Content-Length", length.as_str())];
        let mut stream = http::open(daemon.registry, "PUT", &path, &headers);
        stream.write_all(&content).unwrap();
        // No wait for the answer: the kill falls somewhere into hashing, fsync or rename.
        let daemon = Daemon::start(&daemon.kill(), &[]);
        let answer = pull_blob(daemon.registry, "team/app", &digest);
        match answer.status {
            200 => assert!(answer.body == content, "half a blob was served"),
            404 => {}
            other => panic!("{other}: {}", answer.text()),
        }
        daemon.kill();
    }
}

#[test]
fn killed_in_the_middle_of_a_pull() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    until("they know each other", || b.status()["peers"] == 1);
    let content = bytes(30, LARGE);
    let digest = push_blob(a.registry, "team/app", &content);
    let path = format!("/v2/team/app/blobs/{digest}");

    let mut exchange = http::head(http::open(b.registry, "GET", &path, &[])).unwrap();
    assert_eq!(exchange.answer.status, 200);
    exchange.read_some(1 << 20);
    let data = b.kill();
    let cut = exchange.rest();
    assert!(content.starts_with(&cut.body), "only right bytes were sent");

    let b = Daemon::start(&data, &[]);
    until("it finds its way back", || b.status()["peers"] == 1);
    let answer = pull_blob(b.registry, "team/app", &digest);
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), b.log());
    assert!(answer.body == content, "the pull after it is whole: {}", answer.body.len());
    // The client has the last byte before the blob is in its place.
    let left = || std::fs::read_dir(data.join("fetch")).map_or(0, Iterator::count);
    until("what was half fetched is gone", || left() == 0);
}

#[test]
fn the_holder_is_killed_in_the_middle_of_a_pull() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    until("they know each other", || b.status()["peers"] == 1);
    let content = bytes(31, LARGE);
    let digest = push_blob(a.registry, "team/app", &content);
    let path = format!("/v2/team/app/blobs/{digest}");
    let mut exchange = http::head(http::open(b.registry, "GET", &path, &[])).unwrap();
    assert_eq!(exchange.answer.status, 200);
    exchange.read_some(1 << 20);
    let peers = a.peers;
    let data = a.kill();
    let cut = exchange.rest();
    assert!(content.starts_with(&cut.body), "only right bytes were sent");
    assert!(!cut.is_complete() || cut.body == content, "short, or whole");

    // The holder comes back; the next pull is whole.
    let _a = Daemon::again(&data, peers);
    until("the blob is found again", || {
        let answer = pull_blob(b.registry, "team/app", &digest);
        answer.status == 200 && answer.body == content
    });
}

#[test]
fn what_only_a_dead_node_holds_can_be_pushed_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    until("they know each other", || b.status()["peers"] == 1);
    let content = bytes(32, 100_000);
    let digest = push_blob(a.registry, "team/app", &content);
    let path = format!("/v2/team/app/blobs/{digest}");
    until("b hears of it", || http::request(b.registry, "HEAD", &path, &[], b"").status == 200);
    a.kill();
    // A client asks this first and gives the push up on anything else than 200 and 404.
    assert_eq!(http::request(b.registry, "HEAD", &path, &[], b"").status, 404);
    assert_ne!(pull_blob(b.registry, "team/app", &digest).status, 200);
    assert_eq!(push_blob(b.registry, "team/app", &content), digest);
    assert_eq!(pull_blob(b.registry, "team/app", &digest).body, content);
}
