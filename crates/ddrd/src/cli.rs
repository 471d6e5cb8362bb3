//! `ddr`: asks the daemon on this machine and shows the answer.
//!
//! One file a command. Decides words, tables and exit status (0 done, 1 failed, 2 wrong usage). It
//! must never hold logic of the swarm: it shows what the admin API says.

mod admin;
mod demo;
mod doctor;
mod drain;
mod export;
mod find;
mod gc;
mod images;
mod import;
mod job;
mod limit;
mod out;
mod peers;
mod pin;
mod pull;
mod registry;
mod rm;
mod setup;
mod status;
mod swarms;
mod token;
mod verify;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::archive::ArchiveError;
use crate::client::ClientError;
use crate::client::registry::RegistryError;
use crate::config::DEFAULT_ADMIN;
use crate::demo::DemoError;
use crate::setup::SetupError;
use admin::AdminClient;
pub(crate) use out::{size, table};

const EXAMPLES: &str = "\
Examples:
  ddr demo                         three nodes, one push, one pull, all in a temporary directory
  ddr status                       what the daemon on this machine does
  ddr doctor                       what is wrong with it, and what to do
  ddr find team/app:1.0            who holds an image
  ddr pull team/app:1.0            bring an image to this disk before anybody runs it
  ddr pin team/app:1.0             keep an image on this node, whatever makes room
  ddr import app.tar               push the images of a docker save or an OCI layout
  ddr export team/app:1.0 app.tar  an image into a file
  ddr token create --ttl 2h        let another machine join: ddrd --join TOKEN
  ddr setup docker --dry-run       what makes docker ask this node first, for images of other registries
  ddr rm team/app:1.0              delete a tag in the whole swarm
  ddr gc --dry-run                 what would be freed
  ddr verify                       check every byte against its digest
  ddr drain                        hand over what only this node keeps, before it is retired
  ddr limit --upload 20MiB         how fast content goes to other nodes, from now on
  ddr --admin 127.0.0.1:6002 peers --json

Exit status: 0 done, 1 failed, 2 wrong usage.";

/// The command line of DDR, the registry without a server.
#[derive(Debug, Parser)]
#[command(name = "ddr", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// Admin API of the daemon
    #[arg(long, global = true, value_name = "ADDR:PORT", env = "DDR_ADMIN", default_value_t = DEFAULT_ADMIN)]
    admin: SocketAddr,

    /// Print JSON as the admin API gives it
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the node: identity, addresses, content, traffic
    Status,
    /// List the nodes that this one knows, or say that one is gone for good
    Peers(peers::Peers),
    /// List repositories and tags on this node, or what a tag pointed to
    Images(images::Images),
    /// Delete a tag, or an image with all its tags, in the whole swarm
    Rm(rm::Rm),
    /// Find who holds an image or a digest
    Find(find::Find),
    /// Bring an image to the disk of this node, and of others, before anybody runs it
    Pull(pull::Pull),
    /// Keep an image on this node, whatever is collected or makes room
    Pin(pin::Pin),
    /// Take a pin back
    Unpin(pin::Unpin),
    /// Push images from an OCI layout or a docker archive into the swarm
    Import(import::Import),
    /// Write an image as an OCI layout, in a directory or a tar
    Export(export::Export),
    /// Make, list and revoke join tokens
    #[command(subcommand)]
    Token(token::Token),
    /// Collect what no manifest needs any more
    Gc(gc::Gc),
    /// Check everything that is stored, and repair it from other nodes
    Verify(verify::Verify),
    /// Show or change how fast content goes from and to other nodes
    Limit(limit::Limit),
    /// Hand over what this node keeps for the swarm, before it is retired
    Drain(drain::Drain),
    /// Make a container runtime of this machine ask this node first, for images of other registries
    Setup(setup::Setup),
    /// Check the node on this machine from the outside in, and say what to do about each finding
    Doctor(doctor::Doctor),
    /// Start three nodes here, push an image to one, pull it from another, clean up
    Demo(demo::Demo),
}

/// Why a command failed. One line for standard error; the exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// No daemon listens on the admin address.
    #[error("no daemon answers on {0}; start one with: ddrd")]
    NoDaemon(SocketAddr),
    /// The connection failed in the middle.
    #[error(transparent)]
    Client(ClientError),
    /// The daemon said no.
    #[error("{0}")]
    Refused(String),
    /// What answers there is not this version's admin API.
    #[error("{0} does not answer as the admin API of ddrd does; check --admin")]
    Foreign(SocketAddr),
    /// Nothing was found.
    #[error("nobody holds {0}")]
    NotFound(String),
    /// A verification found damage that is still there.
    #[error("{0}")]
    Damage(String),
    /// Parts of an image, or other nodes, could not be had.
    #[error("{0}")]
    Incomplete(String),
    /// The user broke off; the daemon goes on.
    #[error("the run goes on in the daemon; stop it with: ddr {0} --stop")]
    GoesOn(&'static str),
    /// The demo failed.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// A container runtime could not be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// An archive cannot be read or written.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The registry did not take or give something.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Checks failed; each was shown.
    #[error("{0} of the checks failed")]
    Unwell(usize),
    /// What was asked does not go together; the exit status is 2.
    #[error("{0}; see --help")]
    Usage(String),
    /// The runtime could not start.
    #[error("cannot start: {0}")]
    Runtime(std::io::Error),
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ddr: {}", error.to_string().replace('\n', " "));
            if matches!(error, CliError::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let done = runtime.block_on(dispatch(cli));
    runtime.shutdown_background();
    done
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let admin = AdminClient::new(cli.admin, cli.json);
    match cli.command {
        Command::Status => status::run(&admin).await,
        Command::Peers(peers) => peers::run(&admin, peers).await,
        Command::Images(images) => images::run(&admin, images).await,
        Command::Rm(rm) => rm::run(&admin, rm).await,
        Command::Find(find) => find::run(&admin, find).await,
        Command::Pull(pull) => pull::run(&admin, pull).await,
        Command::Pin(pin) => pin::run(&admin, pin).await,
        Command::Unpin(unpin) => pin::unpin(&admin, unpin).await,
        Command::Import(import) => import::run(&admin, import).await,
        Command::Export(export) => export::run(&admin, export).await,
        Command::Token(token) => token::run(&admin, token).await,
        Command::Gc(gc) => gc::run(&admin, gc).await,
        Command::Verify(verify) => verify::run(&admin, verify).await,
        Command::Limit(limit) => limit::run(&admin, limit).await,
        Command::Drain(drain) => drain::run(&admin, drain).await,
        Command::Setup(setup) => setup::run(setup).await,
        Command::Doctor(doctor) => doctor::run(&admin, doctor).await,
        Command::Demo(demo) => demo::run(demo).await,
    }
}

/// What a task on another thread gave.
async fn joined<T>(task: tokio::task::JoinHandle<T>) -> Result<T, CliError> {
    task.await.map_err(|error| CliError::Runtime(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
