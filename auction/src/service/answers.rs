//! The answers of one Auction stream: each message of calls becomes one message of answers.

use super::StreamPermit;
use crate::wire;
use celda_api::auction::v1;
use futures_util::Stream;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use tonic::{Status, Streaming};

/// Answers calls as they are read. Nothing is read while the peer does not take the answers before.
pub struct Answers {
    calls: Option<Streaming<v1::AuctionRequest>>,
    permit: StreamPermit,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Whom `closing` wakes. It is looked at anew for another task, or when it is ready: not with every message.
    closing_wakes: Option<Waker>,
}

impl Answers {
    /// Answers `calls` until they end, or until `closing` is ready.
    pub(super) fn new(
        calls: Streaming<v1::AuctionRequest>,
        permit: StreamPermit,
        closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Self {
        Self { calls: Some(calls), permit, closing, closing_wakes: None }
    }

    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_known = self.closing_wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if is_known && !self.permit.0.is_closing() {
            return Poll::Pending;
        }
        self.closing_wakes = Some(cx.waker().clone());
        self.closing.as_mut().poll(cx)
    }

    /// Answers a message, or says what ends the stream.
    fn answer(&self, message: v1::AuctionRequest) -> Result<Vec<v1::Answer>, Status> {
        let calls = wire::calls(message).map_err(|malformed| super::invalid(&malformed))?;
        let mut answers = Vec::with_capacity(calls.len());
        for v1::Call { correlation, call } in calls {
            let answer = Some(self.permit.0.answer(call));
            if correlation != 0 {
                answers.push(v1::Answer { correlation, answer });
            }
        }
        Ok(answers)
    }
}

impl Stream for Answers {
    type Item = Result<v1::AuctionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(calls) = &mut self.calls else { return Poll::Ready(None) };
            let message = match Pin::new(calls).poll_next(cx) {
                Poll::Ready(message) => message,
                Poll::Pending => {
                    ready!(self.poll_closing(cx));
                    self.calls = None;
                    return Poll::Ready(None);
                }
            };
            let answered = match message {
                Some(message) => message.and_then(|message| self.answer(message)),
                None => return Poll::Ready(None),
            };
            match answered {
                Ok(answers) if answers.is_empty() => {}
                Ok(answers) => return Poll::Ready(Some(Ok(v1::AuctionResponse { answers }))),
                Err(status) => {
                    self.calls = None;
                    return Poll::Ready(Some(Err(status)));
                }
            }
        }
    }
}
