//! The `celda` command: reads the flags, calls the library, says what came of it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    celda::cli::main(celda::cli::args::Cli::parse())
}
