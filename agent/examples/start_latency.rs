//! Start latency of a container of one static busybox, in this process, warm.
//!
//! `cargo run --release -p celda --example start_latency -- [N] [pool|inline|host] [bare|full] [THREADS]`
//!
//! `pool`, `inline` and `host` say where the network namespace comes from; `bare` leaves out masks, read-only paths and
//! the filesystems that only some programs need. Prints percentiles, in microseconds, of request to plan, to clone, to
//! execve, and of a whole cycle with teardown; then cycles per second of all threads together.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use celda::sandbox::caps::CapSet;
use celda::sandbox::cgroup::Hierarchy;
use celda::sandbox::{NetworkNamespaces, Request, Stdio, plan, seccomp};
use oci_spec::runtime::Spec;
use rustix::mount::OpenTreeFlags;
use serde_json::{Value, json};

type Columns = [Vec<u64>; 4];
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(Ok(500), |text| text.parse())?;
    let network = arguments.next().unwrap_or_else(|| "inline".to_owned());
    let bare = arguments.next().as_deref() == Some("bare");
    let threads_count: usize = arguments.next().map_or(Ok(1), |text| text.parse())?;
    let root = tempfile::tempdir()?;
    for name in ["bin", "dev", "proc", "sys"] {
        std::fs::create_dir(root.path().join(name))?;
    }
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox"))?;
    let spec: Spec = serde_json::from_value(spec(&network, bare))?;
    let begin = Instant::now();
    let results: Vec<Result<Columns, Failure>> = std::thread::scope(|scope| {
        let one = || cycles(count, root.path(), &spec, network == "pool");
        let threads: Vec<_> = (0..threads_count).map(|_| scope.spawn(one)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".into())))
            .collect()
    });
    let elapsed = begin.elapsed();
    let mut columns = Columns::default();
    for result in results {
        for (all, mut one) in columns.iter_mut().zip(result?) {
            all.append(&mut one);
        }
    }
    for (name, column) in ["planned", "cloned", "executed", "cycle"].iter().zip(&mut columns) {
        column.sort_unstable();
        let at = |percent: usize| column.get(column.len() * percent / 100).copied().unwrap_or(0);
        println!("{name:9} p10 {:6} p50 {:6} p90 {:6} p99 {:6}", at(10), at(50), at(90), at(99));
    }
    println!("{:.0} cycles per second", (count * threads_count) as f64 / elapsed.as_secs_f64());
    Ok(())
}

fn cycles(count: usize, root: &Path, spec: &Spec, pooled: bool) -> Result<Columns, Failure> {
    let pool = if pooled { Some(NetworkNamespaces::new(8)?) } else { None };
    let mut columns = Columns::default();
    let (hierarchy, resources) = (Hierarchy::find().ok(), oci_spec::runtime::LinuxResources::default());
    for number in 0..count {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let rootfs: OwnedFd = rustix::mount::open_tree(rustix::fs::CWD, root, flags)?;
        let network = pool.as_ref().map(NetworkNamespaces::take).transpose()?;
        let (id, spec, stdio) = ("bench".to_owned(), spec.clone(), Stdio::Inherit);
        let name = format!("celda-bench-{}-{:?}-{number}", std::process::id(), std::thread::current().id());
        let begin = Instant::now();
        let seccomp = Some(seccomp::default_program(seccomp::Arch::host(), CapSet::docker_default())?);
        let cgroup = match &hierarchy {
            Some(hierarchy) => Some(hierarchy.create(&name.replace(['(', ')'], ""), &resources)?),
            None => None,
        };
        let request = Request {
            id,
            spec,
            rootfs,
            stdio,
            cgroup,
            network,
            seccomp,
            init: false,
            dies_with_caller: false,
        };
        let container = plan(request)?.start()?;
        let timings = container.timings();
        container.wait()?;
        let cycle = u64::try_from(begin.elapsed().as_micros())?;
        let row = [timings.planned_us, timings.cloned_us, timings.executed_us, cycle];
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    Ok(columns)
}

fn spec(network: &str, bare: bool) -> Value {
    let default = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID", "CAP_KILL"];
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "options": ["nosuid", "noexec", "nodev"]}),
        json!({"destination": "/dev", "type": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]}),
    ];
    let mut namespaces = vec!["pid", "mount", "uts", "ipc", "cgroup"];
    if network != "host" {
        namespaces.push("network");
    }
    let (mut masked, mut read_only) = (vec![], vec![]);
    if !bare {
        mounts.extend([
            json!({"destination": "/dev/pts", "type": "devpts", "options": ["nosuid", "noexec", "ptmxmode=0666",
                   "mode=0620", "gid=5"]}),
            json!({"destination": "/dev/shm", "type": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}),
            json!({"destination": "/dev/mqueue", "type": "mqueue", "options": ["nosuid", "noexec", "nodev"]}),
            json!({"destination": "/sys", "type": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}),
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["nosuid", "noexec", "ro"]}),
        ]);
        masked.extend([
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/scsi",
            "/sys/firmware",
        ]);
        read_only.extend(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    }
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    json!({
        "ociVersion": "1.2.0", "root": {"path": "rootfs"}, "hostname": "cell",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": ["/bin/busybox", "true"], "cwd": "/", "noNewPrivileges": true,
            "env": ["PATH=/bin"],
            "capabilities": {"bounding": default, "effective": default, "permitted": default}
        },
        "mounts": mounts,
        "linux": {"namespaces": namespaces, "maskedPaths": masked, "readonlyPaths": read_only}
    })
}
