//! The life of `ddrd`: start, serve, drain, leave.
//!
//! Decides the order of start and stop, what is printed on standard output, and the exit status: 0
//! after a wanted end, 1 after a failure, 2 for wrong settings. It must never print a secret.

mod advertise;
mod bootstrap;
mod descriptors;
mod discovery;
mod driver;
mod error;
mod join_token;
mod listen;
mod mirror;
mod signals;
mod start;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::config::{Config, ConfigError, Settings};
use crate::telemetry::{self, Metrics};
use descriptors::Descriptors;
pub use error::DaemonError;
use signals::Signals;
use start::Running;

/// Most threads that run tasks. Hashing and TLS use what they get; more than this many daemons a
/// machine would only crowd each other.
pub const MAX_WORKERS: usize = 8;
/// Most threads for blocking disk work.
pub const MAX_BLOCKING_THREADS: usize = 32;
/// Rest of a blocking thread before it ends.
const BLOCKING_REST: Duration = Duration::from_secs(5);
/// Wait for disk work that is under way when the process ends.
const LAST_WORK: Duration = Duration::from_secs(2);

const AFTER_HELP: &str = "\
Examples:
  ddrd                                        a node of its own swarm, registry on 127.0.0.1:5000
  ddrd --join @/mnt/usb/join-token            join the swarm of another node
  ddrd --bootstrap 192.0.2.7,node-9.example:5001
                                              a member that finds the others at these places, too
  ddrd --bootstrap-dns _ddr._tcp.example.org  the same by a name in the DNS (SRV, A or AAAA)
  ddrd --peer-advertise 192.0.2.7:5001        tell peers an address behind a port forward
  ddrd --data-dir /tmp/b --registry-listen 127.0.0.1:0 --peer-listen 127.0.0.1:0 \\
       --admin-listen 127.0.0.1:0 --join @/tmp/a/join-token
                                              a second node on the same machine

Once it serves, ddrd prints where on standard output:
  registry http://127.0.0.1:5000       (https with --registry-tls-cert)
  peers 0.0.0.0:5001
  admin http://127.0.0.1:5002
  join: ddrd --join @DATA_DIR/join-token

Each option is also a key of the TOML file (data-dir = \"/srv/ddr\") and an environment variable
(DDR_DATA_DIR). An option beats the environment, the environment beats the file.

SIGTERM or Ctrl-C lets running requests end and leaves the swarm; a second one stops at once.
Exit status: 0 after a wanted stop, 1 after a failure, 2 for wrong usage.";

/// The daemon of DDR: a registry on this machine that is one with those on all others.
#[derive(Debug, Parser)]
#[command(name = "ddrd", version, after_help = AFTER_HELP)]
struct Args {
    /// TOML file with any of the options below
    #[arg(long, value_name = "FILE", env = "DDR_CONFIG")]
    config: Option<std::path::PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

/// Runs the daemon of this process.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    let config = match settings(args) {
        Ok(config) => config,
        Err(error) => return complain(&error, 2),
    };
    match serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

fn settings(args: Args) -> Result<Config, ConfigError> {
    let config = Config::load(args.config.as_deref(), args.settings)?;
    telemetry::start_logs(config.log_format, &config.log)?;
    Ok(config)
}

/// One line for the operator, whatever is inside the error.
fn complain(error: &dyn std::error::Error, status: u8) -> ExitCode {
    eprintln!("ddrd: {}", error.to_string().replace('\n', " "));
    ExitCode::from(status)
}

fn serve(config: Config) -> Result<(), DaemonError> {
    let descriptors = descriptors::raise();
    let metrics = Metrics::install().map_err(DaemonError::Runtime)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(MAX_WORKERS))
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_REST)
        .thread_name("ddrd")
        .enable_all()
        .build()
        .map_err(|error| DaemonError::Runtime(error.to_string()))?;
    let ended = runtime.block_on(run(config, metrics, descriptors));
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

async fn run(
    config: Config,
    metrics: Metrics,
    descriptors: Descriptors,
) -> Result<(), DaemonError> {
    let mut signals = Signals::new().map_err(|error| DaemonError::Runtime(error.to_string()))?;
    let running = tokio::select! {
        running = Running::start(config, metrics, descriptors) => running?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before the start was complete");
            return Ok(());
        }
    };
    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "draining; a second signal stops at once"),
        error = running.failed() => return Err(error),
    }
    tokio::select! {
        () = running.stop() => {
            tracing::info!("stopped");
            Ok(())
        }
        signal = signals.next() => Err(DaemonError::Hurried(signal)),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Args::command().debug_assert();
    }
}
