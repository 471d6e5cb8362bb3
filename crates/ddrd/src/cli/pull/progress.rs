//! A pull as it runs: a bar for each blob here and each other node on a terminal, plain lines
//! elsewhere, nothing with `--json`.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::out::{short, size};
use super::{Node, Part, Report};

/// Bars on the screen at once; those of what has ended go, and make room.
const MAX_BARS: usize = 20;

/// See the module comment.
pub(super) enum Progress {
    Bars(Bars),
    /// What has its line already.
    Lines(BTreeMap<String, String>),
    Nowhere,
}

/// The bars by name.
pub(super) struct Bars {
    screen: MultiProgress,
    shown: BTreeMap<String, ProgressBar>,
}

/// One line of progress, of a blob or a node.
struct Line {
    name: String,
    state: String,
    done: u64,
    total: u64,
    error: String,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
        if json {
            Self::Nowhere
        } else if std::io::stderr().is_terminal() {
            let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
            Self::Bars(Bars { screen, shown: BTreeMap::new() })
        } else {
            Self::Lines(BTreeMap::new())
        }
    }

    /// Shows how the run stands.
    pub(super) fn show(&mut self, report: &Report) {
        let blobs = report.parts.iter().filter(|part| part.kind == "blob").map(Line::of_part);
        let lines = blobs.chain(report.nodes.iter().map(Line::of_node));
        match self {
            Self::Bars(bars) => lines.for_each(|line| bars.show(&line)),
            Self::Lines(told) => lines.for_each(|line| {
                if let Some(text) = line.news(told) {
                    eprintln!("pull: {text}");
                }
            }),
            Self::Nowhere => {}
        }
    }
}

impl Line {
    fn of_part(part: &Part) -> Self {
        Self {
            name: format!("blob {}", short(&part.digest)),
            state: part.state.clone(),
            done: part.bytes,
            total: part.size,
            error: part.error.clone(),
        }
    }

    fn of_node(node: &Node) -> Self {
        Self {
            name: format!("node {}", short(&node.node_id)),
            state: node.state.clone(),
            done: node.bytes_done,
            total: node.bytes,
            error: node.error.clone(),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed")
    }

    /// The line to print when it stands otherwise than it did; `told` remembers that.
    fn news(&self, told: &mut BTreeMap<String, String>) -> Option<String> {
        let before = told.insert(self.name.clone(), self.state.clone());
        if self.state == "waiting" || before.as_ref() == Some(&self.state) {
            return None;
        }
        let Self { name, state, total, error, .. } = self;
        Some(match error.as_str() {
            "" => format!("{name} {state}, {}", size(*total)),
            why => format!("{name} {state}: {why}"),
        })
    }
}

impl Bars {
    fn show(&mut self, line: &Line) {
        if line.has_ended() {
            if let Some(bar) = self.shown.remove(&line.name) {
                bar.finish_and_clear();
            }
            return;
        }
        let is_shown = self.shown.contains_key(&line.name);
        if line.state == "waiting" || (!is_shown && self.shown.len() >= MAX_BARS) {
            return;
        }
        let screen = &self.screen;
        let bar =
            self.shown.entry(line.name.clone()).or_insert_with(|| screen.add(bar(&line.name)));
        bar.set_length(line.total.max(1));
        bar.set_position(line.done);
        bar.set_prefix(if line.state == "busy" { "busy" } else { "" });
    }
}

fn bar(name: &str) -> ProgressBar {
    let bar = ProgressBar::new(1);
    let look = "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {prefix}";
    if let Ok(style) = ProgressStyle::with_template(look) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(name.to_owned());
    bar
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.shown.values().for_each(ProgressBar::finish_and_clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_has_one_plain_line() {
        let mut told = BTreeMap::new();
        let mut line = Line {
            name: "blob ab".into(),
            state: "waiting".into(),
            done: 0,
            total: 2048,
            error: String::new(),
        };
        assert_eq!(line.news(&mut told), None);
        line.state = "running".into();
        assert_eq!(line.news(&mut told).as_deref(), Some("blob ab running, 2.0 KiB"));
        assert_eq!(line.news(&mut told), None, "told already");
        (line.state, line.error) = ("failed".into(), "gone".into());
        assert_eq!(line.news(&mut told).as_deref(), Some("blob ab failed: gone"));
    }
}
