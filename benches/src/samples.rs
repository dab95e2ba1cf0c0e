//! Latencies of one peer at one concurrency, as a histogram and what is read off it.

use crate::Result;
use crate::worker::Batch;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Ten minutes: a sample beyond that is a failure, not a latency.
const LATENCY_US_MAX: u64 = 600_000_000;
/// Three significant digits keep every percentile within 0.1 %.
const DIGITS: u8 = 3;

/// Everything one peer did under one condition.
pub(crate) struct Samples {
    pub(crate) peer: String,
    pub(crate) condition: String,
    pub(crate) concurrency: usize,
    histogram: Histogram<u64>,
    wall_us: u64,
    cpu_us: u64,
    pub(crate) failures_count: usize,
    pub(crate) failure: Option<String>,
}

/// What is reported of [`Samples`].
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) peer: String,
    pub(crate) condition: String,
    pub(crate) concurrency: usize,
    pub(crate) samples_count: u64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
    pub(crate) per_second: f64,
    pub(crate) cpu_us_each: u64,
    pub(crate) failures_count: usize,
    pub(crate) failure: Option<String>,
}

impl Samples {
    pub(crate) fn new(peer: &str, condition: &str, concurrency: usize) -> Result<Self> {
        Ok(Self {
            peer: peer.to_owned(),
            condition: condition.to_owned(),
            concurrency,
            histogram: Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS)?,
            wall_us: 0,
            cpu_us: 0,
            failures_count: 0,
            failure: None,
        })
    }

    pub(crate) fn add(&mut self, batch: Batch) {
        for latency in &batch.latencies_us {
            self.histogram.saturating_record(*latency);
        }
        self.wall_us += batch.wall_us;
        self.cpu_us += batch.cpu_us;
        self.failures_count += batch.failures_count;
        self.failure = self.failure.take().or(batch.failure);
    }

    /// The numbers.
    pub(crate) fn row(&self) -> Row {
        let count = self.histogram.len();
        let at = |quantile| self.histogram.value_at_quantile(quantile);
        Row {
            peer: self.peer.clone(),
            condition: self.condition.clone(),
            concurrency: self.concurrency,
            samples_count: count,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            max_us: self.histogram.max(),
            per_second: if self.wall_us == 0 { 0.0 } else { count as f64 * 1e6 / self.wall_us as f64 },
            cpu_us_each: self.cpu_us.checked_div(count).unwrap_or(0),
            failures_count: self.failures_count,
            failure: self.failure.clone(),
        }
    }
}
