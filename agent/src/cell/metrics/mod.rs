//! What the cell counts and times, as Prometheus reads it (text format 0.0.4).
//!
//! ```text
//! core, holder ──> starts by stage, ends by reason ─┐
//! logs ──────────> lines, bytes, dropped ───────────┼──> text ──> `celda metrics`, or GET /metrics
//! kernel ────────> pressure, the agent's own size ──┘              (service)         (http)
//! ```
//! Nothing here has a label whose values an instance or a caller chooses: the number of series is fixed.

mod histogram;
pub mod http;
mod kernel;
mod text;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::books::Books;
use super::core::Look;
use super::forward::Tally;
use super::instance::{Cause, End, StoppedBy};
use super::logs::Totals;
use histogram::Histogram;
pub use kernel::Kernel;
use text::Text;

/// How ends are counted: why, and who had asked for it.
const REASONS: [&str; 6] = ["success", "failure", "signal", "out_of_memory", "failed_start", "cell_restart"];
const STOPPED_BY: [&str; 4] = ["nobody", "client", "drain", "health"];

/// Counters and times.
#[derive(Debug, Default)]
pub struct Metrics {
    start: Histogram,
    prepare: Histogram,
    launch: Histogram,
    clone: Histogram,
    exec: Histogram,
    sync: Histogram,
    /// Where logs are sent on to, by name.
    forwarders: OnceLock<Vec<(&'static str, Arc<Tally>)>>,
    /// Of each reason, by who had asked for it.
    ends: [[AtomicU64; STOPPED_BY.len()]; REASONS.len()],
    images_removed: AtomicU64,
    images_freed_bytes: AtomicU64,
    disk_used_percent: AtomicU64,
}

/// How long a start took, by its stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stages {
    /// From the beginning of an attempt until its image, root and network are there.
    pub prepare: Duration,
    /// From then until it runs: the wait for a worker, and the holder's work.
    pub launch: Duration,
    /// In the holder, from the request to clone3.
    pub clone: Duration,
    /// In the holder, from the request to execve.
    pub exec: Duration,
}

/// What is looked at when somebody asks.
#[derive(Debug)]
pub struct Now<'a> {
    /// Of the core.
    pub look: &'a Look,
    /// The ledger.
    pub books: &'a Books,
    /// Jobs that wait for a worker.
    pub jobs_count: usize,
    /// Of all logs.
    pub logs: Totals,
    /// Of the machine, the cell's containers and the agent.
    pub kernel: Kernel,
}

impl Metrics {
    /// A container runs.
    pub fn started(&self, stages: &Stages) {
        let Stages { prepare, launch, clone, exec } = *stages;
        self.start.add(prepare + launch);
        self.prepare.add(prepare);
        self.launch.add(launch);
        self.clone.add(clone);
        self.exec.add(exec);
    }

    /// A container, or the try to make one, ended.
    pub fn ended(&self, end: &End) {
        let reason = match &end.cause {
            Cause::Exit { code: 0 } => 0,
            Cause::Exit { .. } => 1,
            Cause::Signal { .. } => 2,
            Cause::OutOfMemory { .. } => 3,
            Cause::Failed { .. } => 4,
            Cause::CellRestart => 5,
            Cause::NeverRan => return,
        };
        let stopped_by = match &end.stopped_by {
            None => 0,
            Some(StoppedBy::Client(_)) => 1,
            Some(StoppedBy::Drain) => 2,
            Some(StoppedBy::Health(_)) => 3,
        };
        self.ends[reason][stopped_by].fetch_add(1, Relaxed);
    }

    /// So much of the disk that has ROOT is in use.
    pub fn disk_used(&self, percent: u64) {
        self.disk_used_percent.store(percent, Relaxed);
    }

    /// Images were removed as the disk was filling.
    pub fn images_removed(&self, count: u64, freed_bytes: u64) {
        self.images_removed.fetch_add(count, Relaxed);
        self.images_freed_bytes.fetch_add(freed_bytes, Relaxed);
    }

    /// There are these forwarders. Said once.
    pub fn set_forwarders(&self, forwarders: Vec<(&'static str, Arc<Tally>)>) {
        let _ = self.forwarders.set(forwarders);
    }

    /// The journal was synced.
    pub fn synced(&self, took: Duration) {
        self.sync.add(took);
    }

    /// All of it as text.
    pub fn text(&self, now: &Now<'_>) -> String {
        let Now { look, books, jobs_count, logs, kernel } = now;
        let mut text = Text::default();
        text.gauge("celda_build_info", "1, with the agent's version.");
        text.labelled(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.gauge("celda_instances", "Instances and tasks that are kept, by state.");
        for (state, count) in &look.states {
            text.labelled(&[("state", state)], *count);
        }
        text.gauge("celda_draining", "1 when the cell takes no more work.").value(u8::from(look.is_draining));
        text.gauge("celda_journal_size_bytes", "Bytes of the journal.").value(look.journal_bytes);
        text.gauge("celda_jobs_waiting", "Jobs that wait for a worker.").value(jobs_count);
        for (name, help, resources) in [
            ("celda_capacity", "What the ledger began with, by resource.", books.capacity()),
            ("celda_free", "What the ledger has left, by resource.", books.free()),
        ] {
            text.gauge(name, help);
            for (resource, amount) in celda_auction::demand::Resource::ALL.iter().zip(resources.amounts()) {
                text.labelled(&[("resource", &resource.to_string())], amount);
            }
        }
        self.times(&mut text);
        text.counter("celda_ends_total", "Containers that ended, by why and by who had asked for it.");
        for (reason, counts) in REASONS.iter().zip(&self.ends) {
            for (by, count) in STOPPED_BY.iter().zip(counts) {
                text.labelled(&[("reason", reason), ("stopped_by", by)], count.load(Relaxed));
            }
        }
        text.counter("celda_log_lines_total", "Lines, or parts of long ones, that were written.")
            .value(logs.lines);
        text.counter("celda_log_bytes_total", "Bytes taken from instances' output.").value(logs.bytes);
        text.counter("celda_log_dropped_lines_total", "Lines that the rate limit dropped.")
            .value(logs.dropped_lines);
        self.disk(&mut text);
        self.forwarded(&mut text);
        kernel.show(&mut text);
        text.done()
    }

    fn disk(&self, text: &mut Text) {
        let of = |counter: &AtomicU64| counter.load(Relaxed);
        text.gauge("celda_disk_used_ratio", "In use of the disk that has ROOT, when it was looked at last.")
            .value(of(&self.disk_used_percent) as f64 / 100.0);
        text.counter("celda_images_removed_total", "Images removed as the disk was filling.")
            .value(of(&self.images_removed));
        text.counter("celda_images_freed_bytes_total", "Bytes that this freed.")
            .value(of(&self.images_freed_bytes));
    }

    fn forwarded(&self, text: &mut Text) {
        let forwarders = self.forwarders.get().map(Vec::as_slice).unwrap_or_default();
        if forwarders.is_empty() {
            return;
        }
        let each = |text: &mut Text, count: fn(&Tally) -> u64| {
            for (name, tally) in forwarders {
                text.labelled(&[("forwarder", name)], count(tally));
            }
        };
        text.counter("celda_forwarded_lines_total", "Lines that a server of logs has taken.");
        each(text, Tally::sent_lines);
        text.counter(
            "celda_forward_lost_lines_total",
            "Lines that were gone before they were sent, or were refused.",
        );
        each(text, Tally::lost_lines);
        text.gauge("celda_forward_connected", "1 when the last batch came through.");
        each(text, |tally| tally.is_connected().into());
    }

    fn times(&self, text: &mut Text) {
        text.histogram("celda_start_seconds", "From the beginning of an attempt until its program runs.");
        self.start.show(text, &[]);
        text.histogram(
            "celda_start_stage_seconds",
            "Stages of that: prepare and launch follow each other; clone and exec are times in the holder, of launch.",
        );
        for (stage, times) in [
            ("prepare", &self.prepare),
            ("launch", &self.launch),
            ("clone", &self.clone),
            ("exec", &self.exec),
        ] {
            times.show(text, &[("stage", stage)]);
        }
        text.histogram("celda_journal_sync_seconds", "Writing and syncing the journal.");
        self.sync.show(text, &[]);
    }
}

#[cfg(test)]
mod tests;
