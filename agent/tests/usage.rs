//! The command line before anything is done: which mistakes are celda's own (125), and whose flags are whose.

mod common;

use common::{Celda, describe};

#[test]
fn a_command_line_that_is_wrong_is_125() {
    let celda = Celda::new();
    for args in [
        &["run", "--rm", "--memory", "lots", "image"][..],
        &["run", "--no-such-flag", "image"],
        &["run"],
        &["no-such-command"],
        &["pull"],
        &["images", "--quiet=1"],
        &[],
    ] {
        let said = celda.fails(125, args);
        assert!(said.contains("Usage") || said.contains("--help"), "{args:?}: {said}");
    }
}

#[test]
fn help_and_version_are_no_failures() {
    let celda = Celda::new();
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["help", "run"]] {
        let output = celda.output(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}: {}", describe(&output));
    }
}
