//! The table of a run, and what was wrong.

use super::history::{Kind, Operation, Outcome};
use super::round;

/// What all runs with the same faults came to.
#[derive(Debug, Default)]
pub(super) struct Row {
    pub(super) name: String,
    runs: usize,
    faults: usize,
    /// Answered, certainly without effect, unknown.
    counts: [usize; 3],
    reads_ms: Vec<f64>,
    writes_ms: Vec<f64>,
    agreed_s: f64,
    anomalies: usize,
    undecided: usize,
}

impl Row {
    pub(super) fn new(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    pub(super) fn add(&mut self, outcome: &round::Outcome) {
        self.runs += 1;
        self.faults += outcome.faults.iter().filter(|line| line.contains("Begin")).count();
        for operation in &outcome.history {
            self.count(operation);
        }
        let agreed_s = outcome.agreed_after.map_or(f64::NAN, |agreed| agreed.as_secs_f64());
        self.agreed_s = self.agreed_s.max(agreed_s);
        self.anomalies += outcome.anomalies.len();
        self.undecided += outcome.undecided;
    }

    fn count(&mut self, operation: &Operation) {
        let place = match operation.outcome {
            Outcome::Ok => 0,
            Outcome::Fail => 1,
            Outcome::Info => 2,
        };
        self.counts[place] += 1;
        if operation.outcome == Outcome::Ok {
            let times = match operation.kind {
                Kind::Read => &mut self.reads_ms,
                Kind::Write | Kind::Delete => &mut self.writes_ms,
            };
            times.push(operation.took_ms());
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.runs > 0 && self.anomalies == 0 && self.undecided == 0
    }

    fn shown(&mut self) -> String {
        let [ok, fail, info] = self.counts;
        let reads = quantiles(&mut self.reads_ms);
        let writes = quantiles(&mut self.writes_ms);
        format!(
            "| {} | {} | {} | {ok} | {fail} | {info} | {reads} | {writes} | {:.1} | {} | {} |",
            self.name, self.runs, self.faults, self.agreed_s, self.anomalies, self.undecided
        )
    }
}

/// Median and 99 of 100, milliseconds.
fn quantiles(times_ms: &mut [f64]) -> String {
    times_ms.sort_by(f64::total_cmp);
    let at = |share: f64| times_ms.get((times_ms.len() as f64 * share) as usize).copied();
    match (at(0.5), at(0.99)) {
        (Some(middle), Some(most)) => format!("{middle:.1} / {most:.0}"),
        _ => "–".to_owned(),
    }
}

/// Prints the table. True when nothing was wrong.
pub(super) fn table(rows: &mut [Row]) -> bool {
    println!(
        "\n| faults | runs | faults in all | ok | fail | info | read p50 / p99, ms | write p50 / p99, ms \
         | agreed after, s, at most | anomalies | undecided |\n\
         |---|---|---|---|---|---|---|---|---|---|---|"
    );
    for row in rows.iter_mut() {
        println!("{}", row.shown());
    }
    rows.iter().all(Row::is_good)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_anomaly_or_undecided_tag_is_a_failure() {
        let mut row = Row::new("kill".to_owned());
        assert!(!row.is_good(), "nothing ran");
        row.add(&round::Outcome::default());
        assert!(row.is_good());
        row.add(&round::Outcome { undecided: 1, ..Default::default() });
        assert!(!row.is_good());
        let mut row = Row::new("kill".to_owned());
        row.add(&round::Outcome { anomalies: vec!["split".to_owned()], ..Default::default() });
        assert!(!row.is_good());
    }

    #[test]
    fn quantiles_are_of_what_there_is() {
        assert_eq!(quantiles(&mut []), "–");
        let mut times: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(quantiles(&mut times), "101.0 / 199");
    }
}
