//! Rates, and disks that are full.

use std::io::Write as _;

use celda::cell::logs::{From, Rate, Stream};

use super::support::{SMALL, block_on, joined, logs, pipe, read_all, read_until, source};

/// The sum of what the notices say was dropped.
fn dropped(entries: &[celda::cell::logs::Entry]) -> u64 {
    let notices = entries.iter().filter(|entry| entry.stream == Stream::Notice);
    notices
        .filter_map(|entry| {
            let text = String::from_utf8_lossy(&entry.payload).into_owned();
            let rest = text.strip_prefix("celda: ")?.split_once(" lines of ")?.0.to_owned();
            rest.parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn an_apps_instances_share_a_rate_and_every_dropped_line_is_counted() {
    let root = tempfile::tempdir().expect("a directory");
    let logs = logs(root.path());
    let rate = Some(Rate { bytes_per_s: 10_000, burst_bytes: 20_000 });
    let count = 20_000;
    let mut all = Vec::new();
    for name in ["one", "two", "free"] {
        let (output, out) = pipe();
        let mut source = source(name, output);
        source.rate = rate.filter(|_| name != "free");
        if name == "free" {
            source.app = "another".to_owned();
        }
        all.push((logs.attach(source).expect("attached"), out));
    }
    for number in 0..count {
        for (_, out) in &mut all {
            writeln!(out, "line {number:06}").expect("written");
        }
    }
    let mut kept = Vec::new();
    for (log, out) in all {
        drop(out);
        let (entries, _) = read_all(&log);
        let lines = entries.iter().filter(|entry| entry.stream == Stream::Output).count() as u64;
        assert_eq!(lines + dropped(&entries), count, "{}", log.directory().display());
        assert_eq!(log.tally().dropped_lines, dropped(&entries));
        kept.push(lines);
    }
    assert_eq!(kept[2], count, "another app is not limited");
    assert!(kept[0] + kept[1] < count, "{kept:?}");
}

/// As on a full disk: what cannot be written stays in the pipe, and the instance waits.
#[test]
fn privileged_a_full_disk_stops_the_instance_and_loses_nothing() {
    if !rustix::process::geteuid().is_root() {
        let required = std::env::var("CELDA_REQUIRE_PRIVILEGED").as_deref() == Ok("1");
        assert!(!required, "this test must run as root");
        println!("skipped: needs root");
        return;
    }
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().to_owned();
    // A thread of its own takes the mount with it when it ends.
    let outcome = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("unshare");
        rustix::mount::mount_change(
            "/",
            rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC,
        )
        .expect("private");
        rustix::mount::mount("tmpfs", &path, "tmpfs", rustix::mount::MountFlags::empty(), c"size=3m")
            .expect("mount");
        let filler = path.join("filler");
        std::fs::write(&filler, vec![1; 2 << 20]).expect("filled");
        let logs = logs(&path);
        let (output, mut out) = pipe();
        let mut source = source("full", output);
        source.limits = SMALL;
        let log = logs.attach(source).expect("attached");
        let writer = std::thread::spawn(move || {
            for number in 0..12_000 {
                writeln!(out, "{number:0100}").expect("written");
            }
        });
        let deadline = std::time::Instant::now() + super::support::DEADLINE;
        while !log.tally().is_stalled {
            assert!(std::time::Instant::now() < deadline, "never full");
            std::thread::yield_now();
        }
        assert!(!writer.is_finished(), "it waits");
        std::fs::remove_file(&filler).expect("freed");
        block_on(log.ended());
        writer.join().expect("no panic");
        let (entries, missed) = read_until(&mut log.follower(From::Oldest).expect("a follower"), &|_| false);
        let expected: Vec<u8> =
            (0..12_000).flat_map(|number| format!("{number:0100}\n").into_bytes()).collect();
        assert_eq!(missed, 0);
        assert!(joined(&entries, Stream::Output) == expected, "lost or doubled lines");
        assert!(!log.tally().is_stalled);
    })
    .join();
    outcome.expect("no panic");
}
