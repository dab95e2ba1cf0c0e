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
    // Next to nothing comes with time: how fast the lines are written must not matter.
    let rate = Some(Rate { bytes_per_s: 10, burst_bytes: 20_000 });
    let count = 5_000;
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

/// Runs `test` with the root of logs on a disk of 3 MB, of which a file `filler` takes 2; false where that cannot be.
fn on_a_full_disk(test: impl FnOnce(&std::path::Path) + Send + 'static) {
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
        std::fs::write(path.join("filler"), vec![1; 2 << 20]).expect("filled");
        test(&path);
    })
    .join();
    outcome.expect("no panic");
}

fn until_stalled(log: &celda::cell::logs::Log) {
    let deadline = std::time::Instant::now() + super::support::DEADLINE;
    while !log.tally().is_stalled {
        assert!(std::time::Instant::now() < deadline, "never full");
        std::thread::yield_now();
    }
}

/// As on a full disk: what cannot be written stays in the pipe, and the instance waits.
#[test]
fn privileged_a_full_disk_stops_the_instance_and_loses_nothing() {
    on_a_full_disk(|path| {
        let logs = logs(path);
        let (output, mut out) = pipe();
        let mut source = source("full", output);
        source.limits = SMALL;
        let log = logs.attach(source).expect("attached");
        let writer = std::thread::spawn(move || {
            for number in 0..12_000 {
                writeln!(out, "{number:0100}").expect("written");
            }
        });
        until_stalled(&log);
        assert!(!writer.is_finished(), "it waits");
        std::fs::remove_file(path.join("filler")).expect("freed");
        block_on(log.ended());
        writer.join().expect("no panic");
        let (entries, missed) = read_until(&mut log.follower(From::Oldest).expect("a follower"), &|_| false);
        let expected: Vec<u8> =
            (0..12_000).flat_map(|number| format!("{number:0100}\n").into_bytes()).collect();
        assert_eq!(missed, 0);
        assert!(joined(&entries, Stream::Output) == expected, "lost or doubled lines");
        assert!(!log.tally().is_stalled);
    });
}

#[test]
fn privileged_last_words_wait_for_room_unless_nobody_wants_them() {
    on_a_full_disk(|path| {
        let logs = logs(path);
        let begin = |name: &str| {
            let (output, mut out) = pipe();
            let mut source = source(name, output);
            source.limits = SMALL;
            (logs.attach(source).expect("attached"), move |text: &[u8]| out.write_all(text).expect("written"))
        };
        let (kept, mut say) = begin("kept");
        let (forgotten, mut say_too) = begin("forgotten");
        let (taker, _taken) = begin("taker");
        // What is left of the disk.
        let room = rustix::fs::statvfs(path).expect("statvfs");
        std::fs::write(path.join("rest"), vec![1; (room.f_bavail * room.f_frsize) as usize]).expect("filled");
        let words = b"last words, and no end of the line".repeat(1000);
        say(&words);
        say_too(&words);
        until_stalled(&kept);
        until_stalled(&forgotten);
        // The pipes have writers still, as of what the instances left behind.
        logs.finish(&kept).expect("told");
        logs.discard("forgotten").expect("told");
        logs.finish(&taker).expect("told");
        block_on(async { tokio::join!(forgotten.ended(), taker.ended()) });
        assert!(!kept.has_ended(), "it waits for room");
        std::fs::remove_file(path.join("filler")).expect("freed");
        let (entries, _) = read_all(&kept);
        assert!(joined(&entries, Stream::Output).starts_with(&words), "{} records", entries.len());
    });
}
