//! How the daemon ends.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::daemon::{Daemon, until, wait};
use super::http;
use super::image::{begin, bytes, end, pull_blob, push_blob};
use ddr_oci::digest::Digest;

/// An idle daemon has nobody to wait for but its peers.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn term_and_int_end_an_idle_daemon_with_status_0() {
    let dir = tempfile::tempdir().unwrap();
    for (name, signal) in [("term", Signal::TERM), ("int", Signal::INT)] {
        let mut daemon = Daemon::start(&dir.path().join(name), &[]);
        let started = Instant::now();
        daemon.signal(signal);
        assert_eq!(wait(&mut daemon.child).code(), Some(0));
        assert!(started.elapsed() < SOON, "{name} took {:?}", started.elapsed());
    }
}

#[test]
fn a_request_that_runs_is_answered_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&dir.path().join("a"), &[]);
    let content = bytes(1, 300_000);
    let digest = Digest::sha256(&content);
    let session = begin(daemon.registry, "team/app");
    let path = format!("{session}?digest={digest}");
    let length = content.len().to_string();
    let headers = [("Content-Length", length.as_str()), ("Expect", "100-continue")];
    let mut stream = http::open(daemon.registry, "PUT", &path, &headers);
    // 100-continue comes once the handler reads: the request runs now.
    let mut go = [0; 25];
    std::io::Read::read_exact(&mut stream, &mut go).unwrap();
    assert!(go.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&go));
    stream.write_all(&content[..1000]).unwrap();
    daemon.signal(Signal::TERM);
    until("it drains", || http::get(daemon.admin, "/readyz").status == 503);
    stream.write_all(&content[1000..]).unwrap();
    assert_eq!(http::head(stream).unwrap().answer.status, 201);
    assert_eq!(wait(&mut daemon.child).code(), Some(0));

    let daemon = Daemon::start(&daemon.data, &[]);
    assert_eq!(pull_blob(daemon.registry, "team/app", &digest).body, content);
}

#[test]
fn a_second_signal_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Daemon::start(&dir.path().join("a"), &[]);
    let kept = push_blob(daemon.registry, "team/app", b"acknowledged");
    let session = begin(daemon.registry, "team/app");
    let headers = [("Content-Length", "1000"), ("Expect", "100-continue")];
    let path = format!("{session}?digest={}", Digest::sha256(b"never sent"));
    let mut stream = http::open(daemon.registry, "PUT", &path, &headers);
    std::io::Read::read_exact(&mut stream, &mut [0; 25]).unwrap();
    daemon.signal(Signal::TERM);
    until("it drains", || http::get(daemon.admin, "/readyz").status == 503);
    let started = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(wait(&mut daemon.child).code(), Some(1));
    assert!(started.elapsed() < SOON, "took {:?}", started.elapsed());
    assert!(daemon.log().contains("second SIGTERM"), "{}", daemon.log());

    let daemon = Daemon::start(&daemon.data, &[]);
    assert_eq!(pull_blob(daemon.registry, "team/app", &kept).body, b"acknowledged");
    let again = end(daemon.registry, &begin(daemon.registry, "team/app"), &kept, b"acknowledged");
    assert_eq!(again.status, 201);
}
