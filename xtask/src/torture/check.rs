//! What a worker looks at after a restart: everything that it was promised, and everything that it
//! had begun.
//!
//! Bytes count, not status lines: whatever is served must have the digest of its name. Each read
//! goes through the model, which knows what is possible.

use std::collections::BTreeSet;
use std::io;

use sha2::{Digest, Sha256};

use super::content::shown;
use super::model::{Key, Value};
use super::names::MEDIA_TYPE;
use super::worker::{REPOSITORIES, Session, Shared, Worker};
use crate::e2e::Random;
use crate::wire::{Connection, Head};

/// Deleted things of earlier rounds that are looked at again after each restart.
const OLD_DELETES: usize = 24;

/// Bodies are hashed in pieces. Bytes.
const BUFFER_BYTES: usize = 256 * 1024;

impl Worker {
    /// Looks at everything that is there, everything that was touched, and some of what was deleted
    /// long ago (`all`: all of it). Unfinished uploads are finished or cancelled.
    pub(super) fn check(&mut self, host: &str, seed: u64, shared: &Shared, all: bool) {
        self.random = Random::new(seed);
        let checked = Connection::open(host).and_then(|mut connection| {
            self.check_registers(&mut connection, all)?;
            self.check_lists(&mut connection)?;
            self.check_sessions(&mut connection, shared)
        });
        if let Err(error) = checked {
            self.wrong.push(format!("worker {}: a check got no answer: {error}", self.id));
        }
    }

    fn check_registers(&mut self, connection: &mut Connection, all: bool) -> io::Result<()> {
        let (old, mut keys): (Vec<Key>, Vec<Key>) =
            self.model.keys().cloned().partition(|k| self.model.certain(k) == Some(None));
        if all {
            keys.extend(old);
        } else if !old.is_empty() {
            keys.extend((0..OLD_DELETES).map(|_| old[self.random.below(old.len())].clone()));
        }
        keys.append(&mut self.touched);
        keys.sort();
        keys.dedup();
        keys.iter().try_for_each(|key| self.check_key(connection, key))
    }

    /// One GET.
    pub(super) fn check_key(&mut self, connection: &mut Connection, key: &Key) -> io::Result<()> {
        self.counts.reads += 1;
        match read(connection, key)? {
            Ok(seen) => {
                if let Err(wrong) = self.model.observe(key, &seen) {
                    self.wrong.push(wrong);
                }
            }
            Err(wrong) => self.wrong.push(wrong),
        }
        Ok(())
    }

    /// Tag lists and referrers say the same as reads of the single names.
    fn check_lists(&mut self, connection: &mut Connection) -> io::Result<()> {
        for number in 0..REPOSITORIES {
            let repository = Self::repository(self.id, number);
            let target = format!("/v2/{repository}/tags/list");
            let listed = names_at(connection, &target, "/tags", "")?;
            let of_it = |k: &&Key| k.repository() == repository;
            let present = self.model.present().map(|(k, _)| k).filter(of_it);
            let tags: BTreeSet<String> = present
                .filter_map(|k| match k {
                    Key::Tag { tag, .. } => Some(tag.clone()),
                    _ => None,
                })
                .collect();
            if listed != tags {
                self.wrong.push(format!("{target}: lists {listed:?}, readable are {tags:?}"));
            }
            self.check_referrers(connection, &repository)?;
        }
        Ok(())
    }

    fn check_referrers(&mut self, connection: &mut Connection, repository: &str) -> io::Result<()> {
        let here: BTreeSet<String> = self
            .present(|k| matches!(k, Key::Manifest { repository: r, .. } if r == repository))
            .into_iter()
            .filter_map(|k| self.model.certain(&k).flatten())
            .collect();
        let subjects: BTreeSet<String> =
            here.iter().filter_map(|d| self.manifests[d].subject.clone()).collect();
        for subject in subjects {
            let target = format!("/v2/{repository}/referrers/{subject}");
            let listed = names_at(connection, &target, "/manifests", "/digest")?;
            let refers = |d: &&String| self.manifests[*d].subject.as_ref() == Some(&subject);
            let expected: BTreeSet<String> = here.iter().filter(refers).cloned().collect();
            if listed != expected {
                self.wrong.push(format!("{target}: lists {listed:?}, present are {expected:?}"));
            }
        }
        Ok(())
    }

    fn check_sessions(&mut self, connection: &mut Connection, shared: &Shared) -> io::Result<()> {
        for session in std::mem::take(&mut self.sessions) {
            connection.send("GET", &session.target, &[], None)?;
            let answer = connection.receive()?;
            match answer.head.status {
                404 if session.committing => self.counts.sessions_gone += 1,
                404 => self.counts.sessions_lost += 1,
                204 => self.end_session(connection, shared, session, &answer.head)?,
                status => {
                    self.wrong.push(format!("GET {}: status {status}", session.target));
                }
            }
        }
        Ok(())
    }

    /// Goes on where the daemon says, or cancels.
    fn end_session(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        session: Session,
        head: &Head,
    ) -> io::Result<()> {
        let last = head.field("range").and_then(|r| r.split_once('-')?.1.parse::<usize>().ok());
        let Some(last) = last else {
            self.wrong.push(format!("GET {}: no Range: {head:?}", session.target));
            return Ok(());
        };
        // `0-0` stands for no byte and for one.
        let offset = if last == 0 { 0 } else { last + 1 };
        if offset > session.sent {
            let sent = session.sent;
            self.wrong.push(format!("{}: holds {offset} bytes of {sent} sent", session.target));
            return Ok(());
        }
        self.counts.sessions_shorter += u64::from(last > 0 && offset < session.confirmed);
        if last > 0 && self.random.below(2) == 0 {
            self.counts.sessions_resumed += 1;
            let (repository, digest) = (session.repository.clone(), session.content.digest.clone());
            self.finish(connection, shared, session, offset)?;
            return self.check_key(connection, &Key::Blob { repository, digest });
        }
        self.counts.sessions_cancelled += 1;
        let answer = connection.ask("DELETE", &session.target, None)?;
        if answer.head.status != 204 {
            let status = answer.head.status;
            self.wrong.push(format!("DELETE {}: status {status}", session.target));
        }
        Ok(())
    }
}

/// What is read at a name: nothing, or content with the digest that is given. An inner error when
/// the bytes do not have that digest, or the answer is neither.
fn read(connection: &mut Connection, key: &Key) -> io::Result<Result<Value, String>> {
    let target = key.target();
    let accept = format!("Accept: {MEDIA_TYPE}");
    connection.send("GET", &target, &[&accept], None)?;
    let head = connection.receive_head()?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let len = connection.receive_body(&head, &mut buffer, |piece| hash.update(piece))?;
    let digest = shown(hash);
    let named = match key {
        Key::Blob { digest, .. } | Key::Manifest { digest, .. } => Some(digest.as_str()),
        Key::Tag { .. } => head.field("docker-content-digest"),
    };
    Ok(match head.status {
        404 => Ok(None),
        200 if named == Some(digest.as_str()) => Ok(Some(digest)),
        200 => Err(format!("{target}: {len} bytes with digest {digest}, not {named:?}")),
        status => Err(format!("{target}: status {status}")),
    })
}

/// The texts in an array of a JSON answer; none when the answer is a 404.
fn names_at(
    connection: &mut Connection,
    target: &str,
    array: &str,
    field: &str,
) -> io::Result<BTreeSet<String>> {
    let answer = connection.ask("GET", target, None)?;
    if answer.head.status == 404 {
        return Ok(BTreeSet::new());
    }
    let json: serde_json::Value = serde_json::from_slice(&answer.body).map_err(io::Error::other)?;
    let items = json.pointer(array).and_then(serde_json::Value::as_array);
    let text = |v: &serde_json::Value| v.pointer(field)?.as_str().map(str::to_owned);
    Ok(items.into_iter().flatten().filter_map(text).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::super::content::digest_of;
    use super::*;

    /// A registry that gives the same answer to everything.
    fn reads(answer: &str, key: &Key) -> Result<Value, String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let answer = answer.to_owned();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = read(&mut Connection::open(&host).unwrap(), key).unwrap();
        server.join().unwrap();
        result
    }

    #[test]
    fn bytes_that_are_not_those_of_the_name_are_noticed() {
        let digest = digest_of(b"right");
        let key = Key::Blob { repository: "r".to_owned(), digest: digest.clone() };
        let ok =
            |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(reads(&ok("right"), &key), Ok(Some(digest)));
        assert!(reads(&ok("wrong"), &key).is_err());
        assert!(reads(&ok("righ"), &key).is_err());
        assert!(reads("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", &key).is_err());
        assert_eq!(reads("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", &key), Ok(None));
    }
}
