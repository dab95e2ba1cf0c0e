//! What a container sees: namespaces, mounts, devices, its own state.

use std::fs;

use celda::sandbox::{Exit, NetworkNamespaces, PreparingNetwork, plan};
use serde_json::json;

use super::support::{Rootfs, alone, finish, request, run, shell, spec};

#[test]
fn privileged_every_namespace_is_new() {
    let Some(_alone) = alone() else { return };
    let text = shell("for ns in pid mnt uts ipc cgroup net; do readlink /proc/self/ns/$ns; done");
    for line in text.lines() {
        let kind = line.split(':').next().expect("kind:[number]");
        let host = fs::read_link(format!("/proc/self/ns/{kind}")).expect("proc");
        assert_ne!(host.to_string_lossy(), line, "{kind} is the host's");
    }
    assert_eq!(text.lines().count(), 6);
    let text = shell("echo $$; hostname; ip link | grep -c UP; ip addr show lo | grep -c 127.0.0.1");
    assert_eq!(text, "1\ncell\n1\n1\n");
}

#[test]
fn privileged_a_network_namespace_made_beforehand_is_joined() {
    let Some(_alone) = alone() else { return };
    let pool = NetworkNamespaces::new(2).expect("a pool");
    let prepared = PreparingNetwork::begin().and_then(PreparingNetwork::finish).expect("a namespace");
    for network in [pool.take().expect("one"), pool.take().expect("another"), prepared] {
        let rootfs = Rootfs::new();
        let spec = spec(&["/bin/sh", "-c", "ip link | grep -c UP; readlink /proc/self/ns/net"]);
        let inode = rustix::fs::fstat(&network).expect("fstat").st_ino;
        let mut request = request(&rootfs, &spec);
        request.network = Some(network);
        let (text, exit) = finish(plan(request).expect("a plan").start().expect("started"));
        assert_eq!((text, exit), (format!("1\nnet:[{inode}]\n"), Exit::Code(0)));
    }
}

#[test]
fn privileged_masked_paths_are_masked_and_read_only_paths_are_read_only() {
    let Some(_alone) = alone() else { return };
    let text = shell(
        "cat /proc/keys /proc/timer_list | wc -c; ls -A /sys/firmware | wc -l; ls -A /proc/scsi 2>/dev/null | wc -l; \
         echo 1 > /proc/sys/kernel/panic; grep -c ' /proc/sys ro' /proc/self/mountinfo",
    );
    assert!(text.starts_with("0\n0\n0\n1\n"), "{text}");
    assert!(text.contains("/proc/sys/kernel/panic: Read-only file system"), "{text}");
}

#[test]
fn privileged_devices_are_those_of_the_spec() {
    let Some(_alone) = alone() else { return };
    let mut spec = spec(&[
        "/bin/sh",
        "-c",
        "ls -1 /dev /dev/net; stat -c '%t:%T %a %F' /dev/null /dev/net/tun; \
                          echo x > /dev/null; stat -c %N /dev/fd /dev/ptmx",
    ]);
    spec["linux"]["devices"] =
        json!([{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 384}]);
    let (text, exit) = run(&Rootfs::new(), &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    for line in ["1:3 666 character special file", "a:c8 600 character special file"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(
        text.contains("'/dev/fd' -> '/proc/self/fd'") && text.contains("'/dev/ptmx' -> 'pts/ptmx'"),
        "{text}"
    );
}

#[test]
fn privileged_only_standard_files_are_open() {
    let Some(_alone) = alone() else { return };
    // A descriptor that would be inherited.
    let leak = fs::File::open("/").expect("open /");
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).expect("fcntl");
    // ls itself has the directory open, as the lowest free number.
    assert_eq!(shell("exec ls /proc/self/fd"), "0\n1\n2\n3\n");
}

#[test]
fn privileged_inherited_state_is_reset() {
    let Some(_alone) = alone() else { return };
    let text = run(&Rootfs::new(), &spec(&["/bin/cat", "/proc/self/status", "/proc/self/limits"])).0;
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "NoNewPrivs:\t1", "Umask:\t0022"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    // chown, dac_override, fowner, kill, setgid, setuid; without a cgroup no mknod.
    assert!(
        text.contains("CapBnd:\t00000000000000eb") && text.contains("CapEff:\t00000000000000eb"),
        "{text}"
    );
    let files = text.lines().find(|line| line.starts_with("Max open files")).expect("limits");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["1024", "4096"]);
}

#[test]
fn privileged_bind_mounts_keep_their_options() {
    let Some(_alone) = alone() else { return };
    let host = tempfile::tempdir().expect("a directory");
    fs::write(host.path().join("f"), "of the host").expect("write");
    let source = host.path().to_str().expect("utf-8");
    let file = format!("{source}/f");
    let mut spec = spec(&[
        "/bin/sh",
        "-c",
        "cat /new/dir/f /etc/one; echo; echo x > /new/dir/f; echo x > /etc/one; \
                          touch /rw/made; grep -E ' (/new/dir|/scratch) ' /proc/self/mountinfo",
    ]);
    let mounts = spec["mounts"].as_array_mut().expect("mounts");
    mounts.push(json!({"destination": "/new/dir", "source": source, "options": ["rbind", "rro", "nosuid"]}));
    mounts.push(json!({"destination": "/etc/one", "source": file, "options": ["bind", "ro"]}));
    mounts.push(json!({"destination": "/rw", "source": source, "options": ["bind"]}));
    mounts.push(json!({"destination": "/scratch", "type": "tmpfs", "options": ["size=64k", "noexec"]}));
    let (text, exit) = run(&Rootfs::new(), &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert!(text.starts_with("of the hostof the host\n"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(text.contains("/new/dir ro,nosuid") && text.contains("size=64k"), "{text}");
    assert!(host.path().join("made").exists());
}

#[test]
fn privileged_a_read_only_root_still_gets_its_mountpoints() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    for name in ["dev", "proc", "sys", "etc"] {
        fs::remove_dir(rootfs.path().join(name)).expect("rmdir");
    }
    let mut spec = spec(&["/bin/sh", "-c", "touch /x; touch /dev/shm/x && pwd"]);
    spec["root"]["readonly"] = json!(true);
    spec["process"]["cwd"] = json!("/work/here");
    let (text, exit) = run(&rootfs, &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert!(text.contains("/x: Read-only file system") && text.starts_with("/work/here\n"), "{text}");
}

#[test]
fn privileged_sysctls_of_its_namespaces_are_set() {
    let Some(_alone) = alone() else { return };
    let mut spec =
        spec(&["/bin/cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/msgmax"]);
    spec["linux"]["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "7", "kernel.msgmax": "9000"});
    assert_eq!(run(&Rootfs::new(), &spec).0, "7\n9000\n");
}

#[test]
fn privileged_a_time_namespace_has_its_offset() {
    let Some(_alone) = alone() else { return };
    let mut spec = spec(&["/bin/cat", "/proc/self/timens_offsets", "/proc/uptime"]);
    spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "time"}));
    spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": 1_000_000, "nanosecs": 0}});
    let (text, exit) = run(&Rootfs::new(), &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    let uptime: f64 =
        text.lines().last().and_then(|l| l.split(' ').next()).expect("uptime").parse().expect("number");
    assert!(uptime > 1e6, "{text}");
}
