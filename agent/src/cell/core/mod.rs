//! The one thread that owns all instances: events in, journal, then effects.
//!
//! ```text
//! calls (service) ──┐                   ┌─> journal: one frame, one sync for the whole turn
//! results (workers) ┼─> turn: machines ─┼─> events for who watches, answers for who called
//! ends (holder) ────┤   step            └─> effects: jobs for workers, signals, ledger
//! time ─────────────┘
//! ```
//! A turn takes what has come meanwhile, so the busier the cell is, the more instances share one sync. Nothing is
//! answered or done before the turn is in the journal. Nothing here waits but for the journal: what waits for the kernel
//! is a worker's.

mod adopt;
mod attaching;
mod calls;
mod checking;
mod effects;
mod entry;
mod logging;
mod preparing;
mod starting;
mod turn;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

pub use attaching::Attachment;
pub use calls::{Call, Entrance, Look, Outcomes, ToList, Wanted, Written};
pub use logging::open_log;

use super::books::Books;
use super::config::Config;
use super::error::{CellError, Result};
use super::events::Events;
use super::health::{Health, State};
use super::holder::{Ended, News, Started};
use super::instance::{Cause, Event};
use super::journal::Journal;
use super::logs::{Log, Logs};
use super::metrics::{Metrics, Stages};
use super::network::Ports;
use super::place::{Ground, Place};
use super::wish::Wish;
use super::work::Workers;
use entry::Entry;
use preparing::Preparing;
use tokio::runtime::Handle;
use turn::Turn;

/// What one turn takes at most: its journal frame stays below a megabyte or two.
const INPUTS_PER_TURN_MAX: usize = 1024;
/// How often images that nobody uses are looked for, and at the latest something is.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

/// How long killed containers of nobody's have to end before the agent does.
const STRANGERS_WAIT: Duration = Duration::from_secs(10);

/// What comes to the core.
#[derive(Debug)]
pub enum Input {
    /// Somebody calls.
    Call(Call),
    /// A worker prepared an attempt, or could not.
    Prepared {
        /// The instance.
        id: String,
        /// Which attempt.
        attempt: u32,
        /// Its place, or why there is none.
        result: std::result::Result<Box<Place>, Cause>,
    },
    /// A worker had the holder start it, or could not.
    Started {
        /// The instance.
        id: String,
        /// Which attempt.
        attempt: u32,
        /// Its place.
        place: Box<Place>,
        /// What came of it; an error: the holder is gone.
        result: Result<Started>,
    },
    /// A worker cleared an attempt away.
    Cleaned {
        /// The instance.
        id: String,
    },
    /// What a container writes is taken up.
    Logging {
        /// The instance.
        id: String,
        /// Which attempt.
        attempt: u32,
        /// The log's name.
        name: String,
        /// The log, unless it cannot be written.
        log: Option<Log>,
    },
    /// What a container that has ended wrote is in its log, or is waited for no longer.
    HeardOut {
        /// The instance.
        id: String,
        /// Which attempt.
        attempt: u32,
    },
    /// A look at an instance found something new.
    Health {
        /// The instance.
        id: String,
        /// Which attempt.
        attempt: u32,
        /// What is known now.
        state: State,
    },
    /// The holder has news.
    News(News),
    /// The holder is gone, and what runs with it.
    HolderGone(CellError),
    /// The agent ends; what runs goes on.
    Quit,
}

/// What the core works with.
#[derive(Debug)]
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// What places are made from.
    pub ground: Arc<Ground>,
    /// Who does what waits.
    pub workers: Workers,
    /// The ledger.
    pub books: Books,
    /// What happened.
    pub events: Arc<Events>,
    /// What was asked for.
    pub journal: Journal,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Who looks at instances' health.
    pub health: Health,
    /// What instances write.
    pub logs: Arc<Logs>,
    /// Where logs are waited for.
    pub runtime: Handle,
    /// The way in, for workers to answer by.
    pub sender: Sender<Input>,
    /// And its other end.
    pub inputs: Receiver<Input>,
}

/// All instances, and who works for them.
#[derive(Debug)]
pub struct Core {
    parts: Parts,
    entries: BTreeMap<String, Entry>,
    /// By digest; instances of one batch share one.
    wishes: HashMap<String, Arc<Wish>>,
    /// When something is to be looked at: time in milliseconds since 1970, and whose.
    timers: BTreeSet<(u64, String)>,
    /// How many attempts of an instance are being cleared away, and the attempt that waits for that. An instance may
    /// be forgotten meanwhile, and another of the same id come.
    cleaning: HashMap<String, (u32, Option<u32>)>,
    /// Preparations that are under way: of an id there is one at a time.
    preparing: HashMap<String, Preparing>,
    /// Containers of nobody's that were killed, and have not ended yet.
    strangers: HashSet<String>,
    /// Ports of the host, and whose they are.
    ports: Ports,
    draining: bool,
    turn: Turn,
    swept_at: Instant,
    cgroups: PathBuf,
}

impl Core {
    /// A core without instances.
    pub fn new(parts: Parts) -> Self {
        let cgroups = parts.ground.hierarchy.parent();
        let network = &parts.config.network;
        let ports = Ports::new(network.ports_first..=network.ports_last);
        Self {
            parts,
            entries: BTreeMap::new(),
            wishes: HashMap::new(),
            timers: BTreeSet::new(),
            cleaning: HashMap::new(),
            preparing: HashMap::new(),
            strangers: HashSet::new(),
            ports,
            draining: false,
            turn: Turn::default(),
            swept_at: Instant::now(),
            cgroups,
        }
    }

    /// Works until it is told to quit.
    ///
    /// # Errors
    /// [`CellError::Io`] when the journal cannot be synced, [`CellError::Holder`] when the holder is gone: what runs goes
    /// on, and the next agent takes it over.
    pub fn run(mut self) -> Result<()> {
        loop {
            self.finish_turn()?;
            let mut next = match self.parts.inputs.recv_timeout(self.until_next()) {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for _ in 0..INPUTS_PER_TURN_MAX {
                let Some(input) = next else { break };
                match input {
                    Input::Quit => {
                        self.wait_for_strangers();
                        return self.finish_turn();
                    }
                    Input::HolderGone(error) | Input::Started { result: Err(error), .. } => {
                        self.finish_turn()?;
                        return Err(error);
                    }
                    input => self.take(input),
                }
                next = self.parts.inputs.try_recv().ok();
            }
            self.look_at_time();
        }
    }

    /// An agent that ends at once clears away all the same what it killed when it came.
    fn wait_for_strangers(&mut self) {
        let deadline = Instant::now() + STRANGERS_WAIT;
        while !self.strangers.is_empty() {
            match self.parts.inputs.recv_deadline(deadline) {
                Ok(input @ Input::News(_)) => self.take(input),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Call(call @ (Call::Start(..) | Call::Stop { .. } | Call::Remove { .. })) => {
                self.turn.calls.push(call);
            }
            Input::Call(call) => self.call(call),
            Input::Prepared { id, attempt, result } => self.prepared(&id, attempt, result),
            Input::Started { id, attempt, place, result: Ok(started) } => {
                self.started(&id, attempt, *place, started);
            }
            Input::Cleaned { id } => self.cleaned(id),
            Input::Logging { id, attempt, name, log } => self.logging(&id, attempt, name, log),
            Input::HeardOut { id, attempt } => self.heard_out(&id, attempt),
            Input::Health { id, attempt, state } => self.health(&id, attempt, state),
            Input::News(News::Ended { id, ended }) => self.ended(&id, ended),
            Input::News(News::There { .. }) => {} // only before the core begins, see `adopt`
            Input::Started { result: Err(_), .. } | Input::HolderGone(_) | Input::Quit => {} // the loop's
        }
    }

    fn started(&mut self, id: &str, attempt: u32, place: Place, started: Started) {
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.machine.attempt() == attempt) else {
            tracing::warn!(id, attempt, "started, and nobody wants it");
            return;
        };
        entry.place = Some(place);
        match started {
            Ok((running, stages_us)) => {
                let stages = entry.stages(stages_us);
                self.parts.metrics.started(&stages);
                let Stages { prepare, launch, clone, exec } = stages;
                let us = |stage: Duration| stage.as_micros() as u64;
                // The span ends with this, and what it took is what the start took.
                let span = std::mem::replace(&mut entry.start, tracing::Span::none());
                tracing::debug!(parent: &span, prepare_us = us(prepare), launch_us = us(launch), clone_us = us(clone),
                    exec_us = us(exec), pid = running.pid, "it runs");
                drop(span);
                entry.running = Some(running);
                let early_end = entry.early_end.take();
                self.step(id, Event::Started);
                self.log(id);
                self.check(id);
                if let Some(ended) = early_end {
                    self.end(id, ended);
                }
            }
            Err((status, why)) => {
                self.step(id, Event::Failed(Cause::Failed { status, why }));
            }
        }
    }

    /// A container ended. It may be faster than the news of its start.
    fn ended(&mut self, container: &str, ended: Ended) {
        if self.strangers.remove(container) {
            return self.clear_stranger(container.to_owned());
        }
        let wanted = entry::of_container(container).and_then(|(id, attempt)| {
            let entry = self.entries.get_mut(id).filter(|entry| entry.machine.attempt() == attempt);
            entry.map(|entry| (id, entry))
        });
        let Some((id, entry)) = wanted else {
            self.await_stranger(container);
            return self.clear_stranger(container.to_owned());
        };
        if entry.running.is_none() {
            entry.early_end = Some(ended);
            return;
        }
        let id = id.to_owned();
        self.end(&id, ended);
    }

    fn end(&mut self, id: &str, ended: Ended) {
        self.check_no_more(id);
        self.hear_out(id, ended);
    }

    /// A container ended, and nothing of it is waited for any more.
    fn over(&mut self, id: &str, ended: Ended) {
        let cause = entry::cause(ended);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.was_up = false;
        }
        self.step_at(id, Event::Ended(cause), ended.at_ms);
    }

    fn until_next(&self) -> Duration {
        let until_ms = self.timers.first().map(|(at_ms, _)| at_ms.saturating_sub(now_ms()));
        until_ms.map_or(SWEEP_INTERVAL, |ms| Duration::from_millis(ms).min(SWEEP_INTERVAL))
    }

    fn look_at_time(&mut self) {
        let now = now_ms();
        while self.timers.first().is_some_and(|(at_ms, _)| *at_ms <= now) {
            let Some((_, id)) = self.timers.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            entry.timer_ms = None;
            if entry.machine.is_over() {
                if entry.expires_ms(&self.parts.config).is_some_and(|expires_ms| expires_ms <= now) {
                    self.forget(&id);
                }
            } else if entry.machine.wakes_at_ms().is_some_and(|wakes_ms| wakes_ms <= now) {
                self.step(&id, Event::Tick);
            }
        }
        if self.swept_at.elapsed() >= SWEEP_INTERVAL {
            self.swept_at = Instant::now();
            let images = Arc::clone(&self.parts.ground.images);
            self.parts.workers.give(Box::new(move |_| images.sweep()));
        }
    }
}

/// Milliseconds since 1970: what is kept over a restart is in this time.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
