//! Copies outlive the machines that they lie on.

use ddr_sim::copies::{CopiesReport, CopiesSetup, run};

fn year(change: impl FnOnce(&mut CopiesSetup)) -> CopiesReport {
    let mut setup = CopiesSetup {
        nodes: 200,
        blobs: 500,
        bytes: 100 << 20,
        copies: 3,
        days: 365,
        loss: 0.01,
        away: 0.14,
        away_ms: 2 * 60_000,
        rack: None,
        grace_ms: 600_000,
        rate: 12_500_000,
        zones: 1,
        seed: 1,
    };
    change(&mut setup);
    run(&setup)
}

#[test]
fn a_year_of_losses_takes_nothing_and_costs_little() {
    let report = year(|_| {});
    assert_eq!(report.blobs_lost, 0, "{report:?}");
    assert!(report.nodes_lost > 500, "{report:?}");
    assert!(report.moved_part <= 1.2, "{report:?}");
}

#[test]
fn without_time_to_mend_content_is_lost() {
    let report = year(|setup| setup.grace_ms = 60 * 24 * 60 * 60 * 1000);
    assert!(report.blobs_lost > 0, "the check can fail: {report:?}");
}

#[test]
fn half_of_the_machines_away_for_half_an_hour_is_no_loss() {
    let calm = year(|setup| (setup.days, setup.loss) = (10, 0.001));
    let torn = year(|setup| {
        (setup.days, setup.loss, setup.rack) = (10, 0.001, Some((0.5, 5, 30 * 60_000)));
    });
    let whole = torn.blobs as u64 * (100 << 20);
    assert_eq!(torn.blobs_lost, 0);
    // Only what had hardly any copy left is copied meanwhile: an eighth of all, with half of the machines.
    assert!(torn.bytes_moved <= calm.bytes_moved + whole * 2, "{torn:?} {calm:?}");
}

#[test]
fn the_same_seed_gives_the_same_year() {
    let (one, two) = (year(|setup| setup.days = 50), year(|setup| setup.days = 50));
    assert_eq!(format!("{one:?}"), format!("{two:?}"));
}
