//! What setup changed on a machine, and what was there before.
//!
//! The invariant: a file is changed only after the record of what it said is on the disk. A file is given back
//! only while it still says what setup wrote; what somebody changed since is never thrown away.

use std::collections::BTreeMap;

use ddr_oci::digest::Digest;
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::machine::Machine;
use super::{Client, Plan, SetupError};

/// All records lie here, and nothing else.
const RECORDS: &str = "/var/lib/ddr-setup";
/// Backups may hold what only root may read, such as a proxy with a password.
const RECORD_MODE: u32 = 0o600;

/// A file before setup.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// What it said; nothing if it was not there.
    pub old: Option<String>,
    /// Its permission bits.
    mode: Option<u32>,
    /// SHA-256 of what setup wrote.
    written: Digest,
}

/// The backups of one client.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Record {
    files: BTreeMap<String, Saved>,
    /// Made by setup, the outermost of each path first.
    directories: Vec<String>,
}

/// What an undo does.
#[derive(Debug, Default)]
pub struct Undo {
    /// Files that get back what they said.
    pub changes: Vec<Change>,
    /// Files that somebody changed since. They stay.
    pub refused: Vec<String>,
}

impl Record {
    /// The record of `client` on `machine`; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is not one.
    pub fn load(client: Client, machine: &Machine) -> Result<Self, SetupError> {
        let path = client.record();
        let Some(text) = machine.read(path)? else { return Ok(Self::default()) };
        serde_json::from_str(&text).map_err(|error| {
            SetupError::broken(path, Some(error.line()), format!("not a backup of ddr: {error}"))
        })
    }

    /// The files that setup changed.
    pub fn files(&self) -> impl Iterator<Item = (&String, &Saved)> {
        self.files.iter()
    }

    /// The directories that setup made.
    pub fn directories(&self) -> impl Iterator<Item = &String> {
        self.directories.iter()
    }

    /// True when nothing was changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// True when `path`, which says `now`, is as setup left it.
    #[must_use]
    pub fn is_ours(&self, path: &str, now: Option<&str>) -> bool {
        let written = self.files.get(path).map(|saved| &saved.written);
        now.is_some_and(|now| written == Some(&Digest::sha256(now.as_bytes())))
    }

    /// What has to change so that the disk says what `plan` says, and that alone.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn changes(&self, plan: &Plan, machine: &Machine) -> Result<Vec<Change>, SetupError> {
        let mut wanted: BTreeMap<&String, Option<&String>> = BTreeMap::new();
        for (path, saved) in &self.files {
            if self.is_ours(path, machine.read(path)?.as_deref()) {
                wanted.insert(path, saved.old.as_ref());
            }
        }
        wanted.extend(plan.files.iter().map(|(path, text)| (path, Some(text))));
        let mut changes = Vec::new();
        for (path, new) in wanted {
            let change = Change { path: path.clone(), old: machine.read(path)?, new: new.cloned() };
            if change.old != change.new {
                changes.push(change);
            }
        }
        Ok(changes)
    }

    /// Makes the changes, and keeps what was there.
    ///
    /// # Errors
    ///
    /// A file cannot be written; what is in the record is then what an undo gives back.
    pub fn apply(
        mut self,
        client: Client,
        machine: &Machine,
        changes: &[Change],
    ) -> Result<(), SetupError> {
        for change in changes {
            self.keep(machine, change)?;
        }
        let paths = changes.iter().map(|change| change.path.as_str());
        for path in paths.chain([client.record()]) {
            for directory in machine.missing_above(path) {
                if !self.directories.contains(&directory) {
                    self.directories.push(directory);
                }
            }
        }
        self.store(client, machine)?;
        for Change { path, new, .. } in changes {
            match new {
                Some(text) => machine.write(path, text, None)?,
                None => machine.remove(path)?,
            }
        }
        // What has what it said before is not changed any more.
        self.files.retain(|path, saved| {
            !changes.iter().any(|change| change.path == *path && change.new == saved.old)
        });
        self.store(client, machine)
    }

    /// Enters `change`. The first backup stays while nobody else changed the file; what somebody made of it is
    /// a new one.
    fn keep(&mut self, machine: &Machine, change: &Change) -> Result<(), SetupError> {
        let ours = self.is_ours(&change.path, change.old.as_deref());
        let written = Digest::sha256(change.new.as_deref().unwrap_or_default().as_bytes());
        match self.files.get_mut(&change.path) {
            Some(saved) if ours => saved.written = written,
            _ => {
                let mode = machine.mode(&change.path)?;
                let saved = Saved { old: change.old.clone(), mode, written };
                self.files.insert(change.path.clone(), saved);
            }
        }
        Ok(())
    }

    fn store(&self, client: Client, machine: &Machine) -> Result<(), SetupError> {
        let path = client.record();
        let text = serde_json::to_string_pretty(self).map_err(|error| {
            SetupError::io("write", machine.place(path), std::io::Error::other(error))
        })?;
        machine.write(path, &(text + "\n"), Some(RECORD_MODE))
    }

    /// What an undo would do.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub fn undo(&self, machine: &Machine) -> Result<Undo, SetupError> {
        let mut undo = Undo::default();
        for (path, saved) in &self.files {
            let now = machine.read(path)?;
            if now == saved.old {
                continue;
            }
            if self.is_ours(path, now.as_deref()) {
                let (path, new) = (path.clone(), saved.old.clone());
                undo.changes.push(Change { path, old: now, new });
            } else {
                undo.refused.push(path.clone());
            }
        }
        Ok(undo)
    }

    /// Gives back what was there, and removes directories that setup made and that are empty. The backups of
    /// refused files stay.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub fn take_back(
        mut self,
        client: Client,
        machine: &Machine,
        undo: &Undo,
    ) -> Result<(), SetupError> {
        for Change { path, new, .. } in &undo.changes {
            match new {
                Some(text) => {
                    let mode = self.files.get(path).and_then(|saved| saved.mode);
                    machine.write(path, text, mode)?;
                }
                None => machine.remove(path)?,
            }
        }
        self.files.retain(|path, _| undo.refused.contains(path));
        if self.files.is_empty() {
            machine.remove(client.record())?;
        } else {
            self.store(client, machine)?;
        }
        // Whichever client is undone last takes it away, not the one that made it.
        machine.remove_empty(RECORDS);
        for directory in self.directories.iter().rev() {
            machine.remove_empty(directory);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
