//! The documents say what the command has: every command in the README, every flag of `run` in docs/run.md, and in
//! docs/errors.md only messages that there are. And the tests say what each flag does.

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
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    let names = shown.map(clap::Command::get_name).filter(|name| *name != "help");
    let missing: Vec<_> = names.filter(|name| !text.contains(&format!("celda {name}"))).collect();
    assert!(missing.is_empty(), "the README does not show these: {missing:?}");
}

#[test]
fn every_flag_is_tried_through_the_command() {
    let mut tests = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), &mut tests);
    let mut command = Cli::command();
    command.build();
    let mut missing = Vec::new();
    for (name, argument) in command
        .get_subcommands()
        .flat_map(|command| command.get_arguments().map(|argument| (command.get_name(), argument)))
    {
        let long = argument.get_long().map(|long| format!("\"--{long}\""));
        let short = argument.get_short().map(|short| format!("\"-{short}\""));
        let mut forms = long.iter().chain(&short).peekable();
        if forms.peek().is_some() && !forms.any(|form| tests.contains(form.as_str())) {
            missing.push(format!("{name}: {}", argument.get_id()));
        }
    }
    assert!(missing.is_empty(), "no test of the command gives these: {missing:?}");
}

/// The text of every Rust file below `directory`, with strings that go on in the next line joined.
fn sources(directory: &Path, into: &mut String) {
    for entry in fs::read_dir(directory).expect("listed") {
        let path = entry.expect("read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("read");
            let mut pieces = text.split("\\\n");
            into.push_str(pieces.next().unwrap_or_default());
            pieces.for_each(|piece| into.push_str(piece.trim_start()));
        }
    }
}

#[test]
fn every_message_that_is_explained_can_be_met() {
    let text = read("docs/errors.md");
    let mut code = String::new();
    for room in ["src", "../layerfs/src"] {
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(room), &mut code);
    }
    let (_, table) = text.split_once("| message says |").expect("the table of messages");
    let mut quotes_count = 0;
    for row in table.lines().skip(2).filter(|line| line.starts_with('|')) {
        let cell = row.split('|').nth(1).expect("a first column");
        for quote in cell.split('`').skip(1).step_by(2) {
            quotes_count += 1;
            for part in quote.split('…').map(str::trim).filter(|part| !part.is_empty()) {
                assert!(code.contains(part), "docs/errors.md quotes {part:?}, which no message says");
            }
        }
    }
    assert!(quotes_count > 10, "only {quotes_count} messages found");
}

#[test]
fn the_forms_of_a_mirror_are_documented() {
    let text = read("docs/run.md");
    assert!(text.contains("[REGISTRY=]HOST[:PORT]") && text.contains("CELDA_MIRRORS"));
    assert!("registry.example=mirror.example:5000".parse::<celda_layerfs::transport::Mirror>().is_ok());
}
