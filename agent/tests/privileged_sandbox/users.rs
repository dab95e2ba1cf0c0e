//! Users, groups, capabilities, and user namespaces.

use celda::sandbox::seccomp::BpfInstruction;
use celda::sandbox::{Exit, Stdio, plan};
use serde_json::json;

use super::support::{Rootfs, alone, finish, request, run, spec, trace, try_run};

#[test]
fn privileged_a_user_has_its_groups_and_no_capability() {
    let Some(_alone) = alone() else { return };
    let mut spec =
        spec(&["/bin/sh", "-c", "id -u; id -g; id -G; grep CapEff /proc/self/status; echo > /dev/stdout"]);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [7, 8]});
    let (text, exit) = run(&Rootfs::new(), &spec);
    assert_eq!(text, "1000\n1001\n1001 7 8\nCapEff:\t0000000000000000\n\n");
    assert_eq!(exit, Exit::Code(0));
}

#[test]
fn privileged_a_fifo_of_the_host_stays_whose_it_is() {
    let Some(_alone) = alone() else { return };
    use std::os::unix::fs::MetadataExt as _;
    let host = tempfile::tempdir().expect("a directory");
    let path = host.path().join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("mkfifo");
    let open = || std::fs::File::options().read(true).write(true).open(&path).expect("opened").into();
    let mut spec = spec(&["/bin/true"]);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let rootfs = Rootfs::new();
    let mut request = request(&rootfs, &spec);
    request.stdio = Stdio::Files([open(), open(), open()]);
    assert_eq!(finish(plan(request).expect("a plan").start().expect("started")).1, Exit::Code(0));
    assert_eq!(std::fs::metadata(&path).expect("there").uid(), 0);
}

#[test]
fn privileged_ambient_capabilities_survive_execve() {
    let Some(_alone) = alone() else { return };
    let mut spec = spec(&["/bin/grep", "Cap", "/proc/self/status"]);
    spec["process"]["args"] = json!(["/bin/busybox", "grep", "CapEff", "/proc/self/status"]);
    spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    let one = json!(["CAP_NET_BIND_SERVICE"]);
    spec["process"]["capabilities"] =
        json!({"bounding": one, "effective": one, "permitted": one, "inheritable": one, "ambient": one});
    assert_eq!(run(&Rootfs::new(), &spec).0, "CapEff:\t0000000000000400\n");
}

#[test]
fn privileged_a_user_namespace_has_its_ranges() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    let mut spec = spec(&[
        "/bin/sh",
        "-c",
        "cat /proc/self/uid_map | tr -s ' '; id -u; id -G; echo x > /dev/null; \
                          ip link | grep -c UP; readlink /proc/self/ns/user; cat /proc/keys | wc -c; echo $$",
    ]);
    spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    let ranges = json!([{"containerID": 0, "hostID": 200_000, "size": 1000},
                        {"containerID": 1000, "hostID": 0, "size": 1}]);
    spec["linux"]["uidMappings"] = ranges.clone();
    spec["linux"]["gidMappings"] = ranges;
    spec["process"]["user"] = json!({"uid": 33, "gid": 33, "additionalGids": [1000]});
    let rootfs = Rootfs::new();
    let (text, exit) = run(&rootfs, &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert!(text.starts_with(" 0 200000 1000\n 1000 0 1\n33\n33 1000\n1\nuser:["), "{text}");
    assert!(text.ends_with("\n0\n1\n"), "{text}");
    assert_eq!(before, trace());

    spec["process"]["user"] = json!({"uid": 5000, "gid": 0});
    let error = try_run(&rootfs, &spec).expect_err("not mapped");
    assert!(error.to_string().contains("id 5000 is in no range"), "{error}");
    spec["process"]["user"] = json!({"uid": 0, "gid": 0});
    spec["linux"]["uidMappings"] = json!([{"containerID": 0, "hostID": 1, "size": 10},
                                          {"containerID": 5, "hostID": 100, "size": 10}]);
    let error = try_run(&rootfs, &spec).expect_err("overlap");
    assert!(error.to_string().contains("id map"), "{error}");
    assert_eq!(before, trace());
}

#[test]
fn privileged_mounts_are_id_mapped() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    let host = tempfile::tempdir().expect("a directory");
    std::fs::write(host.path().join("f"), "").expect("write");
    let mut spec = spec(&["/bin/stat", "-c", "%u:%g", "/v/f"]);
    let mount = json!({"destination": "/v", "source": host.path(), "options": ["bind"],
        "uidMappings": [{"containerID": 0, "hostID": 4000, "size": 10}],
        "gidMappings": [{"containerID": 0, "hostID": 5000, "size": 10}]});
    spec["mounts"].as_array_mut().expect("a list").push(mount);
    match try_run(&Rootfs::new(), &spec) {
        Ok((text, _)) => assert_eq!(text, "4000:5000\n"),
        // Not every filesystem that a test may find under /tmp can map ids.
        Err(error) => assert!(error.to_string().contains("map the ids"), "{error}"),
    }
    let ranges: Vec<oci_spec::runtime::LinuxIdMapping> =
        serde_json::from_value(json!([{"containerID": 5, "hostID": 1, "size": 2}])).expect("ranges");
    let namespace = celda::sandbox::user_namespace(&ranges, &ranges).expect("a user namespace");
    drop(namespace);
    let overlap: Vec<_> = ranges.iter().chain(&ranges).copied().collect();
    assert!(celda::sandbox::user_namespace(&overlap, &ranges).is_err());
    assert!(celda::sandbox::user_namespace(&[], &ranges).is_err());
    assert_eq!(before, trace());
}

#[test]
fn privileged_a_filter_is_loaded_with_and_without_new_privileges() {
    let Some(_alone) = alone() else { return };
    // Load the syscall's number; sethostname answers EOPNOTSUPP (95), everything else is allowed.
    let refused = if cfg!(target_arch = "aarch64") { 161 } else { 170 };
    let filter =
        [(0x20, 0, 0, 0), (0x15, 0, 1, refused), (0x06, 0, 0, 0x0005_0000 | 95), (0x06, 0, 0, 0x7fff_0000)];
    let filter: Vec<BpfInstruction> =
        filter.iter().map(|&(code, jt, jf, k)| BpfInstruction { code, jt, jf, k }).collect();
    let rootfs = Rootfs::new();
    for (no_new_privileges, uid) in [(true, 0), (false, 0), (true, 1000), (false, 1000)] {
        let script = "hostname x; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status";
        let mut spec = spec(&["/bin/sh", "-c", script]);
        spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
        spec["process"]["user"] = json!({"uid": uid, "gid": uid});
        let mut request = request(&rootfs, &spec);
        request.seccomp = Some(filter.clone());
        let (text, exit) = finish(plan(request).expect("a plan").start().expect("started"));
        assert_eq!(exit, Exit::Code(0), "{text}");
        let expected = format!("NoNewPrivs:\t{}\nSeccomp:\t2\n", u8::from(no_new_privileges));
        assert!(text.starts_with(&expected) && text.contains("not supported"), "{text}");
    }
}
