//! Flags of `run` that a script inside sees.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;

use crate::command::Celda;

#[test]
fn privileged_each_flag_has_its_effect_inside() {
    let Some(celda) = Celda::with_image("flags_inside") else { return };
    let table: [(&[&str], &str, &str); 15] = [
        (&["--shm-size", "3m"], "busybox df -k /dev/shm | busybox awk 'END { print $2 }'", "3072\n"),
        (&[], "busybox df -k /dev/shm | busybox awk 'END { print $2 }'", "65536\n"),
        (
            &["--add-host", "store:10.0.0.5", "--add-host", "six:[fd00::1]"],
            "busybox grep -E 'store|six' /etc/hosts",
            "10.0.0.5\tstore\nfd00::1\tsix\n",
        ),
        (&["--oom-score-adj", "321"], "busybox cat /proc/self/oom_score_adj", "321\n"),
        (&["--sysctl", "kernel.msgmax=4096"], "busybox cat /proc/sys/kernel/msgmax", "4096\n"),
        (&["--sysctl", "net.ipv4.ip_forward=1"], "busybox cat /proc/sys/net/ipv4/ip_forward", "1\n"),
        (
            &["-t"],
            "test -t 0 && test -t 1 && test -t 2 && busybox tty; echo $TERM",
            "/dev/pts/0\r\nxterm\r\n",
        ),
        (&[], "test -t 0 || test -t 1 || echo $TERM none", "none\n"),
        (&["--network", "none"], "busybox cat /etc/hostname | busybox wc -c", "13\n"),
        (&["--hostname", "box"], "busybox cat /etc/hostname", "box\n"),
        (&["--userns", "map:0:100000:65536"], "busybox awk '{ print $2 }' /proc/self/uid_map", "100000\n"),
        (&["--security-opt", "systempaths=unconfined"], "busybox grep -cm1 CPU0 /proc/interrupts", "1\n"),
        (&["--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"], "echo on", "on\n"),
        (&["--tmpfs", "/t:size=1m,mode=1770,exec"], "busybox stat -c %a /t", "1770\n"),
        (&["-u", "65534", "--cap-add", "NET_RAW"], "busybox id -u", "65534\n"),
    ];
    let maps_ids = celda.takes_detached("--userns");
    for (flags, script, expected) in
        table.into_iter().filter(|(flags, ..)| maps_ids || flags[..] != ["--userns", "map:0:100000:65536"])
    {
        assert_eq!(celda.shell(flags, script), expected, "{flags:?} {script}");
    }
}

#[test]
fn privileged_values_without_a_meaning_are_refused_by_flag() {
    let Some(celda) = Celda::with_image("flags_refused") else { return };
    let image = celda.image();
    for (flag, value) in [
        ("--shm-size", "lots"),
        ("--add-host", "nowhere"),
        ("--oom-score-adj", "2000"),
        ("--sysctl", "kernel.panic=1"),
        ("--sysctl", "vm.swappiness"),
        ("--stop-signal", "SIGNOPE"),
        ("--cpu-shares", "1"),
        ("--cpuset-cpus", "zero"),
        ("--platform", "linux"),
        ("--userns", "map:0"),
        ("--ulimit", "nofile"),
        ("--cap-add", "NOPE"),
        ("--security-opt", "apparmor=mine"),
        ("--label", "=x"),
    ] {
        let error = celda.fails(125, &["run", "--rm", flag, value, &image, "/bin/busybox", "true"]);
        let name = flag.trim_start_matches('-').replace('-', " ");
        let said = error.to_ascii_lowercase().replace(['-', '_', '.'], " ");
        let word = name.split(' ').next().unwrap();
        assert!(said.contains(word) || said.contains(value), "{flag} {value}: {error}");
    }
}

/// A device of the host's that no container has by itself.
fn a_device_of_the_host() -> Option<String> {
    let usual = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];
    let entries = fs::read_dir("/dev").unwrap().flatten();
    let mut devices = entries.filter(|entry| {
        let kind = entry.file_type().unwrap();
        (kind.is_char_device() || kind.is_block_device())
            && !usual.contains(&entry.file_name().to_string_lossy().as_ref())
    });
    devices.next().map(|entry| entry.path().to_string_lossy().into_owned())
}

#[test]
fn privileged_the_hosts_devices_come_with_privileged_only() {
    let Some(celda) = Celda::with_image("privileged_devices") else { return };
    let device = a_device_of_the_host().expect("a machine has more devices than a container");
    let script = format!("busybox stat -c '%t %T' {device} 2>/dev/null || echo none");
    assert_eq!(celda.shell(&[], &script), "none\n");
    let here = celda.shell(&["-v", "/dev:/host"], &format!("busybox stat -c '%t %T' /host{}", &device[4..]));
    assert_eq!(celda.shell(&["--privileged"], &script), here);
    if !celda.takes_detached("--userns") {
        return;
    }
    assert_eq!(celda.shell(&["--privileged", "--userns", "map:0:100000:65536"], &script), "none\n");
}
