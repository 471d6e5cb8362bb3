//! `ddr-sim copies`.

use std::time::Instant;

use ddr_sim::copies::{CopiesReport, run as simulate};

use crate::args::CopiesArgs;

pub(crate) fn run(args: &CopiesArgs) -> anyhow::Result<()> {
    let setup = args.setup()?;
    let started = Instant::now();
    let report = simulate(&setup);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print(&report, started.elapsed().as_secs_f64());
    }
    anyhow::ensure!(report.blobs_lost == 0, "{} blobs were lost", report.blobs_lost);
    Ok(())
}

fn print(report: &CopiesReport, took_s: f64) {
    println!(
        "{} nodes, {} blobs, {} copies, {} days: {} nodes lost, {} outages",
        report.nodes, report.blobs, report.copies, report.days, report.nodes_lost, report.outages
    );
    println!(
        "  {} blobs lost; {} times a single copy was left; {:.3} bytes moved for each byte lost, \
         {:.3} let go again",
        report.blobs_lost,
        report.single,
        report.moved_part,
        report.bytes_dropped as f64 / (report.bytes_lost as f64).max(1.0),
    );
    println!(
        "  a copy is there again after {:.0} s (half), {:.0} s (99 of 100), {:.0} s (all); {took_s:.1} s",
        report.mend_p50_s, report.mend_p99_s, report.mend_max_s
    );
}
