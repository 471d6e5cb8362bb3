//! A client: operations on tags, one after the other, by plain HTTP to the daemon of one machine.
//!
//! It decides what an answer proves. A status 4xx: nothing has happened. No answer, or 5xx: anything
//! may have, except where no connection was made. An error 503 to a read that names the digest of the
//! tag, because nobody can give its manifest, is an answer about the tag.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::check::Value;
use super::history::{Kind, Operation, Outcome, Recorder};
use crate::e2e::Random;
use crate::torture::digest_of;
use crate::wire::{Answer, Connection};

/// A daemon that is silent for so long is given up; the operation may have happened.
const SILENCE: Duration = Duration::from_secs(10);
/// Before the next try where nobody listens.
const PAUSE: Duration = Duration::from_millis(20);
/// Of ten operations so many are writes, and so many writes or deletes; the rest reads.
const WRITES: usize = 4;
const CHANGES: usize = 5;
/// The longest pause between two operations, milliseconds.
const MAX_PAUSE_MS: usize = 15;
/// Repositories; the tags are spread over them.
pub(super) const REPOSITORIES: usize = 2;
/// Characters of an error that are kept.
const MAX_SAID: usize = 200;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Where every daemon's registry listens on its machine.
pub(super) const REGISTRY: &str = "127.0.0.1:5000";

/// See the module comment.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) process: usize,
    pub(super) node: usize,
    pub(super) tags: usize,
    pub(super) recorder: &'a Recorder,
    connection: Option<Connection>,
}

/// The repository of a tag.
pub(super) fn repository(tag: usize) -> String {
    format!("jepsen/r{}", tag % REPOSITORIES)
}

/// The name of a tag in its repository.
pub(super) fn name(tag: usize) -> String {
    format!("t{tag}")
}

/// What came of one request.
enum Heard {
    Answer(Answer),
    /// Nobody listens: nothing was sent.
    Nobody,
    Silence(io::Error),
}

impl<'a> Client<'a> {
    pub(super) fn new(process: usize, node: usize, tags: usize, recorder: &'a Recorder) -> Self {
        Self { process, node, tags, recorder, connection: None }
    }

    /// Works until `stop`. What is asked depends on `random` only.
    pub(super) fn work(&mut self, random: &mut Random, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let tag = random.below(self.tags);
            let drawn = random.below(10);
            let heads = random.below(3) == 0;
            let pause = Duration::from_millis(random.below(MAX_PAUSE_MS) as u64);
            if !self.is_connected() {
                thread::sleep(PAUSE);
                continue;
            }
            match drawn {
                0..WRITES => self.write(tag),
                WRITES..CHANGES => self.delete(tag),
                _ => drop(self.read(tag, if heads { "HEAD" } else { "GET" })),
            }
            thread::sleep(pause);
        }
    }

    /// What a tag says, if it says anything.
    pub(super) fn read(&mut self, tag: usize, method: &str) -> Option<Value> {
        let invoke_ns = self.recorder.now_ns();
        let heard = self.ask(method, &target(tag), &[], None);
        let (seen, said) = match &heard {
            Heard::Answer(answer) => (self.seen(answer), said(answer)),
            Heard::Nobody => (None, "nobody listens".to_owned()),
            Heard::Silence(error) => (None, error.to_string()),
        };
        let outcome = if seen.is_some() { Outcome::Ok } else { Outcome::Fail };
        self.record(tag, Kind::Read, seen.flatten(), invoke_ns, (outcome, said));
        seen
    }

    fn seen(&self, answer: &Answer) -> Option<Value> {
        let digest = match answer.head.status {
            200 => answer.head.field("docker-content-digest")?.to_owned(),
            404 => return Some(None),
            503 => named_digest(&answer.body)?,
            _ => return None,
        };
        Some(Some(self.recorder.number_of(&digest)))
    }

    fn write(&mut self, tag: usize) {
        let (number, bytes) = self.recorder.writes(|number| {
            let bytes = manifest(number);
            let digest = digest_of(&bytes);
            (bytes, digest)
        });
        let invoke_ns = self.recorder.now_ns();
        let field = format!("Content-Type: {MANIFEST}");
        let heard = self.ask("PUT", &target(tag), &[&field], Some(&bytes));
        let (outcome, said) = changed(&heard);
        self.record(tag, Kind::Write, Some(number), invoke_ns, (outcome, said));
    }

    fn delete(&mut self, tag: usize) {
        let invoke_ns = self.recorder.now_ns();
        let heard = self.ask("DELETE", &target(tag), &[], None);
        let (outcome, said) = changed(&heard);
        // What is not there was not deleted, it was read.
        let absent = matches!(&heard, Heard::Answer(answer) if answer.head.status == 404);
        let (kind, outcome) =
            if absent { (Kind::Read, Outcome::Ok) } else { (Kind::Delete, outcome) };
        self.record(tag, kind, None, invoke_ns, (outcome, said));
    }

    /// The names of all tags that this node lists.
    pub(super) fn listed(&mut self, repository: &str) -> Option<Vec<String>> {
        let Heard::Answer(answer) =
            self.ask("GET", &format!("/v2/{repository}/tags/list"), &[], None)
        else {
            return None;
        };
        if answer.head.status == 404 {
            return Some(Vec::new());
        }
        let list: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        let names = list["tags"].as_array()?.iter().filter_map(|tag| tag.as_str());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort_unstable();
        (answer.head.status == 200).then_some(names)
    }

    fn record(
        &self,
        tag: usize,
        kind: Kind,
        value: Value,
        invoke_ns: u64,
        (outcome, said): (Outcome, String),
    ) {
        let return_ns = self.recorder.now_ns();
        let (process, node) = (self.process, self.node);
        let operation =
            Operation { process, node, tag, kind, value, invoke_ns, return_ns, outcome, said };
        self.recorder.record(operation);
    }

    /// A connection, on which the config of all manifests has been pushed to both repositories.
    fn is_connected(&mut self) -> bool {
        if self.connection.is_none() {
            self.connection = Connection::open_for(REGISTRY, SILENCE).ok();
            for repository in (0..REPOSITORIES).map(repository) {
                let digest = digest_of(CONFIG);
                let target = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
                let fields = ["Content-Type: application/octet-stream"];
                if self.connection.is_some() {
                    // Where this fails the manifests are pushed all the same.
                    self.ask("POST", &target, &fields, Some(CONFIG));
                }
            }
        }
        self.connection.is_some()
    }

    fn ask(&mut self, method: &str, target: &str, fields: &[&str], body: Option<&[u8]>) -> Heard {
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open_for(REGISTRY, SILENCE),
        };
        let Ok(mut connection) = connection else { return Heard::Nobody };
        let answer = connection.send(method, target, fields, body).and_then(|()| {
            if method == "HEAD" {
                let head = connection.receive_head()?;
                return Ok(Answer { head, body: Vec::new() });
            }
            connection.receive()
        });
        match answer {
            Ok(answer) => {
                self.connection = Some(connection);
                Heard::Answer(answer)
            }
            Err(error) => Heard::Silence(error),
        }
    }
}

fn target(tag: usize) -> String {
    format!("/v2/{}/manifests/{}", repository(tag), name(tag))
}

const CONFIG: &[u8] = b"{}";

/// The manifest of write `number`.
fn manifest(number: u64) -> Vec<u8> {
    let config = "application/vnd.oci.image.config.v1+json";
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": config, "digest": digest_of(CONFIG), "size": CONFIG.len() },
        "layers": [],
        "annotations": { "write": number.to_string() },
    });
    manifest.to_string().into_bytes()
}

/// What an answer to a write or delete proves.
fn changed(heard: &Heard) -> (Outcome, String) {
    match heard {
        Heard::Nobody => (Outcome::Fail, "nobody listens".to_owned()),
        Heard::Silence(error) => (Outcome::Info, error.to_string()),
        Heard::Answer(answer) => {
            let outcome = match answer.head.status {
                200..300 => Outcome::Ok,
                400..500 => Outcome::Fail,
                _ => Outcome::Info,
            };
            (outcome, said(answer))
        }
    }
}

/// The status and, of an error, its text.
fn said(answer: &Answer) -> String {
    let status = answer.head.status;
    if status < 400 || status == 404 {
        return status.to_string();
    }
    let text: String = String::from_utf8_lossy(&answer.body).chars().take(MAX_SAID).collect();
    format!("{status} {text}")
}

/// The digest in a text such as "the tag v1 is sha256:…, but no node that can be reached holds it".
fn named_digest(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let start = text.find("sha256:")?;
    text.get(start..start + "sha256:".len() + 64).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_may_name_what_the_tag_is() {
        let digest = digest_of(b"x");
        let text = format!("{{\"message\":\"the tag v1 is {digest}, but no node\"}}");
        assert_eq!(named_digest(text.as_bytes()), Some(digest));
        assert_eq!(named_digest(b"2 of 5 nodes answered"), None);
    }

    #[test]
    fn no_answer_proves_nothing() {
        let silence = Heard::Silence(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(changed(&silence).0, Outcome::Info);
        assert_eq!(changed(&Heard::Nobody).0, Outcome::Fail);
    }
}
