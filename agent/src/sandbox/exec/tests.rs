//! What can only be reached from inside: a container that freezes between the look at it and the clone.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use oci_spec::runtime::LinuxResources;
use rustix::mount::OpenTreeFlags;
use rustix::process::Signal;
use serde_json::json;

use super::{Target, process_of, start_within};
use crate::sandbox::cgroup::Hierarchy;
use crate::sandbox::{Request, SandboxError, Stdio, plan};

fn mount(path: &std::path::Path) -> OwnedFd {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(rustix::fs::CWD, path, flags).expect("open_tree")
}

#[test]
fn privileged_a_child_that_freezes_before_its_execve_is_killed() {
    let busybox =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| std::fs::metadata(path).is_ok());
    let (true, Some(busybox)) = (rustix::process::geteuid().is_root(), busybox) else {
        let required = std::env::var("CELDA_REQUIRE_PRIVILEGED").as_deref() == Ok("1");
        assert!(!required, "this test must run as root, with a static busybox");
        println!("skipped: needs root and a static busybox");
        return;
    };
    let root = tempfile::tempdir().expect("a directory");
    for name in ["bin", "proc", "dev"] {
        std::fs::create_dir(root.path().join(name)).expect("mkdir");
    }
    // A process of its own writes it: what another test forks meanwhile would hold it open for writing (`ETXTBSY`).
    let mut copy = std::process::Command::new(busybox);
    copy.args(["cp", busybox]).arg(root.path().join("bin/busybox"));
    assert!(copy.status().expect("cp").success());
    let spec = json!({
        "ociVersion": "1.2.0", "root": {"path": "rootfs"},
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/busybox", "sleep", "1000"], "cwd": "/"},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}
    });
    let spec: oci_spec::runtime::Spec = serde_json::from_value(spec).expect("a spec");
    let id = format!("test-frozen-{}", std::process::id());
    let cgroup =
        Hierarchy::find().expect("cgroup v2").create(&id, &LinuxResources::default()).expect("a cgroup");
    let container = plan(Request {
        id,
        spec: spec.clone(),
        rootfs: mount(root.path()),
        stdio: Stdio::Pipes,
        cgroup: Some(cgroup),
        network: None,
        seccomp: None,
        init: false,
        dies_with_caller: false,
    })
    .expect("a plan")
    .start()
    .expect("started");
    let cgroup = container.cgroup().expect("given");
    let target = Target { pidfd: container.pidfd(), cgroup: Some(cgroup), spec: &spec, seccomp: None };
    let process = process_of(&spec, vec!["/bin/busybox".into(), "true".into()]).expect("a process");
    cgroup.freeze(true).expect("frozen");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !cgroup.is_frozen().expect("read") {
        assert!(Instant::now() < deadline, "not frozen in time");
        std::thread::yield_now();
    }
    assert!(matches!(super::start(&target, &process, Stdio::Pipes), Err(SandboxError::Frozen)));
    let error = start_within(&target, &process, Stdio::Pipes, Duration::from_millis(50)).expect_err("frozen");
    assert!(matches!(error, SandboxError::Stuck { waited_ms: 50, .. }), "{error}");
    assert_eq!(cgroup.processes().expect("read"), [container.pid() as u32], "the child is gone");
    cgroup.freeze(false).expect("thawed");
    let mut exec = super::start(&target, &process, Stdio::Pipes).expect("goes on");
    assert_eq!(exec.wait().expect("wait").status(), 0);
    container.kill(Signal::KILL).expect("killed");
    container.wait().expect("ended");
}
