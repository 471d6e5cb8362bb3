//! Logs on standard error and metrics for Prometheus.
//!
//! Decides how they look, never what is worth saying. Secrets (keys, tokens) must never get here.

use std::io::IsTerminal;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, LogFormat};

mod process;

/// Histogram borders in seconds, from a local answer to a slow transfer.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Parses a log filter.
///
/// # Errors
///
/// [`ConfigError::Log`] when it is none.
pub fn filter(text: &str) -> Result<EnvFilter, ConfigError> {
    EnvFilter::try_new(text).map_err(|error| ConfigError::Log {
        filter: text.to_owned(),
        reason: error.to_string().replace('\n', " "),
    })
}

/// Sends log events to standard error from now on. A second call in one process changes nothing.
///
/// # Errors
///
/// [`ConfigError::Log`] when the filter does not parse.
pub fn start_logs(format: LogFormat, text: &str) -> Result<(), ConfigError> {
    let logs =
        tracing_subscriber::fmt().with_env_filter(filter(text)?).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Human => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    drop(started);
    Ok(())
}

/// The metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Installs the recorder that all crates of the process report to.
    ///
    /// # Errors
    ///
    /// A line of text when a recorder is installed already.
    pub fn install() -> Result<Self, String> {
        let handle = PrometheusBuilder::new()
            .set_buckets(SECONDS)
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| error.to_string())?;
        metrics::gauge!("ddr_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(Self { handle })
    }

    /// The text that Prometheus scrapes, with fresh figures of the process.
    #[must_use]
    pub fn render(&self) -> String {
        process::record();
        self.handle.render()
    }

    /// Folds what histograms collected since the last call, so that memory stays flat when nobody
    /// scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
