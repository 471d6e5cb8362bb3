//! `ddr-sim plot`: a chart of what other commands printed.

use std::fs;

use anyhow::Context as _;
use ddr_sim::svg::{Chart, Series};
use serde_json::Value;

use crate::args::PlotArgs;

pub(crate) fn run(args: &PlotArgs) -> anyhow::Result<()> {
    let mut series: Vec<Series> = Vec::new();
    for file in &args.files {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let value: Value = serde_json::from_str(line)
                .with_context(|| format!("{} has a line that is no JSON", file.display()))?;
            add(&mut series, args, &value)?;
        }
    }
    for line in &mut series {
        line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    let chart = Chart {
        title: args.title.clone(),
        x_label: args.x.clone(),
        y_label: args.y.clone(),
        log_x: args.log_x,
        series,
    };
    fs::write(&args.output, chart.to_svg())
        .with_context(|| format!("cannot write {}", args.output.display()))
}

fn add(series: &mut Vec<Series>, args: &PlotArgs, value: &Value) -> anyhow::Result<()> {
    let number = |field: &str| {
        value[field].as_f64().with_context(|| format!("a line has no number {field}"))
    };
    let point = (number(&args.x)?, number(&args.y)?);
    let name = args.by.as_ref().map_or_else(String::new, |by| match &value[by] {
        Value::String(text) => text.clone(),
        other => format!("{by} {other}"),
    });
    match series.iter_mut().find(|line| line.name == name) {
        Some(line) => line.points.push(point),
        None => series.push(Series { name, points: vec![point] }),
    }
    Ok(())
}
