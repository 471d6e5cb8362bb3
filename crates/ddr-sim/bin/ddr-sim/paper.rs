//! `ddr-sim paper`: the set-up of the S/Kademlia paper as a table and a chart.

use std::fs;

use anyhow::Context as _;
use ddr_sim::paper::{Plan, Point};
use ddr_sim::svg::{Chart, Series};

use crate::args::PaperArgs;

pub(crate) fn run(args: &PaperArgs) -> anyhow::Result<()> {
    let plan = Plan {
        nodes: args.nodes,
        lookups: args.lookups,
        attack: args.attack.parse().map_err(anyhow::Error::msg)?,
        parts: args.adversarial.clone(),
        seed: args.seed,
    };
    let points = plan.run(|point| print(point, args.json));
    if let Some(file) = &args.svg {
        let svg = chart(&plan, &points).to_svg();
        fs::write(file, svg).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn print(point: &Point, json: bool) {
    if json {
        println!("{}", serde_json::to_string(point).unwrap_or_default());
        return;
    }
    println!(
        "{:16} {:4.0} % adversarial: {:7.3} % found, {:.1} messages",
        point.series,
        100.0 * point.adversarial,
        100.0 * point.success,
        point.messages_mean,
    );
}

fn chart(plan: &Plan, points: &[Point]) -> Chart {
    let mut series: Vec<Series> = Vec::new();
    for point in points {
        let here = (point.adversarial, point.success);
        match series.iter_mut().find(|line| line.name == point.series) {
            Some(line) => line.points.push(here),
            None => series.push(Series { name: point.series.clone(), points: vec![here] }),
        }
    }
    Chart {
        title: format!("{} nodes, k = s = 16, attack: {}", plan.nodes, plan.attack),
        x_label: "part of the nodes that is adversarial".to_owned(),
        y_label: "lookups that found the closest honest node".to_owned(),
        log_x: false,
        series,
    }
}
