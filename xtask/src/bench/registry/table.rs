//! Medians and tables, as Markdown.

use std::fmt;

use super::super::goal::Goal;
use crate::median::median;

/// One run of one measure against one server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Bytes, or requests, and how long they took.
    pub(super) amount: f64,
    pub(super) seconds: f64,
    /// Processor time of the server meanwhile; `None` for what is not a server.
    pub(super) cpu_s: Option<f64>,
}

/// What an amount counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Requests,
}

/// One measure: all servers, all runs.
#[derive(Debug)]
pub(super) struct Measure {
    title: String,
    unit: Unit,
    rows: Vec<(&'static str, Vec<Sample>)>,
}

impl Sample {
    /// Amount in a second.
    fn rate(&self) -> f64 {
        self.amount / self.seconds
    }
}

impl Measure {
    pub(super) fn new(title: impl Into<String>, unit: Unit) -> Self {
        Self { title: title.into(), unit, rows: Vec::new() }
    }

    /// Adds one run.
    pub(super) fn add(&mut self, server: &'static str, sample: Sample) {
        match self.rows.iter_mut().find(|(name, _)| *name == server) {
            Some((_, samples)) => samples.push(sample),
            None => self.rows.push((server, vec![sample])),
        }
    }

    /// The median rate of a server: bytes or requests in a second.
    pub(super) fn rate(&self, server: &str) -> Option<f64> {
        let (_, samples) = self.rows.iter().find(|(name, _)| *name == server)?;
        Some(median(samples.iter().map(Sample::rate)))
    }

    /// The goal that `ours` is at least `wanted` times as fast as `theirs`, if both were measured.
    pub(super) fn goal(&self, ours: &str, theirs: &str, wanted: f64) -> Option<Goal> {
        let value = self.rate(ours)? / self.rate(theirs)?;
        Some(Goal::at_least(format!("{}: times {theirs}", self.title), value, wanted))
    }

    /// The goal of a rate of its own.
    pub(super) fn goal_rate(&self, ours: &str, wanted: f64) -> Option<Goal> {
        let value = self.rate(ours)?;
        Some(Goal::at_least(format!("{}: a second", self.title), value, wanted))
    }

    fn row(&self, samples: &[Sample], ours: Option<f64>) -> String {
        let rates: Vec<f64> = samples.iter().map(Sample::rate).collect();
        let rate = median(rates.iter().copied());
        let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let most = rates.iter().copied().fold(0.0, f64::max);
        // Seconds for a GB, or microseconds for a request.
        let scale = if self.unit == Unit::Bytes { 1e9 } else { 1e6 };
        let cpu: Vec<f64> =
            samples.iter().filter_map(|s| Some(s.cpu_s? / s.amount * scale)).collect();
        let cpu = match (cpu.is_empty(), self.unit) {
            (true, _) => String::new(),
            (false, Unit::Bytes) => format!("{:.2}", median(cpu)),
            (false, Unit::Requests) => format!("{:.0}", median(cpu)),
        };
        let shown = |value: f64| match self.unit {
            Unit::Bytes => format!("{:.0}", value / f64::from(1 << 20)),
            Unit::Requests => format!("{value:.0}"),
        };
        let ratio = ours.map_or_else(String::new, |ours| format!("{:.2}", ours / rate));
        format!("{} | {} | {} | {cpu} | {ratio}", shown(rate), shown(least), shown(most))
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, cpu) = match self.unit {
            Unit::Bytes => ("MiB/s", "CPU s per GB"),
            Unit::Requests => ("a second", "CPU µs each"),
        };
        writeln!(f, "### {}\n", self.title)?;
        writeln!(f, "| | {unit}, median | least | most | {cpu} | ddrd is times as fast |")?;
        writeln!(f, "|---|---|---|---|---|---|")?;
        let ours = self.rate(super::DDRD);
        for (name, samples) in &self.rows {
            writeln!(f, "| {name} | {} |", self.row(samples, ours))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::DDRD;
    use super::*;

    fn sample(seconds: f64) -> Sample {
        Sample { amount: 1e9, seconds, cpu_s: Some(0.5) }
    }

    #[test]
    fn medians_are_compared() {
        let mut measure = Measure::new("GET", Unit::Bytes);
        for seconds in [1.0, 2.0, 10.0] {
            measure.add(DDRD, sample(seconds));
            measure.add("other", sample(seconds * 2.0));
        }
        let goal = measure.goal(DDRD, "other", 2.0).unwrap();
        assert!(goal.reached(), "{goal}");
        assert!(!measure.goal(DDRD, "other", 2.1).unwrap().reached());
        assert!(measure.goal(DDRD, "absent", 1.0).is_none());
        let text = measure.to_string();
        assert!(text.contains("| other | 238 | 48 | 477 | 0.50 | 2.00 |"), "{text}");
    }
}
