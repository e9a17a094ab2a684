//! An overlay gateway; see the library for the map.

use std::process::ExitCode;

fn main() -> ExitCode {
    rongate::cli::main()
}
