//! What the privileged tests share: a root filesystem of one busybox, specs, and a look at what is left behind.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use celda::sandbox::{Container, Exit, Request, Result, Stdio, plan};
use oci_spec::runtime::Spec;
use rustix::mount::OpenTreeFlags;
use serde_json::{Value, json};

/// Bytes of output that a test reads.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// The right to run alone, since tests look at what their process has open; nothing when the test must be skipped,
/// and a failure instead when it has been said that it must not.
pub(crate) fn alone() -> Option<MutexGuard<'static, ()>> {
    static ALONE: Mutex<()> = Mutex::new(());
    if rustix::process::geteuid().is_root() && busybox().is_some() {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // What a process keeps for good is made by its first start.
        static FIRST: Once = Once::new();
        FIRST.call_once(|| drop(run(&Rootfs::new(), &spec(&["/bin/true"]))));
        return Some(alone);
    }
    assert!(
        std::env::var("CELDA_REQUIRE_PRIVILEGED").as_deref() != Ok("1"),
        "this test must run as root, with a static busybox"
    );
    println!("skipped: needs root and a static busybox");
    None
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|path| path.exists())
}

/// A directory with a busybox and its usual names.
pub(crate) struct Rootfs {
    directory: tempfile::TempDir,
}

impl Rootfs {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        fs::set_permissions(root, fs::Permissions::from_mode(0o755)).expect("chmod");
        for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "root"] {
            fs::create_dir(root.join(name)).expect("mkdir");
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod");
        fs::copy(busybox().expect("checked by skipped()"), root.join("bin/busybox")).expect("copy busybox");
        for name in [
            "sh", "grep", "ls", "cat", "true", "id", "stty", "sleep", "env", "pwd", "hostname", "ip", "kill",
            "stat",
        ] {
            symlink("busybox", root.join("bin").join(name)).expect("symlink");
        }
        Self { directory }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A file of the root filesystem.
    pub(crate) fn file(&self, name: &str, mode: u32, content: &[u8]) {
        let path = self.path().join(name);
        fs::write(&path, content).expect("write");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
    }

    /// A detached mount of it.
    pub(crate) fn mount(&self) -> OwnedFd {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(rustix::fs::CWD, self.path(), flags).expect("open_tree")
    }
}

/// A spec as Docker would make it, with these arguments; change it as JSON before [`spec_of`].
pub(crate) fn spec(arguments: &[&str]) -> Value {
    let default =
        ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_KILL", "CAP_MKNOD"];
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs"},
        "hostname": "cell",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": arguments, "cwd": "/", "noNewPrivileges": true,
            "env": ["PATH=/usr/bin:/bin", "TERM=xterm"],
            "capabilities": {"bounding": default, "effective": default, "permitted": default},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}]
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}
        ],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "uts"}, {"type": "ipc"},
                           {"type": "cgroup"}, {"type": "network"}],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                            "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

pub(crate) fn spec_of(value: &Value) -> Spec {
    serde_json::from_value(value.clone()).expect("a valid spec")
}

/// A request for that spec, with pipes.
pub(crate) fn request(rootfs: &Rootfs, spec: &Value) -> Request {
    Request {
        id: "test".to_owned(),
        spec: spec_of(spec),
        rootfs: rootfs.mount(),
        stdio: Stdio::Pipes,
        cgroup: None,
        network: None,
        seccomp: None,
        init: false,
        dies_with_caller: false,
    }
}

/// Everything a container wrote, and how it ended.
pub(crate) fn finish(mut container: Container) -> (String, Exit) {
    let pipes = std::mem::take(container.pipes());
    drop(pipes.input);
    let mut text = String::new();
    for end in [pipes.output, pipes.error].into_iter().flatten() {
        fs::File::from(end).take(OUTPUT_BYTES_MAX).read_to_string(&mut text).expect("text");
    }
    let exit = container.wait().expect("wait");
    (text, exit)
}

/// Starts and finishes a container.
pub(crate) fn try_run(rootfs: &Rootfs, spec: &Value) -> Result<(String, Exit)> {
    plan(request(rootfs, spec))?.start().map(finish)
}

/// As [`try_run`], for containers that must start.
pub(crate) fn run(rootfs: &Rootfs, spec: &Value) -> (String, Exit) {
    try_run(rootfs, spec).unwrap_or_else(|error| panic!("not started: {error}"))
}

/// A shell script in a fresh root filesystem.
pub(crate) fn shell(script: &str) -> String {
    let (text, exit) = run(&Rootfs::new(), &spec(&["/bin/sh", "-c", script]));
    assert_eq!(exit, Exit::Code(0), "{text}");
    text
}

/// What a process could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) fds: usize,
    mounts: usize,
    children: BTreeSet<String>,
}

pub(crate) fn trace() -> Trace {
    let children = fs::read_dir("/proc/self/task")
        .expect("proc")
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    Trace {
        fds: fs::read_dir("/proc/self/fd").expect("proc").count(),
        mounts: fs::read_to_string("/proc/self/mountinfo").expect("proc").lines().count(),
        children,
    }
}

/// Waits until all is as it was.
pub(crate) fn wait_for(before: &Trace) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while trace() != *before {
        assert!(Instant::now() < deadline, "left: {:?}, before: {before:?}", trace());
        std::thread::sleep(Duration::from_millis(5));
    }
}
