//! What is counted: waits, messages, processor time, memory.

use std::fmt;
use std::ops::Sub;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::swarm::{Memory, Node};
use crate::wire::Connection;

/// How long lookups took, and how many found nothing.
#[derive(Debug, Default)]
pub(super) struct Times {
    found_ms: Vec<f64>,
    failures: usize,
}

impl Times {
    pub(super) fn add(&mut self, found: bool, time: Duration) {
        if found {
            self.found_ms.push(time.as_secs_f64() * 1e3);
        } else {
            self.failures += 1;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.found_ms.len() + self.failures
    }

    pub(super) fn failures(&self) -> usize {
        self.failures
    }

    /// The wait within which this part of the lookups that found something ended. Milliseconds.
    pub(super) fn at(&self, part: f64) -> f64 {
        let mut sorted = self.found_ms.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (median, p99, most) = (self.at(0.5), self.at(0.99), self.at(1.0));
        write!(
            f,
            "{} lookups, {} failures; {median:.2} ms median, {p99:.2} ms p99, {most:.1} ms longest",
            self.len(),
            self.failures
        )
    }
}

/// Messages of all nodes together since they started, as their metrics tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) messages: f64,
    pub(super) sent: f64,
    pub(super) received: f64,
}

impl Traffic {
    pub(super) fn of(nodes: &[Node]) -> Result<Self> {
        let mut sum = Self { messages: 0.0, sent: 0.0, received: 0.0 };
        for node in nodes {
            let answer = Connection::open(&node.admin)?.ask("GET", "/metrics", None)?;
            let text = String::from_utf8(answer.body)?;
            sum.messages += counter(&text, "ddr_messages_total");
            sum.sent += counter(&text, "ddr_message_sent_bytes_total");
            sum.received += counter(&text, "ddr_message_received_bytes_total");
        }
        Ok(sum)
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            messages: self.messages - before.messages,
            sent: self.sent - before.sent,
            received: self.received - before.received,
        }
    }
}

/// A counter appears with its first event.
fn counter(text: &str, name: &str) -> f64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(value).unwrap_or_default()
}

/// Processor time of all nodes together. Seconds.
pub(super) fn cpu_s(nodes: &[Node]) -> Result<f64> {
    nodes.iter().map(Node::cpu_s).sum()
}

pub(super) fn print_memory(nodes: &[Node]) -> Result<()> {
    let mut memory: Vec<Memory> = nodes.iter().map(Node::memory_kib).collect::<Result<_>>()?;
    memory.sort_by_key(|memory| memory.resident);
    let most = memory.last().context("no nodes")?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    println!(
        "resident memory of a node: {:.1} MiB median, {:.1} MiB most ({:.1} anonymous)",
        mib(memory[memory.len() / 2].resident),
        mib(most.resident),
        mib(most.anonymous)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_read_by_its_whole_name() {
        let text = "# HELP a b\nddr_messages_total_x 7\nddr_messages_total 12\n";
        assert_eq!(counter(text, "ddr_messages_total"), 12.0);
        assert_eq!(counter(text, "absent"), 0.0);
    }

    #[test]
    fn failures_count_and_have_no_time() {
        let mut times = Times::default();
        (1..=101).for_each(|ms| times.add(true, Duration::from_millis(ms)));
        times.add(false, Duration::from_secs(9));
        assert_eq!((times.len(), times.failures()), (102, 1));
        assert_eq!((times.at(0.5).round(), times.at(0.99).round()), (51.0, 100.0));
    }
}
