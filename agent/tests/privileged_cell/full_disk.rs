//! The disk that has the store is full: nothing new begins, nothing that runs is lost, and it goes on when there is room.

use std::fs;
use std::io::{ErrorKind, Write as _};

use celda_api::cell::v1;
use celda_api::cell::v1::end::Cause;

use crate::support::{Cell, FOR_EVER};

const COUNT: &str = "n=0; while :; do n=$((n+1)); echo $n; busybox sleep 0.02; done";

/// Writes until not a byte more is taken.
fn fill(cell: &Cell) {
    let path = cell.root().join("ballast");
    let mut ballast = fs::File::options().append(true).create(true).open(path).unwrap();
    for bytes in [1 << 20, 4096, 1] {
        loop {
            match ballast.write_all(&vec![1; bytes]).and_then(|()| ballast.sync_data()) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn running(cell: &Cell, id: &str) -> v1::Instance {
    cell.wait(id, |one| one.status() == v1::Status::Running)
}

fn refused(cell: &Cell) {
    let image = cell.image();
    let said = cell.fails(125, &["run", "-d", "--name", "new", &image, "/bin/sh", "-c", FOR_EVER]);
    assert!(said.contains("it cannot be written down") && said.contains("make room on the disk"), "{said}");
}

#[test]
fn privileged_a_full_disk_is_survived() {
    let Some(mut cell) = Cell::up_on_disk("a_full_disk", 96, "journal_bytes = 65536") else { return };
    let volume = format!("{}:/files", cell.files().display());
    cell.run(&["--name", "counts"], COUNT);
    cell.run(&["--name", "stops", "--count", "20"], FOR_EVER);
    let task = "while [ ! -e /files/go ]; do busybox sleep 0.05; done; exit 7";
    cell.run(&["--name", "task", "--task", "-v", &volume], task);
    let before = running(&cell, "counts");
    fill(&cell);

    refused(&cell);
    assert_eq!(running(&cell, "counts").pid, before.pid);
    // What there is can be stopped and forgotten, and what ends is known.
    for index in 0..10 {
        let id = format!("stops-{index}");
        assert_eq!(cell.ok(&["stop", "-t", "0", &id]), format!("{id}\n"));
        assert_eq!(cell.ended(&id).cause(), Cause::Signal);
    }
    cell.ok(&["rm", "stops-0"]);
    fs::write(cell.files().join("go"), "").unwrap();
    assert_eq!(cell.ended("task").code, 7);

    // The next agent comes up all the same, and knows all that.
    fill(&cell);
    cell.kill();
    cell.begin();
    assert_eq!(running(&cell, "counts").pid, before.pid);
    let end = cell.ended("stops-9");
    assert!(end.cause() == Cause::Signal && !end.stopped_by.is_empty(), "{end:?}");
    assert_eq!(cell.ended("task").code, 7);
    assert_eq!(cell.list().0.len(), 1 + 19 + 1);
    running(&cell, "stops-10");
    refused(&cell);
    assert_eq!(cell.ok(&["stop", "-t", "0", "stops-10"]), "stops-10\n");

    // With room again all goes on, without another agent.
    fs::remove_file(cell.root().join("ballast")).unwrap();
    cell.run(&["--name", "new"], FOR_EVER);
    running(&cell, "new");
    let last = |cell: &Cell| cell.ok(&["logs", "--tail", "1", "counts"]).trim().parse::<u64>().unwrap();
    let seen = last(&cell);
    crate::common::wait_until(|| last(&cell) > seen + 10, "the log goes on");
    cell.ok(&["stop", "-t", "0", "counts"]);
    cell.ended("counts");
    let said = cell.ok(&["logs", "counts"]);
    let numbers: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no line is lost or there twice");
    cell.kill();
    cell.begin();
    running(&cell, "new");
    cell.leaves_nothing("a full disk");
}

#[test]
fn privileged_a_disk_that_fills_again_and_again_spoils_no_journal() {
    let Some(mut cell) = Cell::up_on_disk("fills_again", 96, "journal_bytes = 65536") else { return };
    let mut accepted = Vec::new();
    for round in 0..5 {
        fill(&cell);
        let name = format!("r{round}");
        let image = cell.image();
        let args = ["run", "-d", "--name", &name, "--count", "20", &image, "/bin/sh", "-c", FOR_EVER];
        // Room comes while it is tried.
        let mut trying = cell.command(&args).stderr(std::process::Stdio::null()).spawn().unwrap();
        fs::remove_file(cell.root().join("ballast")).unwrap();
        trying.wait().unwrap();
        let of_round: Vec<String> =
            cell.list().0.into_iter().map(|one| one.id).filter(|id| id.starts_with(&name)).collect();
        assert!(of_round.is_empty() || of_round.len() == 20, "{} of a batch of 20", of_round.len());
        accepted.extend(of_round);
        cell.kill();
        cell.begin();
        let mut known: Vec<String> = cell.list().0.into_iter().map(|one| one.id).collect();
        let mut expected = accepted.clone();
        known.sort();
        expected.sort();
        assert_eq!(known, expected);
    }
    cell.leaves_nothing("a disk that filled again and again");
}
