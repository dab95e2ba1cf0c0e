//! The workers: threads that do what waits for the kernel, each with its own connection to the holder.
//!
//! There are two queues: what is ready to start is started before anything new is prepared, so that of a large batch the
//! first runs at once, and not when all are prepared.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};

use super::error::{CellError, Result};
use super::holder::Holder;

/// One piece of work.
pub type Job = Box<dyn FnOnce(&Worker) + Send>;

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its connection to the holder.
    pub holder: Holder,
}

/// All workers. They end when this is dropped and the queue is empty.
#[derive(Debug, Clone)]
pub struct Workers {
    urgent: Sender<Job>,
    usual: Sender<Job>,
    pending: Arc<Pending>,
}

/// Jobs that were given and are not done.
#[derive(Debug, Default)]
struct Pending {
    count: Mutex<usize>,
    none: Condvar,
}

impl Pending {
    fn count(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn done(&self) {
        let mut count = self.count();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.none.notify_all();
        }
    }
}

impl Workers {
    /// Starts `count` of them, connected to the holder in `directory`.
    ///
    /// # Errors
    /// [`CellError::Holder`], [`CellError::Io`] when there is no thread.
    pub fn start(count: u32, directory: &Path) -> Result<Self> {
        // As long as what all instances want done: a few jobs for each.
        let (urgent, urgent_queue) = crossbeam_channel::unbounded::<Job>();
        let (usual, usual_queue) = crossbeam_channel::unbounded::<Job>();
        let pending = Arc::<Pending>::default();
        for _ in 0..count {
            let holder = Holder::connect(directory)?.ok_or_else(|| CellError::Holder {
                what: "connect a worker",
                why: "the holder has ended; `celda agent` starts a new one".into(),
            })?;
            let queues = [urgent_queue.clone(), usual_queue.clone()];
            spawn(Worker { holder }, queues, Arc::clone(&pending), directory)?;
        }
        Ok(Self { urgent, usual, pending })
    }

    /// Has a job done when nothing urgent waits.
    pub fn give(&self, job: Job) {
        *self.pending.count() += 1;
        // The workers live as long as a sender does.
        let _ = self.usual.send(job);
    }

    /// Has a job done next.
    pub fn give_urgent(&self, job: Job) {
        *self.pending.count() += 1;
        let _ = self.urgent.send(job);
    }

    /// Waits until all jobs are done, but no longer than `at_most`.
    pub fn finish(&self, at_most: Duration) {
        let count = self.pending.count();
        let waited = self.pending.none.wait_timeout_while(count, at_most, |count| *count > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// How many jobs wait.
    pub fn waiting_count(&self) -> usize {
        self.urgent.len() + self.usual.len()
    }
}

fn spawn(
    worker: Worker,
    [urgent, usual]: [Receiver<Job>; 2],
    pending: Arc<Pending>,
    directory: &Path,
) -> Result<()> {
    let thread = std::thread::Builder::new().name("worker".into());
    let spawned = thread.spawn(move || {
        let next = || {
            crossbeam_channel::select_biased! {
                recv(urgent) -> job => job,
                recv(usual) -> job => job,
            }
        };
        while let Ok(job) = next() {
            job(&worker);
            pending.done();
        }
    });
    spawned.map(drop).map_err(CellError::io("start a thread for", directory))
}
