//! Registries that exist only as Go modules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::run;
use crate::workspace::Workspace;

/// The registry of the distribution project, at a version.
pub(super) const DISTRIBUTION: &str = "github.com/distribution/distribution/v3/cmd/registry@v3.1.2";

/// Why there is no zot.
pub(super) const ZOT: &str = "zot was not measured: the Go module proxy has no zotregistry.dev/zot, and \
     what it has of github.com/project-zot/zot does not build";

/// A first build compiles some hundred packages. Seconds.
const DEADLINE_S: &str = "900";

/// Where Go's own archive puts it.
const GO: &str = "/usr/local/go/bin/go";

/// The program; built when it is not there yet.
pub(super) fn distribution(workspace: &Workspace) -> Result<PathBuf> {
    let version = DISTRIBUTION.rsplit('@').next().context("a version")?;
    let dir = workspace.target_directory.join(format!("tools/distribution-{version}"));
    let program = dir.join("registry");
    if program.exists() {
        return Ok(program);
    }
    let go = if Path::new(GO).exists() { GO } else { "go" };
    let mut build = Command::new("timeout");
    build.args(["--kill-after=5", DEADLINE_S, go, "install", DISTRIBUTION]).env("GOBIN", &dir);
    run::output(&mut build)?;
    Ok(program)
}
