//! The documents say what the command has: every command in the README, every flag of `run` in docs/run.md.

use std::fs;
use std::path::Path;

use celda::cli::args::Cli;
use clap::CommandFactory as _;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_flag_of_run_is_documented() {
    let text = read("docs/run.md");
    let mut command = Cli::command();
    command.build();
    let run = command.find_subcommand("run").expect("there is a run command");
    let longs = run
        .get_arguments()
        .filter_map(clap::Arg::get_long)
        .filter(|long| *long != "help" && *long != "version");
    let missing: Vec<_> = longs.filter(|long| !text.contains(&format!("--{long}"))).collect();
    assert!(missing.is_empty(), "docs/run.md does not say what these do: {missing:?}");
}

#[test]
fn every_command_is_in_the_readme() {
    let text = read("README.md");
    let mut command = Cli::command();
    command.build();
    let names = command.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help");
    let missing: Vec<_> = names.filter(|name| !text.contains(&format!("celda {name}"))).collect();
    assert!(missing.is_empty(), "the README does not show these: {missing:?}");
}
