//! What each limit does.

use std::fs;
use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use celda::sandbox::cgroup::CgroupDir;
use celda::sandbox::{Exit, LimitOwner, plan};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use super::command::Celda;
use super::support::{Rootfs, finish, request, spec};
use super::{disk_of, id, with_controllers};

/// The longest that a change of the kernel's is waited for.
const DEADLINE: Duration = Duration::from_secs(60);
/// The limit of memory, and a program that wants more than it at once.
const MEMORY_BYTES: u64 = 32 << 20;
const HUNGRY: &str = "dd if=/dev/zero of=/dev/null bs=64M count=1";

/// A script in a container with these limits: what it wrote, and how it ended.
fn limited(name: &str, limits: Value, script: &str) -> (String, Exit) {
    let hierarchy = celda::sandbox::cgroup::Hierarchy::find().unwrap();
    let limits: LinuxResources = serde_json::from_value(limits).unwrap();
    let rootfs = Rootfs::new();
    let mut limited = request(&rootfs, &spec(&["/bin/busybox", "sh", "-c", script]));
    limited.cgroup = Some(hierarchy.create(&id(name), &limits).unwrap());
    let ended = finish(plan(limited).unwrap().start().unwrap());
    assert!(!hierarchy.parent().join(id(name)).exists());
    ended
}

#[track_caller]
pub(crate) fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !reached() {
        assert!(Instant::now() < deadline, "{what} did not come within {DEADLINE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn privileged_memory_beyond_the_limit_is_an_oom_of_the_containers_own() {
    let Some(_) = with_controllers("memory", &["memory"]) else { return };
    let limits = json!({"memory": {"limit": MEMORY_BYTES, "swap": MEMORY_BYTES}});
    let (text, exit) = limited("memory", limits.clone(), &format!("exec busybox {HUNGRY}"));
    let Exit::OutOfMemory { kills_count: 1, owner: LimitOwner::Container } = exit else {
        panic!("{exit}: {text}");
    };
    assert_eq!(exit.status(), 137);
    // Only the hungry one is killed; a shell that goes on decides how the container ends.
    let script = format!("busybox {HUNGRY}; echo $?; busybox grep oom_kill /sys/fs/cgroup/memory.events");
    let (text, exit) = limited("survivor", limits, &script);
    assert_eq!(exit, Exit::Code(0), "{text}");
    assert!(text.contains("137\noom_kill 1\n"), "{text}");
}

#[test]
fn privileged_the_command_says_whose_memory_limit_ran_out() {
    let Some(_) = with_controllers("memory", &["memory"]) else { return };
    let Some(celda) = Celda::with_image("memory") else { return };
    let args = celda.shell_args(&["--memory", "32m"], &format!("exec busybox {HUNGRY}"));
    let error = celda.fails(137, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("out of memory: the container's own limit (--memory) ran out"), "{error}");
    assert_eq!(celda.shell(&["--memory", "128m"], &format!("busybox {HUNGRY} 2>/dev/null; echo $?")), "0\n");
}

#[test]
fn privileged_a_share_of_a_core_throttles_and_presses() {
    let Some(hierarchy) = with_controllers("cpu", &["cpu"]) else { return };
    let limits = json!({"cpu": {"quota": 5_000, "period": 100_000}});
    // Works until the kernel says that it had to wait; without the limit that would never be.
    let script = "while busybox grep -q '^nr_throttled 0$' /sys/fs/cgroup/cpu.stat; do :; done; echo throttled; read line";
    let rootfs = Rootfs::new();
    let mut limited = request(&rootfs, &spec(&["/bin/busybox", "sh", "-c", script]));
    let limits = serde_json::from_value(limits).unwrap();
    limited.cgroup = Some(hierarchy.create(&id("cpu"), &limits).unwrap());
    let group = hierarchy.parent().join(id("cpu"));
    let mut container = plan(limited).unwrap().start().unwrap();
    let mut pipes = std::mem::take(container.pipes());
    let mut text = [0; 10];
    fs::File::from(pipes.output.take().unwrap()).read_exact(&mut text).unwrap();
    assert_eq!(&text, b"throttled\n");
    let pressure = fs::read_to_string(group.join("cpu.pressure")).unwrap_or_default();
    if pressure.is_empty() {
        println!("skipped: this kernel keeps no pressure stall information");
    } else {
        let total = celda::sandbox::cgroup::read::Pressure::parse(&pressure).some.total_us;
        assert!(total > 0, "{pressure}");
    }
    drop(pipes);
    container.wait().unwrap();
}

#[test]
fn privileged_processes_beyond_the_limit_are_not_made() {
    let Some(_) = with_controllers("pids", &["pids"]) else { return };
    let script = "for one in 1 2 3 4 5 6 7 8 9 10; do busybox sleep 100 & done; \
                  busybox grep max /sys/fs/cgroup/pids.events; busybox cat /sys/fs/cgroup/pids.current";
    let (text, exit) = limited("pids", json!({"pids": {"limit": 5}}), script);
    assert!(matches!(exit, Exit::Code(code) if code != 0), "{exit}: {text}");
    assert!(text.contains("can't fork"), "{text}");
}

#[test]
fn privileged_cores_outside_of_the_set_are_not_used() {
    let Some(_) = with_controllers("cpuset", &["cpuset"]) else { return };
    let last = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    let last = last.trim().rsplit(['-', ',']).next().unwrap().to_owned();
    let limits = json!({"cpu": {"cpus": last, "mems": "0"}});
    let (text, exit) =
        limited("cpuset", limits, "busybox grep Cpus_allowed_list /proc/self/status; busybox nproc");
    assert_eq!((text, exit), (format!("Cpus_allowed_list:\t{last}\n1\n"), Exit::Code(0)));
}

#[test]
fn privileged_a_disk_is_read_and_written_at_the_rate() {
    let Some(hierarchy) = with_controllers("io", &["io"]) else { return };
    let Some(celda) = Celda::with_image("io") else { return };
    let Some(disk) = disk_of(celda.directory()) else {
        return println!("skipped: the temporary directory is on no disk of its own");
    };
    let rate = |rate: &str| format!("{}:{rate}", disk.display());
    let (bytes, operations) = (rate("64k"), rate("200"));
    let flags = [
        ["--device-read-bps", &bytes],
        ["--device-write-bps", &bytes],
        ["--device-read-iops", &operations],
        ["--device-write-iops", &operations],
    ];
    let flags = flags.concat();
    let volume = format!("{}:/files", celda.files().display());
    let script = "busybox dd if=/dev/zero of=/files/written bs=64k count=4 oflag=direct 2>&1 && \
                  busybox cat /sys/fs/cgroup/io.max /sys/fs/cgroup/io.pressure";
    let text = celda.shell(&[&flags[..], &["-v", &volume]].concat(), script);
    assert!(text.contains("rbps=65536 wbps=65536 riops=200 wiops=200"), "{text}");
    // Four times the rate's bytes: the writer had to wait.
    let stalled = celda::sandbox::cgroup::read::Pressure::parse(&text).some.total_us;
    assert!(!text.contains("total=") || stalled > 0, "{text}");
    if hierarchy.mount().join("init.scope/io.weight").exists() {
        let text = celda.shell(&["--blkio-weight", "500"], "busybox cat /sys/fs/cgroup/io.weight");
        assert_eq!(text, "default 4950\n");
    }
    let args = celda.shell_args(&["--device-read-bps", "/dev/null:1m"], "true");
    let error = celda.fails(125, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(error.contains("/dev/null is no block device"), "{error}");
}

#[test]
fn privileged_a_frozen_container_stands_still_and_can_be_killed() {
    // These files are every group's, whatever controllers there are.
    let Some(hierarchy) = with_controllers("freeze", &[]) else { return };
    let path = hierarchy.parent().join(id("freeze"));
    let rootfs = Rootfs::new();
    let script = "while read line; do echo $line; done";
    let mut frozen = request(&rootfs, &spec(&["/bin/busybox", "sh", "-c", script]));
    frozen.cgroup = Some(hierarchy.create(&id("freeze"), &LinuxResources::default()).unwrap());
    let mut container = plan(frozen).unwrap().start().unwrap();
    let mut pipes = std::mem::take(container.pipes());
    let mut input = fs::File::from(pipes.input.take().unwrap());
    let mut output = fs::File::from(pipes.output.take().unwrap());
    let group = Group(&path);
    group.write("cgroup.freeze", "1");
    wait_for("frozen 1", || group.read("cgroup.events").contains("frozen 1"));
    input.write_all(b"heard\n").unwrap();
    let mut poll = [rustix::event::PollFd::new(&output, rustix::event::PollFlags::IN)];
    let no_wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    assert_eq!(rustix::event::poll(&mut poll, Some(&no_wait)), Ok(0), "a frozen program answered");
    group.write("cgroup.freeze", "0");
    let mut heard = [0; 6];
    output.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"heard\n");
    group.write("cgroup.freeze", "1");
    wait_for("frozen 1", || group.read("cgroup.events").contains("frozen 1"));
    group.write("cgroup.kill", "1");
    assert_eq!(container.wait().unwrap(), Exit::Signal(9));
}

/// A group by its path, as another program would use it.
struct Group<'path>(&'path std::path::Path);

impl Group<'_> {
    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap()
    }

    fn write(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).unwrap();
    }
}

#[test]
fn privileged_a_group_is_frozen_weighed_and_pressed_by_its_own_handle() {
    let Some(hierarchy) = with_controllers("handle", &["cpu", "memory"]) else { return };
    let limits = json!({"memory": {"limit": MEMORY_BYTES}, "cpu": {"shares": 512}});
    let limits: LinuxResources = serde_json::from_value(limits).unwrap();
    let group: CgroupDir = hierarchy.create(&id("handle"), &limits).unwrap();
    let mut sleeper = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    group.add(sleeper.id()).unwrap();
    assert!(group.is_populated().unwrap() && !group.is_frozen().unwrap());
    group.freeze(true).unwrap();
    wait_for("frozen", || group.is_frozen().unwrap());
    group.freeze(false).unwrap();
    wait_for("thawed", || !group.is_frozen().unwrap());
    assert!(group.memory_bytes().unwrap().is_some() && group.cpu_usage_us().unwrap().is_some());
    for resource in ["cpu", "memory", "io"] {
        let pressure = group.pressure(resource).unwrap();
        assert!(
            pressure.is_some() || !hierarchy.mount().join("init.scope/cpu.pressure").exists(),
            "{resource}"
        );
    }
    assert_eq!(group.out_of_memory(), None);
    group.kill().unwrap();
    sleeper.wait().unwrap();
    group.remove().unwrap();
}
