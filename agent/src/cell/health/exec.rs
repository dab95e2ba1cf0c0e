//! Threads that start the programs of exec checks: a start may wait, and no other look should.
//!
//! There are as many as are busy at once, each of which starts one program at a time; one that is stuck in a start, as
//! with a container whose files do not answer, keeps its thread to itself.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::error::{HealthError, Result};
use super::{EXEC_THREADS_COUNT_MAX, Launch};
use crate::sandbox;
use crate::sandbox::exec::Exec;

/// A start.
pub(super) struct Job {
    /// Of its look.
    pub(super) number: u64,
    pub(super) launch: Launch,
    /// How long it may take.
    pub(super) wait: Duration,
}

/// What came of a start, by the number of its look.
pub(super) type Launched = (u64, sandbox::Result<Exec>);

/// The threads. Dropped, they are waited for.
pub(super) struct Launchers {
    /// Gone only while this is being dropped.
    jobs: Option<Sender<Job>>,
    queue: Receiver<Job>,
    answer: Arc<dyn Fn(Launched) + Send + Sync>,
    threads: Vec<JoinHandle<()>>,
    busy_count: usize,
}

impl Launchers {
    /// None yet; what comes of a start is for `answer`, on a thread of theirs.
    pub(super) fn new(answer: impl Fn(Launched) + Send + Sync + 'static) -> Self {
        // As long as there are threads: a job is given to one that is free.
        let (jobs, queue) = crossbeam_channel::bounded(EXEC_THREADS_COUNT_MAX);
        Self { jobs: Some(jobs), queue, answer: Arc::new(answer), threads: Vec::new(), busy_count: 0 }
    }

    /// Whether one is free, or can be had.
    pub(super) fn has_free(&self) -> bool {
        self.busy_count < EXEC_THREADS_COUNT_MAX
    }

    /// Begins a start. An answer comes, unless this fails.
    ///
    /// # Errors
    /// [`HealthError::Kernel`] when there is no thread.
    pub(super) fn begin(&mut self, job: Job) -> Result<()> {
        if self.busy_count == self.threads.len() {
            let (queue, answer) = (self.queue.clone(), Arc::clone(&self.answer));
            let work = move || {
                for Job { number, launch, wait } in queue {
                    answer((number, launch(wait)));
                }
            };
            let thread = std::thread::Builder::new()
                .name("celda-check".to_owned())
                .spawn(work)
                .map_err(HealthError::kernel("start a thread for exec checks"))?;
            self.threads.push(thread);
        }
        self.busy_count += 1;
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job); // `self` has a receiver
        }
        Ok(())
    }

    /// An answer has come.
    pub(super) fn done(&mut self) {
        self.busy_count = self.busy_count.saturating_sub(1);
    }
}

impl Drop for Launchers {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic there was printed there
        }
    }
}
