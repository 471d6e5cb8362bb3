//! Ten thousand malformed requests and more, over real sockets: each gets the status and the OCI
//! code that its maker knows to be right, none a 5xx, and nothing of them stays in memory.
//!
//! A program of its own, because it looks at the memory of the whole process. The requests follow
//! from the seed; `DDR_SEED=7 cargo test -p ddr-registry --test malformed` makes others.

#![expect(clippy::unwrap_used, reason = "a test may panic, in its helpers too")]
#![allow(dead_code, reason = "the helpers are shared with the tests in `it`")]

mod arms;
mod chance;
#[path = "../it/client.rs"]
mod client;
mod manifests;
#[path = "../it/node.rs"]
mod node;
#[path = "../it/server.rs"]
mod server;

use std::collections::BTreeMap;

use arms::{Case, World};
use chance::Chance;
use client::{Answer, Connection};
use server::Server;

/// Requests of one run.
const REQUESTS: usize = 12_000;
/// Requests before the memory is looked at: every kind was sent many times by then.
const WARM_UP: usize = 1_000;
/// What the second look may show more, in bytes: allocators keep some of what they had.
const SLACK: u64 = 16 * 1024 * 1024;
/// The seed when none is given.
const SEED: u64 = 20_261_123;

/// The codes of the specification.
const CODES: [&str; 14] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "UNAUTHORIZED",
    "DENIED",
    "UNSUPPORTED",
    "TOOMANYREQUESTS",
];

/// A client that keeps its connection as long as the server does.
struct Client<'a> {
    server: &'a Server,
    connection: Option<Connection>,
}

impl Client<'_> {
    async fn send(&mut self, case: &Case) -> Answer {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.server.addr).await,
        };
        connection.try_send(&case.bytes()).await;
        let answer = connection.read_answer(false).await;
        let closes = answer.header("connection") == Some("close");
        // A body that the server has not read to its end costs the connection.
        if !closes && case.body.len() < 1024 * 1024 {
            self.connection = Some(connection);
        }
        answer
    }
}

fn check(case: &Case, answer: &Answer, seed: u64) {
    let shown: String = String::from_utf8_lossy(&case.bytes()).chars().take(600).collect();
    let told = format!(
        "seed {seed}, arm {}: {} {}\n{shown}",
        case.arm,
        answer.status,
        String::from_utf8_lossy(&answer.body[..answer.body.len().min(300)])
    );
    assert_eq!(answer.status, case.status, "{told}");
    assert!(answer.status < 500, "{told}");
    let Some(code) = case.code else { return };
    let json: serde_json::Value = serde_json::from_slice(&answer.body).expect(&told);
    assert_eq!(json["errors"][0]["code"], code, "{told}");
    assert!(CODES.contains(&code), "{told}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{told}");
    assert!(json["errors"][0]["message"].as_str().is_some_and(|m| !m.is_empty()), "{told}");
    assert!(answer.body.len() < 4096, "{told}");
}

/// Bytes that the process has in memory.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_requests() {
    let seed = std::env::var("DDR_SEED").map_or(SEED, |seed| seed.parse().unwrap());
    println!("DDR_SEED={seed}");
    let server = Server::start().await;
    let content: Vec<u8> = (0..100).collect();
    let world = World {
        blob: server.push_blob("good/name", &content).await,
        session: server.begin("good/name").await,
    };
    let mut chance = Chance::new(seed);
    let mut client = Client { server: &server, connection: None };
    let mut sent = BTreeMap::<&str, usize>::new();
    let mut before = 0;
    for number in 0..REQUESTS {
        if number == WARM_UP {
            before = resident_bytes();
        }
        let case = arms::make(number, &world, &mut chance);
        let answer = client.send(&case).await;
        check(&case, &answer, seed);
        *sent.entry(case.arm).or_default() += 1;
    }
    let after = resident_bytes();
    println!("{sent:?}\n{before} bytes resident, then {after}");
    assert!(after < before + SLACK, "{before} bytes resident, then {after}");
    // Nothing of it did anything.
    server.get(&world.session).await.expect(204);
    assert_eq!(server.get(&world.session).await.header("range"), Some("0-0"));
    let catalog = server.get("/v2/_catalog").await.expect(200).json();
    assert_eq!(catalog, serde_json::json!({ "repositories": [] }));
    let blob = format!("/v2/good/name/blobs/{}", world.blob);
    assert_eq!(server.get(&blob).await.expect(200).body, content);
}
