//! The `celda` command: reads the flags, calls the library, says what came of it.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match celda::cli::args::Cli::try_parse() {
        Ok(cli) => celda::cli::main(cli),
        Err(answer) => celda::cli::not_a_command(&answer),
    }
}
