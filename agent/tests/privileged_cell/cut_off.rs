//! Streams that the agent's end cuts off: none of them looks finished.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Stdio};

use crate::support::Cell;

/// A command whose stream is open, by the first line that it has said.
fn listening(cell: &Cell, args: &[&str]) -> (Child, String) {
    let mut command = cell.command(args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    // Whatever else it says must not block it.
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    (child, first)
}

#[test]
fn privileged_a_stream_that_the_agents_end_cuts_off_does_not_look_finished() {
    let Some(mut cell) = Cell::up("streams_are_cut_off") else { return };
    let (_, token) = cell.list();
    cell.run(&["--name", "web"], "trap '' TERM; while :; do echo tick; busybox sleep 0.1; done");
    let logs = listening(&cell, &["logs", "--follow", "web"]);
    let events = listening(&cell, &["events", "--since", &token]);
    let drain = listening(&cell, &["drain", "--time", "1000"]);
    assert_eq!((logs.1.as_str(), drain.1.as_str()), ("tick\n", "1 left\n"));
    assert!(events.1.contains(" web reserved"), "{}", events.1);
    cell.end();
    for (what, (mut child, _)) in [("logs", logs), ("events", events), ("drain", drain)] {
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(125), "{what}: {said}");
        assert!(said.contains("on the cell: the agent ends: "), "{what}: {said}");
    }
    // The next one drains on, and what has an end ends well.
    cell.begin();
    let image = cell.image();
    assert!(cell.fails(125, &["run", "-d", &image, "/bin/sh"]).contains("drains"));
    assert!(cell.ok(&["logs", "web"]).starts_with("tick\n"));
    cell.leaves_nothing("streams that were cut off");
}
