//! Flags of `run` that need a cgroup controller.

use crate::command::Celda;

/// Flags, the controller they need, the file that holds the limit, and what is in it.
const TABLE: [(&[&str], &str, &str, &str); 8] = [
    (&["--memory", "64m"], "memory", "memory.max", "67108864"),
    (&["--memory", "64m"], "memory", "memory.swap.max", "67108864"),
    (&["--memory", "64m", "--memory-swap", "96m"], "memory", "memory.swap.max", "33554432"),
    (&["--memory-reservation", "32m"], "memory", "memory.low", "33554432"),
    (&["--cpus", "0.5"], "cpu", "cpu.max", "50000 100000"),
    (&["--cpu-shares", "1024"], "cpu", "cpu.weight", "100"),
    (&["--cpuset-cpus", "0"], "cpuset", "cpuset.cpus", "0"),
    (&["--cpuset-mems", "0"], "cpuset", "cpuset.mems", "0"),
];

#[test]
fn privileged_each_limit_is_kept_or_refused() {
    let Some(celda) = Celda::with_image("limits") else { return };
    let info: serde_json::Value = serde_json::from_str(&celda.ok(&["info", "--json"])).unwrap();
    let controllers = info["cgroup"]["controllers"].as_array().cloned().unwrap_or_default();
    for (flags, controller, file, value) in TABLE {
        let script = format!("busybox cat /sys/fs/cgroup/{file}");
        if controllers.iter().any(|name| name == controller) {
            assert_eq!(celda.shell(flags, &script).trim(), value, "{flags:?}");
        } else {
            let args = celda.shell_args(flags, &script);
            let error = celda.fails(125, &args.iter().map(String::as_str).collect::<Vec<_>>());
            assert!(error.contains(controller) && error.contains("does not offer"), "{flags:?}: {error}");
        }
    }
    // None is no limit, so it needs nobody to keep it.
    assert_eq!(celda.shell(&["--pids-limit", "-1"], "echo free"), "free\n");
}
