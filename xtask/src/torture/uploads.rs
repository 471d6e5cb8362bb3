//! How a worker pushes blobs: every way in which clients do it.

use std::io;
use std::sync::atomic::Ordering;

use super::content::Content;
use super::model::Key;
use super::worker::{Session, Shared, Worker};
use crate::wire::{Answer, Connection, with_query};

/// One of so many pushes is of a content that the others push, too.
const SHARED_ONE_IN: usize = 2;

/// Chunks of one upload, at most.
const MAX_CHUNKS: usize = 4;

/// Pieces of a streamed body, as docker sends them. Bytes.
const STREAM_BYTES: usize = 32 * 1024;

const OCTETS: &str = "Content-Type: application/octet-stream";

impl Worker {
    /// A content to push: one of everybody's or one of its own.
    fn some_content(&mut self, shared: &Shared) -> Content {
        let content = if self.random.below(SHARED_ONE_IN) == 0 {
            shared.pool[self.random.below(shared.pool.len())].clone()
        } else {
            Content::draw(&mut self.random)
        };
        self.contents.insert(content.digest.clone(), content.clone());
        content
    }

    /// POST with the digest and the whole body.
    pub(super) fn push_whole(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
    ) -> io::Result<()> {
        let content = self.some_content(shared);
        let key = self.blob(&content);
        let target = format!("/v2/{}/blobs/uploads/?digest={}", key.repository(), content.digest);
        self.begin(&key, &Some(content.digest.clone()));
        connection.send("POST", &target, &[OCTETS], Some(&content.bytes()))?;
        self.committed(connection, shared, &key, &content)
    }

    /// POST, then PUT with the whole body: crane, skopeo, podman.
    pub(super) fn push_in_two(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
    ) -> io::Result<()> {
        let Some(session) = self.open(connection, shared)? else { return Ok(()) };
        self.finish(connection, shared, session, 0)
    }

    /// POST, PATCH with `Content-Range`, PUT with the rest or without a body. With `finish` false
    /// the session stays open.
    pub(super) fn push_chunks(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        finish: bool,
    ) -> io::Result<()> {
        let Some(mut session) = self.open(connection, shared)? else { return Ok(()) };
        let bytes = session.content.bytes();
        let chunks = 1 + self.random.below(MAX_CHUNKS);
        let mut at = 0;
        for _ in 0..chunks.min(bytes.len()) {
            let end = at + 1 + self.random.below(bytes.len() - at);
            let range = format!("Content-Range: {at}-{}", end - 1);
            self.sent(&session, end);
            connection.send("PATCH", &session.target, &[OCTETS, &range], Some(&bytes[at..end]))?;
            if !self.chunk_answered(connection, &mut session, end)? {
                return Ok(());
            }
            at = end;
            if at == bytes.len() {
                break;
            }
        }
        if finish { self.finish(connection, shared, session, at) } else { Ok(()) }
    }

    /// POST, one PATCH of unknown length, PUT without a body: docker.
    pub(super) fn push_streamed(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
    ) -> io::Result<()> {
        let Some(mut session) = self.open(connection, shared)? else { return Ok(()) };
        let bytes = session.content.bytes();
        self.sent(&session, bytes.len());
        connection.send_chunked("PATCH", &session.target, &bytes, STREAM_BYTES)?;
        if self.chunk_answered(connection, &mut session, bytes.len())? {
            self.finish(connection, shared, session, bytes.len())?;
        }
        Ok(())
    }

    /// POST with a blob of another worker's repository, which may or may not be there.
    pub(super) fn mount(&mut self, connection: &mut Connection, shared: &Shared) -> io::Result<()> {
        let content = shared.pool[self.random.below(shared.pool.len())].clone();
        self.contents.insert(content.digest.clone(), content.clone());
        let key = self.blob(&content);
        let Some(before) = self.model.certain(&key) else { return Ok(()) };
        let other = self.random.below(shared.workers);
        let from = Self::repository(other, self.random.below(super::worker::REPOSITORIES));
        self.begin(&key, &Some(content.digest.clone()));
        let mount = format!("mount={}&from={from}", content.digest);
        let target = format!("/v2/{}/blobs/uploads/?{mount}", key.repository());
        connection.send("POST", &target, &[], Some(b""))?;
        shared.commits.fetch_add(1, Ordering::SeqCst);
        let answer = connection.receive()?;
        match answer.head.status {
            201 => self.done(&key, &Some(content.digest)),
            202 => {
                self.model.acknowledge(&key, &before);
                let session = self.opened(&key, &answer, content)?;
                self.finish(connection, shared, session, 0)?;
            }
            _ => self.refused("mount", &key, &answer),
        }
        Ok(())
    }

    fn blob(&mut self, content: &Content) -> Key {
        Key::Blob { repository: self.some_repository(), digest: content.digest.clone() }
    }

    /// POST that opens a session.
    fn open(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
    ) -> io::Result<Option<Session>> {
        let content = self.some_content(shared);
        let key = self.blob(&content);
        let target = format!("/v2/{}/blobs/uploads/", key.repository());
        let answer = connection.ask("POST", &target, Some(b""))?;
        if answer.head.status != 202 {
            self.refused("open an upload for", &key, &answer);
            return Ok(None);
        }
        self.opened(&key, &answer, content).map(Some)
    }

    fn opened(&mut self, key: &Key, answer: &Answer, content: Content) -> io::Result<Session> {
        let session = Session {
            repository: key.repository().to_owned(),
            target: answer.head.location()?.to_owned(),
            content,
            confirmed: 0,
            sent: 0,
            committing: false,
        };
        self.sessions.push(session.clone());
        Ok(session)
    }

    /// PUT with everything from `at` on. The session is gone with the answer.
    pub(super) fn finish(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        session: Session,
        at: usize,
    ) -> io::Result<()> {
        let Session { repository, target, content, .. } = session.clone();
        let key = Key::Blob { repository, digest: content.digest.clone() };
        self.begin(&key, &Some(content.digest.clone()));
        self.sent(&session, content.len);
        for known in self.sessions.iter_mut().filter(|s| s.target == target) {
            known.committing = true;
        }
        let put = with_query(&target, &format!("digest={}", content.digest));
        connection.send("PUT", &put, &[OCTETS], Some(&content.bytes()[at..]))?;
        self.committed(connection, shared, &key, &content)?;
        self.sessions.retain(|s| s.target != target);
        Ok(())
    }

    /// The answer to a commit that has just been sent.
    fn committed(
        &mut self,
        connection: &mut Connection,
        shared: &Shared,
        key: &Key,
        content: &Content,
    ) -> io::Result<()> {
        shared.commits.fetch_add(1, Ordering::SeqCst);
        let answer = connection.receive()?;
        if answer.head.status == 201 {
            self.done(key, &Some(content.digest.clone()));
        } else {
            self.refused("push", key, &answer);
        }
        Ok(())
    }

    /// Notes that bytes up to `end` may arrive.
    fn sent(&mut self, session: &Session, end: usize) {
        for known in self.sessions.iter_mut().filter(|s| s.target == session.target) {
            known.sent = known.sent.max(end);
        }
    }

    /// The answer to a chunk that ends at `end`. False when it was refused.
    fn chunk_answered(
        &mut self,
        connection: &mut Connection,
        session: &mut Session,
        end: usize,
    ) -> io::Result<bool> {
        let answer = connection.receive()?;
        if answer.head.status != 202 {
            let key = Key::Blob {
                repository: session.repository.clone(),
                digest: session.content.digest.clone(),
            };
            self.refused("a chunk for", &key, &answer);
            return Ok(false);
        }
        self.counts.answered += 1;
        let next = answer.head.location()?.to_owned();
        for known in self.sessions.iter_mut().filter(|s| s.target == session.target) {
            known.confirmed = end;
            known.target.clone_from(&next);
        }
        session.target = next;
        Ok(true)
    }
}
