//! How far a transfer is: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::size;

/// Plain lines are printed each time this part of the whole has passed.
const STEP_PERCENT: u64 = 25;

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// On standard output.
    Stdout,
    /// On standard error, where standard output is for the result.
    Stderr,
    /// Nowhere.
    Nowhere,
}

/// One transfer. Shared by reference; counts from any task.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    total: u64,
    moved: AtomicU64,
    show: Show,
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new(label: String, total: u64, show: Show) -> Self {
        let bar = show.terminal().map(|target| bar(&label, total, target));
        Self { label, total, moved: AtomicU64::new(0), show, bar, started: Instant::now() }
    }

    /// Counts `bytes` that moved.
    pub(crate) fn add(&self, bytes: u64) {
        let before = self.moved.fetch_add(bytes, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.set_position(before + bytes),
            None => self.plain(before, before + bytes),
        }
    }

    fn plain(&self, before: u64, after: u64) {
        let step = |bytes: u64| bytes * 100 / self.total.max(1) / STEP_PERCENT;
        if step(after) > step(before) {
            self.show.line(&format!("{}: {} %", self.label, step(after) * STEP_PERCENT));
        }
    }

    /// Ends the bar and says what it took.
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let bytes = self.moved.load(Ordering::Relaxed);
        let rate = bytes as f64 / 1e6 / seconds.max(0.001);
        let took = format!("{}: {} in {seconds:.1} s, {rate:.0} MB/s", self.label, size(bytes));
        self.show.line(&took);
    }
}

impl Show {
    /// Where to draw a bar, if somebody looks.
    fn terminal(self) -> Option<ProgressDrawTarget> {
        match self {
            Self::Stdout => std::io::stdout().is_terminal().then(ProgressDrawTarget::stdout),
            Self::Stderr => std::io::stderr().is_terminal().then(ProgressDrawTarget::stderr),
            Self::Nowhere => None,
        }
    }

    fn line(self, text: &str) {
        match self {
            Self::Stdout => println!("{text}"),
            Self::Stderr => eprintln!("{text}"),
            Self::Nowhere => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(label: &str, total: u64, target: ProgressDrawTarget) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(label.to_owned());
    bar
}
