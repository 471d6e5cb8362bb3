//! `ddr-sim swarm`: one swarm with the production core, beside the bound and two other ways.

use std::time::Instant;

use ddr_sim::swarm::{MeshRules, SwarmReport, SwarmSetup, run_mesh, run_swarm};

use crate::args::SwarmArgs;

pub(crate) fn run(args: &SwarmArgs) -> anyhow::Result<()> {
    let setup = args.setup()?;
    let core = timed(|| run_swarm(&setup));
    // The mesh knows neither deaths nor lies: it is a yardstick for the plain case.
    let plain = setup.kill.is_none() && setup.kill_source.is_none() && setup.slow.is_none();
    let fair = setup.liars == 0.0 && setup.loss == 0.0;
    let comparable = plain && fair && !args.core_only;
    let mesh = comparable.then(|| timed(|| run_mesh(&setup, MeshRules::default())));
    if args.json {
        for report in [Some(&core), mesh.as_ref()].into_iter().flatten() {
            println!("{}", serde_json::to_string(report)?);
        }
    } else {
        print(&setup, &core, mesh.as_ref());
    }
    anyhow::ensure!(core.unfinished == 0, "{} nodes did not end", core.unfinished);
    Ok(())
}

fn timed(run: impl FnOnce() -> SwarmReport) -> SwarmReport {
    let started = Instant::now();
    let mut report = run();
    report.wall_s = started.elapsed().as_secs_f64();
    report
}

fn print(setup: &SwarmSetup, core: &SwarmReport, mesh: Option<&SwarmReport>) {
    println!(
        "{} nodes, {} layers of {} bytes in {} pieces, {} sources, {} Mbit/s: F/b = {:.2} s",
        core.nodes,
        core.layers,
        core.blob,
        core.pieces,
        core.sources,
        setup.link_mbit,
        setup.file_time() as f64 / 1e9,
    );
    println!("times in F/b       slowest     p50     p99  10 % in order  50 % in order");
    println!("  bound           {:8.3}", core.bound);
    line("DDR", core);
    if let Some(mesh) = mesh {
        line("Kraken-like mesh", mesh);
    }
    println!("  whole layers    {:8.1}", core.whole_layers);
    println!(
        "DDR: {:.3} copies from the sources, the first by {:.3}, {:.2} % received for nothing, {} wrong bytes read, p99 of \
         fast nodes {:.3}",
        core.source_copies,
        core.first_copy,
        100.0 * core.duplicate_part,
        core.wrong_bytes,
        core.p99_fast,
    );
    println!(
        "  {} dead, {} unfinished, {} strikes, {} busy answers, {:.1} messages a node and piece, {:.2} \
         copies into each zone, {:.1} s",
        core.dead,
        core.unfinished,
        core.strikes,
        core.busy_answers,
        core.messages as f64 / core.nodes as f64 / (core.pieces * core.layers) as f64,
        core.zone_copies,
        core.wall_s,
    );
}

fn line(name: &str, report: &SwarmReport) {
    println!(
        "  {name:16}{:8.3}{:8.3}{:8.3}{:15.3}{:15.3}",
        report.makespan, report.p50, report.p99, report.in_order_tenth, report.in_order_half,
    );
}
