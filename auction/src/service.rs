//! A cell's ledger for auctioneers, over gRPC.
//!
//! ```text
//! listener ── let in? ──> HTTP/2 connection ──> Auction stream: message of calls -> message of answers, one at a time
//!   users, certificates,       at most            │                 at most `streams_max`
//!   connections_max         STREAMS_PER_CONNECTION └──> unary Bid, Reserve, Settle
//! ```
//! Nothing is queued here: a message is answered where it is read, and the next one is read when the peer takes the
//! answer. What a peer can make a cell keep is bounded by the number of connections, streams and window bytes, and what
//! it can make it do by the limits of a message (see [`crate::wire`]). Past a limit the peer is told so, with
//! `RESOURCE_EXHAUSTED` or a closed connection.

mod answers;
mod incoming;

pub use incoming::{Connection, Incoming, Listener};

use crate::demand::Shortage;
use crate::ledger::{Ledger, Outcome, Refused, ReservationId, Terms};
use crate::transport::{Error, Result};
use crate::view::Class;
use crate::wire::{
    self, Action, BidRequest, MESSAGE_BYTES_MAX, Request, ReserveRequest, SettleRequest, Settled,
};
use answers::Answers;
use celda_api::auction::v1;
use celda_api::auction::v1::cell_server::{Cell, CellServer};
use std::collections::HashSet;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::{Request as GrpcRequest, Response, Status, Streaming};

/// The most streams, unary calls among them, of one connection.
const STREAMS_PER_CONNECTION_MAX: u32 = 64;
/// How much of a stream a peer may send ahead of its being read.
const WINDOW_BYTES: u32 = 4 * MESSAGE_BYTES_MAX as u32;
/// The most bytes of a request's headers.
const HEADER_BYTES_MAX: u32 = 8 * 1024;
/// A peer that does not answer a ping is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// A unary call, or the opening of a stream, that takes longer has no use.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// How long peers have to take the end of their streams when the service ends.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// What a cell lets auctioneers take of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once; more are closed as soon as they come. One auctioneer process has one.
    pub connections_max: u32,
    /// Open Auction streams at once; one more is refused with `RESOURCE_EXHAUSTED`.
    pub streams_max: u32,
    /// How often what is over is looked for, in microseconds; bids count it as taken until then. Below a second.
    pub sweep_us: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections_max: 1024, streams_max: 1024, sweep_us: 200_000 }
    }
}

/// A cell's ledger as a service. Clones are the same service.
#[derive(Debug, Clone)]
pub struct CellService(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ledger: Arc<Ledger>,
    class: Class,
    limits: Limits,
    began: Instant,
    streams: AtomicU32,
    sweep_at_us: AtomicU64,
    calls: AtomicU64,
    /// What the cell has taken over: auctioneers give none of it back. Held while a release of theirs is carried out, so
    /// that an id is either theirs or the cell's.
    taken_over: Mutex<HashSet<ReservationId>>,
    /// No bids and no reservations: the cell drains.
    is_draining: AtomicBool,
    /// True when the service ends: open streams end too.
    closing: watch::Sender<bool>,
}

impl CellService {
    /// The service of a cell of this class with this ledger, whose time begins now.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, class: Class, limits: Limits) -> Self {
        Self(Arc::new(Inner {
            ledger,
            class,
            limits,
            began: Instant::now(),
            streams: AtomicU32::new(0),
            sweep_at_us: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            taken_over: Mutex::default(),
            is_draining: AtomicBool::new(false),
            closing: watch::Sender::new(false),
        }))
    }

    /// Whether bids and reservations are refused from now on, as if no demand were for a cell of this class. What is held
    /// may still be settled.
    pub fn set_draining(&self, is_draining: bool) {
        self.0.is_draining.store(is_draining, Ordering::Relaxed);
    }

    /// Whether a demand is for this cell.
    fn takes(&self, demand: &crate::Demand) -> bool {
        !self.0.is_draining.load(Ordering::Relaxed) && self.0.class.matches(&demand.requirements)
    }

    fn taken_over(&self) -> MutexGuard<'_, HashSet<ReservationId>> {
        self.0.taken_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits a reservation for the cell itself, as for an instance that begins: from now on nobody but
    /// [`Self::give_back`] releases it, and an auctioneer that tries is told that it is over.
    #[must_use]
    pub fn take_over(&self, id: ReservationId) -> Outcome {
        let mut taken_over = self.taken_over();
        let outcome = self.ledger().commit(id);
        if outcome == Outcome::Done {
            taken_over.insert(id);
        }
        outcome
    }

    /// Releases what the cell has taken over.
    #[must_use]
    pub fn give_back(&self, id: ReservationId) -> Outcome {
        let mut taken_over = self.taken_over();
        if !taken_over.contains(&id) {
            return Outcome::Unknown;
        }
        let outcome = self.ledger().release(id);
        if outcome != Outcome::Busy {
            taken_over.remove(&id);
        }
        outcome
    }

    /// Releases for an auctioneer what is not the cell's.
    fn release(&self, first: ReservationId, count: u32) -> Settled {
        let taken_over = self.taken_over();
        settle_each(first, count, |id| {
            if taken_over.contains(&id) { Outcome::Unknown } else { self.ledger().release(id) }
        })
    }

    /// Ends the open streams.
    pub fn close(&self) {
        self.0.closing.send_replace(true);
    }

    /// The ledger.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.0.ledger
    }

    /// The time of the ledger's reservations, in microseconds since the service was made.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        // Half a million years fit.
        self.0.began.elapsed().as_micros() as u64
    }

    /// How many calls were answered.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// Answers auctioneers until `shutdown` is ready; then ends what is under way. Other services may be served beside
    /// it with [`Self::server`].
    ///
    /// # Errors
    /// [`Error::Tls`] for certificates that cannot be used, [`Error::Serve`].
    pub async fn serve(self, listener: Listener, shutdown: impl Future<Output = ()>) -> Result<()> {
        let mut builder = Server::builder()
            .timeout(CALL_DEADLINE)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_DEADLINE));
        if let Some(certificates) = listener.certificates() {
            builder = builder.tls_config(certificates.server()).map_err(Error::Tls)?;
        }
        let incoming = listener.incoming(self.0.limits.connections_max);
        let inner = self.0.clone();
        let (closes, closed) = tokio::sync::oneshot::channel();
        let closing = async move {
            shutdown.await;
            inner.closing.send_replace(true);
            let _ = closes.send(());
        };
        let served = builder.add_service(self.server()).serve_with_incoming_shutdown(incoming, closing);
        let too_late = async {
            if closed.await.is_err() {
                // The server ended of itself.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(CLOSE_DEADLINE).await;
        };
        tokio::select! {
            ended = served => ended.map_err(Error::Serve),
            () = too_late => Ok(()),
        }
    }

    /// The gRPC service, with its limits on messages.
    #[must_use]
    pub fn server(self) -> CellServer<Self> {
        let server = CellServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX);
        server.max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn is_closing(&self) -> bool {
        *self.0.closing.borrow()
    }

    /// Answers one call of a stream.
    fn answer(&self, call: Option<v1::call::Call>) -> v1::answer::Answer {
        let decoded = call.ok_or(wire::Malformed::Unsupported { what: "a call" }).and_then(wire::request);
        match decoded {
            Ok(Request::Bid(request)) => v1::answer::Answer::Bid(self.answer_bid(&request)),
            Ok(Request::Reserve(request)) => v1::answer::Answer::Reserve(self.answer_reserve(&request)),
            Ok(Request::Settle(request)) => v1::answer::Answer::Settle(self.answer_settle(&request)),
            Err(malformed) => v1::answer::Answer::Failure(wire::failure(&malformed)),
        }
    }

    fn answer_bid(&self, request: &BidRequest) -> v1::BidResponse {
        self.sweep(self.now_us());
        if !self.takes(&request.demand) {
            return v1::BidResponse { epoch: self.ledger().epoch().0, ..Default::default() };
        }
        wire::bid_message(&self.ledger().bid(&request.demand, request.count))
    }

    fn answer_reserve(&self, request: &ReserveRequest) -> v1::ReserveResponse {
        let ReserveRequest { demand, epoch, first, count, ttl_us } = request;
        if !self.takes(demand) {
            return wire::reserved_message(0, Some(Refused::Short(Shortage::NONE)));
        }
        let terms = Terms { epoch: *epoch, now_us: self.now_us(), ttl_us: *ttl_us };
        let (held, refused) = self.ledger().reserve_batch(*first, *count, demand, terms);
        wire::reserved_message(held, refused)
    }

    fn answer_settle(&self, request: &SettleRequest) -> v1::SettleResponse {
        let SettleRequest { first, count, action } = *request;
        let settled = match action {
            Action::Commit => settle_each(first, count, |id| self.ledger().commit(id)),
            Action::Release => self.release(first, count),
        };
        wire::settled_message(&settled)
    }

    /// Frees what is over, if it is time to look.
    fn sweep(&self, now_us: u64) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        let at_us = self.0.sweep_at_us.load(Ordering::Relaxed);
        if now_us < at_us {
            return;
        }
        let next_us = now_us.saturating_add(self.0.limits.sweep_us);
        // Of several that come by at the same time, one sweeps.
        if self.0.sweep_at_us.compare_exchange(at_us, next_us, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.ledger().expire(now_us);
        }
    }

    /// A place among the open streams, or nothing when all are taken.
    fn open_stream(&self) -> Option<StreamPermit> {
        let max = self.0.limits.streams_max;
        let taken = self
            .0
            .streams
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < max).then_some(open + 1));
        taken.is_ok().then(|| StreamPermit(self.clone()))
    }
}

/// A place among the open streams.
#[derive(Debug)]
struct StreamPermit(CellService);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.0.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

#[tonic::async_trait]
impl Cell for CellService {
    type AuctionStream = Answers;

    async fn bid(&self, request: GrpcRequest<v1::BidRequest>) -> Result<Response<v1::BidResponse>, Status> {
        let request = BidRequest::decode(request.into_inner()).map_err(|malformed| invalid(&malformed))?;
        Ok(Response::new(self.answer_bid(&request)))
    }

    async fn reserve(
        &self,
        request: GrpcRequest<v1::ReserveRequest>,
    ) -> Result<Response<v1::ReserveResponse>, Status> {
        let request =
            ReserveRequest::decode(request.into_inner()).map_err(|malformed| invalid(&malformed))?;
        Ok(Response::new(self.answer_reserve(&request)))
    }

    async fn settle(
        &self,
        request: GrpcRequest<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let request = SettleRequest::decode(request.get_ref()).map_err(|malformed| invalid(&malformed))?;
        Ok(Response::new(self.answer_settle(&request)))
    }

    async fn auction(
        &self,
        request: GrpcRequest<Streaming<v1::AuctionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let permit = self.open_stream().ok_or_else(|| {
            Status::resource_exhausted("this cell has as many streams as it wants: use one for each process")
        })?;
        let mut closing = self.0.closing.subscribe();
        let closing = Box::pin(async move {
            // An error means that the service is gone, which ends the stream as well.
            let _ = closing.wait_for(|is_closing| *is_closing).await;
        });
        Ok(Response::new(Answers::new(request.into_inner(), permit, closing)))
    }
}

fn settle_each(first: ReservationId, count: u32, settle: impl Fn(ReservationId) -> Outcome) -> Settled {
    let mut settled = Settled::default();
    for offset in 0..count {
        match settle(first.plus(offset)) {
            Outcome::Done => settled.done += 1,
            Outcome::Unknown => settled.unknown += 1,
            Outcome::Busy => settled.busy += 1,
        }
    }
    settled
}

fn invalid(malformed: &wire::Malformed) -> Status {
    Status::invalid_argument(wire::failure(malformed).detail)
}
