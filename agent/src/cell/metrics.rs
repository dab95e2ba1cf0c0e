//! What the cell counts and times, as Prometheus reads it (text format 0.0.4).
//!
//! Times are histograms with three digits; of each the quantiles, the sum and the count are shown.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::books::Books;
use super::core::Look;
use super::instance::Cause;

/// Microseconds that a histogram tells apart at most: a minute. What takes longer counts as that.
const TIME_US_MAX: u64 = 60_000_000;
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Counters and times.
#[derive(Debug)]
pub struct Metrics {
    clone: Times,
    exec: Times,
    start: Times,
    sync: Times,
    ends: [AtomicU64; ENDS.len()],
    images_removed: AtomicU64,
    images_freed_bytes: AtomicU64,
    disk_used_percent: AtomicU64,
}

/// How ends are counted.
const ENDS: [&str; 4] = ["success", "failure", "signal", "out_of_memory"];

#[derive(Debug)]
struct Times(Mutex<Recorded>);

#[derive(Debug)]
struct Recorded {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl Default for Metrics {
    fn default() -> Self {
        let times = Times::default;
        Self {
            clone: times(),
            exec: times(),
            start: times(),
            sync: times(),
            ends: Default::default(),
            images_removed: AtomicU64::default(),
            images_freed_bytes: AtomicU64::default(),
            disk_used_percent: AtomicU64::default(),
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, TIME_US_MAX, 2).expect("bounds in order, few digits");
        Self(Mutex::new(Recorded { histogram, sum_us: 0 }))
    }
}

impl Times {
    fn add(&self, us: u64) {
        let mut recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.histogram.saturating_record(us.max(1));
        recorded.sum_us = recorded.sum_us.saturating_add(us);
    }

    fn show(&self, out: &mut String, name: &str, help: &str) {
        let recorded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(out, "# HELP {name}_seconds {help}\n# TYPE {name}_seconds summary");
        for quantile in QUANTILES {
            let seconds = recorded.histogram.value_at_quantile(quantile) as f64 / 1e6;
            let _ = writeln!(out, "{name}_seconds{{quantile=\"{quantile}\"}} {seconds}");
        }
        let (sum, count) = (recorded.sum_us as f64 / 1e6, recorded.histogram.len());
        let _ = writeln!(out, "{name}_seconds_sum {sum}\n{name}_seconds_count {count}");
    }
}

impl Metrics {
    /// A container runs: microseconds in the holder to clone3 and to execve, and the time since its attempt began.
    pub fn started(&self, [cloned_us, executed_us]: [u64; 2], since_begin: Duration) {
        self.clone.add(cloned_us);
        self.exec.add(executed_us);
        self.start.add(since_begin.as_micros() as u64);
    }

    /// A container ended.
    pub fn ended(&self, cause: &Cause) {
        let index = match cause {
            Cause::Exit { code: 0 } => 0,
            Cause::Signal { .. } => 2,
            Cause::OutOfMemory { .. } => 3,
            _ => 1,
        };
        self.ends[index].fetch_add(1, Ordering::Relaxed);
    }

    /// So much of the disk that has ROOT is in use.
    pub fn disk_used(&self, percent: u64) {
        self.disk_used_percent.store(percent, Ordering::Relaxed);
    }

    /// Images were removed as the disk was filling.
    pub fn images_removed(&self, count: u64, freed_bytes: u64) {
        self.images_removed.fetch_add(count, Ordering::Relaxed);
        self.images_freed_bytes.fetch_add(freed_bytes, Ordering::Relaxed);
    }

    /// The journal was synced.
    pub fn synced(&self, took: Duration) {
        self.sync.add(took.as_micros() as u64);
    }

    /// All of it as text.
    pub fn text(&self, look: Look, books: &Books, jobs_count: usize) -> String {
        let mut out = String::new();
        let mut gauge = |name: &str, help: &str, value: u64| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        };
        gauge("celda_instances_known", "Instances and tasks that are kept.", look.known_count.into());
        gauge("celda_instances_live", "Those that have not ended for good.", look.live_count.into());
        gauge("celda_instances_running", "Those that run.", look.running_count.into());
        gauge("celda_draining", "1 when the cell takes no more work.", look.is_draining.into());
        gauge("celda_journal_bytes", "Bytes of the journal.", look.journal_bytes);
        gauge("celda_jobs_waiting", "Jobs that wait for a worker.", jobs_count as u64);
        let percent = self.disk_used_percent.load(Ordering::Relaxed);
        gauge("celda_disk_used_percent", "Of the disk that has ROOT, when it was looked at last.", percent);
        for (name, help, value) in [
            ("celda_images_removed_total", "Images removed as the disk was filling.", &self.images_removed),
            ("celda_images_freed_bytes_total", "Bytes that this freed.", &self.images_freed_bytes),
        ] {
            let value = value.load(Ordering::Relaxed);
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
        for (kind, resources) in [("capacity", books.capacity()), ("free", books.free())] {
            let _ = writeln!(
                out,
                "# HELP celda_{kind} What the ledger has, by resource.\n# TYPE celda_{kind} gauge"
            );
            for (resource, amount) in celda_auction::demand::Resource::ALL.iter().zip(resources.amounts()) {
                let _ = writeln!(out, "celda_{kind}{{resource=\"{resource}\"}} {amount}");
            }
        }
        let _ =
            writeln!(out, "# HELP celda_ends_total Containers that ended.\n# TYPE celda_ends_total counter");
        for (how, count) in ENDS.iter().zip(&self.ends) {
            let _ = writeln!(out, "celda_ends_total{{how=\"{how}\"}} {}", count.load(Ordering::Relaxed));
        }
        self.start.show(&mut out, "celda_start", "From the beginning of an attempt to its execve.");
        self.clone.show(&mut out, "celda_start_clone", "In the holder, from the request to clone3.");
        self.exec.show(&mut out, "celda_start_exec", "In the holder, from the request to execve.");
        self.sync.show(&mut out, "celda_journal_sync", "Writing and syncing the journal.");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::config::Config;

    #[test]
    fn every_line_is_one_that_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.started([100, 900], Duration::from_millis(2));
        metrics.ended(&Cause::Signal { signal: 9 });
        let capacity = celda_auction::Resources {
            containers: 4,
            memory_mib: 64,
            cpu_milli: 1000,
            disk_mib: 1,
            ports: 1,
        };
        let books = Books::new(&Config::default(), capacity).expect("books");
        let look =
            Look { known_count: 3, live_count: 2, running_count: 1, is_draining: false, journal_bytes: 9 };
        let text = metrics.text(look, &books, 0);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            assert!(name.starts_with("celda_") && value.parse::<f64>().is_ok(), "{line}");
        }
        for line in
            ["celda_instances_live 2", "celda_ends_total{how=\"signal\"} 1", "celda_start_seconds_count 1"]
        {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
    }
}
