//! One blob, in ranges that are fetched side by side and delivered in order.
//!
//! ```text
//! run:   |-- span 0 --|-- span 1 --|-- span 2 --| ...    a task for each, at most `ranges_count` at once,
//!              v             v            v               each holding its bytes of the in-flight budget
//!          [chunks]      [chunks]     [chunks]
//!              \_____________|____________/
//!                  spans, in order --> the consumer's thread
//! ```
//!
//! A span that breaks is resumed where it stopped. A server that ignores `Range` (answers 200) is read from the
//! start, and what was had before is dropped. Every length that a server states is held against the descriptor.
//! RFC 9110, 14 "Range Requests"; OCI distribution-spec 1.1, "Pulling blobs".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::endpoint::{Ask, Endpoint};
use super::error::{Reason, RegistryError};
use super::retry::Patience;
use crate::Digest;
use crate::progress::{Event, Progress};
use crate::transport::NetworkOptions;

/// Bytes of a permit of the in-flight budget.
const PERMIT_BYTES: u64 = 1024;
/// The smallest chunk that a span's queue is dimensioned for; smaller ones only make it wait.
const CHUNK_BYTES_MIN: u64 = 4096;
/// Chunks queued of a blob that comes in one span.
const WHOLE_CHUNKS_MAX: usize = 32;
/// Bytes that count as progress: a server that gives less on each connection runs out of attempts.
const PROGRESS_BYTES_MIN: u64 = 64 << 10;

/// A run of bytes of the blob, arriving.
pub(super) struct Span {
    pub(super) chunks: mpsc::Receiver<Bytes>,
    pub(super) length: u64,
    _in_flight: OwnedSemaphorePermit,
}

/// A blob to be fetched.
pub(super) struct Download {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) network: NetworkOptions,
    pub(super) in_flight: Arc<Semaphore>,
    pub(super) progress: Arc<dyn Progress>,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// An answer with what of it is to be dropped.
struct Body {
    response: Response,
    skip: u64,
    is_whole: bool,
}

/// The budget for `network`, in permits.
pub(super) fn budget(network: &NetworkOptions) -> Semaphore {
    let permits =
        network.bytes_in_flight.max(network.range_bytes).div_ceil(PERMIT_BYTES).min(u64::from(u32::MAX));
    Semaphore::new(usize::try_from(permits).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS))
}

impl Download {
    /// Fetches all of the blob into `spans`. Ends early, without error, when their receiver is dropped.
    pub(super) async fn run(self: Arc<Self>, spans: mpsc::Sender<Span>) -> Result<(), RegistryError> {
        let range = self.network.range_bytes.max(CHUNK_BYTES_MIN);
        let mut tasks = JoinSet::new();
        let permit = self.permit(range.min(self.size)).await;
        let body = {
            let mut patience = Patience::new(&self.network);
            self.open(0, range.min(self.size), &mut patience).await?
        };
        let (mut next, queue) =
            if body.is_whole { (self.size, WHOLE_CHUNKS_MAX) } else { (range, queue_of(range)) };
        let (sender, chunks) = mpsc::channel(queue);
        tasks.spawn(Arc::clone(&self).fill(0, next, Some(body), sender));
        let mut is_wanted = spans.send(Span { chunks, length: next, _in_flight: permit }).await.is_ok();
        while is_wanted && next < self.size {
            let end = (next + range).min(self.size);
            let Ok(slot) = spans.reserve().await else { break };
            let permit = self.permit(end - next).await;
            let (sender, chunks) = mpsc::channel(queue_of(end - next));
            tasks.spawn(Arc::clone(&self).fill(next, end, None, sender));
            slot.send(Span { chunks, length: end - next, _in_flight: permit });
            is_wanted = !spans.is_closed();
            next = end;
        }
        drop(spans);
        while let Some(done) = tasks.join_next().await {
            done.map_err(|error| self.fail(Reason::Broken(error.to_string())))??;
        }
        Ok(())
    }

    fn fail(&self, reason: Reason) -> RegistryError {
        self.endpoint.fail(&format!("layer {}", self.digest), reason)
    }

    async fn permit(&self, bytes: u64) -> OwnedSemaphorePermit {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        Arc::clone(&self.in_flight).acquire_many_owned(permits).await.expect("the budget is never closed")
    }

    /// Fetches `start..end` into `chunks`, over as many connections as it takes.
    async fn fill(
        self: Arc<Self>,
        start: u64,
        end: u64,
        mut first: Option<Body>,
        chunks: mpsc::Sender<Bytes>,
    ) -> Result<(), RegistryError> {
        let mut patience = Patience::new(&self.network);
        let mut pace = Pace::new(&self.network);
        let (mut at, mut counted) = (start, start);
        loop {
            let asked = Instant::now();
            let body = match first.take() {
                Some(body) => body,
                None => self.open(at, end, &mut patience).await?,
            };
            pace.waited += asked.elapsed();
            let is_from_start = body.skip > 0;
            let reason = match self.copy(body, &mut at, end, &mut pace, &chunks).await {
                Ok(()) => return Ok(()),
                // All is here: how the connection ends is of no interest.
                Err(reason) if at == end && reason.is_worth_a_retry() => return Ok(()),
                Err(reason) => reason,
            };
            if pace.is_given_up() {
                return Err(self.fail(reason));
            }
            // Of a server that begins anew each time, the whole takes the square of its length.
            if at - counted >= PROGRESS_BYTES_MIN && !is_from_start {
                counted = at;
                patience.progressed();
            }
            let failed = Instant::now();
            self.retry(reason, &mut patience).await?;
            pace.waited += failed.elapsed();
        }
    }

    async fn retry(&self, reason: Reason, patience: &mut Patience<'_>) -> Result<(), RegistryError> {
        let text = reason.to_string();
        if self.endpoint.pause(&reason, patience).await.is_err() {
            return Err(self.fail(reason));
        }
        let attempt = patience.failed_count();
        self.progress.event(Event::LayerRetry { layer: self.digest, attempt, reason: text });
        Ok(())
    }

    /// Passes the body on until `at` is `end` and the body too.
    async fn copy(
        &self,
        mut body: Body,
        at: &mut u64,
        end: u64,
        pace: &mut Pace,
        chunks: &mpsc::Sender<Bytes>,
    ) -> Result<(), Reason> {
        loop {
            let asked = Instant::now();
            let chunk = self.endpoint.chunk(&mut body.response).await;
            pace.waited += asked.elapsed();
            let Some(mut bytes) = chunk? else {
                if *at == end {
                    return Ok(());
                }
                return Err(Reason::Broken(format!("it ended {} bytes early", end - *at)));
            };
            pace.count(bytes.len() as u64)?;
            if body.skip > 0 {
                let dropped = body.skip.min(bytes.len() as u64);
                body.skip -= dropped;
                bytes = bytes.slice(usize::try_from(dropped).unwrap_or(usize::MAX)..);
            }
            let left = end - *at;
            if bytes.len() as u64 > left {
                if !body.is_whole || end == self.size {
                    return Err(Reason::Length(format!(
                        "more than the {} bytes came that the manifest says",
                        self.size
                    )));
                }
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            }
            let length = bytes.len() as u64;
            if length > 0 && chunks.send(bytes).await.is_err() {
                // Nobody wants the blob any more; whoever dropped the receiver knows why.
                return Ok(());
            }
            *at += length;
            if *at == end && end < self.size && body.is_whole {
                return Ok(());
            }
        }
    }

    /// Asks for `at..end` and holds the answer's lengths against what was asked.
    async fn open(&self, at: u64, end: u64, patience: &mut Patience<'_>) -> Result<Body, RegistryError> {
        let what = format!("layer {}", self.digest);
        let path = format!("blobs/{}", self.digest);
        let is_all = at == 0 && end == self.size;
        let range = (!is_all && end > at).then(|| (at, end - 1));
        let ask = Ask { path: &path, accept: "*/*", range, what: &what };
        let response = loop {
            match self.endpoint.attempt(ask).await {
                Ok(response) => break response,
                Err(Reason::Status(416, _)) => {
                    return Err(
                        self.fail(Reason::Length(format!("the blob has no bytes {at} to {}", end - 1)))
                    );
                }
                Err(reason) => self.retry(reason, patience).await?,
            }
        };
        self.check(&response, at, end).map_err(|reason| self.fail(reason))?;
        let is_whole = response.status() == StatusCode::OK;
        Ok(Body { skip: if is_whole { at } else { 0 }, is_whole, response })
    }

    fn check(&self, response: &Response, at: u64, end: u64) -> Result<(), Reason> {
        let stated = response.content_length();
        let expected = match response.status() {
            StatusCode::OK => self.size,
            StatusCode::PARTIAL_CONTENT => {
                let value = response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                let (first, last, total) = content_range(value).ok_or_else(|| {
                    Reason::Length(format!("a part without a usable Content-Range ({value:?})"))
                })?;
                if first != at || last + 1 != end || total.is_some_and(|total| total != self.size) {
                    let wanted = format!("bytes {at} to {} of {}", end - 1, self.size);
                    return Err(Reason::Length(format!(
                        "{wanted} were asked for, Content-Range is {value:?}"
                    )));
                }
                end - at
            }
            status => return Err(Reason::Status(status.as_u16(), "for a blob".into())),
        };
        match stated {
            Some(stated) if stated != expected => {
                Err(Reason::Length(format!("Content-Length is {stated}, the manifest makes it {expected}")))
            }
            _ => Ok(()),
        }
    }
}

fn queue_of(bytes: u64) -> usize {
    usize::try_from(bytes / CHUNK_BYTES_MIN).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS)
}

/// `bytes FIRST-LAST/TOTAL`, where the total may be `*`.
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    (last >= first && last < u64::MAX).then_some((first, last, total))
}

/// Notices a range that never falls silent for long and never gets on, over all its connections. Only what is waited
/// for the registry counts, not for a disk that is slower.
struct Pace {
    rate_bytes_min: u64,
    window: Duration,
    slow_count_max: u32,
    waited: Duration,
    bytes: u64,
    slow_count: u32,
}

impl Pace {
    fn new(network: &NetworkOptions) -> Self {
        let &NetworkOptions { rate_bytes_min, rate_window: window, retries_count: slow_count_max, .. } =
            network;
        Self { rate_bytes_min, window, slow_count_max, waited: Duration::ZERO, bytes: 0, slow_count: 0 }
    }

    /// Counts what came after `waited`; an error at the end of a window in which too little did.
    fn count(&mut self, bytes: u64) -> Result<(), Reason> {
        self.bytes += bytes;
        if self.waited < self.window {
            return Ok(());
        }
        let (waited, bytes) = (std::mem::take(&mut self.waited), std::mem::take(&mut self.bytes));
        if u128::from(bytes) * 1000 >= u128::from(self.rate_bytes_min) * waited.as_millis() {
            return Ok(());
        }
        self.slow_count += 1;
        Err(Reason::TooSlow { bytes, waited })
    }

    /// Whether there were too many slow windows to go on.
    fn is_given_up(&self) -> bool {
        self.slow_count > self.slow_count_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read_strictly() {
        assert_eq!(content_range("bytes 0-9/10"), Some((0, 9, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, 9, None)));
        for rubbish in
            ["", "bytes", "bytes 9-5/10", "bytes */10", "items 0-9/10", "bytes 0-18446744073709551615/*"]
        {
            assert_eq!(content_range(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn a_trickle_is_too_slow() {
        let network = NetworkOptions::default();
        let second = |pace: &mut Pace, bytes| {
            pace.waited += Duration::from_secs(1);
            pace.count(bytes)
        };
        let mut pace = Pace::new(&network);
        assert!((0..1000).all(|_| second(&mut pace, network.rate_bytes_min).is_ok()));
        for slow in 1..=network.retries_count {
            let trickled = (0..100).try_for_each(|_| second(&mut pace, network.rate_bytes_min - 1));
            assert!(matches!(trickled, Err(Reason::TooSlow { .. })));
            assert_eq!((pace.slow_count, pace.is_given_up()), (slow, false));
            // A fast window in between changes nothing.
            assert!((0..60).all(|_| second(&mut pace, 1 << 20).is_ok()));
        }
        assert!((0..100).try_for_each(|_| second(&mut pace, 0)).is_err());
        assert!(pace.is_given_up());
    }
}
