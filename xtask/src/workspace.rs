//! What cargo knows about the workspace: where it is, which packages it has, who depends on whom.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::run;

/// The part of `cargo metadata` that the tasks use.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Workspace {
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) resolve: Resolve,
}

/// One package, of the workspace or from outside.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A dependency as a manifest declares it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `None` for a normal one, else `dev` or `build`.
    pub(crate) kind: Option<String>,
}

/// One thing that cargo builds out of a package.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

/// The dependency graph after version resolution.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// One package in the graph.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<NodeDep>,
}

/// One edge in the graph.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NodeDep {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DepKind>,
}

/// Why an edge exists.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DepKind {
    pub(crate) kind: Option<String>,
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn find() -> Result<Self> {
        let mut metadata = cargo();
        metadata.args(["metadata", "--format-version", "1", "--locked"]);
        let json = run::output(&mut metadata)?;
        serde_json::from_str(&json).context("cargo metadata gave JSON of an unknown shape")
    }

    /// The packages that belong to the workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|p| self.workspace_members.contains(&p.id))
    }

    /// The daemon that a build with `profile` (`debug`, `release`) leaves behind.
    pub(crate) fn daemon(&self, profile: &str) -> PathBuf {
        self.target_directory.join(profile).join("ddrd")
    }

    /// Things that are expensive to make and stay between runs.
    pub(crate) fn cache(&self) -> PathBuf {
        self.target_directory.join("e2e-cache")
    }
}

/// Builds the daemon as it is shipped, unless another program is given.
pub(crate) fn ensure_release(given: Option<&Path>) -> Result<()> {
    if given.is_none() {
        println!("building the release");
        run::visible(cargo().args(["build", "--release", "--locked", "--package", "ddrd"]))?;
    }
    Ok(())
}

/// The cargo that started this program, at the workspace root.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}
