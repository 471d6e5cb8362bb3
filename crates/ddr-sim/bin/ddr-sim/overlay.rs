//! `ddr-sim overlay`: one network, or one for each attack.

use std::time::Instant;

use ddr_sim::{Attack, Report, SimConfig};

use crate::alloc::live_bytes;
use crate::args::OverlayArgs;

pub(crate) fn run(args: &OverlayArgs) -> anyhow::Result<()> {
    let cfg = args.config()?;
    let default = if cfg.adversarial > 0.0 { "misroute" } else { "none" };
    match args.attack.as_deref().unwrap_or(default) {
        "all" => {
            let attacks = Attack::against(cfg.kind);
            attacks.for_each(|attack| print(&measure(&cfg, attack), args.json));
        }
        "worst" => {
            let runs = Attack::against(cfg.kind).map(|attack| measure(&cfg, attack));
            let worst = runs.min_by(|a, b| a.success.total_cmp(&b.success));
            worst.iter().for_each(|report| print(report, args.json));
        }
        name => print(&measure(&cfg, name.parse().map_err(anyhow::Error::msg)?), args.json),
    }
    Ok(())
}

/// Runs one network and takes the time.
fn measure(cfg: &SimConfig, attack: Attack) -> Report {
    let started = Instant::now();
    let cfg = SimConfig { attack, ..cfg.clone() };
    let mut report = ddr_sim::run(&cfg, live_bytes);
    report.wall_s = started.elapsed().as_secs_f64();
    report
}

fn print(report: &Report, json: bool) {
    if json {
        let text = serde_json::to_string(report).unwrap_or_default();
        println!("{text}");
        return;
    }
    println!(
        "{} nodes, {:.0} % adversarial ({}), d = {}: {} lookups in {:.1} s",
        report.nodes,
        100.0 * report.adversarial,
        report.attack,
        report.paths,
        report.lookups,
        report.wall_s,
    );
    let [low, high] = report.success_ci95;
    println!(
        "  success {:.3} % ({:.3} to {:.3}), {} of {} keys with failures, stored on {:.1} nodes",
        100.0 * report.success,
        100.0 * low,
        100.0 * high,
        report.keys_with_failures,
        report.keys,
        report.stored_mean,
    );
    println!(
        "  hops {:.2} mean, {} p99; {:.1} messages; {:.1} ms p50, {:.1} ms p99",
        report.hops_mean,
        report.hops_p99,
        report.messages_mean,
        report.latency_ms_p50,
        report.latency_ms_p99,
    );
    println!(
        "  {} bytes of memory a core, {:.0} bytes/s sent a node, transcript {}",
        report.bytes_per_node, report.traffic_bytes_per_node_s, report.transcript,
    );
    if report.blobs > 0 {
        println!(
            "  background with {} blobs on each node: {:.0} bytes/s sent ({:.0} upkeep), {:.0} \
             bytes to publish one blob once",
            report.blobs,
            report.background_bytes_per_node_s,
            report.upkeep_bytes_per_node_s,
            report.publish_bytes_per_blob,
        );
    }
}
