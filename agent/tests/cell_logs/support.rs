//! Pipes, sources, and readers that wait with a deadline.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use celda::cell::logs::{Entry, Follower, From, Limits, Log, Logs, LogsOptions, Source, Stream};
use rustix::pipe::PipeFlags;

/// The longest that a test waits for what must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The smallest limits there are.
pub(crate) const SMALL: Limits = Limits { segment_bytes: 1 << 20, segments_count: 2 };

pub(crate) fn logs(root: &Path) -> Logs {
    Logs::start(LogsOptions { root: root.to_owned(), run: root.join("run") }).expect("started")
}

pub(crate) fn pipe() -> (OwnedFd, File) {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
    (read, write.into())
}

pub(crate) fn source(name: &str, output: OwnedFd) -> Source {
    Source {
        name: name.to_owned(),
        app: "app".to_owned(),
        rate: None,
        limits: Limits::default(),
        is_prompt: false,
        output: Some(output),
        error: None,
    }
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("in time") })
}

/// What comes until `is_enough`, or the log's end; also how much was missed.
pub(crate) fn read_until(follower: &mut Follower, is_enough: &dyn Fn(&[Entry]) -> bool) -> (Vec<Entry>, u64) {
    let (mut all, mut missed) = (Vec::new(), 0);
    block_on(async {
        loop {
            let chunk = follower.read(1 << 20).expect("read");
            missed += chunk.missed_count;
            let is_empty = chunk.entries.is_empty() && chunk.missed_count == 0;
            all.extend(chunk.entries);
            if is_enough(&all) || (is_empty && !follower.changed().await) {
                break;
            }
        }
    });
    (all, missed)
}

/// The whole log, once it has ended.
pub(crate) fn read_all(log: &Log) -> (Vec<Entry>, u64) {
    block_on(log.ended());
    read_until(&mut log.follower(From::Oldest).expect("a follower"), &|_| false)
}

/// The bytes that a stream's records stand for.
pub(crate) fn joined(entries: &[Entry], stream: Stream) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries.iter().filter(|entry| entry.stream == stream) {
        bytes.extend_from_slice(&entry.payload);
        if !entry.is_partial {
            bytes.push(b'\n');
        }
    }
    bytes
}
