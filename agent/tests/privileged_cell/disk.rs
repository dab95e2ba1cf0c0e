//! What an instance may write has a limit, which it meets alone.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use celda_api::cell::v1;

use crate::common::{Celda, describe};
use crate::support::{Cell, FOR_EVER};

/// Writes more than it may, says how that ended, and that it can still write when it has made room.
const FILL: &str = "busybox dd if=/dev/zero of=/big bs=1M count=100 2>&1; echo ended $?; busybox rm /big; \
                    echo word > /small && busybox cat /small; busybox df -k / | busybox tail -n 1";

/// Whether limits can be kept here; says so when not.
pub(crate) fn has_limits(celda: &Celda, test: &str, flags: &[&str]) -> bool {
    let info: serde_json::Value = serde_json::from_str(&celda.ok(&["info", "--json"])).unwrap();
    let way = info["disk_limits"]["way"].as_str().unwrap();
    let found = if flags.is_empty() {
        way.ends_with("sized filesystem") || way.ends_with("filesystem without")
    } else {
        way != "none"
    };
    assert!(found || std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none(), "{info}");
    if !found {
        println!("skipped: {test} needs limits of writable layers: {}", info["disk_limits"]["why"]);
    }
    found
}

/// What a container that filled its disk said.
#[track_caller]
fn assert_met_its_limit(said: &str, limit_kib: u64) {
    assert!(said.contains("No space left") || said.contains("quota exceeded"), "{said}");
    assert!(said.contains("ended 1\nword\n"), "{said}");
    let numbers: Vec<u64> =
        said.lines().last().unwrap().split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers[0] <= limit_kib && numbers[0] > limit_kib / 2, "df shows {numbers:?}");
}

fn free_disk_mib(cell: &Cell) -> u32 {
    let described =
        cell.runtime.block_on(cell.client().describe(v1::DescribeRequest {})).unwrap().into_inner();
    assert!(!described.disk_limits.is_empty() && !described.disk_limits_why.is_empty(), "{described:?}");
    described.free.expect("a ledger").disk_mib
}

#[test]
fn privileged_an_instance_that_fills_its_disk_disturbs_nobody() {
    let Some(mut cell) = Cell::up("fills_its_disk") else { return };
    if !has_limits(&cell, "a full disk", &[]) {
        return;
    }
    cell.run(&["--name", "other"], FOR_EVER);
    let free_mib = free_disk_mib(&cell);
    cell.run(&["--name", "full", "--storage-opt", "size=32m"], &format!("{FILL}; echo said; {FOR_EVER}"));
    assert_eq!(free_mib - free_disk_mib(&cell), 32, "the ledger has it");
    crate::common::wait_until(|| cell.ok(&["logs", "full"]).ends_with("said\n"), "it has tried");
    assert_met_its_limit(cell.ok(&["logs", "full"]).trim_end_matches("said\n"), 32 << 10);
    // One that ends because of it is started again with a new layer.
    cell.run(
        &["--name", "crash", "--storage-opt", "size=16m", "--restart", "always"],
        "busybox dd if=/dev/zero of=/big bs=1M count=100; exit 3",
    );
    let crash = cell.wait("crash", |one| one.status() == v1::Status::Waiting);
    assert_eq!((crash.attempt, crash.end.expect("an end").code), (3, 3));
    // The next agent takes over what there is.
    cell.kill();
    cell.begin();
    let one = cell.wait("full", |one| one.status() == v1::Status::Running);
    assert_eq!(one.attempt, 1);
    assert_eq!(cell.ok(&["exec", "full", "busybox", "cat", "/small"]), "word\n");
    assert_eq!(cell.wait("other", |one| one.status() == v1::Status::Running).attempt, 1);
    // What the disk has free is looked at when an agent begins.
    let free_mib = free_disk_mib(&cell);
    cell.ok(&["rm", "-f", "full", "crash"]);
    crate::common::wait_until(|| free_disk_mib(&cell) == free_mib + 48, "the ledger has it back");
    cell.leaves_nothing("a full disk");
}

#[test]
fn privileged_roots_with_a_limit_are_given_to_nobody() {
    let Some(cell) = Cell::up("roots_with_a_limit") else { return };
    if !has_limits(&cell, "roots with a limit", &[]) {
        return;
    }
    let size = "busybox df -k / | busybox tail -n 1 | busybox awk '{print $2}'";
    let kib = |text: String| text.trim().parse::<u64>().unwrap();
    let of_task = |name: &str, flags: &[&str]| {
        cell.run(&[&["--name", name, "--task"], flags].concat(), size);
        assert_eq!(cell.ended(name).code, 0);
        kib(cell.ok(&["logs", name]))
    };
    let whole = of_task("whole", &[]);
    assert!(of_task("small", &["--storage-opt", "size=16m"]) <= 16 << 10);
    assert!(of_task("larger", &["--storage-opt", "size=64m"]) > 32 << 10);
    assert_eq!(of_task("again", &[]), whole);
    // And the same for containers in the foreground.
    assert!(kib(cell.shell(&["--storage-opt", "size=16m"], size)) <= 16 << 10);
    assert_eq!(kib(cell.shell(&[], size)), whole);
    cell.leaves_nothing("roots with limits");
}

#[test]
fn privileged_a_container_with_mapped_ids_meets_its_limit() {
    let Some(celda) = Celda::with_image("mapped_limit") else { return };
    if !celda.takes_detached("mapped ids") || !has_limits(&celda, "mapped ids", &["--userns"]) {
        return;
    }
    let before = celda.leftovers();
    let flags = ["--storage-opt", "size=32m", "--userns", "map:0:100000:65536"];
    assert_met_its_limit(&celda.shell(&flags, FILL), 32 << 10);
    // It may not leave its project, where that is what binds it.
    let said = celda.shell(&flags, &format!("busybox chattr -P / 2>&1; {FILL}"));
    assert_met_its_limit(&said, 32 << 10);
    celda.ok(&["gc"]);
    before.assert_unchanged(celda.directory(), "mapped limits");
}

#[test]
fn privileged_a_project_quota_binds_whoever_has_mapped_ids() {
    let Some(celda) = Celda::with_image_on_projects("a_project_quota", 256) else { return };
    if !celda.takes_detached("mapped ids") {
        return;
    }
    let info: serde_json::Value = serde_json::from_str(&celda.ok(&["info", "--json"])).unwrap();
    let way = info["disk_limits"]["way"].as_str().unwrap();
    assert_eq!(way, "project quota with a user namespace, sized filesystem without");
    let before = celda.leftovers();
    let flags = |size: &'static str| ["--storage-opt", size, "--userns", "map:0:100000:65536"];
    let look = format!("busybox chattr -P / 2>&1; busybox chattr -p 0 / 2>&1; {FILL}");
    let said = celda.shell(&flags("size=32m"), &look);
    assert!(said.contains("quota exceeded"), "{said}");
    assert_met_its_limit(&said, 32 << 10);
    // The number of one that is gone is free for another, with another limit.
    let said = celda.shell(&flags("size=64m"), FILL);
    assert_met_its_limit(&said, 64 << 10);
    assert_met_its_limit(&celda.shell(&["--storage-opt", "size=32m"], FILL), 32 << 10);
    let args = celda.shell_args(&flags("size=16m"), &format!("echo on; {FOR_EVER}"));
    let mut command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut run = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(run.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "on\n");
    run.kill().unwrap();
    run.wait().unwrap();
    celda.ok(&["gc"]);
    before.assert_unchanged(celda.directory(), "project quotas");
    assert_eq!(std::fs::read_dir(celda.root().join("containers")).unwrap().count(), 0);
}

#[test]
fn privileged_limits_that_are_killed_in_the_making_leave_nothing() {
    let Some(celda) = Celda::with_image("killed_limits") else { return };
    if !has_limits(&celda, "killed limits", &[]) {
        return;
    }
    let before = celda.leftovers();
    for round in 0..24_u32 {
        let args = celda.shell_args(&["--storage-opt", "size=16m"], FOR_EVER);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut run = celda.command(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Each round a later moment, from the first instructions to a container that runs.
        let ended = wait_at_most(&mut run, Duration::from_micros(u64::from(round * round) * 150));
        assert!(!ended, "it ended by itself");
        run.kill().unwrap();
        run.wait().unwrap();
    }
    // A container in the making holds its directory for the moment that it takes to find out that its celda is gone.
    let is_clear = || {
        celda.ok(&["gc"]);
        std::fs::read_dir(celda.root().join("containers")).unwrap().next().is_none()
    };
    crate::common::wait_until(is_clear, "nothing is in the making any more");
    before.assert_unchanged(celda.directory(), "killed limits");
}

/// Whether a process ends within a time.
fn wait_at_most(process: &mut std::process::Child, at_most: Duration) -> bool {
    let deadline = std::time::Instant::now() + at_most;
    while std::time::Instant::now() < deadline {
        if process.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[test]
fn privileged_without_the_formatter_a_limit_is_refused_with_what_is_missing() {
    let Some(celda) = Celda::with_image("no_formatter") else { return };
    let Some(formatter) =
        ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"].into_iter().find(|path| Path::new(path).exists())
    else {
        return println!("skipped: there is no formatter to be missed");
    };
    let before = celda.leftovers();
    let args = celda.shell_args(&["--storage-opt", "size=16m"], "true");
    let hidden = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut command = std::process::Command::new("unshare");
    command.args(["--mount", "/bin/sh", "-c", "mount --bind /dev/null \"$0\" && exec \"$@\"", formatter]);
    command.arg(hidden.get_program()).args(hidden.get_args());
    command.envs(hidden.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{}", describe(&output));
    assert!(said.contains("install e2fsprogs"), "{said}");
    celda.ok(&["gc"]);
    before.assert_unchanged(celda.directory(), "a missing formatter");
    assert!(celda.fails(125, &["run", "--storage-opt", "size=1k", "image"]).contains("size=10G"));
}
