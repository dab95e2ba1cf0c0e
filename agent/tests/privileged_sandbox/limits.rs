//! System call filters that the kernel loads, and cgroups that it keeps.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use celda::sandbox::caps::CapSet;
use celda::sandbox::cgroup::{CgroupError, Hierarchy};
use celda::sandbox::seccomp::{self, Arch};
use celda::sandbox::{Exit, plan};
use oci_spec::runtime::{LinuxResources, LinuxSeccomp};
use serde_json::json;

use super::support::{Rootfs, alone, finish, request, spec, trace};

const KILLED: i32 = 9;
/// Linux's number for a call that a filter forbids by a signal.
const BAD_CALL: i32 = 31;

#[test]
fn privileged_the_built_in_filter_lets_a_shell_live_and_makes_no_namespace() {
    let Some(_alone) = alone() else { return };
    let script =
        "grep Seccomp: /proc/self/status; echo $(echo a | cat); busybox unshare -U true 2>&1; echo $?";
    let rootfs = Rootfs::new();
    for no_new_privileges in [true, false] {
        let mut spec = spec(&["/bin/sh", "-c", script]);
        spec["process"]["args"] = json!(["/bin/busybox", "sh", "-c", script.replace("grep", "busybox grep")]);
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        let mut filtered = request(&rootfs, &spec);
        filtered.seccomp =
            Some(seccomp::default_program(Arch::host(), CapSet::docker_default()).expect("compiles"));
        let (text, exit) = finish(plan(filtered).expect("planned").start().expect("started"));
        assert_eq!(exit, Exit::Code(0), "{text}");
        assert!(text.starts_with("Seccomp:\t2\na\n"), "{text}");
        assert!(text.contains("Operation not permitted") && text.ends_with("\n1\n"), "{text}");
    }
}

#[test]
fn privileged_a_profiles_actions_reach_the_program() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let run = |action: &str, number: Option<u32>| {
        let profile: LinuxSeccomp = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": action, "errnoRet": number}]
        }))
        .expect("a profile");
        let mut filtered = request(&rootfs, &spec(&["/bin/busybox", "mkdir", "/tmp/made"]));
        filtered.seccomp = Some(seccomp::compile(&profile, Arch::host()).expect("compiles"));
        finish(plan(filtered).expect("planned").start().expect("started"))
    };
    let (text, exit) = run("SCMP_ACT_ERRNO", Some(28));
    assert_eq!(exit, Exit::Code(1));
    assert!(text.contains("No space left on device"), "{text}");
    assert_eq!(run("SCMP_ACT_KILL_PROCESS", None).1, Exit::Signal(BAD_CALL));
    assert_eq!(run("SCMP_ACT_TRAP", None).1, Exit::Signal(BAD_CALL));
}

/// A name that no other run of the tests has.
fn id(what: &str) -> String {
    format!("test-{}-{what}", std::process::id())
}

/// The hierarchy, or nothing where there is none; it must be there when it has been said so.
fn hierarchy() -> Option<Hierarchy> {
    let found = Hierarchy::find();
    if found.is_err() {
        assert!(std::env::var("CELDA_REQUIRE_PRIVILEGED").as_deref() != Ok("1"), "cgroup v2 must be mounted");
        println!("skipped: needs a cgroup v2 mount");
    }
    found.ok()
}

#[test]
fn privileged_a_container_is_born_into_its_group_and_takes_it_away() {
    let Some(_alone) = alone() else { return };
    let Some(hierarchy) = hierarchy() else { return };
    let before = trace();
    let rootfs = Rootfs::new();
    let group = hierarchy.create(&id("born"), &LinuxResources::default()).expect("made");
    let path = group.path().to_path_buf();
    let mut placed = request(&rootfs, &spec(&["/bin/sh", "-c", "sleep 1000 & read line; sleep 1000"]));
    placed.cgroup = Some(group);
    let mut container = plan(placed).expect("planned").start().expect("started");
    drop(std::mem::take(container.pipes()));
    let members = fs::read_to_string(path.join("cgroup.procs")).expect("cgroup.procs");
    assert!(members.lines().any(|line| line == container.pid().to_string()), "{members}");
    container.kill(rustix::process::Signal::KILL).expect("killed");
    assert_eq!(container.wait().expect("wait"), Exit::Signal(KILLED));
    assert!(!path.exists());
    assert_eq!(before, trace());
}

#[test]
fn privileged_a_group_is_killed_as_one_and_not_taken_twice() {
    let Some(_alone) = alone() else { return };
    let Some(hierarchy) = hierarchy() else { return };
    let none = LinuxResources::default();
    let group = hierarchy.create(&id("kill"), &none).expect("made");
    let path = group.path().to_path_buf();
    let mut sleeper = Command::new("sleep").arg("1000").spawn().expect("sleep");
    group.add(sleeper.id()).expect("moved");
    assert_eq!(group.processes().expect("read"), [sleeper.id()]);
    assert!(matches!(hierarchy.create(&id("kill"), &none), Err(CgroupError::Exists { .. })));
    group.kill().expect("killed");
    assert_eq!(sleeper.wait().expect("wait").signal(), Some(KILLED));
    drop(group);
    // Left behind as by a crash: empty now, so the name is free.
    assert!(path.exists());
    hierarchy.create(&id("kill"), &none).expect("made anew").remove().expect("removed");
    assert!(!path.exists());
}

#[test]
fn privileged_limits_are_kept_or_refused() {
    let Some(_alone) = alone() else { return };
    let Some(hierarchy) = hierarchy() else { return };
    let controllers = hierarchy.controllers().expect("read");
    for (name, file, limit) in [
        ("memory", "memory.max", json!({"memory": {"limit": 67_108_864}})),
        ("pids", "pids.max", json!({"pids": {"limit": 32}})),
        ("cpu", "cpu.weight", json!({"cpu": {"shares": 512}})),
    ] {
        let limits: LinuxResources = serde_json::from_value(limit).expect("resources");
        let id = id(name);
        let missing = controllers.iter().find(|one| one.name == name).and_then(|one| one.missing.clone());
        match (hierarchy.create(&id, &limits), missing) {
            (Ok(group), None) => {
                assert!(group.is_limited() && group.path().join(file).exists());
                group.remove().expect("removed");
            }
            (Err(error @ CgroupError::MissingController { .. }), Some(why)) => {
                let text = error.to_string();
                assert!(text.contains(&why) && text.contains(name) && text.contains(file), "{text}");
            }
            (other, missing) => panic!("{name}: {other:?} although {missing:?}"),
        }
        assert!(!hierarchy.parent().join(&id).exists());
    }
}
