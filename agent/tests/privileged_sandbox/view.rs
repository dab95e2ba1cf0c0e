//! What a container sees: namespaces, mounts, devices, its own state.

use std::fs;
use std::process::Command;

use celda::sandbox::{Exit, NetworkNamespaces, PreparingNetwork, plan};
use serde_json::json;

use super::support::{Rootfs, alone, finish, request, run, shell, spec, trace, wait_for};

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
    let before = trace();
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
    // Its thread ends by itself, and what it has made with it.
    drop(pool);
    wait_for(&before);
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
fn privileged_the_session_keyring_is_the_containers_own() {
    let Some(_alone) = alone() else { return };
    let Ok(of_host) = fs::read_to_string("/proc/keys") else {
        println!("skipped: this kernel has no keys");
        return;
    };
    let mut spec = spec(&["/bin/cat", "/proc/keys"]);
    spec["linux"]["maskedPaths"] = json!([]);
    let (text, exit) = run(&Rootfs::new(), &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    // Serial number first, then what it is: an anonymous session keyring is named `_ses`. Root sees the host's too.
    let number = |line: &str| line.split(' ').next().map(str::to_owned).expect("a number");
    let sessions = text.lines().filter(|line| line.contains(" keyring   _ses: empty"));
    assert!(sessions.map(number).any(|own| !of_host.contains(&own)), "{text} beside {of_host}");
}

/// Set for the run of [`privileged_inherited_state_is_reset`] that has an odd state to hand on: its processors as the
/// container should have them.
const ODD: &str = "CELDA_TEST_ODD_STATE";

/// Runs this test again from a shell and tools that leave every kind of state behind.
fn again_with_odd_state() {
    let status = fs::read_to_string("/proc/self/status").expect("proc");
    let processors = status.lines().find(|line| line.starts_with("Cpus_allowed_list")).expect("processors");
    let script = "ulimit -S -n 70; ulimit -S -c unlimited; ulimit -S -s 1000; umask 077; \
                  echo 321 > /proc/self/oom_score_adj; exec setarch -R chrt --batch 0 ionice -c 3 nice -n 5 taskset 1 \
                  env --ignore-signal=HUP --ignore-signal=PIPE --ignore-signal=RTMAX --block-signal=USR1 \"$@\"";
    let own = std::env::current_exe().expect("own path");
    let test = "view::privileged_inherited_state_is_reset";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "sh"]).arg(own).args(["--exact", test, "--nocapture"]).env(ODD, processors);
    let output = command.output().expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
fn privileged_inherited_state_is_reset() {
    let Ok(processors) = std::env::var(ODD) else {
        // Not while another test holds the lock: the other process has a lock of its own.
        let Some(_alone) = alone() else { return };
        return again_with_odd_state();
    };
    let Some(_alone) = alone() else { return };
    let own = fs::read_to_string("/proc/self/status").expect("proc");
    let mask = |name: &str| {
        let line = own.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        u64::from_str_radix(line.trim(), 16).expect("hexadecimal")
    };
    // RTMAX, PIPE, HUP; USR1.
    let ignored = 0x8000_0000_0000_1001;
    assert_eq!((mask("SigIgn:") & ignored, mask("SigBlk:") & 0x200), (ignored, 0x200), "{own}");
    let script = "cat /proc/self/status /proc/self/limits; cut -d ' ' -f 19,41 /proc/self/stat; \
                  cat /proc/self/oom_score_adj /proc/self/personality; busybox ionice";
    let rootfs = Rootfs::new();
    let mut spec = spec(&["/bin/sh", "-c", &script.replace("cut", "busybox cut")]);
    let (text, exit) = run(&rootfs, &spec);
    assert_eq!(exit, Exit::Code(0), "{text}");
    for line in [
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Umask:\t0022",
        processors.as_str(),
        // chown, dac_override, fowner, kill, setgid, setuid; without a cgroup no mknod.
        "CapBnd:\t00000000000000eb",
        "CapEff:\t00000000000000eb",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    // Nice value and policy, score, personality, class of I/O priority.
    assert!(text.ends_with("\n0 0\n0\n00000000\nnone: prio 0\n"), "{text}");
    let limit = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("limits").to_owned();
        line.split_whitespace().rev().skip(1).take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(limit(&text, "Max open files"), "4096 1024", "the spec's");
    let core = text.lines().find(|line| line.starts_with("Max core file size")).expect("limits");
    assert!(core.contains(" 0 ") && core.contains("unlimited"), "{core}");
    let stack = text.lines().find(|line| line.starts_with("Max stack size")).expect("limits");
    assert!(stack.contains(" 8388608 ") && stack.contains("unlimited"), "{stack}");
    spec["process"]["rlimits"] = json!([]);
    spec["process"]["args"] = json!(["/bin/cat", "/proc/self/limits"]);
    // The default, within what this process may give: CAP_SYS_RESOURCE is what even root may lack.
    let may = fs::read_to_string("/proc/self/limits").expect("proc");
    let hard = limit(&may, "Max open files").split(' ').next().and_then(|hard| hard.parse().ok());
    let hard = if mask("CapEff:") >> 24 & 1 == 1 {
        524_288
    } else {
        hard.map_or(524_288, |hard: u64| hard.min(524_288))
    };
    assert_eq!(limit(&run(&rootfs, &spec).0, "Max open files"), format!("{hard} 1024"));
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
