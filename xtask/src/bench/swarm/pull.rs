//! The clients: each asks a registry as docker does, compares what comes with the content and its
//! digest, and notes when it came.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use sha2::{Digest, Sha256};

use super::super::client::{Content, MANIFEST};
use crate::netns::Host;
use crate::torture::shown_digest;
use crate::wire::Connection;

/// Blobs that one client asks for at once, as docker does.
const AT_ONCE: usize = 3;
/// Read from a socket at once. Bytes.
const READ_BYTES: usize = 256 * 1024;
/// From the making of the threads to the first request.
const LEAD: Duration = Duration::from_millis(100);

/// What every client asks for.
#[derive(Debug)]
pub(in crate::bench) struct Wanted<'a> {
    repository: &'a str,
    /// The manifest that is asked for first.
    tag: Option<&'a str>,
    pub(in crate::bench) blobs: &'a [Content],
}

/// One client.
#[derive(Debug)]
pub(in crate::bench) struct Client<'a> {
    /// Its machine.
    pub(in crate::bench) host: &'a Host,
    /// The registry that it asks.
    pub(in crate::bench) address: String,
    /// From the start of the scenario to its own.
    pub(in crate::bench) delay: Duration,
}

/// What one client saw, in seconds since its own start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::bench) struct Pull {
    pub(in crate::bench) first_s: f64,
    /// Half of all bytes; of one blob they come in order.
    pub(in crate::bench) half_s: f64,
    pub(in crate::bench) end_s: f64,
    /// Everything has the digest that was asked for.
    pub(in crate::bench) right: bool,
}

/// What came of one client.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(in crate::bench) struct Outcome {
    /// Nothing when an answer did not come to its end.
    pub(in crate::bench) pull: Option<Pull>,
    /// A byte came that is none of the content, if only in an answer that was cut off.
    pub(in crate::bench) misled: bool,
}

/// The clients while they run.
#[derive(Debug)]
pub(in crate::bench) struct Running {
    begin: Instant,
    left: AtomicUsize,
}

impl<'a> Wanted<'a> {
    /// One blob, by its digest alone.
    pub(in crate::bench) fn blob(repository: &'a str, blob: &'a Content) -> Self {
        Self { repository, tag: None, blobs: std::slice::from_ref(blob) }
    }

    /// The manifest of an image, then its layers, three at a time.
    pub(in crate::bench) fn image(
        repository: &'a str,
        tag: &'a str,
        layers: &'a [Content],
    ) -> Self {
        Self { repository, tag: Some(tag), blobs: layers }
    }

    /// All blobs together.
    pub(in crate::bench) fn bytes(&self) -> u64 {
        self.blobs.iter().map(|blob| blob.bytes.len() as u64).sum()
    }
}

impl Running {
    /// Time since the start of the scenario.
    pub(in crate::bench) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }

    /// True when no client is left.
    pub(in crate::bench) fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

/// Runs all clients, and `meanwhile` beside them. Why a pull failed is shown.
pub(in crate::bench) fn all(
    clients: &[Client<'_>],
    wanted: &Wanted<'_>,
    meanwhile: impl FnOnce(&Running) -> Result<()>,
) -> Result<Vec<Outcome>> {
    let left = AtomicUsize::new(clients.len());
    let running = &Running { begin: Instant::now() + LEAD, left };
    thread::scope(|scope| {
        let start = |client| scope.spawn(move || one(client, wanted, running));
        let threads: Vec<_> = clients.iter().map(start).collect();
        let result = meanwhile(running);
        let joined = threads.into_iter().map(|thread| thread.join());
        let outcomes: Result<Vec<Outcome>> =
            joined.map(|t| t.map_err(|_| anyhow!("a client panicked"))?).collect();
        result.and(outcomes)
    })
}

fn one(client: &Client<'_>, wanted: &Wanted<'_>, running: &Running) -> Result<Outcome> {
    let outcome = client.host.enter(|| {
        let start = running.begin + client.delay;
        thread::sleep(start.saturating_duration_since(Instant::now()));
        let clock = Clock::start(wanted.bytes());
        let pull = pull(&client.address, wanted, &clock);
        let pull = pull.inspect_err(|error| eprintln!("  {}: {error:#}", client.host.name())).ok();
        Ok(Outcome { pull, misled: clock.misled.load(Ordering::Relaxed) })
    });
    running.left.fetch_sub(1, Ordering::Relaxed);
    outcome
}

fn pull(address: &str, wanted: &Wanted<'_>, clock: &Clock) -> Result<Pull> {
    if let Some(tag) = wanted.tag {
        manifest(address, wanted.repository, tag)?;
    }
    let next = AtomicUsize::new(0);
    let right = thread::scope(|scope| {
        let worker = |_| {
            scope.spawn(|| -> Result<bool> {
                let mut right = true;
                while let Some(blob) = wanted.blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    right &= get(address, wanted.repository, blob, clock)?;
                }
                Ok(right)
            })
        };
        let workers: Vec<_> = (0..AT_ONCE.min(wanted.blobs.len())).map(worker).collect();
        workers.into_iter().try_fold(true, |right, worker| {
            let all = worker.join().map_err(|_| anyhow!("a worker panicked"))??;
            Ok::<_, anyhow::Error>(all && right)
        })
    })?;
    clock.end(right)
}

fn manifest(address: &str, repository: &str, tag: &str) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let accept = format!("Accept: {MANIFEST}");
    connection.send("GET", &format!("/v2/{repository}/manifests/{tag}"), &[&accept], None)?;
    let answer = connection.receive()?;
    ensure!(answer.head.status == 200, "{:?}", answer.head);
    Ok(())
}

/// True when the bytes that came have the digest.
fn get(address: &str, repository: &str, blob: &Content, clock: &Clock) -> Result<bool> {
    let target = format!("/v2/{repository}/blobs/{}", blob.digest);
    let mut connection = Connection::open(address)?;
    connection.send("GET", &target, &[], None)?;
    let head = connection.receive_head()?;
    ensure!(head.status == 200, "{head:?}");
    let (mut hash, mut got) = (Sha256::new(), 0);
    let came = connection.receive_body(&head, &mut vec![0; READ_BYTES], |piece| {
        clock.came(piece.len());
        hash.update(piece);
        let expected = blob.bytes.get(got..got + piece.len());
        clock.misled.fetch_or(expected != Some(piece), Ordering::Relaxed);
        got += piece.len();
    });
    came.with_context(|| format!("after {got} bytes of {}", blob.digest))?;
    Ok(shown_digest(hash) == blob.digest)
}

/// When the bytes of one client came, and whether they were the right ones.
#[derive(Debug)]
struct Clock {
    start: Instant,
    total: u64,
    got: AtomicU64,
    first_s: OnceLock<f64>,
    half_s: OnceLock<f64>,
    misled: AtomicBool,
}

impl Clock {
    fn start(total: u64) -> Self {
        let (first_s, half_s) = (OnceLock::new(), OnceLock::new());
        let (got, misled) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { start: Instant::now(), total, got, first_s, half_s, misled }
    }

    fn came(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let got = self.got.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.first_s.get_or_init(|| self.start.elapsed().as_secs_f64());
        if got * 2 >= self.total {
            self.half_s.get_or_init(|| self.start.elapsed().as_secs_f64());
        }
    }

    fn end(&self, right: bool) -> Result<Pull> {
        let first_s = *self.first_s.get().context("no byte came")?;
        let half_s = *self.half_s.get().context("less than half came")?;
        Ok(Pull { first_s, half_s, end_s: self.start.elapsed().as_secs_f64(), right })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_half_and_end_are_noted_once() {
        let clock = Clock::start(10);
        assert!(clock.end(true).is_err());
        clock.came(0);
        assert!(clock.first_s.get().is_none());
        clock.came(4);
        assert!(clock.first_s.get().is_some() && clock.half_s.get().is_none());
        clock.came(1);
        let half_s = *clock.half_s.get().unwrap();
        clock.came(5);
        let pull = clock.end(true).unwrap();
        assert_eq!(pull.half_s, half_s);
        assert!(pull.first_s <= pull.half_s && pull.half_s <= pull.end_s);
    }
}
