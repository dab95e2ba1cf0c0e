//! `celda completions`: shell completions on standard output, man pages into a directory.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;

use super::args::{Cli, CompletionsArgs};
use crate::{Error, Result};

pub(super) fn main(args: &CompletionsArgs) -> Result<ExitCode> {
    if let Some(directory) = &args.man {
        man_pages(directory)?;
    } else if let Some(shell) = args.shell {
        clap_complete::generate(shell, &mut Cli::command(), "celda", &mut io::stdout());
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes `celda.1` and one page for each command.
fn man_pages(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).map_err(Error::io("create directory", directory))?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(Error::io("write man pages into", directory))
}
