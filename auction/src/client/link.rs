//! One cell's stream, shared by all auctioneers of a process.
//!
//! ```text
//!           call                opened                 ended, silent, rubbish
//!  Idle ──────────> Connecting ────────> Open ──────────────────────────────> Down until later ──> Idle
//!    ^                  │ calls wait in the queue    │ idle
//!    └──────────────────┴────────────────────────────┘
//! ```

use super::Options;
use super::connect;
use super::inbox::Inbox;
use super::pending::{Entry, Pending, Waits};
use crate::membership::Member;
use crate::round::{AskId, AttemptId};
use crate::transport::Address;
use crate::wire::{self, CALLS_MAX, MESSAGE_BYTES_MAX};
use celda_api::auction::v1;
use futures_util::Stream;
use prost::Message;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tonic::Streaming;

/// How many answers that nobody waits for, or that are none, a connection may bring before it is closed. Late answers
/// are awaited still: these are doubles and lies.
const STRAYS_MAX: u32 = 64;
/// So many calls fit into a message whatever their demands name, and need not be counted.
const CALLS_UNCOUNTED: usize = 4;
/// Room for what surrounds a call in a message: its field's tag and its length.
const CALL_OVERHEAD_BYTES: usize = 8;
/// How often a backoff is doubled at most; the options cut it before.
const DOUBLINGS_MAX: u32 = 16;

/// What went over a link, or over all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Calls that were sent: asks, reservations, settlements.
    pub calls: u64,
    /// Messages that they travelled in.
    pub messages: u64,
    /// Answers that somebody waited for.
    pub answers: u64,
    /// Messages that they, or others, travelled in.
    pub answer_messages: u64,
    /// Answers that nobody waited for, or that were none.
    pub strays: u64,
    /// Calls that were not sent, for want of a connection or of room.
    pub unsent: u64,
    /// Connections that were opened.
    pub connections: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.calls += other.calls;
        self.messages += other.messages;
        self.answers += other.answers;
        self.answer_messages += other.answer_messages;
        self.strays += other.strays;
        self.unsent += other.unsent;
        self.connections += other.connections;
    }
}

/// A cell as an auctioneer's process reaches it.
#[derive(Debug)]
pub(super) struct Link {
    member: Arc<Member>,
    options: Arc<Options>,
    /// Of all links of the process.
    connections: Arc<AtomicU32>,
    shared: Mutex<Shared>,
    /// Something for the task of the connection: the link is closed.
    closes: Notify,
}

#[derive(Debug)]
struct Shared {
    state: State,
    /// Names the connection: an outbox of an earlier one has nothing to send.
    connection: u64,
    queue: Vec<v1::Call>,
    pending: Pending,
    writer: Option<Waker>,
    failures: u32,
    /// Counts answers and calls since the task of the connection last looked.
    heard: u32,
    called: u32,
    traffic: Traffic,
    /// Those who want to know when a connection attempt has ended.
    settled: Vec<tokio::sync::oneshot::Sender<bool>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Connecting,
    Open,
    Down { until: Instant },
    Left,
}

/// Why a call was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotSent(pub(super) &'static str);

impl Link {
    pub(super) fn new(member: Arc<Member>, options: Arc<Options>, connections: Arc<AtomicU32>) -> Self {
        let shared = Shared {
            state: State::Idle,
            connection: 0,
            queue: Vec::new(),
            pending: Pending::default(),
            writer: None,
            failures: 0,
            heard: 0,
            called: 0,
            traffic: Traffic::default(),
            settled: Vec::new(),
        };
        Self { member, options, connections, shared: Mutex::new(shared), closes: Notify::new() }
    }

    pub(super) fn name(&self) -> &str {
        &self.member.name
    }

    pub(super) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    pub(super) fn address(&self) -> &Address {
        &self.member.address
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.lock().traffic
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().expect("nothing panics while it holds this")
    }

    /// Asks for a bid for `count` instances.
    pub(super) fn ask(
        self: &Arc<Self>,
        inbox: &Arc<Inbox>,
        ask: AskId,
        demand: &v1::Demand,
        count: u32,
    ) -> Result<(), NotSent> {
        let call = v1::call::Call::Bid(v1::BidRequest { demand: Some(demand.clone()), count });
        self.send(call, Some(Entry { waits: Waits::Bid(inbox.clone(), ask), count }))
    }

    /// Asks for a reservation.
    pub(super) fn reserve(
        self: &Arc<Self>,
        inbox: &Arc<Inbox>,
        attempt: AttemptId,
        request: v1::ReserveRequest,
    ) -> Result<(), NotSent> {
        let entry = Entry { waits: Waits::Reserve(inbox.clone(), attempt), count: request.count };
        self.send(v1::call::Call::Reserve(request), Some(entry))
    }

    /// Commits or releases; the answer comes to `sender`, or to nobody.
    pub(super) fn settle(
        self: &Arc<Self>,
        request: wire::SettleRequest,
        sender: Option<tokio::sync::oneshot::Sender<Result<wire::Settled, wire::Malformed>>>,
    ) -> Result<(), NotSent> {
        let entry = sender.map(|sender| Entry { waits: Waits::Settle(sender), count: request.count });
        self.send(v1::call::Call::Settle(request.message()), entry)
    }

    /// Sends a call; an entry gets the answer.
    fn send(self: &Arc<Self>, call: v1::call::Call, entry: Option<Entry>) -> Result<(), NotSent> {
        let mut shared = self.lock();
        let sent = self.admit(&mut shared);
        if sent.is_err() {
            shared.traffic.unsent += 1;
            return sent;
        }
        let correlation = entry.map_or(0, |entry| shared.pending.insert(entry));
        shared.queue.push(v1::Call { correlation, call: Some(call) });
        shared.called += 1;
        let writer = shared.writer.take();
        drop(shared);
        if let Some(writer) = writer {
            writer.wake();
        }
        Ok(())
    }

    /// Whether one more call may be sent. Begins to connect if need be.
    fn admit(self: &Arc<Self>, shared: &mut Shared) -> Result<(), NotSent> {
        let in_flight_max = self.options.in_flight_max as usize;
        // Calls without an answer are in no entry: the queue bounds them.
        if shared.pending.len() >= in_flight_max || shared.queue.len() >= in_flight_max {
            return Err(NotSent("it has left as many calls unanswered as may be"));
        }
        match shared.state {
            State::Open | State::Connecting => Ok(()),
            State::Left => Err(NotSent("it left")),
            State::Down { until } if Instant::now() < until => Err(NotSent("it failed a short while ago")),
            State::Down { .. } | State::Idle => self.connect(shared),
        }
    }

    fn connect(self: &Arc<Self>, shared: &mut Shared) -> Result<(), NotSent> {
        let Some(permit) = Permit::take(&self.connections, self.options.connections_max) else {
            return Err(NotSent("as many connections are open as may be"));
        };
        shared.state = State::Connecting;
        shared.connection += 1;
        let outbox = Outbox { link: self.clone(), connection: shared.connection };
        tokio::spawn(self.clone().run(outbox, permit));
        Ok(())
    }

    /// Connects if it is not, and says whether it is. May be dropped.
    pub(super) async fn warm(self: &Arc<Self>) -> bool {
        let receiver = {
            let mut shared = self.lock();
            if shared.state == State::Open {
                return true;
            }
            if self.admit(&mut shared).is_err() {
                return false;
            }
            let (sender, receiver) = tokio::sync::oneshot::channel();
            shared.settled.push(sender);
            receiver
        };
        receiver.await.unwrap_or(false)
    }

    /// The cell left: ends the connection and answers no call any more.
    pub(super) fn leave(&self) {
        self.lock().state = State::Left;
        self.closes.notify_one();
    }

    /// The life of one connection.
    async fn run(self: Arc<Self>, outbox: Outbox, permit: Permit) {
        let opened = tokio::time::timeout(self.options.connect_deadline, connect::open(&self, outbox)).await;
        let is_failure = match opened {
            Ok(Ok(answers)) => {
                self.opened();
                self.pump(answers).await
            }
            Ok(Err(_)) | Err(_) => true,
        };
        drop(permit);
        self.ended(is_failure);
    }

    fn opened(&self) {
        let mut shared = self.lock();
        if shared.state == State::Connecting {
            shared.state = State::Open;
        }
        shared.traffic.connections += 1;
        for sender in shared.settled.drain(..) {
            let _ = sender.send(true);
        }
    }

    /// Takes answers in until the connection is of no more use. Says whether the cell is to be left alone.
    async fn pump(&self, mut answers: Streaming<v1::AuctionResponse>) -> bool {
        let mut looks = tokio::time::interval(self.options.silence_max);
        looks.tick().await;
        let mut strays = 0;
        let mut idle = Duration::ZERO;
        // Whether calls were unanswered at the last look.
        let mut waited_before = false;
        loop {
            tokio::select! {
                biased;
                message = answers.message() => match message {
                    Ok(Some(message)) => {
                        strays += self.take(message);
                        if strays > STRAYS_MAX {
                            return true;
                        }
                    }
                    Ok(None) | Err(_) => return true,
                },
                _ = looks.tick() => {
                    let mut shared = self.lock();
                    let is_silent = shared.heard == 0 && waited_before;
                    waited_before = shared.pending.len() > 0;
                    idle = if shared.called == 0 { idle + self.options.silence_max } else { Duration::ZERO };
                    (shared.heard, shared.called) = (0, 0);
                    if is_silent {
                        return true;
                    }
                    if idle >= self.options.idle_max {
                        return false;
                    }
                }
                () = self.closes.notified() => return false,
            }
        }
    }

    /// Takes a message of answers in. Says how many of them were of no use.
    fn take(&self, message: v1::AuctionResponse) -> u32 {
        let mut shared = self.lock();
        shared.traffic.answer_messages += 1;
        let Ok(answers) = wire::answers(message) else {
            shared.traffic.strays += 1;
            return STRAYS_MAX + 1;
        };
        let mut strays = u32::from(answers.is_empty());
        for v1::Answer { correlation, answer } in answers {
            let entry = shared.pending.take(correlation);
            if entry.is_some_and(|entry| entry.answer(answer)) {
                shared.failures = 0;
                shared.heard += 1;
                shared.traffic.answers += 1;
            } else {
                strays += 1;
            }
        }
        shared.traffic.strays += u64::from(strays);
        strays
    }

    /// A connection ended, or was never made.
    fn ended(&self, is_failure: bool) {
        let (queued, sent) = {
            let mut shared = self.lock();
            if shared.state != State::Left {
                shared.state = State::Idle;
            }
            if is_failure && shared.state != State::Left {
                let doubled =
                    self.options.backoff_min.saturating_mul(1 << shared.failures.min(DOUBLINGS_MAX));
                shared.state = State::Down { until: Instant::now() + doubled.min(self.options.backoff_max) };
                shared.failures = shared.failures.saturating_add(1);
            }
            // The outbox of this connection ends, should it still be looked at.
            shared.connection += 1;
            let writer = shared.writer.take();
            let queue = std::mem::take(&mut shared.queue);
            let queued: Vec<Entry> =
                queue.iter().filter_map(|call| shared.pending.take(call.correlation)).collect();
            shared.settled.clear();
            (shared.heard, shared.called) = (0, 0);
            if let Some(writer) = writer {
                writer.wake();
            }
            (queued, shared.pending.drain())
        };
        queued.into_iter().for_each(|entry| entry.fail(false));
        sent.into_iter().for_each(|entry| entry.fail(true));
    }
}

/// A place among the open connections.
#[derive(Debug)]
struct Permit(Arc<AtomicU32>);

impl Permit {
    fn take(open: &Arc<AtomicU32>, max: u32) -> Option<Self> {
        let taken =
            open.try_update(Ordering::Relaxed, Ordering::Relaxed, |count| (count < max).then_some(count + 1));
        taken.is_ok().then(|| Self(open.clone()))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one connection sends: all calls that have come since it was last looked at, in one message.
#[derive(Debug)]
pub(super) struct Outbox {
    link: Arc<Link>,
    connection: u64,
}

impl Stream for Outbox {
    type Item = v1::AuctionRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut shared = self.link.lock();
        if shared.connection != self.connection {
            return Poll::Ready(None);
        }
        if shared.queue.is_empty() {
            shared.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = fitting(&shared.queue);
        let calls = if count == shared.queue.len() {
            std::mem::take(&mut shared.queue)
        } else {
            shared.queue.drain(..count).collect()
        };
        shared.traffic.messages += 1;
        shared.traffic.calls += count as u64;
        Poll::Ready(Some(v1::AuctionRequest { calls }))
    }
}

/// How many calls at the front fit into one message, at least 1.
fn fitting(queue: &[v1::Call]) -> usize {
    if queue.len() <= CALLS_UNCOUNTED {
        return queue.len();
    }
    let mut bytes = 0;
    let fit = queue.iter().take(CALLS_MAX).take_while(|call| {
        bytes += call.encoded_len() + CALL_OVERHEAD_BYTES;
        bytes <= MESSAGE_BYTES_MAX
    });
    fit.count().max(1)
}
