//! A cell that does with its answers what a test wants.

use crate::support::ledger;
use celda_api::auction::v1;
use celda_api::auction::v1::cell_server::{Cell, CellServer};
use celda_auction::ledger::{Ledger, Outcome, Terms};
use celda_auction::transport::Address;
use celda_auction::wire::{self, Request as Call};
use futures_util::{Stream, StreamExt};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

type Messages = Vec<v1::AuctionResponse>;
type Behaviour = dyn Fn(&Ledger, &v1::Call, v1::Answer) -> Messages + Send + Sync;

/// A cell that turns each call and its honest answer into whatever it sends.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) address: Address,
    /// Streams that were opened, and that ended.
    pub(crate) opened: Arc<AtomicU32>,
    pub(crate) ended: Arc<Notify>,
    behaviour: Arc<Behaviour>,
}

/// One message of these answers.
pub(crate) fn says(answers: Vec<v1::Answer>) -> Messages {
    vec![v1::AuctionResponse { answers }]
}

impl Fake {
    /// Serves a cell of this behaviour until the runtime ends.
    pub(crate) fn serve(
        behaviour: impl Fn(&Ledger, &v1::Call, v1::Answer) -> Messages + Send + Sync + 'static,
    ) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let fake = Self {
            ledger: ledger(),
            address: Address::Loopback(incoming.local_addr().unwrap()),
            opened: Arc::default(),
            ended: Arc::default(),
            behaviour: Arc::new(behaviour),
        };
        let server = tonic::transport::Server::builder().add_service(CellServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        fake
    }

    fn honest(&self, call: &v1::Call) -> v1::Answer {
        let request = wire::request(call.call.clone().expect("a client sends calls that are some"));
        let answer = match request.unwrap() {
            Call::Bid(request) => {
                v1::answer::Answer::Bid(wire::bid_message(&self.ledger.bid(&request.demand, request.count)))
            }
            Call::Reserve(request) => {
                let terms = Terms { epoch: request.epoch, now_us: 0, ttl_us: request.ttl_us };
                let (held, refused) =
                    self.ledger.reserve_batch(request.first, request.count, &request.demand, terms);
                v1::answer::Answer::Reserve(wire::reserved_message(held, refused))
            }
            Call::Settle(request) => {
                let released =
                    (0..request.count).map(|offset| self.ledger.release(request.first.plus(offset)));
                let done = released.filter(|outcome| *outcome == Outcome::Done).count() as u32;
                let unknown = request.count - done;
                v1::answer::Answer::Settle(v1::SettleResponse { done, unknown, busy: 0 })
            }
        };
        v1::Answer { correlation: call.correlation, answer: Some(answer) }
    }
}

struct Ended(Arc<Notify>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[tonic::async_trait]
impl Cell for Fake {
    type AuctionStream = Pin<Box<dyn Stream<Item = Result<v1::AuctionResponse, Status>> + Send>>;

    async fn bid(&self, _: Request<v1::BidRequest>) -> Result<Response<v1::BidResponse>, Status> {
        Err(Status::unimplemented("the client uses streams"))
    }

    async fn reserve(&self, _: Request<v1::ReserveRequest>) -> Result<Response<v1::ReserveResponse>, Status> {
        Err(Status::unimplemented("the client uses streams"))
    }

    async fn settle(&self, _: Request<v1::SettleRequest>) -> Result<Response<v1::SettleResponse>, Status> {
        Err(Status::unimplemented("the client uses streams"))
    }

    async fn auction(
        &self,
        request: Request<Streaming<v1::AuctionRequest>>,
    ) -> Result<Response<Self::AuctionStream>, Status> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        let (fake, ended) = (self.clone(), Ended(self.ended.clone()));
        let answers = request.into_inner().flat_map(move |message| {
            let _ = &ended;
            let calls = message.map(|message| message.calls).unwrap_or_default();
            let messages: Messages = calls
                .iter()
                .flat_map(|call| (fake.behaviour)(&fake.ledger, call, fake.honest(call)))
                .collect();
            futures_util::stream::iter(messages.into_iter().map(Ok))
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
