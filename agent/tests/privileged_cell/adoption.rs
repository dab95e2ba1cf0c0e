//! The agent dies; its instances do not.

use std::collections::BTreeMap;
use std::fs;

use celda_api::cell::v1;
use celda_api::cell::v1::end::Cause;

use crate::support::{Cell, FOR_EVER};

fn pids(cell: &Cell) -> BTreeMap<String, u32> {
    let running = cell.list().0.into_iter().filter(|one| one.status() == v1::Status::Running);
    running.map(|one| (one.id, one.pid)).collect()
}

/// Ends with `code` as soon as the file `go` is in the volume.
fn waiter(code: u8) -> String {
    format!("while [ ! -e /files/go ]; do busybox sleep 0.05; done; exit {code}")
}

#[test]
fn privileged_a_killed_agent_loses_no_instance_and_no_exit_status() {
    let Some(mut cell) = Cell::up("a_killed_agent") else { return };
    let volume = format!("{}:/files", cell.files().display());
    cell.run(&["--name", "stays", "--count", "8", "--restart", "always"], FOR_EVER);
    cell.run(&["--name", "task", "--task", "-v", &volume], &waiter(7));
    cell.run(
        &["--name", "again", "--restart", "always", "-v", &volume],
        &format!("[ -e /files/go ] && exec busybox sleep 1000; {}", waiter(9)),
    );
    let before = pids(&cell);
    assert_eq!(before.len(), 10);
    cell.kill();
    for pid in before.values() {
        assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "{pid} went with the agent");
    }
    // It ends while nobody is there to see it.
    fs::write(cell.files().join("go"), "").unwrap();
    for pid in [before["task"], before["again"]] {
        let proc = format!("/proc/{pid}");
        crate::common::wait_until(|| !fs::exists(&proc).unwrap(), "the container ends");
    }
    cell.begin();
    let end = cell.ended("task");
    assert_eq!((end.cause(), end.code), (Cause::Exit, 7));
    let again = cell.wait("again", |one| one.status() == v1::Status::Running);
    assert_eq!((again.attempt, again.crashes), (2, 1), "it is started again");
    assert_eq!(again.end.expect("the end before").code, 9);
    let after = pids(&cell);
    for (id, pid) in before.iter().filter(|(id, _)| id.starts_with("stays")) {
        assert_eq!(after.get(id), Some(pid), "{id} is another one");
    }
    // And the new agent is as good as the old one for what it took over.
    cell.ok(&["stop", "-t", "0", "stays-0"]);
    assert_eq!(cell.ended("stays-0").code, 9);
    cell.leaves_nothing("a killed agent");
}

#[test]
fn privileged_a_binary_is_replaced_under_what_runs() {
    let Some((mut cell, program)) = Cell::up_from_a_copy("a_binary_is_replaced") else { return };
    cell.run(&["--name", "stays", "--count", "3"], FOR_EVER);
    let before = pids(&cell);
    // As a package manager does it: a new file, and what runs of the old one has no name any more.
    let new = program.with_extension("new");
    crate::common::copy_program(&program, &new);
    fs::rename(&new, &program).unwrap();
    cell.kill();
    cell.begin();
    assert_eq!(pids(&cell), before);
    // The holder is the old one, and starts containers and ends them for the new agent.
    cell.run(&["--name", "new", "--init"], FOR_EVER);
    assert_eq!(cell.ok(&["exec", "new", "/bin/sh", "-c", "echo well"]), "well\n");
    cell.ok(&["stop", "-t", "0", "stays-0", "new"]);
    assert_eq!(cell.ended("stays-0").code, 9);
    cell.leaves_nothing("a replaced binary");
}

#[test]
fn privileged_an_agent_that_ends_leaves_instances_to_the_next() {
    let Some(mut cell) = Cell::up("an_agent_that_ends") else { return };
    cell.run(&["--name", "stays"], FOR_EVER);
    let before = pids(&cell);
    cell.end();
    cell.begin();
    assert_eq!(pids(&cell), before);
    let said = cell.fails_to_begin();
    assert!(said.contains("another celda agent holds this cell"), "{said}");
    cell.leaves_nothing("an agent that ended");
}

#[test]
fn privileged_kills_during_a_batch_lose_and_double_nothing() {
    let Some(mut cell) = Cell::up("kills_during_a_batch") else { return };
    for round in 0..6_u32 {
        let name = format!("r{round}");
        let args = [
            "run",
            "-d",
            "--name",
            &name,
            "--count",
            "20",
            "--restart",
            "always",
            &cell.image(),
            "/bin/sh",
            "-c",
            FOR_EVER,
        ]
        .map(str::to_owned);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut starting = cell
            .command(&args)
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Each round a later moment: from before the call to after the last start.
        cell.wait_for_running((round * 4) as usize, &name);
        cell.kill();
        starting.wait().unwrap();
        cell.begin();
        let of_round =
            |cell: &Cell| cell.list().0.into_iter().filter(|one| one.id.starts_with(&name)).count();
        // Accepted together or not at all.
        let count = of_round(&cell);
        assert!(count == 0 || count == 20, "{count} of a batch of 20");
        for index in 0..count {
            cell.wait(&format!("{name}-{index}"), |one| one.status() == v1::Status::Running);
        }
    }
    let instances = cell.list().0;
    let mut cgroups: Vec<_> = instances.iter().map(|one| one.cgroup.clone()).collect();
    cgroups.dedup();
    assert_eq!(cgroups.len(), instances.len());
    for one in &instances {
        let processes = fs::read_to_string(format!("{}/cgroup.procs", one.cgroup)).unwrap();
        assert!(processes.lines().any(|pid| pid == one.pid.to_string()), "{} is not in its cgroup", one.id);
    }
    cell.leaves_nothing("kills during batches");
}

impl Cell {
    /// Until so many of a round's instances run, or its call has not been heard of yet and none are to.
    fn wait_for_running(&self, count: usize, name: &str) {
        let is_so = || {
            let of_round = self.list().0.into_iter().filter(|one| one.id.starts_with(name));
            of_round.filter(|one| one.status() == v1::Status::Running).count() >= count
        };
        crate::common::wait_until(is_so, "enough of them run");
    }
}

#[test]
fn privileged_whoever_has_the_id_of_what_nobody_knows_begins_after_it() {
    let Some(mut cell) = Cell::up("ids_of_strangers") else { return };
    let ids: Vec<String> = (0..8).map(|number| format!("web-{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    // Half of them end while no agent is there.
    let volumes = vec![format!("{}:/files", cell.files().display())];
    let files = Some(v1::Files { volumes, ..v1::Files::default() });
    cell.started(&ids[..4], v1::Spec { files, ..cell.spec(&waiter(0)) });
    cell.started(&ids[4..], cell.spec("exec busybox sleep 1000"));
    for id in &ids {
        cell.wait(id, |one| one.status() == v1::Status::Running);
    }
    let before = pids(&cell);
    cell.kill();
    fs::write(cell.files().join("go"), "").unwrap();
    fs::remove_file(cell.root().join("cell/journal")).unwrap();
    cell.begin();
    cell.started(&ids, cell.spec("exec busybox sleep 1000"));
    for id in &ids {
        let one = cell.wait(id, |one| one.status() == v1::Status::Running);
        assert_eq!((one.attempt, one.crashes), (1, 0), "{one:?}");
        assert_ne!(before.get(*id), Some(&one.pid));
    }
    let pids = pids(&cell);
    cell.ok(&["exec", "web-7", "busybox", "true"]);
    assert_eq!(self::pids(&cell), pids, "a stranger's end is not theirs");
    cell.leaves_nothing("ids of strangers");
}
