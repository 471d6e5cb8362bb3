//! `ddr-sim`: measures the overlay and the swarm in simulation.

mod alloc;
mod args;
mod copies;
mod names;
mod overlay;
mod paper;
mod plot;
mod swarm;

use std::process::ExitCode;

use clap::Parser as _;

use self::args::{Args, Command};

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Overlay(args) => overlay::run(&args),
        Command::Paper(args) => paper::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Swarm(args) => swarm::run(&args),
        Command::Copies(args) => copies::run(&args),
        Command::Names(args) => names::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ddr-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}
