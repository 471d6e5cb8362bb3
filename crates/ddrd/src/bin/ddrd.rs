//! `ddrd`, the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    ddrd::daemon::main()
}
