//! Instances that write, a catalog of their logs, and forwarders that end with the test.

use std::fs::File;
use std::future::Future;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celda::cell::core::Written;
use celda::cell::forward::{Catalog, Forwarder, Tally};
use celda::cell::logs::{Limits, Log, Logs, LogsError, LogsOptions, Source};
use rustix::pipe::PipeFlags;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Nothing here takes this long: a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// The smallest limits there are: two files of a megabyte.
const SMALL: Limits = Limits { segment_bytes: 1 << 20, segments_count: 2 };

/// The future's value.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// Waits until something is so that nobody tells of.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(what, wait).await;
}

/// A cell's logs, as far as forwarders see them.
pub(crate) struct Cell {
    directory: TempDir,
    logs: Logs,
    known: Arc<Known>,
    forwarding: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Known {
    logs: Mutex<Vec<(String, Log)>>,
    has_changed: AtomicBool,
    listed_count: AtomicUsize,
}

/// What a test's catalog has.
struct Listed(Arc<Known>);

impl Catalog for Listed {
    fn has_changed(&mut self) -> bool {
        self.0.has_changed.swap(false, Ordering::Relaxed)
    }

    async fn list(&self) -> Option<Vec<Written>> {
        let logs = self.0.logs.lock().unwrap();
        self.0.listed_count.store(logs.len(), Ordering::Relaxed);
        let written = logs.iter().zip(0..).map(|((id, log), index)| Written {
            id: id.clone(),
            app: "shop".into(),
            index,
            name: id.clone(),
            log: Some(log.clone()),
            is_over: false,
        });
        Some(written.collect())
    }

    async fn open(&self, written: &Written) -> Result<Option<Log>, LogsError> {
        Err(LogsError::Attached { name: written.name.clone() })
    }
}

impl Cell {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = LogsOptions { root: directory.path().join("logs"), run: directory.path().join("run") };
        let logs = Logs::start(options).unwrap();
        Self { directory, logs, known: Arc::default(), forwarding: Vec::new() }
    }

    /// An instance, by what it writes to.
    pub(crate) fn instance(&self, id: &str) -> File {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).unwrap();
        let source = Source {
            name: id.to_owned(),
            app: "shop".to_owned(),
            rate: None,
            is_prompt: false,
            limits: SMALL,
            output: Some(read),
            error: None,
        };
        let log = self.logs.attach(source).unwrap();
        self.known.logs.lock().unwrap().push((id.to_owned(), log));
        self.known.has_changed.store(true, Ordering::Relaxed);
        write.into()
    }

    /// The instance is no more.
    pub(crate) fn remove(&self, id: &str) {
        self.known.logs.lock().unwrap().retain(|(of, _)| of != id);
        self.known.has_changed.store(true, Ordering::Relaxed);
    }

    /// How many instances the forwarder has heard of when it last asked.
    pub(crate) fn listed_count(&self) -> usize {
        self.known.listed_count.load(Ordering::Relaxed)
    }

    /// How many records of an instance are in its files, or were.
    pub(crate) fn records_count(&self, id: &str) -> u64 {
        let logs = self.known.logs.lock().unwrap();
        logs.iter().find(|(of, _)| of == id).unwrap().1.next_sequence()
    }

    /// Has it all forwarded, as an agent that has just come up does.
    pub(crate) fn forward(&mut self, forwarder: Forwarder) -> Arc<Tally> {
        let (tally, directory) = (forwarder.tally(), self.directory.path().to_owned());
        self.known.has_changed.store(true, Ordering::Relaxed);
        let catalog = Listed(Arc::clone(&self.known));
        self.forwarding.push(tokio::spawn(async move { forwarder.run(catalog, &directory).await }));
        tally
    }

    /// Kills the forwarder.
    pub(crate) async fn forward_no_more(&mut self) {
        for forwarding in self.forwarding.drain(..) {
            forwarding.abort();
            let _ = forwarding.await;
        }
    }

    /// Where places are written down.
    pub(crate) fn places(&self, forwarder: &str) -> std::path::PathBuf {
        self.directory.path().join(format!("{forwarder}.places"))
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.forwarding.iter().for_each(JoinHandle::abort);
    }
}

/// Writes lines of these numbers.
pub(crate) fn say(instance: &mut File, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        // In one piece: half a line that waits for its end is a record of its own.
        instance.write_all(format!("line {number}\n").as_bytes()).unwrap();
    }
}
