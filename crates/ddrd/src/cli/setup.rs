//! `ddr setup`: makes a container runtime of this machine ask the node's registry port first.
//!
//! Decides the order (look, show, write, reload, look again) and the words. What the files say is decided in
//! `crate::setup`.

mod programs;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use ddr_oci::UpstreamHost;

use super::{CliError, out};
use crate::config::{DEFAULT_REGISTRY, MIRRORED};
use crate::setup::change::Change;
use crate::setup::machine::Machine;
use crate::setup::record::Record;
use crate::setup::seen::Seen;
use crate::setup::{self, Client, Plan, SetupError, Wanted};
use programs::Answer;

const EXAMPLES: &str = "\
Examples:
  ddr setup docker --dry-run              what would be written, and nothing more
  sudo ddr setup docker                   write it, and reload docker
  sudo ddr setup docker --verify alpine   and pull an image to see that it works
  sudo ddr setup containerd
  sudo ddr setup podman --mirror docker.io --mirror registry.example:5000
  sudo ddr setup docker --undo            as it was before
  ddr setup crio --root ./image           into an image of a machine

Writes
  docker        /etc/docker/daemon.json (registry-mirrors), /etc/docker/certs.d/_default/hosts.toml (docker 28 and later)
  containerd    _default/hosts.toml in its config_path, or in /etc/containerd/certs.d
  podman, crio  /etc/containers/registries.conf.d/50-ddr.conf
What was there before is kept in /var/lib/ddr-setup. Nothing is restarted. While ddrd is stopped, pulls go to the
registry itself, as before.

Exit status: 0 done or nothing to do, 1 failed, 2 wrong usage.";

/// Make a container runtime of this machine ask this node first, for images of other registries
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct Setup {
    /// The runtime
    #[arg(value_enum)]
    client: Client,

    /// Only show what would change
    #[arg(long)]
    dry_run: bool,

    /// Give back what was there before the first setup
    #[arg(long, conflicts_with_all = ["registry", "mirrors", "verify"])]
    undo: bool,

    /// Where the registry of ddrd listens
    #[arg(long, value_name = "ADDR:PORT", default_value_t = DEFAULT_REGISTRY, value_parser = address)]
    registry: SocketAddr,

    /// A registry that is mirrored, for files that name each; give it again for more
    #[arg(long = "mirror", value_name = "HOST", default_values = MIRRORED)]
    mirrors: Vec<UpstreamHost>,

    /// Do not tell the runtime to read its configuration again
    #[arg(long)]
    no_reload: bool,

    /// Pull this image with the runtime afterwards
    #[arg(long, value_name = "IMAGE", conflicts_with = "dry_run")]
    verify: Option<String>,

    /// Write below this directory, as for an image of a machine; nothing is reloaded then
    #[arg(long, value_name = "DIR", default_value = "/", conflicts_with = "verify")]
    root: PathBuf,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "want ADDR:PORT".to_owned())?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err("a client cannot dial that; want such as 127.0.0.1:5000".to_owned());
    }
    Ok(address)
}

impl Setup {
    fn undo_command(&self) -> String {
        let undo = format!("ddr setup {} --undo", self.client.name());
        match self.root.as_os_str() == "/" {
            true => undo,
            false => format!("{undo} --root {}", self.root.display()),
        }
    }
}

pub(super) async fn run(setup: Setup) -> Result<(), CliError> {
    let machine = Machine::below(setup.root.clone());
    if !machine.is_this() && !setup.root.is_dir() {
        return Err(CliError::Usage(format!("--root {} is no directory", setup.root.display())));
    }
    let record = Record::load(setup.client, &machine)?;
    if setup.undo {
        undo(&setup, &machine, record).await
    } else {
        write(&setup, &machine, record).await
    }
}

async fn write(setup: &Setup, machine: &Machine, record: Record) -> Result<(), CliError> {
    let wanted = Wanted {
        registry: setup.registry,
        mirrors: setup.mirrors.clone(),
        docker: match setup.client {
            Client::Docker if machine.is_this() => programs::docker_version().await,
            _ => None,
        },
    };
    let seen = Seen::look(setup.client, machine, &record)?;
    let plan = setup::plan(setup.client, &seen, &wanted).inspect_err(|error| {
        if let SetupError::Foreign { text, .. } = error {
            out::text(text);
        }
    })?;
    let changes = record.changes(&plan, machine)?;
    show(&changes);
    if changes.is_empty() {
        out::text("nothing to change\n");
        if let Some(unit) = setup.client.unit().filter(|_| machine.is_this()) {
            out::text(&format!("if {unit} has not read it yet: systemctl reload {unit}\n"));
        }
    } else if setup.dry_run {
        out::text("nothing was written (--dry-run)\n");
    } else {
        record.apply(setup.client, machine, &changes)?;
        let kept = machine.place(setup.client.record());
        let undo = setup.undo_command();
        out::text(&format!("written; the backup is {}, undo with: {undo}\n", kept.display()));
        reload(setup, machine, &changes).await?;
    }
    for note in &plan.notes {
        out::text(&format!("\nNote: {note}\n"));
    }
    if machine.is_this() && !setup.dry_run {
        look_again(setup, &plan).await?;
    }
    Ok(())
}

async fn undo(setup: &Setup, machine: &Machine, record: Record) -> Result<(), CliError> {
    let kept = machine.place(setup.client.record()).display().to_string();
    if record.is_empty() {
        out::text(&format!("nothing to undo: there is no {kept}\n"));
        return Ok(());
    }
    let undo = record.undo(machine)?;
    show(&undo.changes);
    if setup.dry_run {
        out::text("nothing was written (--dry-run)\n");
    } else {
        record.take_back(setup.client, machine, &undo)?;
        if undo.refused.is_empty() {
            out::text("all is as it was before setup\n");
        }
        reload(setup, machine, &undo.changes).await?;
    }
    if undo.refused.is_empty() {
        return Ok(());
    }
    Err(CliError::Incomplete(format!(
        "changed by somebody since setup, and left as it is: {}; what it was before is in {kept}",
        undo.refused.join(", ")
    )))
}

fn show(changes: &[Change]) {
    for change in changes {
        out::text(&change.diff());
    }
}

/// Tells the runtime to read its files again, where it does not by itself.
async fn reload(setup: &Setup, machine: &Machine, changes: &[Change]) -> Result<(), CliError> {
    let unit = changes.iter().find_map(|change| setup.client.reloaded_for(&change.path));
    let Some(unit) = unit.filter(|_| machine.is_this()) else { return Ok(()) };
    let by_hand = format!("systemctl reload {unit}");
    if setup.no_reload {
        out::text(&format!("{unit} reads this after: {by_hand}\n"));
        return Ok(());
    }
    match programs::reload(unit).await {
        Answer::Done => out::text(&format!("{unit} was reloaded\n")),
        Answer::Absent => out::text(&format!(
            "{unit} does not run here as a service of systemd; if it runs, tell it to read its \
             configuration again (SIGHUP)\n"
        )),
        Answer::Failed(reason) => {
            return Err(CliError::Incomplete(format!(
                "the files are written, but {unit} was not reloaded ({reason}); look at: journalctl \
                 -u {unit}, then: {by_hand}"
            )));
        }
    }
    Ok(())
}

/// Whether the mirror answers, and a pull works.
async fn look_again(setup: &Setup, plan: &Plan) -> Result<(), CliError> {
    let registry = setup.registry;
    if programs::answers(registry).await {
        out::text(&format!("\nddrd answers on {registry}\n"));
    } else {
        out::text(&format!(
            "\nWarning: no registry answers on {registry}; until ddrd runs, pulls go to the registries \
             themselves\n"
        ));
    }
    let Some(image) = &setup.verify else { return Ok(()) };
    let command = programs::pull(setup.client, image, plan.hosts_dir.as_deref());
    let shown = command.join(" ");
    out::text(&format!("{shown}\n"));
    match programs::run_shown(&command).await {
        Answer::Done => out::text(&format!("{image} was pulled\n")),
        Answer::Absent => {
            return Err(CliError::Incomplete(format!("{} is not installed here", command[0])));
        }
        Answer::Failed(reason) => {
            return Err(CliError::Incomplete(format!(
                "{shown}: {reason}; take the setup back with: {}",
                setup.undo_command()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use crate::cli::Cli;

    #[test]
    fn wrong_usage_is_refused() {
        for wrong in [
            &["rkt"][..],
            &["docker", "--registry", "0.0.0.0:5000"],
            &["docker", "--registry", "127.0.0.1:0"],
            &["podman", "--mirror", "localhost"],
            &["podman", "--mirror", "a.b\"\n"],
            &["docker", "--undo", "--verify", "alpine"],
            &["docker", "--root", "x", "--verify", "alpine"],
        ] {
            let words = ["ddr", "setup"].iter().chain(wrong);
            assert!(Cli::try_parse_from(words).is_err(), "{wrong:?}");
        }
    }
}
