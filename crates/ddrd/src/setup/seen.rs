//! What a client's files say, as they would be without `ddr setup`.
//!
//! What setup wrote itself and nobody changed since is looked through: the backup stands for it. So a second
//! setup plans from the same ground as the first, and other options replace what was there instead of adding to it.

use std::collections::{BTreeMap, BTreeSet};

use super::machine::Machine;
use super::record::Record;
use super::{Client, SetupError, containerd, docker, podman};

/// Entries of one directory that are looked at.
const MAX_ENTRIES: usize = 4_096;
/// In the directory of one registry: what is asked for its images.
pub const HOSTS_TOML: &str = "hosts.toml";

/// Contents by path, and the directories that are there.
#[derive(Debug, Default)]
pub struct Seen {
    texts: BTreeMap<String, String>,
    directories: BTreeSet<String>,
}

impl Seen {
    /// Reads what matters to `client`.
    ///
    /// # Errors
    ///
    /// A file cannot be read or is not what it should be.
    pub fn look(client: Client, machine: &Machine, record: &Record) -> Result<Self, SetupError> {
        let mut seen = Self::default();
        match client {
            Client::Docker => {
                seen.read(machine, docker::DAEMON_JSON)?;
                for path in docker::FLAG_FILES {
                    seen.read(machine, path)?;
                }
                seen.scan(machine, docker::DROP_INS)?;
                seen.scan(machine, docker::CERTS_D)?;
            }
            Client::Containerd => {
                seen.read(machine, containerd::CONFIG_TOML)?;
                let directory = containerd::Config::of(&seen)?.directory();
                seen.scan(machine, &directory)?;
            }
            Client::Podman | Client::Crio => {
                seen.read(machine, podman::REGISTRIES_CONF)?;
                seen.scan(machine, podman::CONF_D)?;
            }
        }
        seen.look_through(machine, record)?;
        Ok(seen)
    }

    /// What a file says; nothing if it is not there.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// The files that were read.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        self.texts.keys().map(String::as_str)
    }

    /// True for a directory that is there.
    #[must_use]
    pub fn has_directory(&self, path: &str) -> bool {
        self.directories.contains(path)
    }

    /// The files right in `directory`, sorted by name, and what they say.
    pub fn files_in(&self, directory: &str) -> impl Iterator<Item = (&str, &str)> {
        let under = move |path: &str| {
            let name = path.strip_prefix(directory).and_then(|rest| rest.strip_prefix('/'));
            name.is_some_and(|name| !name.contains('/'))
        };
        self.texts
            .iter()
            .filter(move |(path, _)| under(path))
            .map(|(p, t)| (p.as_str(), t.as_str()))
    }

    /// The names of the directories right in `directory`, sorted.
    pub fn directories_in(&self, directory: &str) -> impl Iterator<Item = &str> {
        self.directories.iter().filter_map(move |path| {
            let name = path.strip_prefix(directory)?.strip_prefix('/')?;
            (!name.contains('/')).then_some(name)
        })
    }

    fn read(&mut self, machine: &Machine, path: &str) -> Result<(), SetupError> {
        if let Some(text) = machine.read(path)? {
            self.texts.insert(path.to_owned(), text);
        }
        Ok(())
    }

    /// A directory of `*.conf`, or one of directories with a `hosts.toml` each.
    fn scan(&mut self, machine: &Machine, directory: &str) -> Result<(), SetupError> {
        for (name, is_directory) in machine.list(directory)?.into_iter().take(MAX_ENTRIES) {
            let path = format!("{directory}/{name}");
            if is_directory {
                self.read(machine, &format!("{path}/{HOSTS_TOML}"))?;
                self.directories.insert(path);
            } else if name.ends_with(".conf") {
                self.read(machine, &path)?;
            }
        }
        Ok(())
    }

    fn look_through(&mut self, machine: &Machine, record: &Record) -> Result<(), SetupError> {
        for (path, saved) in record.files() {
            if record.is_ours(path, machine.read(path)?.as_deref()) {
                match &saved.old {
                    Some(old) => self.texts.insert(path.clone(), old.clone()),
                    None => self.texts.remove(path),
                };
            }
        }
        for directory in record.directories() {
            let in_use = self.texts.keys().any(|path| path.starts_with(&format!("{directory}/")));
            if !in_use {
                self.directories.remove(directory);
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn of(texts: &[(&str, &str)]) -> Self {
        let mut seen = Self::default();
        for (path, text) in texts {
            if let Some((directory, _)) = path.rsplit_once('/') {
                seen.directories.insert(directory.to_owned());
            }
            seen.texts.insert((*path).to_owned(), (*text).to_owned());
        }
        seen
    }
}
