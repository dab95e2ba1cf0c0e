//! Threads that start the programs of exec checks: a start may wait, and no other look should.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::error::{HealthError, Result};
use super::{EXEC_THREADS_COUNT, Launch};
use crate::sandbox;
use crate::sandbox::exec::Exec;

/// A start, by the number of its look.
pub(super) type Job = (u64, Launch);
/// What came of it.
pub(super) type Launched = (u64, sandbox::Result<Exec>);

/// Starts the threads; they end when the sender of jobs is dropped.
pub(super) fn threads(
    answer: impl Fn(Launched) + Clone + Send + 'static,
) -> Result<(Sender<Job>, Vec<JoinHandle<()>>)> {
    let mut threads = Vec::new();
    let (jobs, queue) = channel::<Job>();
    let queue: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(queue));
    for _ in 0..EXEC_THREADS_COUNT {
        let (queue, answer) = (Arc::clone(&queue), answer.clone());
        let work = move || {
            loop {
                let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok((number, launch)) = job else { return };
                answer((number, launch()));
            }
        };
        let thread = std::thread::Builder::new()
            .name("celda-check".to_owned())
            .spawn(work)
            .map_err(HealthError::kernel("start a thread for exec checks"))?;
        threads.push(thread);
    }
    Ok((jobs, threads))
}
