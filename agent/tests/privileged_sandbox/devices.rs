//! Devices of the host: what a container's root makes or finds in its image, and still cannot open.

use std::os::unix::fs::FileTypeExt as _;

use celda::sandbox::cgroup::{CgroupDir, Hierarchy};
use celda::sandbox::{Exit, plan};
use oci_spec::runtime::LinuxResources;
use rustix::fs::{CWD, FileType, Mode, makedev};
use serde_json::{Value, json};

use super::support::{Rootfs, alone, finish, request, run, spec, trace};

/// `/dev/kmsg`: a device that every machine has a driver for, and no container may open.
const LOG: (u32, u32) = (1, 11);

pub(crate) fn group(name: &str) -> CgroupDir {
    let hierarchy = Hierarchy::find().expect("cgroup v2");
    let id = format!("devices-{}-{name}", std::process::id());
    hierarchy.create(&id, &LinuxResources::default()).expect("a cgroup")
}

/// A root filesystem whose image brings a device node along.
fn rootfs() -> Rootfs {
    let rootfs = Rootfs::new();
    let (major, minor) = LOG;
    let path = rootfs.path().join("etc/log");
    rustix::fs::mknodat(
        CWD,
        &path,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        makedev(major, minor),
    )
    .expect("mknod");
    assert!(std::fs::metadata(&path).expect("made").file_type().is_char_device());
    rootfs
}

/// Opens the image's node, one that it makes, and the null device.
const SCRIPT: &str = "busybox mknod /tmp/log c 1 11 && echo made; for n in /tmp/log /etc/log; do \
    (: < $n) 2>&1 && echo opened; done; busybox mknod /tmp/null c 1 3 && echo x > /tmp/null && \
    echo x > /dev/null && echo fine";

fn guarded(name: &str, spec: &Value) -> (String, Exit) {
    let rootfs = rootfs();
    let mut request = request(&rootfs, spec);
    request.cgroup = Some(group(name));
    finish(plan(request).expect("a plan").start().expect("started"))
}

#[test]
fn privileged_a_made_device_and_one_of_the_image_cannot_be_opened() {
    let Some(_alone) = alone() else { return };
    let spec = spec(&["/bin/sh", "-c", SCRIPT]);
    let (text, exit) = guarded("default", &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert!(text.starts_with("made\n") && text.ends_with("fine\n"), "{text}");
    assert_eq!(text.matches("Operation not permitted").count(), 2, "{text}");
    assert!(!text.contains("opened"), "{text}");
}

#[test]
fn privileged_a_spec_that_allows_a_device_or_all_of_them_is_heard() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    for rules in [
        json!([{"allow": true, "type": "c", "major": 1, "minor": 11, "access": "r"}]),
        json!([{"allow": true, "access": "rwm"}]),
    ] {
        let mut spec = spec(&["/bin/sh", "-c", SCRIPT]);
        // CAP_SYSLOG is what the driver of this device asks for itself.
        let caps = json!(["CAP_MKNOD", "CAP_SYSLOG"]);
        spec["process"]["capabilities"] = json!({"bounding": caps, "effective": caps, "permitted": caps});
        spec["linux"]["resources"] = json!({"devices": rules});
        let (text, exit) = guarded("allowed", &spec);
        assert_eq!((text.as_str(), exit), ("made\nopened\nopened\nfine\n", Exit::Code(0)), "{rules}");
    }
    let many: Vec<Value> =
        (0..1000).map(|n| json!({"allow": n % 2 == 0, "major": n + 2, "minor": n})).collect();
    let mut spec = spec(&["/bin/sh", "-c", SCRIPT]);
    spec["linux"]["resources"] = json!({"devices": many});
    let (text, exit) = guarded("many", &spec);
    assert!(exit == Exit::Code(0) && text.ends_with("fine\n") && !text.contains("opened"), "{text}");
    let kept = trace().fds - before.fds;
    assert!(kept <= 3, "one program for each list of rules: {kept}");
}

/// Without a cgroup there is no filter: then no device node lives but those of the container's own `/dev`.
#[test]
fn privileged_without_a_filter_device_nodes_are_dead() {
    let Some(_alone) = alone() else { return };
    let host = tempfile::tempdir().expect("a directory");
    let (major, minor) = LOG;
    let path = host.path().join("log");
    rustix::fs::mknodat(
        CWD,
        &path,
        FileType::CharacterDevice,
        Mode::from_raw_mode(0o666),
        makedev(major, minor),
    )
    .expect("mknod");
    let script = "busybox mknod /tmp/log c 1 11 2>&1; for n in /v/log /etc/log; do (: < $n) 2>&1 && echo opened; \
                  done; echo x > /dev/null && echo fine; grep CapBnd /proc/self/status";
    let mut spec = spec(&["/bin/sh", "-c", script]);
    let mount = json!({"destination": "/v", "source": host.path(), "options": ["bind"]});
    spec["mounts"].as_array_mut().expect("a list").push(mount);
    let (text, exit) = run(&rootfs(), &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert!(text.contains("mknod: /tmp/log: Operation not permitted"), "{text}");
    assert_eq!(text.matches("Permission denied").count(), 2, "{text}");
    assert!(!text.contains("opened") && text.contains("fine\nCapBnd:\t00000000000000eb\n"), "{text}");
}
