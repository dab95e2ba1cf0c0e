//! A program that joins is like one that the container started itself.

use std::fs;
use std::io::{Read as _, Write as _};

use celda::sandbox::caps::CapSet;
use celda::sandbox::cgroup::Hierarchy;
use celda::sandbox::exec::{self, Exec, Target, process_of};
use celda::sandbox::seccomp::{self, Arch, BpfInstruction};
use celda::sandbox::{Container, Exit, Stdio, TerminalSize, plan};
use oci_spec::runtime::{LinuxResources, Spec};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::support::{Rootfs, alone, request, spec, spec_of, trace};

/// A container that sleeps, and what it was started with.
pub(crate) struct Running {
    pub(crate) container: Container,
    pub(crate) spec: Spec,
    seccomp: Option<Vec<BpfInstruction>>,
    _rootfs: Rootfs,
}

impl Running {
    pub(crate) fn new(
        name: &str,
        rootfs: Rootfs,
        mut value: Value,
        seccomp: Option<Vec<BpfInstruction>>,
    ) -> Self {
        if value["process"]["args"] == json!([]) {
            value["process"]["args"] = json!(["/bin/busybox", "sleep", "1000"]);
        }
        let id = format!("test-exec-{name}-{}", std::process::id());
        let mut request = request(&rootfs, &value);
        let hierarchy = Hierarchy::find().expect("cgroup v2");
        request.cgroup = Some(hierarchy.create(&id, &LinuxResources::default()).expect("a cgroup"));
        request.seccomp.clone_from(&seccomp);
        let container = plan(request).expect("a plan").start().expect("started");
        Self { container, spec: spec_of(&value), seccomp, _rootfs: rootfs }
    }

    pub(crate) fn sleeping(name: &str) -> Self {
        Self::new(name, Rootfs::new(), spec(&[]), None)
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target {
            pidfd: self.container.pidfd(),
            cgroup: self.container.cgroup(),
            spec: &self.spec,
            seccomp: self.seccomp.as_deref(),
        }
    }

    pub(crate) fn try_exec(&self, arguments: &[&str]) -> celda::sandbox::Result<Exec> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        exec::start(&self.target(), &process_of(&self.spec, arguments)?, Stdio::Pipes)
    }

    /// Everything that a program wrote, and how it ended.
    pub(crate) fn run(&self, arguments: &[&str]) -> (String, Exit) {
        finish(self.try_exec(arguments).unwrap_or_else(|error| panic!("not started: {error}")))
    }

    pub(crate) fn end(self) -> Exit {
        self.container.kill(Signal::KILL).expect("signalled");
        self.container.wait().expect("ended")
    }
}

fn finish(mut exec: Exec) -> (String, Exit) {
    let pipes = std::mem::take(exec.pipes());
    drop(pipes.input);
    let mut text = String::new();
    for end in [pipes.output, pipes.error].into_iter().flatten() {
        fs::File::from(end).take(1 << 20).read_to_string(&mut text).expect("text");
    }
    (text, exec.wait().expect("wait"))
}

/// What a process may and has, as it sees itself; `PID` stands for itself.
const WHO: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigIgn|SigBlk|Cpus_allowed:)' /proc/PID/status; \
                   grep -vE 'pending' /proc/PID/limits; for name in /proc/PID/ns/*; do readlink $name; done; cat /proc/PID/cgroup \
                   /proc/PID/oom_score_adj; readlink /proc/PID/root; readlink /proc/PID/cwd; hostname";

#[test]
fn privileged_a_program_that_joins_has_what_the_first_one_has() {
    let Some(_alone) = alone() else { return };
    for (name, uid, no_new_privileges) in [("root", 0, true), ("user", 1000, true), ("old", 1000, false)] {
        let mut spec = spec(&[]);
        spec["process"]["user"] = json!({"uid": uid, "gid": uid, "additionalGids": [7, 8], "umask": 0o27});
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        spec["process"]["oomScoreAdj"] = json!(77);
        spec["process"]["cwd"] = json!("/tmp");
        let filter = seccomp::default_program(Arch::host(), CapSet::docker_default()).expect("compiles");
        let running = Running::new(name, Rootfs::new(), spec, Some(filter));
        let script = |pid: &str| WHO.replace("PID", pid);
        let (first, exit) = running.run(&["/bin/sh", "-c", &script("1")]);
        assert_eq!(exit, Exit::Code(0), "{first}");
        let (own, _) = running.run(&["/bin/sh", "-c", &script("self")]);
        // A child of the shell for each of the commands: the same in all that is looked at.
        assert_eq!(first, own);
        assert!(first.contains("\npid:[") && first.contains("\nnet:["), "{first}");
        assert!(first.contains("Seccomp:\t2\n") && first.contains("\n77\n/\n/tmp\ncell\n"), "{first}");
        let (text, _) =
            running.run(&["/bin/sh", "-c", "umask; ls /proc/self/fd | wc -l; ls -d /proc/[0-9]* | wc -l"]);
        // 0, 1, 2 and the directory itself; process 1, this shell, ls (and wc, which may have begun).
        assert!(text.starts_with("0027\n4\n"), "{text}");
        assert!(text.ends_with("\n3\n") || text.ends_with("\n4\n"), "{text}");
        assert_eq!(running.end(), Exit::Signal(9));
    }
}

#[test]
fn privileged_a_program_reads_writes_and_tells_its_status() {
    let Some(_alone) = alone() else { return };
    let running = Running::sleeping("pipes");
    let before = trace();
    let mut exec =
        running.try_exec(&["sh", "-c", "read line; echo got $line; echo oh >&2; exit 42"]).expect("started");
    let input = exec.pipes().input.take().expect("a pipe");
    fs::File::from(input).write_all(b"a line\n").expect("written");
    assert_eq!(finish(exec), ("got a line\noh\n".to_owned(), Exit::Code(42)));
    let (_, exit) = running.run(&["sh", "-c", "kill -SEGV $$"]);
    assert_eq!(exit, Exit::Signal(11));
    let mut exec = running.try_exec(&["sleep", "1000"]).expect("started");
    assert_eq!(exec.try_wait().expect("looked"), None);
    exec.kill(Signal::TERM).expect("signalled");
    assert_eq!(exec.wait().expect("ended"), Exit::Signal(15));
    assert_eq!(exec.try_wait().expect("kept"), Some(Exit::Signal(15)));
    drop(exec);
    assert_eq!(before, trace());
    running.end();
}

#[test]
fn privileged_a_terminal_is_one_of_the_containers() {
    let Some(_alone) = alone() else { return };
    for uid in [0, 1000] {
        let mut spec = spec(&[]);
        spec["process"]["user"]["uid"] = json!(uid);
        let running = Running::new("tty", Rootfs::new(), spec, None);
        let script = "stty size; test -t 0 && test -t 2 && echo isatty; readlink /proc/self/fd/0; \
                      stat -c '%u' /dev/pts/0; ls /dev/console 2>&1 | grep -c 'No such'; echo x > /dev/tty";
        let process =
            process_of(&running.spec, ["sh", "-c", script].map(str::to_owned).to_vec()).expect("a process");
        let size = TerminalSize { rows: 33, columns: 77 };
        let mut exec = exec::start(&running.target(), &process, Stdio::Terminal(size)).expect("started");
        let mut text = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = rustix::io::read(exec.terminal().expect("a terminal"), &mut buffer) {
            text.extend_from_slice(&buffer[..count]);
        }
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        assert_eq!(text, format!("33 77\nisatty\n/dev/pts/0\n{uid}\n1\nx\n"));
        assert_eq!(exec.wait().expect("ended"), Exit::Code(0));
        running.end();
    }
}

#[test]
fn privileged_a_user_namespace_is_joined_as_well() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    for name in ["", "dev", "proc", "sys", "tmp", "etc", "root"] {
        std::os::unix::fs::chown(rootfs.path().join(name), Some(100_000), Some(100_000)).expect("chown");
    }
    let mut spec = spec(&[]);
    spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    let ids = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    spec["linux"]["uidMappings"] = ids.clone();
    spec["linux"]["gidMappings"] = ids;
    let running = Running::new("userns", rootfs, spec, None);
    let (text, exit) = running.run(&[
        "sh",
        "-c",
        "id -u; cat /proc/self/uid_map; readlink /proc/self/ns/user; readlink /proc/1/ns/user",
    ]);
    assert_eq!(exit, Exit::Code(0), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    assert_eq!(lines[2], lines[3]);
    let mut process = process_of(&running.spec, vec!["id".to_owned()]).expect("a process");
    process.user_mut().set_uid(70_000);
    let error = exec::start(&running.target(), &process, Stdio::Pipes).expect_err("no such id");
    assert!(error.to_string().contains("in no range"), "{error}");
    running.end();
}

#[test]
fn privileged_five_hundred_programs_on_four_threads_leave_nothing() {
    let Some(_alone) = alone() else { return };
    let running = Running::sleeping("many");
    running.run(&["true"]);
    let before = trace();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let running = &running;
            scope.spawn(move || {
                for turn in 0..125_u8 {
                    let (text, exit) =
                        running.run(&["sh", "-c", &format!("echo {thread} {turn}; exit {turn}")]);
                    assert_eq!((text, exit), (format!("{thread} {turn}\n"), Exit::Code(turn)));
                }
            });
        }
    });
    assert_eq!(before, trace());
    assert_eq!(running.container.cgroup().expect("given").processes().expect("read").len(), 1);
    running.end();
}
