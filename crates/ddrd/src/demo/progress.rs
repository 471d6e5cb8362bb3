//! How far a transfer is: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::size;

/// Plain lines are printed each time this part of the whole has passed.
const STEP_PERCENT: u64 = 25;

/// One transfer. Shared by reference; counts from any task.
#[derive(Debug)]
pub(super) struct Progress {
    label: String,
    total: u64,
    moved: AtomicU64,
    bar: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(super) fn new(label: String, total: u64) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| bar(&label, total));
        Self { label, total, moved: AtomicU64::new(0), bar, started: Instant::now() }
    }

    /// Counts `bytes` that moved.
    pub(super) fn add(&self, bytes: u64) {
        let before = self.moved.fetch_add(bytes, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.set_position(before + bytes),
            None => self.plain(before, before + bytes),
        }
    }

    fn plain(&self, before: u64, after: u64) {
        let step = |bytes: u64| bytes * 100 / self.total.max(1) / STEP_PERCENT;
        if step(after) > step(before) {
            println!("{}: {} %", self.label, step(after) * STEP_PERCENT);
        }
    }

    /// Ends the bar and says what it took.
    pub(super) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let bytes = self.moved.load(Ordering::Relaxed);
        let rate = bytes as f64 / 1e6 / seconds.max(0.001);
        println!("{}: {} in {seconds:.1} s, {rate:.0} MB/s", self.label, size(bytes));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(label: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), indicatif::ProgressDrawTarget::stdout());
    let template = "{msg} [{wide_bar}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(label.to_owned());
    bar
}
