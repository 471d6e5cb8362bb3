//! What came of the scenarios, as a Markdown table or as JSON, and the goals.

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use super::super::goal::Goal;
use super::pull::{Outcome, Pull};
use super::scenario::{Plan, Scenario};

/// Goals for the 99th percentile, in F/b: all together; with slow nodes, the fast ones; small layers.
const GOAL_ALL: f64 = 1.25;
const GOAL_FAST: f64 = 1.3;
const GOAL_IMAGE: f64 = 1.5;
/// For the mean when starts are spread.
const GOAL_ROLLING: f64 = 1.15;
/// Times the 99th percentile of all together, when some nodes die.
const GOAL_SURVIVORS: f64 = 1.05;
/// The same, when some nodes lie.
const GOAL_AMONG_LIARS: f64 = 1.5;
/// For the moment when half of the blob is there, in F/b.
const GOAL_HALF: f64 = 0.75;
/// For the copies that the source sends.
const GOAL_COPIES: f64 = 1.2;

const HEAD: &str = "\
| scenario | nodes | F/b, s | median | p99 | least | half, most | first byte, ms, median | most \
| copies from the source | CPU, s a node | peak RSS, MiB | killed | lost | misled | wrong |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";

const LEGEND: &str = "
Times from the start of each client, in units of F/b, if no other is given. F/b: bytes of the blob over
the rate of a link. All bytes on the wire count towards the rate, so that 1.05 is the least for TCP.
Copies: bytes that left the source's interface over bytes of the blob. CPU: mean of the daemons but the
source; for docker-registry the server. Killed: daemons; none where the clients had ended before. Lost:
clients that did not get everything, which the times leave out. Misled: clients that got a wrong byte, if
only in an answer that was cut off. Wrong: clients that got a whole blob with another digest.
";

/// What is counted of a whole scenario.
#[derive(Debug)]
pub(super) struct Totals {
    /// Nodes that were killed meanwhile.
    pub(super) killed: usize,
    /// What the source sent, in blobs.
    pub(super) copies: f64,
    /// Processor time of a serving process, mean. Seconds.
    pub(super) cpu_s: f64,
    /// Resident memory of a node, the most of all.
    pub(super) peak_mib: f64,
}

/// The figures of one group of nodes. Times without a unit in their name are in F/b; figures that do
/// not exist are not a number, in JSON null.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    #[serde(skip)]
    scenario: Scenario,
    name: String,
    nodes: usize,
    file_time_s: f64,
    median: f64,
    mean: f64,
    p99: f64,
    least: f64,
    half_most: f64,
    first_median_ms: f64,
    first_most_ms: f64,
    copies: f64,
    cpu_s: f64,
    peak_mib: f64,
    killed: usize,
    lost: usize,
    misled: usize,
    wrong: usize,
}

/// A row for each group of the plan.
pub(super) fn rows(plan: &Plan, outcomes: &[Outcome], totals: &Totals) -> Vec<Row> {
    let groups = plan.groups().into_iter();
    groups.map(|(name, nodes)| row(plan, name, &nodes, outcomes, totals)).collect()
}

fn row(plan: &Plan, name: String, nodes: &[usize], outcomes: &[Outcome], totals: &Totals) -> Row {
    let file_time_s = plan.file_time.as_secs_f64();
    let ended: Vec<Pull> = nodes.iter().filter_map(|node| outcomes[*node].pull).collect();
    let sorted = |of: fn(&Pull) -> f64, unit: f64| {
        let mut values: Vec<f64> = ended.iter().map(|pull| of(pull) / unit).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let times = sorted(|pull| pull.end_s, file_time_s);
    let first_ms = sorted(|pull| pull.first_s, 1e-3);
    Row {
        scenario: plan.scenario,
        name,
        nodes: nodes.len(),
        file_time_s,
        median: at(&times, 0.5),
        mean: mean(times.iter().copied()),
        p99: at(&times, 0.99),
        least: at(&times, 0.0),
        half_most: at(&sorted(|pull| pull.half_s, file_time_s), 1.0),
        first_median_ms: at(&first_ms, 0.5),
        first_most_ms: at(&first_ms, 1.0),
        copies: totals.copies,
        cpu_s: totals.cpu_s,
        peak_mib: totals.peak_mib,
        killed: totals.killed,
        lost: nodes.len() - ended.len(),
        misled: nodes.iter().filter(|node| outcomes[**node].misled).count(),
        wrong: ended.iter().filter(|pull| !pull.right).count(),
    }
}

/// The least value that this part of all values does not exceed.
fn at(sorted: &[f64], part: f64) -> f64 {
    let rank = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Prints everything; true when the goals are reached.
pub(super) fn report(rows: &[Row], json: bool) -> Result<bool> {
    let goals = goals(rows);
    if json {
        println!("{}", serde_json::to_string_pretty(rows)?);
    } else {
        println!("{HEAD}");
        rows.iter().for_each(|row| println!("{row}"));
        println!("{LEGEND}\n| at most | measured | goal | |\n|---|---|---|---|");
        goals.iter().for_each(|goal| println!("{goal}"));
    }
    Ok(goals.iter().all(Goal::reached))
}

fn goals(rows: &[Row]) -> Vec<Goal> {
    let together = rows.iter().find(|row| row.scenario == Scenario::All).map(|row| row.p99);
    let mut goals: Vec<Goal> = rows.iter().filter_map(|row| goal(row, together)).collect();
    let ours = rows.iter().filter(|row| row.scenario != Scenario::DockerRegistry);
    for row in ours.clone().filter(|row| row.scenario == Scenario::All) {
        goals.push(Goal::at_most("all: half in order", row.half_most, GOAL_HALF));
        goals.push(Goal::at_most("all: copies from the source", row.copies, GOAL_COPIES));
    }
    let sum = |of: fn(&Row) -> usize| ours.clone().map(of).sum::<usize>() as f64;
    goals.push(Goal::at_most("lost clients", sum(|row| row.lost), 0.0));
    goals.push(Goal::at_most("clients with a wrong byte", sum(|row| row.misled), 0.0));
    goals.push(Goal::at_most("clients with a wrong blob", sum(|row| row.wrong), 0.0));
    goals
}

/// The goal for the time of one row, if it has one. `together` is the 99th percentile of
/// [`Scenario::All`].
fn goal(row: &Row, together: Option<f64>) -> Option<Goal> {
    let p99 = |most| Some(Goal::at_most(format!("{}: p99", row.name), row.p99, most));
    match row.scenario {
        Scenario::All => p99(GOAL_ALL),
        Scenario::Image => p99(GOAL_IMAGE),
        // The slow ones have ten times less and no goal.
        Scenario::SlowTenth => p99(GOAL_FAST).filter(|_| row.name.ends_with("fast")),
        Scenario::ThirdDies => p99(together? * GOAL_SURVIVORS),
        Scenario::Liars => p99(together? * GOAL_AMONG_LIARS),
        Scenario::Rolling => {
            Some(Goal::at_most(format!("{}: mean", row.name), row.mean, GOAL_ROLLING))
        }
        Scenario::Link | Scenario::SourceDies | Scenario::DockerRegistry => None,
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: f64, digits: usize| match value.is_nan() {
            true => "–".to_owned(),
            false => format!("{value:.digits$}"),
        };
        write!(f, "| {} | {} | {:.2} ", self.name, self.nodes, self.file_time_s)?;
        for time in [self.median, self.p99, self.least, self.half_most] {
            write!(f, "| {} ", shown(time, 2))?;
        }
        for wait_ms in [self.first_median_ms, self.first_most_ms] {
            write!(f, "| {} ", shown(wait_ms, 0))?;
        }
        write!(f, "| {} | {} ", shown(self.copies, 2), shown(self.cpu_s, 2))?;
        write!(f, "| {} | {} ", shown(self.peak_mib, 0), self.killed)?;
        write!(f, "| {} | {} | {} |", self.lost, self.misled, self.wrong)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::e2e::Random;

    const LOST: Outcome = Outcome { pull: None, misled: true };

    fn pull(end_s: f64) -> Outcome {
        let pull = Pull { first_s: 0.1, half_s: end_s / 2.0, end_s, right: end_s < 30.0 };
        Outcome { pull: Some(pull), misled: false }
    }

    fn row(scenario: Scenario, outcomes: &[Outcome]) -> Row {
        let file_time = Duration::from_secs(10);
        let plan = Plan::new(scenario, outcomes.len(), 1000, file_time, &mut Random::new(1));
        let totals = Totals { killed: 0, copies: 1.5, cpu_s: 2.0, peak_mib: f64::NAN };
        rows(&plan, outcomes, &totals).remove(0)
    }

    #[test]
    fn times_are_in_units_of_the_file_time() {
        let row = row(Scenario::All, &[pull(40.0), pull(10.0), LOST, pull(20.0)]);
        assert_eq!((row.nodes, row.lost, row.misled, row.wrong), (4, 1, 1, 1));
        let shown = row.to_string();
        assert_eq!(
            shown,
            "| all | 4 | 10.00 | 2.00 | 4.00 | 1.00 | 2.00 | 100 | 100 | 1.50 | 2.00 | – | 0 | 1 | 1 | 1 |"
        );
        let json = serde_json::to_value(&row).unwrap();
        assert!(json["peak_mib"].is_null() && json["p99"] == 4.0, "{json}");
    }

    #[test]
    fn goals_are_missed_by_what_is_late_lost_or_wrong() {
        let met = |rows: &[Row]| goals(rows).iter().all(Goal::reached);
        let mut good = row(Scenario::All, &[pull(10.0), pull(12.0)]);
        good.copies = 1.1;
        assert!(met(&[good]));
        for bad in [&[pull(10.0), pull(13.0)], &[pull(10.0), LOST], &[LOST, LOST]] {
            let mut row = row(Scenario::All, bad);
            row.copies = 1.1;
            assert!(!met(&[row]));
        }
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=199).map(f64::from).collect();
        assert_eq!((at(&values, 0.5), at(&values, 0.99), at(&values, 0.0)), (100.0, 198.0, 1.0));
        assert!(at(&[], 0.5).is_nan());
    }
}
