use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};

use super::*;
use crate::cell::logs::{Limits, Log, Logs, LogsOptions};

/// The longest that a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(60);
const LINE_BYTES: usize = 1000;
const ROUNDS_COUNT: usize = 3;
const LINES_PER_ROUND: usize = 60;

fn attach(logs: &Logs, name: &str) -> (Log, File) {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    let source = Source {
        name: name.to_owned(),
        app: "app".to_owned(),
        rate: None,
        limits: Limits::default(),
        is_prompt: false,
        output: Some(read),
        error: None,
    };
    (logs.attach(source).expect("attached"), write.into())
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < DEADLINE, "waited too long for {what}");
        std::thread::yield_now();
    }
}

/// So many logs that have ended, whose lines have times between each other's.
fn ended(logs: &Logs, root: &Path, count: usize) -> Vec<Reading> {
    let mut all: Vec<_> = (0..count).map(|index| attach(logs, &format!("web-{index}"))).collect();
    let line = [&[b'x'; LINE_BYTES - 1][..], b"\n"].concat().repeat(LINES_PER_ROUND);
    for round in 1..=ROUNDS_COUNT {
        for (_, out) in &mut all {
            out.write_all(&line).expect("written");
        }
        let lines_count = (round * LINES_PER_ROUND) as u64;
        wait_until("the lines", || all.iter().all(|(log, _)| log.next_sequence() == lines_count));
    }
    let logs: Vec<Log> = all.into_iter().map(|(log, _)| log).collect();
    wait_until("the ends", || logs.iter().all(Log::has_ended) && open_files_count(root) == 0);
    let reading = |(index, log): (u32, Log)| Reading {
        id: format!("web-{index}"),
        app: "app".to_owned(),
        index,
        follower: log.follower(From::Oldest).expect("a follower"),
        queue: VecDeque::new(),
        missed: 0,
        has_ended: true,
        is_over: true,
    };
    (0..).zip(logs).map(reading).collect()
}

/// Files of logs that this process has open.
fn open_files_count(root: &Path) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").expect("list");
    let of_logs = |path: &std::path::PathBuf| {
        path.starts_with(root) && path.extension().is_some_and(|extension| extension == "log")
    };
    fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(of_logs).count()
}

#[test]
fn a_stream_of_many_logs_keeps_their_order_and_its_bounds() {
    let root = tempfile::tempdir().expect("a directory");
    let options = LogsOptions { root: root.path().to_owned(), run: root.path().join("run") };
    let logs = Logs::start(options).expect("started");
    for count in [FILES_COUNT_MAX, 3 * FILES_COUNT_MAX] {
        let mut sources = ended(&logs, root.path(), count);
        let (mut lines, mut messages_count) = (Vec::new(), 0);
        loop {
            let message = gather(&mut sources).expect("read");
            let read_ahead: usize =
                sources.iter().flat_map(|source| &source.queue).map(|entry| entry.payload.len()).sum();
            assert!(
                read_ahead <= READ_AHEAD_BYTES + count * LINE_BYTES,
                "{read_ahead} bytes of {count} logs"
            );
            let files_count = open_files_count(root.path());
            assert!(files_count <= FILES_COUNT_MAX, "{files_count} files of {count} logs are open");
            if message.is_empty() {
                break;
            }
            messages_count += 1;
            lines.extend(message);
        }
        assert!(lines.is_sorted_by_key(|line| line.at_ns), "of {count} logs the oldest lines come first");
        let lines_count = ROUNDS_COUNT * LINES_PER_ROUND;
        assert_eq!(lines.len(), count * lines_count);
        assert!(messages_count < lines.len() / 100, "{messages_count} messages");
        for index in 0..count as u32 {
            let of_one = lines.iter().filter(|line| line.index == index);
            assert!(of_one.zip(0..).all(|(line, sequence)| line.sequence == sequence && line.missed == 0));
        }
        for source in sources {
            logs.remove(&source.id).expect("removed");
        }
    }
}

#[test]
fn what_is_read_ahead_is_bounded_for_all_logs_together() {
    for count in [0, 1, 16, 17, 40, 1000, 1024] {
        let bytes = chunk_bytes(count);
        assert!(bytes <= CHUNK_BYTES_MAX && bytes * count <= READ_AHEAD_BYTES, "{bytes} of each of {count}");
    }
    assert_eq!((chunk_bytes(1), chunk_bytes(100_000)), (CHUNK_BYTES_MAX, CHUNK_BYTES_MIN));
}
