//! `ddr-sim`: measures the overlay in simulation.

mod alloc;
mod args;
mod overlay;

use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Args, Command};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Overlay(args) => overlay::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ddr-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
