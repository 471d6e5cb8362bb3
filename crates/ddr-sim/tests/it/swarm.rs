//! What swarms of the production core must reach in every run of the tests, and that they always end.
//! `docs/swarm.md` has larger ones.

use ddr_sim::swarm::{MeshRules, SourceDeath, SwarmReport, SwarmSetup, run_mesh, run_swarm};

/// 64 MiB: 1,024 pieces of 64 KiB. The links are slow, so that a piece takes as long as one of 1 MiB
/// does at 1 Gbit/s.
fn setup(nodes: usize) -> SwarmSetup {
    SwarmSetup { nodes, blob: 64 << 20, link_mbit: 62, ..SwarmSetup::default() }
}

fn plain(nodes: usize) -> SwarmReport {
    let report = run_swarm(&setup(nodes));
    assert_eq!((report.unfinished, report.wrong_bytes, report.strikes), (0, 0, 0), "{report:?}");
    report
}

#[test]
fn ten_nodes_end_near_the_bound() {
    let report = plain(10);
    assert!(report.makespan <= 1.10, "{report:?}");
    assert!(report.source_copies <= 1.2, "{report:?}");
    assert!(report.in_order_half <= 0.75, "{report:?}");
    assert!(report.duplicate_part <= 0.01, "{report:?}");
}

#[test]
fn a_hundred_nodes_end_near_the_bound_and_before_a_mesh() {
    let report = plain(100);
    assert!(report.makespan <= 1.15, "{report:?}");
    assert!(report.source_copies <= 1.2, "{report:?}");
    assert!(report.in_order_half <= 0.75, "{report:?}");
    assert!(report.duplicate_part <= 0.01, "{report:?}");
    let mesh = run_mesh(&setup(100), MeshRules { piece_bytes: 256 << 10, ..MeshRules::default() });
    assert_eq!(mesh.unfinished, 0);
    assert!(mesh.makespan > report.makespan, "{mesh:?}");
}

#[test]
fn three_sources_share_the_work() {
    let report = run_swarm(&SwarmSetup { sources: 3, ..setup(30) });
    assert!(report.makespan <= 1.12 && report.unfinished == 0, "{report:?}");
    assert!(report.first_copy <= 0.35, "{report:?}");
}

#[test]
fn a_third_that_dies_at_half_time_costs_little() {
    let whole = plain(100);
    let report = run_swarm(&SwarmSetup { kill: Some((0.3, 0.5)), ..setup(100) });
    assert_eq!((report.unfinished, report.dead), (0, 30), "{report:?}");
    assert!(report.makespan <= 1.05 * whole.makespan, "{report:?} {whole:?}");
}

#[test]
fn the_source_may_die_after_one_copy_and_a_tenth() {
    for seed in 1..=3 {
        let kill_source = Some(SourceDeath { copies: 1.1 });
        let report = run_swarm(&SwarmSetup { kill_source, seed, ..setup(50) });
        assert_eq!(report.unfinished, 0, "seed {seed}: {report:?}");
    }
}

#[test]
fn slow_nodes_do_not_hold_up_fast_ones() {
    let report = run_swarm(&SwarmSetup { slow: Some((0.1, 10.0)), ..setup(50) });
    assert_eq!(report.unfinished, 0, "{report:?}");
    assert!(report.p99_fast <= 1.3, "{report:?}");
}

#[test]
fn a_third_of_liars_gets_no_wrong_byte_through() {
    let report = run_swarm(&SwarmSetup { liars: 0.3, ..setup(50) });
    assert_eq!((report.unfinished, report.wrong_bytes), (0, 0), "{report:?}");
    assert!(report.makespan <= 1.5 * 1.15, "{report:?}");
    assert!(report.strikes > 0, "{report:?}");
}

#[test]
fn small_layers_travel_together() {
    let report = run_swarm(&SwarmSetup { blob: 4 << 20, layers: 8, ..setup(20) });
    assert_eq!(report.unfinished, 0, "{report:?}");
    assert!(report.makespan <= 1.5, "{report:?}");
}

#[test]
fn one_copy_crosses_between_two_zones() {
    for nodes in [12, 100] {
        let report = run_swarm(&SwarmSetup { zones: 2, ..setup(nodes) });
        assert_eq!(report.unfinished, 0, "{report:?}");
        assert!(report.zone_copies <= 1.0, "{report:?}");
        assert!(report.makespan <= 1.15, "{report:?}");
    }
}

/// Losses, lies, deaths, slow links, late starts, in all combinations: as long as an honest source can
/// be reached, everybody who lives ends with the right bytes.
#[test]
fn whatever_happens_everybody_ends_while_a_source_lives() {
    for seed in 0..60 {
        let setup = SwarmSetup {
            nodes: 2 + seed as usize % 11,
            blob: [1 << 16, 300_000, 3 << 20][seed as usize % 3],
            layers: 1 + seed as usize % 2,
            link_mbit: 20,
            kill: (seed % 2 == 0).then_some((0.3, 0.4)),
            slow: (seed % 5 == 0).then_some((0.2, 8.0)),
            liars: [0.0, 0.3, 0.5, 0.8][seed as usize / 2 % 4],
            mixed_lies: seed % 3 == 0,
            loss: [0.0, 0.02, 0.1][seed as usize / 3 % 3],
            zones: 1 + seed as usize % 3,
            spread: if seed % 7 == 0 { 1.0 } else { 0.001 },
            seed,
            ..SwarmSetup::default()
        };
        let report = run_swarm(&setup);
        assert_eq!(report.unfinished, 0, "seed {seed}: {report:?}");
    }
}

#[test]
fn one_seed_one_run() {
    let run = |seed| run_swarm(&SwarmSetup { liars: 0.2, loss: 0.01, seed, ..setup(12) });
    let [a, b, c] = [4, 4, 5].map(|seed| serde_json::to_string(&run(seed)).expect("JSON"));
    assert_eq!(a, b);
    assert_ne!(a, c);
}
