//! `ddr`, the command line of a running `ddrd`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ddrd::cli::main()
}
