//! Instances that take what they can get: each meets its own limit, is told so, and the others never notice.

use std::fs;

use celda_api::cell::v1;
use celda_api::cell::v1::end::Cause;

use crate::support::{Cell, FOR_EVER};

/// Wants more memory than it may have.
const HUNGRY: &str = "exec busybox dd if=/dev/zero of=/dev/null bs=64M count=1";

/// One that runs beside the others and must not notice.
fn beside(cell: &Cell) -> u32 {
    cell.run(&["--name", "other"], FOR_EVER);
    cell.wait("other", |one| one.status() == v1::Status::Running).pid
}

#[track_caller]
fn assert_undisturbed(cell: &Cell, pid: u32) {
    let other = cell.wait("other", |one| one.status() == v1::Status::Running);
    assert_eq!((other.pid, other.attempt, other.crashes), (pid, 1, 0));
}

#[test]
fn privileged_an_instance_without_memory_says_whose_limit_ran_out() {
    let Some(cell) = Cell::up("without_memory") else { return };
    if !cell.keeps("an end for want of memory", &["memory"]) {
        return;
    }
    let other = beside(&cell);
    cell.run(&["--name", "hungry", "--memory", "32m", "--task"], HUNGRY);
    let end = cell.ended("hungry");
    assert_eq!((end.cause(), end.own_limit), (Cause::OutOfMemory, true), "{end:?}");
    assert!(end.detail.contains("own limit"), "{end:?}");
    cell.run(&["--name", "again", "--memory", "32m", "--restart", "on-failure"], HUNGRY);
    let again = cell.wait("again", |one| one.status() == v1::Status::Waiting);
    assert_eq!(again.attempt, 3, "an end for want of memory is a crash");
    let counted = "celda_ends_total{reason=\"out_of_memory\",stopped_by=\"nobody\"} 4";
    assert!(cell.ok(&["metrics"]).contains(counted), "{}", cell.ok(&["metrics"]));
    assert_undisturbed(&cell, other);

    // A limit above that of the container is not its own.
    let group = cell.wait("other", |one| !one.cgroup.is_empty()).cgroup;
    let of_cell = std::path::Path::new(&group).parent().unwrap();
    for file in ["memory.max", "memory.swap.max"] {
        let limit = if file == "memory.max" { "48M" } else { "0" };
        let _ = fs::write(of_cell.join(file), limit); // without swap there is no second
    }
    cell.run(&["--name", "above", "--task"], HUNGRY);
    let end = cell.ended("above");
    assert_eq!((end.cause(), end.own_limit), (Cause::OutOfMemory, false), "{end:?}");
    cell.leaves_nothing("ends for want of memory");
}

#[test]
fn privileged_an_instance_that_forks_without_end_forks_alone() {
    let Some(cell) = Cell::up("forks_without_end") else { return };
    if !cell.keeps("forks without end", &["pids"]) {
        return;
    }
    let other = beside(&cell);
    let bomb = "bomb() { bomb & bomb & busybox sleep 1; }; while :; do bomb; done 2>/dev/null";
    // Shells that cannot fork end: what is waited for is none.
    let script = format!("(while :; do /bin/sh -c '{bomb}'; done) 2>/dev/null & exec busybox sleep 1000");
    cell.run(&["--name", "bomb", "--pids-limit", "32", "--init"], &script);
    let group = cell.wait("bomb", |one| !one.cgroup.is_empty()).cgroup;
    let refused = || {
        let events = fs::read_to_string(format!("{group}/pids.events")).unwrap_or_default();
        events.lines().any(|line| line.starts_with("max ") && line != "max 0")
    };
    crate::common::wait_until(refused, "it meets its limit");
    let count: u64 = fs::read_to_string(format!("{group}/pids.current")).unwrap().trim().parse().unwrap();
    assert!(count <= 32, "{count} processes");
    assert_undisturbed(&cell, other);
    cell.run(&["--name", "next", "--task"], "exit 5");
    assert_eq!(cell.ended("next").code, 5);
    cell.ok(&["stop", "-t", "0", "bomb"]);
    assert_eq!(cell.ended("bomb").code, 9);
    cell.leaves_nothing("forks without end");
}

#[test]
fn privileged_a_client_that_stalls_its_streams_stalls_nobody() {
    let Some(cell) = Cell::up("a_stalled_stream") else { return };
    let other = beside(&cell);
    let (_, token) = cell.list();
    // Streams that are open and never read, while much happens.
    let mut client = cell.client();
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let request = v1::WatchRequest { token: token.clone(), ..v1::WatchRequest::default() };
        stalled.push(cell.runtime.block_on(client.watch(request)).unwrap());
    }
    cell.run(&["--name", "many", "--count", "40", "--task"], "busybox seq 1 1000; exit 3");
    for index in 0..40 {
        assert_eq!(cell.ended(&format!("many-{index}")).code, 3);
    }
    assert_undisturbed(&cell, other);
    drop(stalled);
    cell.leaves_nothing("stalled streams");
}
