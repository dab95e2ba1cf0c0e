//! An agent that is killed, again and again, while instances write: the test is the holder of the pipes, and this same
//! binary, called with some variables, the agent.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsFd as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use celda::cell::logs::{Limits, Logs, LogsOptions, Source, Stream};
use rustix::io::FdFlags;

use super::support::{block_on, joined, logs, pipe, read_until, source};

const ROOT: &str = "CELDA_TEST_LOGS_ROOT";
const FDS: &str = "CELDA_TEST_LOGS_FDS";
const INSTANCES_COUNT: usize = 8;
const KILLS_COUNT: u32 = 60;
/// Enough for every line of the test.
const LIMITS: Limits = Limits { segment_bytes: 1 << 20, segments_count: 1000 };

/// The agent's part; as a test of its own it has nothing to do.
#[test]
fn an_agent_to_be_killed() {
    let (Ok(root), Ok(fds)) = (std::env::var(ROOT), std::env::var(FDS)) else { return };
    let logs =
        Logs::start(LogsOptions { run: format!("{root}/run").into(), root: root.into() }).expect("started");
    let open = |fd: &str| {
        let path = format!("/proc/self/fd/{fd}");
        Some(OwnedFd::from(std::fs::File::open(path).expect("the holder's pipe")))
    };
    let mut all = Vec::new();
    for (index, pair) in fds.split(',').enumerate() {
        let (output, error) = pair.split_once(':').expect("a pair");
        let (output, error) = (open(output), open(error));
        let source = Source {
            name: format!("i{index}"),
            app: "app".into(),
            rate: None,
            limits: LIMITS,
            is_prompt: false,
            output,
            error,
        };
        all.push(logs.attach(source).expect("attached"));
    }
    println!("ready");
    for log in all {
        block_on(log.ended());
    }
}

fn agent(root: &Path, fds: &str) -> std::process::Child {
    let mut child = Command::new(std::env::current_exe().expect("a path"))
        .args(["--exact", "killed::an_agent_to_be_killed", "--nocapture"])
        .env(ROOT, root)
        .env(FDS, fds)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    // Keeps the pipe's end until the agent is gone.
    let ready = std::thread::spawn(move || lines.map_while(Result::ok).any(|line| line.contains("ready")));
    assert!(ready.join().expect("no panic"), "the agent did not start");
    child
}

#[test]
fn nothing_is_lost_or_doubled_however_often_the_agent_is_killed() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut held, mut writers, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..INSTANCES_COUNT {
        let ((output, mut out), (error, mut err)) = (pipe(), pipe());
        for end in [&output, &error] {
            rustix::io::fcntl_setfd(end, FdFlags::empty()).expect("inherited");
        }
        names.push(format!("{}:{}", output.as_raw_fd(), error.as_raw_fd()));
        held.push([output, error]);
        let is_over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let over = std::sync::Arc::clone(&is_over);
        let writer = std::thread::spawn(move || {
            let (mut number, mut expected) = (0_u64, [Vec::new(), Vec::new()]);
            while !over.load(std::sync::atomic::Ordering::Relaxed) && number < 200_000 {
                // The same line again and again is the hardest to tell apart; others have their number.
                let line = match index % 2 {
                    0 => "tick\n".to_owned(),
                    _ => format!("{number} {}\n", "x".repeat((number % 50) as usize)),
                };
                for (file, expected) in [&mut out, &mut err].into_iter().zip(&mut expected) {
                    file.write_all(line.as_bytes()).expect("written");
                    expected.extend_from_slice(line.as_bytes());
                }
                number += 1;
            }
            expected
        });
        writers.push((is_over, writer));
    }
    let fds = names.join(",");
    for turn in 0..KILLS_COUNT {
        let mut child = agent(root.path(), &fds);
        // Some way into its work, another way each time; how far does not matter.
        let until = Instant::now() + Duration::from_micros(u64::from(turn) * 777 % 40_000);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }
    for (is_over, _) in &writers {
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
    }
    let logs = logs(root.path());
    let mut all = Vec::new();
    for (index, [output, error]) in held.into_iter().enumerate() {
        let clone = |fd: OwnedFd| fd.as_fd().try_clone_to_owned().expect("a descriptor");
        let mut source = source(&format!("i{index}"), clone(output));
        (source.error, source.limits) = (Some(clone(error)), LIMITS);
        all.push(logs.attach(source).expect("attached"));
    }
    for ((_, writer), log) in writers.into_iter().zip(all) {
        let expected = writer.join().expect("no panic");
        block_on(log.ended());
        let mut follower = log.follower(celda::cell::logs::From::Oldest).expect("a follower");
        let (entries, missed) = read_until(&mut follower, &|_| false);
        assert_eq!(missed, 0);
        for (stream, expected) in [Stream::Output, Stream::Error].into_iter().zip(expected) {
            let found = joined(&entries, stream);
            assert_eq!(found.len(), expected.len(), "{stream:?} of {}", log.directory().display());
            assert!(found == expected);
        }
    }
}
