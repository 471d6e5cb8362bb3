//! Tags never go back while machines come and go.

use ddr_sim::names::{NamesReport, NamesSetup, run};

fn weeks(change: impl FnOnce(&mut NamesSetup)) -> NamesReport {
    let mut setup = NamesSetup {
        nodes: 60,
        names: 30,
        days: 14,
        loss: 0.02,
        away: 2.0,
        away_ms: 10 * 60_000,
        rack: None,
        every_ms: 60_000,
        drop: 0.002,
        miss: 0.01,
        settle_ms: 60_000,
        skew_ms: 500,
        seed: 1,
    };
    change(&mut setup);
    run(&setup, &"sim/names".parse().expect("a name"))
}

#[test]
fn two_weeks_of_churn_lose_no_write_and_answer_nothing_old() {
    let report = weeks(|_| {});
    assert_eq!((report.stale_reads, report.lost_writes), (0, 0), "{report:?}");
    assert!(report.writes > 4_000 && report.nodes_lost > 10, "{report:?}");
    assert!(report.reads_refused + report.writes_refused < 20, "{report:?}");
}

#[test]
fn a_small_swarm_keeps_its_tags_too() {
    let report = weeks(|setup| setup.nodes = 5);
    assert_eq!((report.stale_reads, report.lost_writes), (0, 0), "{report:?}");
}

#[test]
fn without_settling_machines_take_writes_with_them() {
    let report =
        weeks(|setup| (setup.settle_ms, setup.loss, setup.every_ms) = (0, 0.5, 4 * 3_600_000));
    assert!(report.stale_reads + report.lost_writes > 0, "the check can fail: {report:?}");
}

#[test]
fn the_same_seed_gives_the_same_weeks() {
    let (one, two) = (weeks(|setup| setup.days = 3), weeks(|setup| setup.days = 3));
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
}
