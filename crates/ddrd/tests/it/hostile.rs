//! What a stranger may send to a daemon by the thousand, and that nothing of it stays.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::daemon::{Daemon, PATIENCE};
use super::http;

/// Rounds of bad input before the memory is looked at, and again between the two looks.
const ROUNDS: usize = 250;

/// What two looks may differ by, in bytes: allocators keep some of what they had.
const SLACK: f64 = 6.0 * 1024.0 * 1024.0;

/// Sends `bytes` as they are and reads until the other side ends or says enough.
fn garbage(to: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The other side may close before it has read all.
    if stream.write_all(bytes).is_err() || stream.shutdown(std::net::Shutdown::Write).is_err() {
        return;
    }
    let mut answer = [0; 1024];
    while matches!(stream.read(&mut answer), Ok(read) if read > 0) {}
}

fn round(daemon: &Daemon, seed: usize) {
    let long = "x".repeat(10_000);
    let digest = format!("sha256:{seed:064x}");
    for (method, path, body) in [
        ("GET", "/v2/UPPER/manifests/x".to_owned(), &b""[..]),
        ("GET", format!("/v2/a/blobs/sha256:{seed}"), b""),
        ("PUT", format!("/v2/a{seed}/manifests/x"), b"{\"schemaVersion\":2"),
        ("POST", format!("/v2/a/blobs/uploads/?digest={digest}"), b"something else"),
        ("PATCH", format!("/v2/a/blobs/uploads/{seed:032x}"), b"bytes"),
        ("BREW", "/v2/".to_owned(), b""),
        ("GET", format!("/v2/{long}/tags/list"), b""),
    ] {
        let answer = http::request(daemon.registry, method, &path, &[], body);
        assert!((400..500).contains(&answer.status), "{method} {path}: {}", answer.status);
    }
    let answer = http::request(daemon.registry, "GET", "/v2/", &[("X-Long", &long)], b"");
    assert_eq!(answer.status, 431);
    let noise: Vec<u8> = (0..2000).map(|at| (at * 31 + seed * 17) as u8).collect();
    garbage(daemon.registry, &noise);
    garbage(daemon.peers, &noise);
    // A TLS record that promises a ClientHello and ends.
    garbage(daemon.peers, &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]);
    garbage(daemon.peers, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn thousands_of_bad_requests_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(&dir.path().join("a"), &[]);
    (0..ROUNDS).for_each(|seed| round(&daemon, seed));
    let before = daemon.resident_bytes();
    (ROUNDS..2 * ROUNDS).for_each(|seed| round(&daemon, seed));
    let after = daemon.resident_bytes();
    println!("{before} bytes resident, then {after}");
    assert!(after < before + SLACK, "{before} bytes resident, then {after}");
    assert_eq!(http::get(daemon.registry, "/v2/").status, 200);
    assert!(!daemon.log().contains("panicked"), "a task panicked");
}
