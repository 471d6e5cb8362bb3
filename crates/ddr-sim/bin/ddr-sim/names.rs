//! `ddr-sim names`.

use std::time::Instant;

use anyhow::Context;
use ddr_sim::names::{NamesReport, run as simulate};

use crate::args::NamesArgs;

pub(crate) fn run(args: &NamesArgs) -> anyhow::Result<()> {
    let setup = args.setup()?;
    let repository = "sim/names".parse().context("a name")?;
    let started = Instant::now();
    let report = simulate(&setup, &repository);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report, started.elapsed().as_secs_f64());
    }
    let (stale, lost) = (report.stale_reads, report.lost_writes);
    anyhow::ensure!(stale + lost == 0, "{stale} stale reads, {lost} lost writes");
    Ok(())
}

fn print(report: &NamesReport, took_s: f64) {
    println!(
        "{} nodes, {} tags, {} days: {} nodes lost, {} outages",
        report.nodes, report.names, report.days, report.nodes_lost, report.outages
    );
    println!(
        "  {} writes and {} reads, of them {} stale; {} writes lost",
        report.writes, report.reads, report.stale_reads, report.lost_writes
    );
    println!(
        "  without a majority: {} writes, {} reads; {} records settled; {took_s:.1} s",
        report.writes_refused, report.reads_refused, report.settled
    );
}
