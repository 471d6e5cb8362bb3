//! The README's first commands, in the profile of the tests. Its `docker push` and `docker pull`
//! are the docker suite's, its `ddrd --join @FILE` every suite's.

use std::path::Path;

use anyhow::{Result, ensure};

use super::Setup;
use crate::checks::Checks;
use crate::run;
use crate::workspace::cargo;

pub(super) fn suite(setup: &Setup, dir: &Path, checks: &mut Checks) -> Result<()> {
    checks.check("readme: `cargo run` is the daemon", || {
        let said = run::output(cargo().args(["run", "--locked", "--", "--version"]))?;
        ensure!(said.starts_with("ddrd "), "it said {said:?}");
        Ok(())
    });
    checks.check("readme: `ddr demo`", || {
        let mut demo = run::client(setup.daemon.with_file_name("ddr"));
        let said = run::output(demo.arg("demo").env("TMPDIR", dir))?;
        ensure!(said.trim_end().ends_with("demo passed"), "it said {said}");
        Ok(())
    });
    Ok(())
}
