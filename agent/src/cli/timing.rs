//! `--timing`: where the time of a run went, and what was read for it.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use celda_layerfs::progress::{Event, Progress};

use super::progress;

/// A part of a run, in the order of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// From the name to the image's record; with a pull where one was needed.
    Resolve,
    /// Lease, image mount, writable layer, overlay.
    Mount,
    /// Runtime spec, and the files it needs.
    Spec,
    /// Filter, cgroup, network namespace, plan.
    Plan,
    /// From the plan to execve.
    Start,
    /// From execve to the exit; the container's own time.
    Run,
    /// Writable layer and mounts gone.
    Teardown,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Mount => "mount",
            Self::Spec => "spec",
            Self::Plan => "plan",
            Self::Start => "start",
            Self::Run => "run",
            Self::Teardown => "teardown",
        }
    }
}

/// The moments of one run.
pub(super) struct Timing {
    begun: Instant,
    stages: Vec<(Stage, Instant)>,
    counters: Arc<Counters>,
}

/// What a pull brought.
#[derive(Debug, Default)]
struct Counters {
    downloaded_bytes: AtomicU64,
    layers_read: AtomicU64,
}

impl Timing {
    pub(super) fn begin() -> Self {
        Self { begun: Instant::now(), stages: Vec::with_capacity(7), counters: Arc::default() }
    }

    pub(super) fn reached(&mut self, stage: Stage) {
        self.stages.push((stage, Instant::now()));
    }

    /// A watcher that shows a pull as usual and counts what it brings.
    pub(super) fn watch(&self, json: bool) -> Arc<dyn Progress> {
        Arc::new(Counting { counters: Arc::clone(&self.counters), shown: progress::watcher(json, false) })
    }

    pub(super) fn print(&self, json: bool) {
        let mut last = self.begun;
        let mut stages = Vec::with_capacity(self.stages.len());
        for (stage, moment) in &self.stages {
            stages.push((stage.name(), micros(last, *moment)));
            last = *moment;
        }
        let total_us = micros(self.begun, last);
        let downloaded = self.counters.downloaded_bytes.load(Ordering::Relaxed);
        let layers = self.counters.layers_read.load(Ordering::Relaxed);
        let text = if json {
            let stages: serde_json::Map<_, _> =
                stages.into_iter().map(|(name, us)| (name.to_owned(), us.into())).collect();
            let value = serde_json::json!({
                "stages_us": stages,
                "total_us": total_us,
                "downloaded_bytes": downloaded,
                "layers_read": layers,
            });
            format!("{value}\n")
        } else {
            let mut text: String =
                stages.iter().map(|(name, us)| format!("{name:<9} {us:>9} us\n")).collect();
            text += &format!("{:<9} {total_us:>9} us\n", "total");
            text + &format!("downloaded {downloaded} bytes, read {layers} layers\n")
        };
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
}

/// Counts events on their way to whoever shows them.
struct Counting {
    counters: Arc<Counters>,
    shown: Arc<dyn Progress>,
}

impl Progress for Counting {
    fn event(&self, event: Event) {
        match &event {
            Event::LayerProgress { bytes, total, .. } if bytes == total => {
                self.counters.downloaded_bytes.fetch_add(*total, Ordering::Relaxed);
            }
            Event::LayerDone(_) => {
                self.counters.layers_read.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
        self.shown.event(event);
    }
}
