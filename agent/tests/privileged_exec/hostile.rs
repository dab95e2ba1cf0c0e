//! Programs that are not there, and containers that end, lie, or have changed their own files.

use std::fs;
use std::os::unix::fs::symlink;

use celda::sandbox::exec::{self, process_of};
use celda::sandbox::{Exit, SandboxError, Stdio, TerminalSize};
use rustix::process::Signal;
use serde_json::json;

use super::same::Running;
use super::support::{Rootfs, alone, spec, trace, wait_for};

#[test]
fn privileged_what_cannot_be_run_has_dockers_status() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    rootfs.file("bin/plain", 0o644, b"#!/bin/sh\n");
    rootfs.file("bin/lost", 0o755, b"#!/bin/nowhere\n");
    rootfs.file("bin/rubbish", 0o755, b"\x01\x02");
    let running = Running::new("status", rootfs, spec(&[]), None);
    let before = trace();
    for (program, status, word) in [
        ("/bin/missing", 127, "no such file"),
        ("missing", 127, "not found in PATH"),
        ("/bin/plain", 126, "execute bit"),
        ("/bin", 126, "directory"),
        ("/bin/lost", 126, "/bin/nowhere"),
        ("/bin/rubbish", 126, "exec format"),
        ("/proc/self/exe", 126, "own executable"),
    ] {
        let error = running.try_exec(&[program]).expect_err("cannot be run");
        assert_eq!(error.status(), status, "{program}: {error}");
        assert!(error.to_string().contains(word), "{program}: {error}");
    }
    for arguments in [&[][..], &[""], &["a\0b"]] {
        let error = running.try_exec(arguments).expect_err("no program");
        assert!(matches!(error, SandboxError::Invalid { .. }), "{error}");
    }
    assert_eq!(before, trace());
    running.end();
}

#[test]
fn privileged_a_working_directory_is_inside_or_nowhere() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    symlink("/proc/1/cwd/../../../../..", rootfs.path().join("magic")).expect("symlink");
    symlink("../../../../../etc", rootfs.path().join("climb")).expect("symlink");
    let running = Running::new("cwd", rootfs, spec(&[]), None);
    let within = |cwd: &str| {
        let mut process = process_of(&running.spec, vec!["pwd".to_owned()]).expect("a process");
        process.set_cwd(cwd.into());
        exec::start(&running.target(), &process, Stdio::Pipes)
    };
    for (cwd, errno) in [("/nowhere", 2), ("/bin/sh", 20), ("/magic", 40), ("/proc/self/fd/0", 40)] {
        match within(cwd).expect_err("not a directory of the container") {
            SandboxError::Step { step, source, .. } => {
                assert_eq!(
                    (step.contains("working directory"), source.raw_os_error()),
                    (true, Some(errno)),
                    "{cwd}"
                );
            }
            error => panic!("{cwd}: {error}"),
        }
    }
    assert!(!std::path::Path::new("/nowhere").exists());
    let mut exec = within("/climb").expect("the container's own /etc");
    assert_eq!(exec.wait().expect("ended"), Exit::Code(0));
    assert!(matches!(within("relative"), Err(SandboxError::Invalid { .. })));
    running.end();
}

/// Consoles of containers that put something else in the place of their devpts: CVE-2025-52565.
#[test]
fn privileged_a_terminal_comes_from_a_devpts_only() {
    let Some(_alone) = alone() else { return };
    let mut value = spec(&[]);
    value["mounts"].as_array_mut().expect("a list").retain(|mount| mount["type"] != "devpts");
    let rootfs = Rootfs::new();
    let running = Running::new("pts", rootfs, value, None);
    for prepare in ["mkdir /dev/pts && touch /dev/pts/ptmx", "rm -r /dev/pts && busybox ln -s /tmp /dev/pts"]
    {
        let prepare = prepare
            .replace("mkdir", "busybox mkdir")
            .replace("touch", "busybox touch")
            .replace("rm ", "busybox rm ");
        assert_eq!(running.run(&["sh", "-c", &prepare]).1, Exit::Code(0));
        let process = process_of(&running.spec, vec!["true".to_owned()]).expect("a process");
        let size = TerminalSize { rows: 1, columns: 1 };
        let error = exec::start(&running.target(), &process, Stdio::Terminal(size)).expect_err("refused");
        assert!(error.to_string().contains("terminals"), "{error}");
    }
    running.end();
}

#[test]
fn privileged_a_container_that_has_ended_is_told() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    let running = Running::sleeping("ended");
    running.container.kill(Signal::KILL).expect("signalled");
    let mut end =
        [rustix::event::PollFd::from_borrowed_fd(running.container.pidfd(), rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut end, None).expect("its end");
    assert!(matches!(running.try_exec(&["true"]), Err(SandboxError::Ended)));
    running.container.wait().expect("reaped");
    assert_eq!(before, trace());
}

/// Wherever between two steps a container ends, the caller hears of it, or of a program that was killed.
#[test]
fn privileged_containers_that_end_meanwhile_leave_nothing() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    let mut told = 0;
    for turn in 0..40 {
        let running = Running::sleeping(&format!("dying{turn}"));
        std::thread::scope(|scope| {
            let killer = scope.spawn(|| running.container.kill(Signal::KILL));
            loop {
                match running.try_exec(&["true"]) {
                    Ok(mut exec) => {
                        let exit = exec.wait().expect("ended");
                        assert!([Exit::Code(0), Exit::Signal(9)].contains(&exit), "{exit}");
                    }
                    Err(SandboxError::Ended) => {
                        told += 1;
                        break;
                    }
                    // Killed between two steps, before the first process is known to have ended.
                    Err(SandboxError::Killed { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            killer.join().expect("no panic").expect("signalled");
        });
        assert_eq!(running.container.wait().expect("ended"), Exit::Signal(9));
    }
    assert_eq!(told, 40);
    assert_eq!(before, trace());
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited for long: {what}");
        std::thread::yield_now();
    }
}

/// Until the last process of a pid namespace is reaped, its first one has not ended.
#[test]
fn privileged_a_dropped_program_is_killed_and_does_not_hold_its_container() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    let running = Running::sleeping("dropped");
    let exec = running.try_exec(&["sleep", "1000"]).expect("started");
    let pid = exec.pid();
    drop(exec);
    wait_until("it is killed and reaped", || fs::metadata(format!("/proc/{pid}")).is_err());
    assert_eq!(running.end(), Exit::Signal(9));
    wait_for(&before);
}

#[test]
fn privileged_a_time_namespace_is_refused() {
    let Some(_alone) = alone() else { return };
    let mut value = spec(&[]);
    value["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "time"}));
    let running = Running::new("time", Rootfs::new(), value, None);
    let error = running.try_exec(&["true"]).expect_err("refused");
    assert!(error.to_string().contains("time namespace"), "{error}");
    running.end();
}
