//! kill -9 between any two steps of a push, the whole way through, in a swarm that keeps two copies.

use std::net::SocketAddr;
use std::path::Path;

use ddr_oci::digest::Digest;
use ddr_oci::media_type;

use super::daemon::{Daemon, local_at, until};
use super::http;
use super::image::{begin, bytes, end, pull};

const REPOSITORY: &str = "team/app";

/// What a client does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An upload session for this blob.
    Begin(usize),
    /// The first half of it.
    Half(usize),
    /// The rest, and its digest.
    Commit(usize),
    Manifest,
}

/// A push on its way.
struct Push {
    tag: String,
    blobs: Vec<Vec<u8>>,
    manifest: Vec<u8>,
    session: String,
}

impl Push {
    fn new(seed: u64) -> Self {
        let tag = format!("t{seed}");
        let config = format!("{{\"rootfs\":{{\"type\":\"layers\"}},\"author\":\"{tag}\"}}");
        // The larger one is long enough for a second copy that is written while it comes in.
        let blobs =
            vec![bytes(seed * 2 + 1, 70_000), bytes(seed * 2 + 2, 3_000_000), config.into_bytes()];
        let descriptor = |kind: &str, bytes: &[u8]| {
            let digest = Digest::sha256(bytes).to_string();
            serde_json::json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
        };
        let layer = "application/vnd.oci.image.layer.v1.tar";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": descriptor(media_type::OCI_CONFIG, &blobs[2]),
            "layers": [descriptor(layer, &blobs[0]), descriptor(layer, &blobs[1])],
        });
        Self { tag, blobs, manifest: manifest.to_string().into_bytes(), session: String::new() }
    }

    fn steps(&self) -> Vec<Step> {
        let of_blob = |at| [Step::Begin(at), Step::Half(at), Step::Commit(at)];
        (0..self.blobs.len()).flat_map(of_blob).chain([Step::Manifest]).collect()
    }

    /// Takes a step; the node acknowledges it.
    fn take(&mut self, node: SocketAddr, step: Step) {
        let half = |at: usize| self.blobs[at].len() / 2;
        match step {
            Step::Begin(_) => self.session = begin(node, REPOSITORY),
            Step::Half(at) => {
                let part = &self.blobs[at][..half(at)];
                let mut answer = http::request(node, "PATCH", &self.session, &[], part);
                if answer.status == 404 {
                    // A session without a byte does not outlive a kill: the node says to begin a new one.
                    self.session = begin(node, REPOSITORY);
                    answer = http::request(node, "PATCH", &self.session, &[], part);
                }
                assert_eq!(answer.status, 202, "{step:?}: {}", answer.text());
                self.session = answer.header("location").expect("a session").to_owned();
            }
            Step::Commit(at) => {
                let held = http::get(node, &self.session);
                let last = (half(at) - 1).to_string();
                assert_eq!(held.status, 204, "{step:?}: {}", held.text());
                assert_eq!(held.header("range"), Some(format!("0-{last}").as_str()), "{step:?}");
                let digest = Digest::sha256(&self.blobs[at]);
                let answer = end(node, &self.session, &digest, &self.blobs[at][half(at)..]);
                assert_eq!(answer.status, 201, "{step:?}: {}", answer.text());
            }
            Step::Manifest => {
                let path = format!("/v2/{REPOSITORY}/manifests/{}", self.tag);
                let headers = [("Content-Type", media_type::OCI_MANIFEST)];
                // A node that has just started has to hear the others before names have a majority.
                until("the manifest is taken", || {
                    let answer = http::request(node, "PUT", &path, &headers, &self.manifest);
                    assert!(matches!(answer.status, 201 | 503), "{step:?}: {}", answer.text());
                    answer.status == 201
                });
            }
        }
    }

    /// The node has what was acknowledged by `step`, and nothing that was not said.
    fn check(&self, node: SocketAddr, step: Step) {
        let whole = match step {
            Step::Begin(at) | Step::Half(at) => at,
            Step::Commit(at) => at + 1,
            Step::Manifest => self.blobs.len(),
        };
        for (at, blob) in self.blobs.iter().enumerate() {
            let path = format!("/v2/{REPOSITORY}/blobs/{}", Digest::sha256(blob));
            let answer = http::request(node, "HEAD", &path, &[], b"");
            let wanted = if at < whole { 200 } else { 404 };
            assert_eq!(answer.status, wanted, "blob {at} after {step:?}");
        }
        if !matches!(step, Step::Manifest) {
            let path = format!("/v2/{REPOSITORY}/manifests/{}", self.tag);
            until("the node says no", || {
                let answer = http::get(node, &path);
                assert!(matches!(answer.status, 404 | 503), "the tag after {step:?}");
                answer.status == 404
            });
        }
    }
}

/// A node that keeps two copies, at a peer address that it has again after a kill.
fn start(data: &Path, peers: &str, first: Option<&Daemon>) -> Daemon {
    let mut command = local_at(data, peers);
    command.env("DDR_COPIES", "2").env("DDR_DURABILITY", "two");
    if let Some(first) = first {
        command.arg("--join").arg(format!("@{}", first.token_file().display()));
    }
    Daemon::spawn(command, data)
}

/// Kills a node and starts it again.
fn killed(node: Daemon) -> Daemon {
    let peers = node.peers.to_string();
    let node = start(&node.kill(), &peers, None);
    until("it finds its way back", || node.status()["peers"] == 2);
    node
}

fn swarm(dir: &Path) -> [Daemon; 3] {
    let a = start(&dir.join("a"), "127.0.0.1:0", None);
    let b = start(&dir.join("b"), "127.0.0.1:0", Some(&a));
    let c = start(&dir.join("c"), "127.0.0.1:0", Some(&a));
    for node in [&a, &b, &c] {
        until("they know each other", || node.status()["peers"] == 2);
    }
    [a, b, c]
}

/// The client goes on where it was, each time.
#[test]
fn a_node_killed_after_each_step_of_a_push_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, b, c] = swarm(dir.path());
    let mut push = Push::new(1);
    for step in push.steps() {
        push.take(a.registry, step);
        a = killed(a);
        push.check(a.registry, step);
    }
    let manifest = Digest::sha256(&push.manifest);
    // What was acknowledged outlives the machine that took it in.
    drop(a);
    for node in [&b, &c] {
        assert_eq!(pull(node.registry, REPOSITORY, &push.tag), manifest, "{}", node.log());
    }
}

/// The client gives up and pushes to another node from the start, each time at another step.
#[test]
fn a_push_that_was_cut_anywhere_is_said_again_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let [mut a, b, c] = swarm(dir.path());
    let count = Push::new(0).steps().len();
    for cut in 1..=count {
        let mut push = Push::new(cut as u64 * 10);
        for step in push.steps().into_iter().take(cut) {
            push.take(a.registry, step);
        }
        let (peers, data) = (a.peers.to_string(), a.kill());
        for step in push.steps() {
            push.take(b.registry, step);
        }
        a = start(&data, &peers, None);
        until("it finds its way back", || a.status()["peers"] == 2);
        for node in [&a, &b, &c] {
            let found = pull(node.registry, REPOSITORY, &push.tag);
            assert_eq!(found, Digest::sha256(&push.manifest), "cut after {cut} steps");
        }
    }
}
