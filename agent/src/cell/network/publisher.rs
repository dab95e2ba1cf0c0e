//! Elements of the published ports' maps, as they are in the kernel: changes that come while `nft` runs are made
//! together by its next run.
//!
//! ```text
//! publish ─┐                       ┌─> done
//! publish ─┼─> queue ── one run ───┼─> done          a run that fails as a whole is made again change by change,
//! unpublish┘   of all that waits   └─> refused       so that only the wrong one is refused
//! ```

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::{NetworkError, Result};
use super::nftables::{self, Published};
use super::port::Protocol;

/// Who publishes.
#[derive(Debug)]
pub(super) struct Publisher {
    table: String,
    state: Mutex<State>,
    /// A run is over.
    done: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Those that are published, or are just being.
    known: HashMap<(Protocol, u16), Published>,
    /// Scripts that wait, by their number.
    queue: Vec<(u64, String)>,
    outcomes: HashMap<u64, Result<()>>,
    next: u64,
    /// Somebody runs `nft`.
    is_running: bool,
}

impl Publisher {
    pub(super) fn new(table: String) -> Self {
        Self { table, state: Mutex::default(), done: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes all of them or none; a port's former owner may take `at_most` to be cleared away.
    pub(super) fn publish(&self, all: &[Published], at_most: Duration) -> Result<()> {
        if all.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + at_most;
        let mut state = self.state();
        while let Some(other) = all.iter().find_map(|one| state.known.get(&key(one)).copied()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NetworkError::Published { port: other.host_port, address: other.address });
            }
            let waited = self.done.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        for (index, one) in all.iter().enumerate() {
            if all[..index].iter().any(|other| key(other) == key(one)) {
                return Err(NetworkError::Published { port: one.host_port, address: one.address });
            }
        }
        state.known.extend(all.iter().map(|one| (key(one), *one)));
        let outcome = self.change(state, nftables::add(&self.table, all));
        if outcome.is_err() {
            let mut state = self.state();
            all.iter().for_each(|one| _ = state.known.remove(&key(one)));
            drop(state);
            self.done.notify_all(); // who waits for one of them has missed the last word, which came before they were taken out
        }
        outcome
    }

    /// Takes ports back; those that are not published so are no error.
    pub(super) fn unpublish(&self, all: &[Published]) -> Result<()> {
        let state = self.state();
        let mut there: Vec<Published> = Vec::new();
        for one in all {
            if state.known.get(&key(one)) == Some(one) && !there.contains(one) {
                there.push(*one);
            }
        }
        if there.is_empty() {
            return Ok(());
        }
        let outcome = self.change(state, nftables::delete(&self.table, &there));
        if outcome.is_ok() {
            let mut state = self.state();
            there.iter().for_each(|one| _ = state.known.remove(&key(one)));
        }
        self.done.notify_all();
        outcome
    }

    /// Has a script run, with others that wait.
    fn change<'a>(&'a self, mut state: MutexGuard<'a, State>, script: String) -> Result<()> {
        let number = state.next;
        state.next += 1;
        state.queue.push((number, script));
        loop {
            if let Some(outcome) = state.outcomes.remove(&number) {
                return outcome;
            }
            if state.is_running {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_running = true;
            let batch = std::mem::take(&mut state.queue);
            drop(state);
            let outcomes = run(batch);
            state = self.state();
            state.is_running = false;
            state.outcomes.extend(outcomes);
            self.done.notify_all();
        }
    }
}

fn key(published: &Published) -> (Protocol, u16) {
    (published.protocol, published.host_port)
}

fn run(batch: Vec<(u64, String)>) -> Vec<(u64, Result<()>)> {
    const ACTION: &str = "change published ports";
    let script: String = batch.iter().map(|(_, script)| script.as_str()).collect();
    match nftables::run(ACTION, &script) {
        Ok(()) => batch.into_iter().map(|(number, _)| (number, Ok(()))).collect(),
        Err(error) if batch.len() == 1 => {
            batch.into_iter().map(|(number, _)| number).zip([Err(error)]).collect()
        }
        Err(_) => {
            batch.into_iter().map(|(number, script)| (number, nftables::run(ACTION, &script))).collect()
        }
    }
}
