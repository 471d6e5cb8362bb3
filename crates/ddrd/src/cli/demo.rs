//! `ddr demo`.

use clap::Args;

use super::CliError;
use crate::demo;

/// Start three nodes here, push an image to one, pull it from another, clean up
#[derive(Args, Debug)]
pub(super) struct Demo {
    /// Leave the nodes running until Ctrl-C and print docker commands to try
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(options: Demo) -> Result<(), CliError> {
    demo::run(options.keep).await.map_err(CliError::from)
}
