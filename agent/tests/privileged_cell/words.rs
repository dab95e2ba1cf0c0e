//! What instances write and what is run in them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use celda_api::cell::v1;

use crate::support::{Cell, FOR_EVER};

#[test]
fn privileged_logs_are_kept_over_restarts_and_kills_of_the_agent() {
    let Some(mut cell) = Cell::up("logs_are_kept") else { return };
    let volume = format!("{}:/files", cell.files().display());
    let script =
        "echo out; echo err >&2; while [ ! -e /files/go ]; do busybox sleep 0.05; done; echo last; exit 0";
    cell.run(&["--name", "task", "--task", "--app", "shop", "-v", &volume], script);
    cell.run(&["--name", "crash", "--restart", "always"], "echo again; exit 3");
    cell.wait("crash", |one| one.status() == v1::Status::Waiting);
    // A follower sees what is written later, and ends when the instance does.
    let mut command = cell.command(&["logs", "--follow", "--timestamps", "task"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(follower.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert!(line.ends_with(" out\n"), "{line}");
    std::fs::write(cell.files().join("go"), "").unwrap();
    line.clear();
    said.read_line(&mut line).unwrap();
    assert!(line.ends_with(" last\n"), "{line}");
    assert!(follower.wait().unwrap().success());
    let output = cell.output(&["logs", "task"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\nlast\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    assert_eq!(cell.ok(&["logs", "--tail", "1", "task"]), "last\n");
    assert_eq!(cell.ok(&["logs", "--since", "3600", "--app", "shop"]), "task | out\ntask | last\n");
    assert_eq!(cell.ok(&["logs", "crash"]), "again\nagain\nagain\n", "one log for all its containers");

    // What is written while nobody is there to read it waits in the pipe.
    cell.run(&["--name", "talker"], "n=0; while :; do n=$((n+1)); echo $n; busybox sleep 0.02; done");
    for _ in 0..3 {
        cell.kill();
        cell.begin();
    }
    cell.ok(&["stop", "-t", "0", "talker"]);
    cell.ended("talker");
    let said = cell.ok(&["logs", "talker"]);
    let numbers: Vec<u64> = said.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no line is lost or there twice");
    assert_eq!(cell.ok(&["logs", "task"]), "out\nlast\n", "of a task that ended before");
    assert!(cell.fails(125, &["logs", "nobody"]).contains("no such instance"));
    cell.ok(&["rm", "task"]);
    assert!(cell.fails(125, &["logs", "task"]).contains("no such instance"));
    cell.leaves_nothing("logs");
}

/// What is written without a newline where `CELDA_TEST_FLOOD_MIB` does not say: 1024 is a gigabyte, and takes a minute.
const FLOOD_MIB: u64 = 128;

#[test]
fn privileged_a_flood_without_a_newline_stops_nobody() {
    let Some(cell) = Cell::up("a_flood") else { return };
    cell.run(&["--name", "other"], FOR_EVER);
    let before_kib = peak_kib(cell.agent_pid());
    let mib: u64 = std::env::var("CELDA_TEST_FLOOD_MIB").map_or(FLOOD_MIB, |text| text.parse().unwrap());
    let script = format!("busybox head -c {} /dev/zero; echo; echo done", mib << 20);
    cell.run(&["--name", "flood", "--task"], &script);
    assert_eq!(cell.ended("flood").code, 0);
    assert_eq!(cell.ok(&["logs", "--tail", "1", "flood"]), "done\n");
    let kept: u64 = std::fs::read_dir(cell.root().join("cell/logs"))
        .unwrap()
        .flatten()
        .flat_map(|log| std::fs::read_dir(log.path()).unwrap().flatten())
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert!(kept < 40 << 20, "{kept} bytes are kept");
    // The kernel sums up what its processors have counted, and may find a little less later.
    let grown_kib = peak_kib(cell.agent_pid()).saturating_sub(before_kib);
    assert!(grown_kib < 32 << 10, "the agent took {grown_kib} KiB more at its peak");
    assert_eq!(cell.wait("other", |one| one.status() == v1::Status::Running).attempt, 1);
    cell.leaves_nothing("a flood");
}

/// The most memory that a process has had.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn privileged_last_words_are_in_the_log_when_the_end_is_shown() {
    let Some(cell) = Cell::up("last_words") else { return };
    // As much as a pipe holds, and no line's end: all of it is there until the last moment.
    let script = "busybox head -c 60000 /dev/zero | busybox tr '\\0' x; printf last; printf err >&2; exit 3";
    let spec = v1::Spec { task: true, ..cell.spec(script) };
    let ids: Vec<String> = (0..24).map(|index| format!("task-{index}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    cell.started(&ids, spec);
    for id in ids {
        assert_eq!(cell.ended(id).code, 3);
        let request = v1::LogsRequest { ids: vec![id.to_owned()], ..v1::LogsRequest::default() };
        let mut client = cell.client();
        let lines = cell.runtime.block_on(async {
            let mut stream = client.logs(request).await.unwrap().into_inner();
            let mut lines = Vec::new();
            while let Some(message) = stream.message().await.unwrap() {
                lines.extend(message.lines);
            }
            lines
        });
        let of = |stream: v1::log_line::Stream| {
            let texts = lines.iter().filter(|line| line.stream() == stream).map(|line| line.text.as_slice());
            texts.collect::<Vec<_>>().concat()
        };
        let output = of(v1::log_line::Stream::Output);
        assert_eq!((output.len(), output.ends_with(b"xlast")), (60_004, true), "{id}");
        assert_eq!(of(v1::log_line::Stream::Error), b"err", "{id}");
    }
    cell.leaves_nothing("last words");
}

#[test]
fn privileged_a_program_runs_in_an_instance() {
    let Some(cell) = Cell::up("a_program_runs") else { return };
    cell.run(&["--name", "web", "-e", "A=1", "-e", "B=2"], FOR_EVER);
    let shell = |flags: &[&str], script: &str| {
        let args = [&["exec"], flags, &["web", "/bin/sh", "-c", script]].concat();
        cell.output(&args)
    };
    let output = shell(&["--env", "B=3", "--workdir", "/bin"], "echo $A$B $PWD; echo err >&2; exit 7");
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "13 /bin\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err\n");
    assert_eq!(shell(&[], "kill -9 $$").status.code(), Some(137));
    let output = shell(&["--tty"], "busybox tty; echo err >&2");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("/dev/pts/") && text.contains("err"), "{text}");
    assert!(cell.fails(127, &["exec", "web", "/missing"]).contains("/missing"));
    assert!(cell.fails(125, &["exec", "nobody", "true"]).contains("no such instance"));

    let mut child = cell
        .command(&["exec", "-i", "web", "busybox", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = "x".repeat(1 << 20);
    let mut stdin = child.stdin.take().unwrap();
    let sent = input.clone();
    let writer = std::thread::spawn(move || stdin.write_all(sent.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), input.len(), "a megabyte there and back");

    // Whoever goes away takes the program along.
    let mut child = cell
        .command(&["exec", "web", "/bin/sh", "-c", "echo on; busybox sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let procs = format!("{}/cgroup.procs", cell.list().0[0].cgroup);
    let is_alone = || std::fs::read_to_string(&procs).is_ok_and(|pids| pids.lines().count() <= 2);
    crate::common::wait_until(is_alone, "the program ends with its caller");
    cell.ok(&["stop", "-t", "0", "web"]);
    assert!(cell.fails(125, &["exec", "web", "true"]).contains("it is exited"));
    cell.leaves_nothing("programs");
}
