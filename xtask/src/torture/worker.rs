//! One client: what it asks of the daemon, and what it remembers of the answers.
//!
//! It owns its repositories: nobody else changes them, so its own requests are all there is to know.
//! Contents are shared with the others, so that one file is linked, deleted and pushed again by
//! several at once. A worker never judges silence: a request without an answer stays open in the
//! model until a read after the restart decides it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::content::Content;
use super::model::{Key, Model, Value};
use crate::e2e::Random;
use crate::wire::{Answer, Connection};

/// Blobs that a worker keeps; with more, it deletes before it pushes.
const MAX_BLOBS: usize = 20;

/// Manifests that a worker keeps.
const MAX_MANIFESTS: usize = 24;

/// Tags of one repository.
const TAGS: usize = 6;

/// Repositories of one worker.
pub(super) const REPOSITORIES: usize = 2;

/// What all workers of one run share.
#[derive(Debug)]
pub(super) struct Shared {
    /// Contents that everybody pushes, mounts and deletes.
    pub(super) pool: Vec<Content>,
    /// Number of workers.
    pub(super) workers: usize,
    /// Set before the daemon is killed: from then on silence is expected.
    pub(super) killed: AtomicBool,
    /// Commits sent and perhaps not answered yet.
    pub(super) commits: AtomicUsize,
}

/// One manifest that was ever pushed.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) bytes: Vec<u8>,
    pub(super) subject: Option<String>,
}

/// An upload session that the daemon has told of.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) repository: String,
    /// Where it goes on.
    pub(super) target: String,
    pub(super) content: Content,
    /// Bytes that an answer confirmed, and bytes that may have arrived.
    pub(super) confirmed: usize,
    pub(super) sent: usize,
    /// A commit was asked for, so it may be gone.
    pub(super) committing: bool,
}

/// What happened, for the report.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counts {
    pub(super) answered: u64,
    pub(super) refused: u64,
    pub(super) reads: u64,
    pub(super) open_at_kill: u64,
    pub(super) sessions_resumed: u64,
    pub(super) sessions_cancelled: u64,
    pub(super) sessions_gone: u64,
    pub(super) sessions_lost: u64,
    pub(super) sessions_shorter: u64,
}

impl Counts {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
            reads: self.reads + other.reads,
            open_at_kill: self.open_at_kill + other.open_at_kill,
            sessions_resumed: self.sessions_resumed + other.sessions_resumed,
            sessions_cancelled: self.sessions_cancelled + other.sessions_cancelled,
            sessions_gone: self.sessions_gone + other.sessions_gone,
            sessions_lost: self.sessions_lost + other.sessions_lost,
            sessions_shorter: self.sessions_shorter + other.sessions_shorter,
        }
    }
}

/// See the module comment.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: usize,
    pub(super) random: Random,
    pub(super) model: Model,
    /// By digest.
    pub(super) contents: BTreeMap<String, Content>,
    pub(super) manifests: BTreeMap<String, Manifest>,
    pub(super) sessions: Vec<Session>,
    /// Keys that were changed since the last restart.
    pub(super) touched: Vec<Key>,
    pub(super) counts: Counts,
    /// What is wrong.
    pub(super) wrong: Vec<String>,
}

/// What a worker may do next, most frequent first.
#[derive(Debug, Clone, Copy)]
enum Step {
    PushWhole,
    PushTwo,
    PushChunks,
    PushStreamed,
    LeaveOpen,
    Mount,
    TagManifest,
    PutManifest,
    MoveTag,
    DeleteTag,
    DeleteManifest,
    DeleteBlob,
    Read,
}

const STEPS: &[Step] = &[
    Step::PushWhole,
    Step::PushWhole,
    Step::PushTwo,
    Step::PushTwo,
    Step::PushTwo,
    Step::PushChunks,
    Step::PushChunks,
    Step::PushStreamed,
    Step::LeaveOpen,
    Step::Mount,
    Step::Mount,
    Step::TagManifest,
    Step::TagManifest,
    Step::TagManifest,
    Step::PutManifest,
    Step::PutManifest,
    Step::MoveTag,
    Step::DeleteTag,
    Step::DeleteManifest,
    Step::DeleteBlob,
    Step::Read,
    Step::Read,
];

impl Worker {
    pub(super) fn new(id: usize) -> Self {
        Self {
            id,
            random: Random::new(0),
            model: Model::default(),
            contents: BTreeMap::new(),
            manifests: BTreeMap::new(),
            sessions: Vec::new(),
            touched: Vec::new(),
            counts: Counts::default(),
            wrong: Vec::new(),
        }
    }

    /// Works until the daemon is gone. What it chooses depends on `seed` and on what it owns.
    pub(super) fn work(&mut self, host: &str, seed: u64, shared: &Shared) {
        self.random = Random::new(seed);
        self.touched.clear();
        let ended = Connection::open(host).and_then(|mut connection| {
            while self.wrong.is_empty() {
                self.step(&mut connection, shared)?;
            }
            Ok(())
        });
        self.counts.open_at_kill += u64::from(ended.is_err());
        if let Err(error) = ended
            && !shared.killed.load(Ordering::SeqCst)
        {
            self.wrong.push(format!("worker {}: no answer from a living daemon: {error}", self.id));
        }
    }

    fn step(&mut self, connection: &mut Connection, shared: &Shared) -> io::Result<()> {
        let blobs = self.present(|k| matches!(k, Key::Blob { .. })).len();
        let manifests = self.present(|k| matches!(k, Key::Manifest { .. })).len();
        let step = if blobs > MAX_BLOBS {
            Step::DeleteBlob
        } else if manifests > MAX_MANIFESTS {
            Step::DeleteManifest
        } else {
            STEPS[self.random.below(STEPS.len())]
        };
        match step {
            Step::PushWhole => self.push_whole(connection, shared),
            Step::PushTwo => self.push_in_two(connection, shared),
            Step::PushChunks => self.push_chunks(connection, shared, true),
            Step::PushStreamed => self.push_streamed(connection, shared),
            Step::LeaveOpen => self.push_chunks(connection, shared, false),
            Step::Mount => self.mount(connection, shared),
            Step::TagManifest => self.put_manifest(connection, shared, true),
            Step::PutManifest => self.put_manifest(connection, shared, false),
            Step::MoveTag => self.move_tag(connection, shared),
            Step::DeleteTag => self.delete_tag(connection),
            Step::DeleteManifest => self.delete_manifest(connection),
            Step::DeleteBlob => self.delete_blob(connection),
            Step::Read => self.read_something(connection),
        }
    }

    /// A repository of worker `id`.
    pub(super) fn repository(id: usize, number: usize) -> String {
        format!("torture/w{id}/r{number}")
    }

    /// One of its own repositories.
    pub(super) fn some_repository(&mut self) -> String {
        Self::repository(self.id, self.random.below(REPOSITORIES))
    }

    pub(super) fn some_tag(&mut self, repository: &str) -> Key {
        let tag = format!("v{}", self.random.below(TAGS));
        Key::Tag { repository: repository.to_owned(), tag }
    }

    /// Keys that certainly hold something.
    pub(super) fn present(&self, wanted: impl Fn(&Key) -> bool) -> Vec<Key> {
        self.model.present().map(|(k, _)| k).filter(|k| wanted(k)).cloned().collect()
    }

    /// One of some keys.
    pub(super) fn pick(&mut self, keys: &[Key]) -> Option<Key> {
        (!keys.is_empty()).then(|| keys[self.random.below(keys.len())].clone())
    }

    /// Notes that a change is asked for.
    pub(super) fn begin(&mut self, key: &Key, after: &Value) {
        self.model.begin(key, after);
        self.touched.push(key.clone());
    }

    /// Takes note of an answer that changed nothing although it should have.
    pub(super) fn refused(&mut self, what: &str, key: &Key, answer: &Answer) {
        self.counts.refused += 1;
        // The daemon may say that it cannot for the moment.
        if !matches!(answer.head.status, 429 | 503) {
            let said = String::from_utf8_lossy(&answer.body).into_owned();
            let status = answer.head.status;
            self.wrong.push(format!("{what} {}: status {status}: {said}", key.target()));
        }
    }

    /// Notes an acknowledged change.
    pub(super) fn done(&mut self, key: &Key, value: &Value) {
        self.counts.answered += 1;
        self.model.acknowledge(key, value);
    }
}
