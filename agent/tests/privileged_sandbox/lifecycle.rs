//! Signals, the reaper, terminals, cgroups, and what is left behind after many starts.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd as _;

use celda::sandbox::{Exit, Foreground, Stdio, TerminalSize, plan};
use rustix::process::Signal;
use serde_json::json;

use super::support::{Rootfs, alone, finish, request, run, spec, trace, try_run};

/// Bytes of a terminal's output that a test reads.
const OUTPUT_BYTES_MAX: usize = 1 << 16;

#[test]
fn privileged_two_hundred_starts_leave_nothing() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let spec = spec(&["/bin/true"]);
    assert_eq!(run(&rootfs, &spec).1, Exit::Code(0));
    let before = trace();
    for _ in 0..200 {
        assert_eq!(run(&rootfs, &spec).1, Exit::Code(0));
    }
    assert_eq!(before, trace());
}

/// A child shares its parent's memory: other threads that allocate and start at the same time must not notice.
#[test]
fn privileged_starts_on_many_threads_do_not_disturb_one_another() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let before = trace();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let rootfs = &rootfs;
            scope.spawn(move || {
                for turn in 0..10_u8 {
                    let script = format!("echo {thread} {turn}; exit {thread}");
                    let mut spec = spec(&["/bin/sh", "-c", &script]);
                    if turn % 3 == 0 {
                        spec["process"]["args"] = json!(["/bin/missing"]);
                        let error = try_run(rootfs, &spec).expect_err("no such program");
                        assert_eq!(error.status(), 127, "{error}");
                    } else {
                        let (text, exit) = run(rootfs, &spec);
                        assert_eq!((text, exit), (format!("{thread} {turn}\n"), Exit::Code(thread)));
                    }
                }
            });
        }
    });
    assert_eq!(before, trace());
}

#[test]
fn privileged_the_reaper_reaps_forwards_and_ends_with_the_program() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let script = "trap 'ls -d /proc/[0-9]* | wc -l; exit 9' TERM; (sleep 0 & sleep 0 & exec true) ; \
                  sh -c 'sleep 0 & exit'; until grep -qE '^(celda-init|memfd|[0-9])' /proc/1/comm; do :; done; echo ready; while :; do sleep 0.05; done";
    let mut request = request(&rootfs, &spec(&["/bin/sh", "-c", script]));
    request.init = true;
    let mut container = plan(request).expect("a plan").start().expect("started");
    let mut output = fs::File::from(container.pipes().output.take().expect("a pipe"));
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with("ready\n") && output.read(&mut byte).expect("read") == 1 {
        text.push(char::from(byte[0]));
    }
    container.kill(Signal::TERM).expect("signalled");
    let (_, exit) = finish(container);
    output.read_to_string(&mut text).expect("read");
    assert_eq!(exit, Exit::Code(9), "{text}");
}

/// The filter is the reaper's as well as the program's, and neither of them needs to fork.
#[test]
fn privileged_the_reaper_needs_no_right_to_fork() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let profile = serde_json::from_value(json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clone", "clone3", "fork", "vfork"], "action": "SCMP_ACT_ERRNO"}]
    }));
    let profile: oci_spec::runtime::LinuxSeccomp = profile.expect("a profile");
    for no_new_privileges in [true, false] {
        // Without a process of its own; the reaper loads the filter when the program runs already.
        let script = "while :; do while read name value; do [ \"$name$value\" = Seccomp:2 ] && echo both && exit; \
                      done < /proc/1/status; done";
        let mut spec = spec(&["/bin/busybox", "sh", "-c", script]);
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let mut request = request(&rootfs, &spec);
        request.init = true;
        let arch = celda::sandbox::seccomp::Arch::host();
        request.seccomp = Some(celda::sandbox::seccomp::compile(&profile, arch).expect("compiles"));
        let (text, exit) = finish(plan(request).expect("a plan").start().expect("started"));
        assert_eq!((text.as_str(), exit), ("both\n", Exit::Code(0)));
    }
}

#[test]
fn privileged_a_signal_of_the_program_is_the_reapers_status() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let mut request = request(&rootfs, &spec(&["/bin/sh", "-c", "kill -SEGV $$"]));
    request.init = true;
    let (text, exit) = finish(plan(request).expect("a plan").start().expect("started"));
    assert_eq!(exit.status(), 139, "{text}");
}

#[test]
fn privileged_kill_ends_a_container() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let mut spec = spec(&["/bin/sleep", "1000"]);
    let container = plan(request(&rootfs, &spec)).expect("a plan").start().expect("started");
    container.kill(Signal::KILL).expect("signalled");
    assert_eq!(finish(container).1, Exit::Signal(9));
    // Without a pid namespace of its own the program is an ordinary process.
    spec["linux"]["namespaces"].as_array_mut().expect("a list").remove(0);
    let container = plan(request(&rootfs, &spec)).expect("a plan").start().expect("started");
    container.kill(Signal::TERM).expect("signalled");
    assert_eq!(finish(container).1.status(), 143);
}

/// Reads a terminal until its end.
pub(crate) fn read_terminal(master: std::os::fd::BorrowedFd<'_>) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while text.len() < OUTPUT_BYTES_MAX {
        match rustix::io::read(master, &mut buffer) {
            Ok(0) | Err(_) => break, // EIO: nobody has the other side open
            Ok(count) => text.extend_from_slice(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&text).replace('\r', "")
}

#[test]
fn privileged_a_terminal_is_the_containers_own() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    for (init, uid) in [(false, 0), (true, 0), (false, 1000)] {
        let rootfs = Rootfs::new();
        let script = "stty size; test -t 0 && test -t 2 && echo isatty; stat -c '%u %t' /dev/console; \
                      readlink /proc/self/fd/0; echo x > /dev/tty";
        let mut spec = spec(&["/bin/sh", "-c", script]);
        spec["process"]["user"]["uid"] = json!(uid);
        let mut request = request(&rootfs, &spec);
        request.stdio = Stdio::Terminal(TerminalSize { rows: 33, columns: 77 });
        request.init = init;
        let container = plan(request).expect("a plan").start().expect("started");
        let text = read_terminal(container.terminal().expect("a terminal"));
        assert_eq!(text, format!("33 77\nisatty\n{uid} 88\n/dev/pts/0\nx\n"), "init {init}");
        assert_eq!(container.wait().expect("wait"), Exit::Code(0));
    }
    assert_eq!(before, trace());
}

#[test]
fn privileged_a_foreground_terminal_is_relayed_and_restored() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    {
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let user = rustix::pty::openpt(flags).expect("a pty");
        rustix::pty::unlockpt(&user).expect("unlocked");
        let terminal = rustix::pty::ioctl_tiocgptpeer(&user, flags).expect("its other side");
        let modes = rustix::termios::tcgetattr(&terminal).expect("modes");
        let rootfs = Rootfs::new();
        let script = "read word; echo got $word; exec cat /etc/long";
        rootfs.file("etc/long", 0o644, &b"0123456789abcde\n".repeat(1024));
        let mut request = request(&rootfs, &spec(&["/bin/sh", "-c", script]));
        request.stdio = Stdio::Terminal(TerminalSize { rows: 10, columns: 20 });
        let foreground = Foreground::new().expect("signals held back");
        let container = plan(request).expect("a plan").start().expect("started");
        rustix::io::write(&user, b"hello\n").expect("typed");
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let mut buffer = [0; 4096];
            while text.matches("0123456789abcde").count() < 1024 {
                let count = rustix::io::read(&user, &mut buffer).expect("read");
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            (text, user)
        });
        let exit = foreground.attend(container, Some(terminal.as_fd()), terminal.as_fd()).expect("attended");
        assert_eq!(exit, Exit::Code(0));
        let (text, _user) = reader.join().expect("read");
        assert!(text.contains("got hello"), "{text}");
        let after = rustix::termios::tcgetattr(&terminal).expect("modes");
        assert_eq!(format!("{modes:?}"), format!("{after:?}"));
    }
    assert_eq!(before, trace());
}

#[test]
fn privileged_a_terminals_output_waits_for_an_output_that_does_not_block() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    {
        /// The smallest pipe there is: one page.
        const PIPE_BYTES: usize = 4096;
        let rootfs = Rootfs::new();
        rootfs.file("etc/long", 0o644, &b"0123456789abcde\n".repeat(4096));
        let mut request = request(&rootfs, &spec(&["/bin/cat", "/etc/long"]));
        request.stdio = Stdio::Terminal(TerminalSize { rows: 10, columns: 20 });
        let (end, output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
        rustix::pipe::fcntl_setpipe_size(&output, PIPE_BYTES).expect("a small pipe");
        rustix::io::ioctl_fionbio(&output, true).expect("non-blocking");
        let reader = std::thread::spawn(move || {
            // In small pieces, so that the pipe is full most of the time.
            let (mut file, mut text, mut piece) = (fs::File::from(end), Vec::new(), [0; 16]);
            while let Ok(count @ 1..) = file.read(&mut piece) {
                text.extend_from_slice(&piece[..count]);
            }
            String::from_utf8(text).expect("text")
        });
        let foreground = Foreground::new().expect("signals held back");
        let container = plan(request).expect("a plan").start().expect("started");
        let exit = foreground.attend(container, None, output.as_fd()).expect("attended");
        drop(output);
        assert_eq!(exit, Exit::Code(0));
        assert_eq!(reader.join().expect("read"), "0123456789abcde\r\n".repeat(4096));
    }
    assert_eq!(before, trace());
}

#[test]
fn privileged_a_container_is_born_into_its_cgroup() {
    let Some(_alone) = alone() else { return };
    let Ok(hierarchy) = celda::sandbox::cgroup::Hierarchy::find() else {
        println!("skipped: no cgroup v2 that can be written");
        return;
    };
    let id = format!("celda-test-{}", std::process::id());
    let resources = oci_spec::runtime::LinuxResources::default();
    let cgroup = hierarchy.create(&id, &resources).expect("a cgroup");
    let path = cgroup.path().to_owned();
    let rootfs = Rootfs::new();
    let script = "cat /proc/self/cgroup | grep ^0; sleep 1000 & ls /sys/fs/cgroup/cgroup.procs; read line";
    let mut request = request(&rootfs, &spec(&["/bin/sh", "-c", script]));
    request.cgroup = Some(cgroup);
    let caps = celda::sandbox::caps::CapSet::docker_default();
    let arch = celda::sandbox::seccomp::Arch::host();
    request.seccomp = Some(celda::sandbox::seccomp::default_program(arch, caps).expect("a filter"));
    let mut container = plan(request).expect("a plan").start().expect("started");
    let members = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    let pid = container.pid().to_string();
    drop(container.pipes().input.take()); // the end of its input is what it waits for
    let ended = rustix::event::poll(
        &mut [rustix::event::PollFd::from_borrowed_fd(container.pidfd(), rustix::event::PollFlags::IN)],
        Some(&rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 }),
    );
    assert_eq!(ended, Ok(1), "it ends by itself");
    assert!(members.lines().any(|line| line == pid), "{members}");
    let (text, exit) = finish(container);
    assert_eq!((text.as_str(), exit), ("0::/\n/sys/fs/cgroup/cgroup.procs\n", Exit::Code(1)));
    assert!(!path.exists(), "the cgroup is gone");

    // A start that fails takes its cgroup along, planned or not.
    for arguments in [&["/bin/missing"][..], &[]] {
        let cgroup = hierarchy.create(&id, &resources).expect("a cgroup");
        let mut request = super::support::request(&rootfs, &spec(arguments));
        request.cgroup = Some(cgroup);
        assert!(plan(request).and_then(celda::sandbox::Plan::start).is_err());
        assert!(!path.exists(), "the cgroup is gone");
    }
}

#[test]
fn privileged_namespaces_are_joined_by_path() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let first =
        plan(request(&rootfs, &spec(&["/bin/sleep", "1000"]))).expect("a plan").start().expect("started");
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
    let mut spec = spec(&["/bin/sh", "-c", "readlink /proc/self/ns/net; ls -d /proc/1; hostname"]);
    spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid", "path": path("pid")},
        {"type": "network", "path": path("net")}, {"type": "uts", "path": path("uts")},
        {"type": "ipc", "path": path("ipc")}, {"type": "cgroup"}]);
    let network = fs::read_link(path("net")).expect("proc");
    let (text, exit) = run(&rootfs, &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert_eq!(text, format!("{}\n/proc/1\ncell\n", network.display()));
    first.kill(Signal::KILL).expect("signalled");
    let _ = first.pidfd().as_fd();
    finish(first);
}
