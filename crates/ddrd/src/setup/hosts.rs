//! `hosts.toml`: what containerd, and docker with its image store, ask for the images of a registry.
//!
//! It must never name a `server`: without one the registry itself stays the last that is asked.

use super::seen::Seen;
use super::{Plan, SetupError, Wanted, toml};

/// The directory for every registry that has none of its own.
pub(super) const DEFAULT: &str = "_default";
/// How long a dial may take. containerd before 2.1 does not know the key and passes over it; its own limit is 30 s. On
/// loopback a port where nobody listens says so at once.
const DIAL_TIMEOUT: &str = "200ms";

/// The file.
pub(super) fn text(client: &str, wanted: &Wanted) -> String {
    format!(
        "# Written by: ddr setup {client}. Taken back by: ddr setup {client} --undo\n\
         # No server is named: what the mirror does not give is asked of the registry itself.\n\
         [host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"{DIAL_TIMEOUT}\"\n",
        wanted.url()
    )
}

/// Puts the file at `path`, if nobody else's lies there. One that names the mirror already stays as it is.
pub(super) fn place(
    plan: &mut Plan,
    seen: &Seen,
    path: String,
    client: &str,
    wanted: &Wanted,
) -> Result<(), SetupError> {
    let ours = text(client, wanted);
    match seen.text(&path) {
        Some(theirs) if theirs != ours => {
            if names_mirror(&path, theirs, wanted)? {
                return Ok(());
            }
            let block = ours.lines().skip_while(|line| line.starts_with('#'));
            let text = block.map(|line| format!("{line}\n")).collect();
            Err(SetupError::Foreign { path, text })
        }
        _ => {
            plan.files.insert(path, ours);
            Ok(())
        }
    }
}

fn names_mirror(path: &str, text: &str, wanted: &Wanted) -> Result<bool, SetupError> {
    let table = toml(path, text)?;
    let hosts = table.get("host").and_then(|hosts| hosts.as_table());
    let url = wanted.url();
    Ok(hosts.is_some_and(|hosts| hosts.keys().any(|host| host.trim_end_matches('/') == url)))
}

/// The registries in `directory` that have a directory of their own, so that [`DEFAULT`] is not read for them.
pub(super) fn shadows(seen: &Seen, directory: &str) -> Option<String> {
    let names: Vec<&str> = seen.directories_in(directory).filter(|name| *name != DEFAULT).collect();
    (!names.is_empty()).then(|| {
        format!(
            "{directory} has directories of its own for {}: there {DEFAULT} is not read. For these \
             put the [host] table into their hosts.toml by hand, if the mirror is wanted.",
            names.join(", ")
        )
    })
}
