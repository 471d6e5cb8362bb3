//! A line chart as SVG text: axes, series, legend, nothing else.

use std::fmt::Write as _;

/// Points of one line, with its name in the legend.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name.
    pub name: String,
    /// Points in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// What to draw.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Above the chart.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Beside the y axis.
    pub y_label: String,
    /// Whether x grows by powers of ten.
    pub log_x: bool,
    /// The lines, at most as many as there are [`COLOURS`] times two are told apart.
    pub series: Vec<Series>,
}

/// Colours of the series, in order; then they come again with dashes (after Okabe and Ito 2008).
pub const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 55.0;
/// About so many ticks on an axis.
const TICKS: f64 = 6.0;

/// The range of one axis.
#[derive(Copy, Clone, Debug)]
struct Axis {
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    fn around(values: impl Iterator<Item = f64> + Clone, log: bool, from_zero: bool) -> Self {
        let mut low = values.clone().fold(f64::INFINITY, f64::min);
        let mut high = values.fold(f64::NEG_INFINITY, f64::max);
        if !low.is_finite() || !high.is_finite() {
            (low, high) = (0.0, 1.0);
        }
        if from_zero {
            low = low.min(0.0);
        }
        if high - low < 1e-12 {
            high = low + 1.0;
        }
        Self { low, high, log }
    }

    /// Where a value lies, 0 to 1.
    fn place(self, value: f64) -> f64 {
        if self.log {
            let ln = |value: f64| value.max(1e-9).ln();
            (ln(value) - ln(self.low)) / (ln(self.high) - ln(self.low))
        } else {
            (value - self.low) / (self.high - self.low)
        }
    }

    fn ticks(self) -> Vec<f64> {
        let mut ticks = Vec::new();
        if self.log {
            let mut tick = 10_f64.powf(self.low.max(1e-9).log10().ceil());
            while tick <= self.high * 1.000_1 {
                ticks.push(tick);
                tick *= 10.0;
            }
            return ticks;
        }
        let step = nice_step((self.high - self.low) / TICKS);
        let mut tick = (self.low / step).ceil() * step;
        while tick <= self.high + step * 1e-6 {
            ticks.push(tick);
            tick += step;
        }
        ticks
    }
}

/// The least of 1, 2, 5 times a power of ten that is not below `wanted`.
fn nice_step(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    factors.iter().map(|factor| factor * power).find(|step| *step >= wanted).unwrap_or(power)
}

impl Chart {
    /// The chart as a document.
    #[must_use]
    pub fn to_svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = Axis::around(points().map(|point| point.0), self.log_x, false);
        let y = Axis::around(points().map(|point| point.1), false, true);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let centre = f64::midpoint(LEFT, WIDTH - RIGHT);
        text(&mut svg, (centre, 22.0), "middle", &self.title);
        text(&mut svg, (centre, HEIGHT - 12.0), "middle", &self.x_label);
        text(&mut svg, (LEFT - 60.0, TOP - 12.0), "start", &self.y_label);
        self.draw_axes(&mut svg, x, y);
        for (number, series) in self.series.iter().enumerate() {
            draw_series(&mut svg, x, y, number, series);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String, x: Axis, y: Axis) {
        for tick in x.ticks() {
            let at = to_x(x, tick);
            line(svg, (at, TOP), (at, HEIGHT - BOTTOM), "#dddddd");
            text(svg, (at, HEIGHT - BOTTOM + 18.0), "middle", &label(tick));
        }
        for tick in y.ticks() {
            let at = to_y(y, tick);
            line(svg, (LEFT, at), (WIDTH - RIGHT, at), "#dddddd");
            text(svg, (LEFT - 8.0, at + 4.0), "end", &label(tick));
        }
        line(svg, (LEFT, TOP), (LEFT, HEIGHT - BOTTOM), "black");
        line(svg, (LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM), "black");
    }
}

fn draw_series(svg: &mut String, x: Axis, y: Axis, number: usize, series: &Series) {
    let colour = COLOURS[number % COLOURS.len()];
    let dash = if number >= COLOURS.len() { " stroke-dasharray=\"6 4\"" } else { "" };
    let points: Vec<String> = series
        .points
        .iter()
        .map(|(px, py)| format!("{:.1},{:.1}", to_x(x, *px), to_y(y, *py)))
        .collect();
    let style = format!("stroke=\"{colour}\" stroke-width=\"2\" fill=\"none\"{dash}");
    let _ = writeln!(svg, "<polyline points=\"{}\" {style}/>", points.join(" "));
    for point in &points {
        let (px, py) = point.split_once(',').unwrap_or(("0", "0"));
        let _ = writeln!(svg, "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>");
    }
    let (left, top) = (WIDTH - RIGHT + 15.0, TOP + 10.0 + 18.0 * number as f64);
    let _ = writeln!(svg, "<polyline points=\"{left},{top} {},{top}\" {style}/>", left + 24.0);
    text(svg, (left + 30.0, top + 4.0), "start", &series.name);
}

fn to_x(axis: Axis, value: f64) -> f64 {
    LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)
}

fn to_y(axis: Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
}

// Writing into a String cannot fail.
fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let (x1, y1, x2, y2) = (from.0, from.1, to.0, to.1);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{escaped}</text>",
        at.0, at.1
    );
}

fn label(value: f64) -> String {
    if value.abs() >= 10_000.0 { format!("{value:.0}") } else { trimmed(value) }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_its_lines_and_labels() {
        let series = |name: &str| Series {
            name: name.to_owned(),
            points: vec![(0.0, 1.0), (0.25, 0.5), (0.5, 0.0)],
        };
        let chart = Chart {
            title: "a < b".to_owned(),
            x_label: "x".to_owned(),
            y_label: "y".to_owned(),
            log_x: false,
            series: (0..8).map(|n| series(&format!("s{n}"))).collect(),
        };
        let svg = chart.to_svg();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("a &lt; b") && svg.contains(">s7<") && svg.contains("dasharray"));
        assert_eq!(svg.matches("<circle").count(), 24);
    }

    #[test]
    fn ticks_are_round_numbers() {
        let axis = Axis { low: 0.0, high: 0.5, log: false };
        assert_eq!(axis.ticks().len(), 6);
        let axis = Axis { low: 100.0, high: 100_000.0, log: true };
        assert_eq!(axis.ticks().len(), 4);
    }
}
