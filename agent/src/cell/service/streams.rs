//! Streams of events: made as the peer takes them.

use std::pin::Pin;
use std::sync::Arc;

use celda_api::cell::v1;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::Service;
use crate::cell::events::{Events, TokenError};

/// Events of one message.
const EVENTS_PER_MESSAGE_MAX: usize = 512;

/// What a peer does whose stream was cut off.
const WATCH_ON: &str = "what was accepted goes on; watch the next one from the last token on";
const DRAIN_ON: &str = "it drains when it is back; ask the next one how many are left";

/// A stream of messages.
pub type Stream<T> = Pin<Box<dyn futures_util::Stream<Item = Result<T, Status>> + Send>>;

/// Where a watcher is.
struct Watcher {
    events: Arc<Events>,
    news: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    number: u64,
    app: String,
    ids: Vec<String>,
    _place: OwnedSemaphorePermit,
}

/// What happens from a token on.
///
/// # Errors
/// `RESOURCE_EXHAUSTED`, and what is wrong with the token.
pub(super) fn watch(
    service: &Service,
    token: &str,
    app: String,
    ids: Vec<String>,
) -> Result<Stream<v1::WatchResponse>, Status> {
    let place = place(service)?;
    let events = Arc::clone(&service.0.events);
    let number = if token.is_empty() { events.last() } else { events.number(token).map_err(refused)? };
    let (news, closing) = (events.news(), service.0.closing.subscribe());
    let watcher = Watcher { events, news, closing, number, app, ids, _place: place };
    let next = |watcher: Option<Watcher>| async move {
        let mut watcher = watcher?;
        match watcher.next().await {
            Ok(response) => Some((Ok(response), Some(watcher))),
            Err(status) => Some((Err(status), None)),
        }
    };
    Ok(Box::pin(stream::unfold(Some(watcher), next)))
}

impl Watcher {
    async fn next(&mut self) -> Result<v1::WatchResponse, Status> {
        loop {
            if *self.closing.borrow() {
                return Err(cut_off(WATCH_ON));
            }
            self.news.mark_unchanged();
            let (events, last) = self.events.after(self.number, EVENTS_PER_MESSAGE_MAX).map_err(refused)?;
            let is_new = last > self.number;
            self.number = last;
            let events: Vec<_> = events.into_iter().filter(|event| self.wants(event)).collect();
            if !events.is_empty() {
                return Ok(v1::WatchResponse { events, token: self.events.token(last) });
            }
            if is_new {
                continue;
            }
            tokio::select! {
                changed = self.news.changed() => changed.map_err(|_| cut_off(WATCH_ON))?,
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
        }
    }

    fn wants(&self, event: &v1::Event) -> bool {
        let Some(instance) = &event.instance else { return self.app.is_empty() && self.ids.is_empty() };
        let of_app = self.app.is_empty() || self.app == instance.app;
        of_app && (self.ids.is_empty() || self.ids.contains(&instance.id))
    }
}

/// Where a drain is.
struct Drain {
    service: Service,
    news: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    told: Option<u32>,
    cancel: bool,
    _place: OwnedSemaphorePermit,
}

/// How many are left, until none are.
///
/// # Errors
/// `RESOURCE_EXHAUSTED`.
pub(super) fn drain(service: &Service, cancel: bool) -> Result<Stream<v1::DrainResponse>, Status> {
    let (news, closing) = (service.0.events.news(), service.0.closing.subscribe());
    let drain =
        Drain { news, closing, told: None, cancel, _place: place(service)?, service: service.clone() };
    let next = |drain: Option<Drain>| async move {
        let mut drain = drain?;
        match drain.next().await {
            Ok(left) => {
                let is_last = left == 0 || drain.cancel;
                Some((Ok(v1::DrainResponse { left }), (!is_last).then_some(drain)))
            }
            Err(status) => Some((Err(status), None)),
        }
    };
    Ok(Box::pin(stream::unfold(Some(drain), next)))
}

impl Drain {
    async fn next(&mut self) -> Result<u32, Status> {
        loop {
            if *self.closing.borrow() {
                return Err(cut_off(DRAIN_ON));
            }
            self.news.mark_unchanged();
            let look = self.service.look().await?;
            if self.told.replace(look.live_count()) != Some(look.live_count()) {
                return Ok(look.live_count());
            }
            if !look.is_draining && !self.cancel {
                return Err(Status::aborted("the drain was cancelled"));
            }
            tokio::select! {
                changed = self.news.changed() => changed.map_err(|_| cut_off(DRAIN_ON))?,
                _ = self.closing.wait_for(|closing| *closing) => {}
            }
        }
    }
}

/// How a stream ends that the agent's end cuts off: not as one that is at its end. `next` says what its peer does then.
pub(super) fn cut_off(next: &str) -> Status {
    Status::unavailable(format!("the agent ends: {next}"))
}

/// A place among the streams.
///
/// # Errors
/// `RESOURCE_EXHAUSTED`.
pub(super) fn place(service: &Service) -> Result<OwnedSemaphorePermit, Status> {
    Arc::clone(&service.0.streams).try_acquire_owned().map_err(|_| {
        Status::resource_exhausted("this cell has as many streams open as it wants: limits.streams_max")
    })
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn refused(error: TokenError) -> Status {
    match error {
        TokenError::Malformed => Status::invalid_argument(error.to_string()),
        TokenError::Gone => Status::out_of_range(error.to_string()),
    }
}
