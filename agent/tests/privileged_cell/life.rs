//! One instance from its start to its end, and why it ended.

use celda_api::cell::v1;
use celda_api::cell::v1::end::Cause;

use crate::support::{Cell, FOR_EVER};

/// Goes on until it is killed: process 1 without a handler does not hear TERM.

#[test]
fn privileged_an_instance_is_started_shown_stopped_and_forgotten() {
    let Some(cell) = Cell::up("an_instance_is_started") else { return };
    assert_eq!(cell.run(&["--name", "web", "--app", "shop", "--label", "a=b"], FOR_EVER), "web\n");
    let table = cell.ok(&["ps", "--app", "shop"]);
    assert!(table.contains("web") && table.contains("running"), "{table}");
    let socket = cell.directory().join("run/agent.sock");
    assert_eq!(cell.ok(&["ps", "-q", "--cell", socket.to_str().unwrap()]), "web\n");
    let shown: serde_json::Value = serde_json::from_str(&cell.ok(&["inspect", "web"])).unwrap();
    assert_eq!((&shown[0]["status"], &shown[0]["labels"]["a"]), (&"running".into(), &"b".into()));
    assert!(cell.ok(&["stats", "--no-stream", "web"]).contains("web"));
    assert!(cell.ok(&["metrics"]).contains("celda_instances{state=\"running\"} 1"));
    let said = cell.fails(125, &["rm", "web"]);
    assert!(said.contains("it is running"), "{said}");
    cell.ok(&["stop", "-t", "0", "web"]);
    let end = cell.ended("web");
    assert_eq!((end.cause(), end.code, end.stopped_by.as_str()), (Cause::Signal, 9, "client"));
    assert_eq!(cell.ok(&["ps"]).lines().count(), 1, "the header");
    assert!(cell.ok(&["ps", "-a"]).contains("stopped by client"));
    cell.ok(&["rm", "web"]);
    assert_eq!(cell.ok(&["ps", "-a"]).lines().count(), 1, "the header");
    assert!(cell.fails(125, &["stop", "web"]).contains("no such instance"));
    cell.leaves_nothing("an instance");
}

#[test]
fn privileged_a_task_runs_once_and_its_result_is_kept() {
    let Some(cell) = Cell::up("a_task_runs_once") else { return };
    let env = ["--name", "task", "--task", "-e", "CODE=7", "--stop-timeout", "3"];
    cell.run(&env, "exit $CODE");
    let end = cell.ended("task");
    assert_eq!((end.cause(), end.code, end.stopped_by.as_str()), (Cause::Exit, 7, ""));
    let said = cell.fails(125, &["run", "-d", "--task", "--restart", "always", &cell.image(), "true"]);
    assert!(said.contains("a task runs once"), "{said}");
    cell.leaves_nothing("a task");
}

#[test]
fn privileged_a_stop_signal_is_heard_and_ignoring_it_does_not_help() {
    let Some(cell) = Cell::up("a_stop_signal_is_heard") else { return };
    cell.run(&["--name", "polite"], "trap 'exit 5' TERM; echo hears; while :; do busybox sleep 0.05; done");
    cell.run(&["--name", "deaf"], &format!("trap '' TERM; echo hears; {FOR_EVER}"));
    cell.run(
        &["--name", "usr1", "--stop-signal", "USR1"],
        "trap 'exit 6' USR1; echo hears; while :; do busybox sleep 0.05; done",
    );
    // A first process without a handler never gets the signal.
    for id in ["polite", "deaf", "usr1"] {
        crate::common::wait_until(|| cell.ok(&["logs", id]) == "hears\n", "it has set its trap");
    }
    cell.ok(&["stop", "-t", "60", "polite", "usr1"]);
    for (id, code) in [("polite", 5), ("usr1", 6)] {
        let end = cell.ended(id);
        assert_eq!((end.cause(), end.code), (Cause::Exit, code), "{id}: {}", end.detail);
    }
    cell.ok(&["stop", "-t", "1", "deaf"]);
    let end = cell.ended("deaf");
    assert_eq!((end.cause(), end.code), (Cause::Signal, 9));
    cell.leaves_nothing("stops");
}

#[test]
fn privileged_what_crashes_is_started_again_at_once_and_then_later() {
    let Some(cell) = Cell::up("what_crashes") else { return };
    cell.run(&["--name", "crash", "--restart", "always"], "exit 3");
    cell.run(&["--name", "done", "--restart", "on-failure"], "exit 0");
    let waiting = cell.wait("crash", |one| one.status() == v1::Status::Waiting);
    assert_eq!((waiting.attempt, waiting.crashes), (3, 3));
    let end = waiting.end.expect("an end");
    assert_eq!((end.cause(), end.code), (Cause::Exit, 3));
    let delay_ms = waiting.next_start_ms - waiting.changed_ms;
    assert_eq!(delay_ms, 30_000, "Diego's first delay");
    assert_eq!(cell.ended("done").code, 0);
    cell.ok(&["stop", "crash"]);
    assert_eq!(cell.ended("crash").stopped_by, "client", "it is not started a fourth time");
    cell.leaves_nothing("crashes");
}

#[test]
fn privileged_what_cannot_start_says_why() {
    let Some(cell) = Cell::up("what_cannot_start") else { return };
    let image = cell.image();
    let said = cell.fails(127, &["run", "-d", "--name", "missing", &image, "/missing"]);
    assert!(said.contains("/missing"), "{said}");
    let nowhere = format!("oci:{}:1", cell.directory().join("nowhere").display());
    let said = cell.fails(125, &["run", "-d", "--name", "nowhere", &nowhere]);
    assert!(said.contains("nowhere"), "{said}");
    let said = cell.fails(125, &["run", "-d", "--pull", "never", "--name", "never", "unknown:1"]);
    assert!(said.contains("not to be pulled"), "{said}");
    for (id, code) in [("missing", 127), ("nowhere", 125), ("never", 125)] {
        let end = cell.ended(id);
        assert_eq!((end.cause(), end.code), (Cause::Failed, code), "{}", end.detail);
    }
    for (flags, named) in [(&["--rm"][..], "--rm"), (&["--name", "../x"], "id")] {
        let args = [&["run", "-d"], flags, &[&image, "true"]].concat();
        let said = cell.fails(125, &args);
        assert!(said.contains(named), "{said}");
    }
    let said = cell.fails(125, &["run", "-d", "--name", "missing", &image, "true"]);
    assert!(said.contains("another instance has this id"), "{said}");
    // A cell goes on as if nothing had been.
    cell.run(&["--name", "fine"], FOR_EVER);
    cell.leaves_nothing("failures");
}

#[test]
fn privileged_events_can_be_gone_on_from() {
    let Some(cell) = Cell::up("events_can_be_gone_on_from") else { return };
    let (_, token) = cell.list();
    cell.run(&["--name", "one", "--task"], "exit 0");
    cell.ended("one");
    let mut command = cell.command(&["--json", "events", "--since", &token, "--app", ""]);
    let mut events = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(events.stdout.take().unwrap()));
    let mut seen = Vec::new();
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
        seen.push(value["instance"]["status"].as_str().unwrap().to_owned());
        if seen.last().unwrap() == "exited" {
            break;
        }
    }
    events.kill().unwrap();
    events.wait().unwrap();
    assert_eq!(seen, ["reserved", "preparing", "starting", "running", "exited"]);
    for bad in ["rubbish", "1-0"] {
        assert!(cell.fails(125, &["events", "--since", bad]).contains("token"), "{bad}");
    }
    cell.leaves_nothing("events");
}

#[test]
fn privileged_what_is_forgotten_at_once_is_cleared_away_all_the_same() {
    let Some(cell) = Cell::up_within("forgotten_at_once", "ended_ttl_s = 0") else { return };
    let (_, token) = cell.list();
    for round in 0..5 {
        cell.run(&["--name", &format!("i{round}")], "exit 0");
    }
    let (mut client, mut left) = (cell.client(), 5);
    let gone = async {
        let request = v1::WatchRequest { token, ..v1::WatchRequest::default() };
        let mut stream = client.watch(request).await.unwrap().into_inner();
        while left > 0 {
            let events = stream.message().await.unwrap().expect("an event").events;
            let removed = events.into_iter().filter_map(|event| event.instance);
            left -= removed.filter(|one| one.status() == v1::Status::Removed).count();
        }
    };
    cell.runtime.block_on(gone);
    assert_eq!(cell.list().0.len(), 0);
    // What was dropped with its instance would be held here: the ledger's slots, the holder's entries, layers, cgroups.
    let free = cell.runtime.block_on(cell.client().describe(v1::DescribeRequest {})).unwrap().into_inner();
    assert_eq!(free.free, free.capacity);
    cell.leaves_nothing("what was forgotten at once");
}

#[test]
fn privileged_stopping_and_removing_at_once_leaves_nothing() {
    let Some(cell) = Cell::up("stop_and_remove_at_once") else { return };
    for round in 0..10 {
        let id = format!("i{round}");
        cell.run(&["--name", &id], FOR_EVER);
        let (mut one, mut other) = (cell.client(), cell.client());
        let ids = vec![id.clone()];
        let stop = v1::StopRequest { ids: ids.clone(), grace_ms: Some(0), reason: String::new() };
        let remove = v1::RemoveRequest { ids, force: true };
        let both = async { tokio::join!(one.stop(stop), other.remove(remove)) };
        let (stopped, removed) = cell.runtime.block_on(both);
        stopped.unwrap();
        removed.unwrap();
    }
    crate::common::wait_until(|| cell.list().0.is_empty(), "all are forgotten");
    cell.leaves_nothing("stops and removals at once");
}

#[test]
fn privileged_two_cells_have_instances_of_one_id() {
    let Some(one) = Cell::up("two_cells_one") else { return };
    let Some(other) = Cell::up("two_cells_other") else { return };
    for cell in [&one, &other] {
        cell.run(&["--name", "same"], FOR_EVER);
    }
    let cgroups =
        [&one, &other].map(|cell| cell.wait("same", |one| one.status() == v1::Status::Running).cgroup);
    assert_ne!(cgroups[0], cgroups[1]);
    one.ok(&["rm", "-f", "same"]);
    assert_eq!(other.list().0[0].status(), v1::Status::Running, "the other's goes on");
    one.leaves_nothing("one of two cells");
    other.leaves_nothing("the other of two cells");
}

#[test]
fn privileged_the_beginning_of_an_id_is_the_commands_and_not_the_apis() {
    let Some(cell) = Cell::up("beginnings_of_ids") else { return };
    cell.run(&["--name", "database"], FOR_EVER);
    let stop = v1::StopRequest { ids: vec!["data".into()], ..v1::StopRequest::default() };
    let stopped = cell.runtime.block_on(cell.client().stop(stop)).unwrap().into_inner();
    assert_eq!(stopped.outcomes[0].result(), v1::outcome::Result::Unknown);
    let twice = v1::ListRequest { ids: vec!["database".into(); 3], ..v1::ListRequest::default() };
    assert_eq!(cell.runtime.block_on(cell.client().list(twice)).unwrap().into_inner().instances.len(), 1);
    assert_eq!(cell.ok(&["exec", "data", "busybox", "echo", "hi"]), "hi\n");
    assert_eq!(cell.ok(&["stop", "-t", "0", "data"]), "database\n");
    cell.leaves_nothing("beginnings");
}
