//! What 1,000 nodes must reach in every run of the tests. `docs/overlay.md` has larger networks.

use ddr_proto::kad::LookupKind;
use ddr_sim::paper::Plan;
use ddr_sim::{Attack, Churn, Report, Setup, SimConfig, run};

const NODES: usize = 1_000;

fn measure(adversarial: f64, attack: Attack) -> Report {
    let cfg = SimConfig {
        nodes: NODES,
        adversarial,
        attack,
        lookups: 500,
        keys: 50,
        window_s: 10,
        ..SimConfig::default()
    };
    run(&cfg, || 0)
}

#[test]
fn an_honest_network_finds_everything() {
    let report = measure(0.0, Attack::None);
    assert_eq!((report.lookups, report.success), (500, 1.0));
    assert!(report.hops_mean <= 3.0, "{report:?}");
    assert!(report.latency_ms_p99 <= 10.0, "{report:?}");
}

#[test]
fn a_fifth_of_adversaries_hides_nothing() {
    let quick = [Attack::Drop, Attack::Misroute, Attack::Dead, Attack::Poison, Attack::Eclipse];
    for attack in quick {
        let report = measure(0.2, attack);
        assert_eq!(report.lookups, 500);
        assert!(report.success >= 0.998, "{report:?}");
    }
}

#[test]
fn two_fifths_of_adversaries_hide_little() {
    for attack in [Attack::Misroute, Attack::Poison, Attack::Stale, Attack::Dead] {
        let report = measure(0.4, attack);
        assert!(report.success >= 0.99, "{report:?}");
    }
}

/// Each colluder's ID is the best of 4 for the one key.
#[test]
fn nobody_hides_one_key() {
    for (adversarial, least) in [(0.2, 0.998), (0.4, 0.98)] {
        let cfg = SimConfig {
            nodes: NODES,
            adversarial,
            attack: Attack::Eclipse,
            lookups: 500,
            keys: 1,
            window_s: 10,
            ..SimConfig::default()
        };
        let report = run(&cfg, || 0);
        assert!(report.success >= least, "{report:?}");
    }
}

#[test]
fn a_network_that_joined_node_by_node_does_as_well() {
    let cfg = SimConfig {
        nodes: 200,
        adversarial: 0.2,
        attack: Attack::Misroute,
        setup: Setup::Join,
        lookups: 200,
        keys: 20,
        ..SimConfig::default()
    };
    let report = run(&cfg, || 0);
    assert!(report.success >= 0.99, "{report:?}");
}

#[test]
fn holders_are_found_while_nodes_come_and_go() {
    let cfg = SimConfig {
        nodes: 200,
        churn: Churn::Hourly,
        lookups: 500,
        keys: 50,
        window_s: 900,
        ..SimConfig::default()
    };
    let report = run(&cfg, || 0);
    assert!(report.success >= 0.99, "{report:?}");
}

#[test]
fn more_paths_and_siblings_are_better_than_ordinary_kademlia() {
    let plan =
        Plan { nodes: NODES, lookups: 300, attack: Attack::Misroute, parts: vec![0.3], seed: 1 };
    let points = plan.run(|_| {});
    let of = |name: &str| points.iter().find(|point| point.series == name).expect("a series");
    let [ordinary, paper, ours] = ["kademlia", "d=8", "ddr"].map(|name| of(name).success);
    assert!(paper >= 0.97 && paper > ordinary, "{points:#?}");
    assert!(ours >= 0.99 && ours >= paper, "{points:#?}");
    assert!(of("d=8 plain").success > of("d=1 plain").success);
}

#[test]
fn closest_nodes_are_found_as_well() {
    let cfg = SimConfig {
        nodes: NODES,
        lookups: 300,
        kind: LookupKind::Nodes,
        window_s: 10,
        ..SimConfig::default()
    };
    assert_eq!(run(&cfg, || 0).success, 1.0);
}
