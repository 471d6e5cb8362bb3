//! One client that asks `GET /v2/` again and again and notes how long each answer took.

use std::fmt;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::idle::{Tls, dial, ping};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(5);
/// The place among all connections, which no other has.
const NUMBER: usize = 4_000_000;

/// A probe that runs.
pub(super) struct Probe {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<f64>>>,
}

/// The waits of one probe, in milliseconds, shortest first.
pub(super) struct Waits(Vec<f64>);

impl Probe {
    pub(super) fn start(to: SocketAddr, tls: Option<Tls>) -> Result<Self> {
        let stream = dial(to, NUMBER)?;
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let thread = thread::spawn(move || match tls {
            None => ask(stream, &stop),
            Some(tls) => ask(tls.over(stream)?, &stop),
        });
        Ok(Self { done, thread })
    }

    pub(super) fn end(self) -> Result<Waits> {
        self.done.store(true, Ordering::Relaxed);
        let waits = self.thread.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?;
        let mut waits = waits?;
        ensure!(!waits.is_empty(), "the probe got no answer");
        waits.sort_by(f64::total_cmp);
        Ok(Waits(waits))
    }
}

fn ask(mut stream: impl Read + Write, stop: &AtomicBool) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        ping(&mut stream)?;
        waits.push(began.elapsed().as_secs_f64() * 1e3);
        thread::sleep(PAUSE);
    }
    Ok(waits)
}

impl Waits {
    fn at(&self, part: f64) -> f64 {
        let last = self.0.len() - 1;
        self.0[((last as f64 * part).round() as usize).min(last)]
    }
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99, most) = (self.at(0.5), self.at(0.99), self.at(1.0));
        write!(
            f,
            "{median:.2} ms median, {p99:.2} ms p99, {most:.1} ms longest of {}",
            self.0.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_waits() {
        let waits = Waits((1..=101).map(f64::from).collect());
        assert_eq!((waits.at(0.5), waits.at(0.99), waits.at(1.0)), (51.0, 100.0, 101.0));
        assert_eq!(Waits(vec![7.0]).at(0.99), 7.0);
    }
}
