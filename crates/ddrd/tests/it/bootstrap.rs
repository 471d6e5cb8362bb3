//! Ways back into a swarm whose first node is gone: real processes.

use std::fs;

use super::daemon::{Daemon, PATIENCE, until};
use super::http;

/// Waits until the address book of a node has so many peers.
fn book_has(node: &Daemon, peers: usize) {
    until("the address book is written", || {
        fs::read_to_string(node.data.join("peers.json"))
            .is_ok_and(|text| text.matches("heard_ms").count() >= peers)
    });
}

fn is_ready(node: &Daemon) -> bool {
    http::get(node.admin, "/readyz").status == 200
}

/// What the status says of one source: addresses found, answers.
fn source(node: &Daemon, name: &str) -> (u64, u64) {
    let status = node.status();
    let rows = status["bootstrap"].as_array().unwrap();
    let row = rows.iter().find(|row| row["source"] == name);
    row.map_or((0, 0), |row| (row["found"].as_u64().unwrap(), row["answered"].as_u64().unwrap()))
}

#[test]
fn a_swarm_heals_without_the_node_that_it_began_with() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    let c = a.joined(&dir.path().join("c"));
    for node in [&b, &c] {
        until("each knows the other two", || node.status()["peers"] == 2);
        book_has(node, 2);
    }
    let places = [b.peers, c.peers];
    a.kill();
    let (b, c) = (b.kill(), c.kill());
    // One of the two books is damaged; the other is enough.
    fs::write(c.join("peers.json"), "{\"format\":1,\"peers\":[").unwrap();
    let b = Daemon::again(&b, places[0]);
    let c = Daemon::again(&c, places[1]);
    for node in [&b, &c] {
        until("it is ready", || is_ready(node));
        until("it knows the other", || node.status()["peers"] == 1);
    }
    assert!(c.log().contains("the saved peers cannot be used"), "{}", c.log());
    assert!(!b.log().contains("the saved peers cannot be used"), "{}", b.log());
}

#[test]
fn a_list_leads_back_when_every_known_address_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    until("they know each other", || b.status()["peers"] == 1);
    let (a, b) = (a.kill(), b.kill());
    // The daemons listen elsewhere now, so neither token nor book is of any use.
    let a = Daemon::start(&a, &[]);
    let list = format!("{},127.0.0.1:9", a.peers);
    let b = Daemon::start(&b, &["--bootstrap", &list]);
    until("it is ready", || is_ready(&b));
    until("A knows it, too", || a.status()["peers"] == 1);
    let (found, answered) = source(&b, "static");
    assert!(found == 2 && answered >= 1, "{found} found, {answered} answered");
    assert_eq!(source(&b, "mdns"), (0, 0), "nothing on the LAN for loopback");
    let shown = super::cli::shown(b.admin, &["status"]);
    assert!(shown.contains("static: 2 found, "), "{shown}");
    assert!(shown.contains("about 2 nodes in the swarm"), "{shown}");
}

#[test]
fn a_new_node_is_let_in_at_a_listed_place_when_the_token_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let a = Daemon::start(&dir.path().join("a"), &[]);
    let b = a.joined(&dir.path().join("b"));
    let token = a.token();
    a.kill();
    let began = std::time::Instant::now();
    let place = b.peers.to_string();
    let c = Daemon::start(&dir.path().join("c"), &["--join", &token, "--bootstrap", &place]);
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(c.status()["swarm_id"], b.status()["swarm_id"]);
    until("it knows B", || c.status()["peers"] == 1);
}
