//! Cells against auctioneers that misbehave. Afterwards the cell answers an honest one, and nothing is held.

use crate::support::{Served, auctioneer, batch, cells, demand, ledger, options, serve, soon, taken};
use celda_api::auction::v1;
use celda_api::auction::v1::call::Call;
use celda_api::auction::v1::cell_client::CellClient;
use celda_auction::service::Limits;
use celda_auction::transport::Address;
use celda_auction::wire::{self, CALLS_MAX, MESSAGE_BYTES_MAX};
use futures_util::stream;
use prost::Message;
use prost::bytes::{Buf, BufMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

async fn cell() -> (Served, CellClient<Channel>) {
    let cell = serve(ledger(), Limits::default()).await;
    let client = CellClient::connect(cell.address.to_string()).await.unwrap();
    (cell, client)
}

/// Sends one message over a stream and says how it was answered.
async fn say(
    client: &mut CellClient<Channel>,
    message: v1::AuctionRequest,
) -> Result<Option<v1::AuctionResponse>, Status> {
    let calls = stream::iter([message]);
    let mut answers = soon("the stream", client.auction(calls)).await?.into_inner();
    soon("an answer", answers.message()).await
}

fn call(correlation: u64, call: Call) -> v1::Call {
    v1::Call { correlation, call: Some(call) }
}

fn bid(demand: v1::Demand) -> Call {
    Call::Bid(v1::BidRequest { demand: Some(demand), count: 1 })
}

fn honest() -> v1::Demand {
    wire::demand_message(&demand())
}

async fn still_serves(cell: &Served) {
    assert_eq!(taken(cell.service.ledger()), 0, "nothing is held");
    let cells = cells(options(), &[&cell.address]);
    assert_eq!(soon("a batch", auctioneer(&cells).place(batch(1))).await.unwrap().held(), 1);
}

/// Calls with something missing, negative, absurd or unknown.
fn wrong_calls() -> Vec<(&'static str, Option<Call>)> {
    let resources = |change: fn(&mut v1::Resources)| {
        let mut demand = honest();
        demand.resources.as_mut().map(change);
        Some(bid(demand))
    };
    let required = |requirements| Some(bid(v1::Demand { requirements: Some(requirements), ..honest() }));
    let reserve = |change: fn(&mut v1::ReserveRequest)| {
        let demand = Some(honest());
        let mut request = v1::ReserveRequest { demand, epoch: 1, first_id: 1, count: 1, ttl_us: 1 };
        change(&mut request);
        Some(Call::Reserve(request))
    };
    let settle = |first_id, count, action| Some(Call::Settle(v1::SettleRequest { first_id, count, action }));
    let tags = |count, bytes| v1::Requirements { tags: vec!["x".repeat(bytes); count], ..Default::default() };
    vec![
        ("no call", None),
        ("no demand", Some(Call::Bid(v1::BidRequest { demand: None, count: 1 }))),
        ("no resources", Some(bid(v1::Demand { resources: None, ..honest() }))),
        ("none wanted", Some(Call::Bid(v1::BidRequest { demand: Some(honest()), count: 0 }))),
        ("too many wanted", Some(Call::Bid(v1::BidRequest { demand: Some(honest()), count: 1025 }))),
        // What a peer writes as -1 comes as the largest number.
        ("negative memory", resources(|resources| resources.memory_mib = u32::MAX)),
        ("negative cpu", resources(|resources| resources.cpu_milli = (-1000_i32) as u32)),
        ("absurd disk", resources(|resources| resources.disk_mib = (1 << 30) + 1)),
        ("no container", resources(|resources| resources.containers = 0)),
        ("absurd ports", resources(|resources| resources.ports = 1 << 16)),
        ("too many tags", required(tags(33, 1))),
        ("a long tag", required(tags(1, 129))),
        ("no id", reserve(|request| request.first_id = 0)),
        ("an id that wraps", reserve(|request| request.first_id = u64::MAX)),
        ("none to hold", reserve(|request| request.count = 0)),
        ("too many to hold", reserve(|request| request.count = u32::MAX)),
        ("no time", reserve(|request| request.ttl_us = 0)),
        ("no demand to hold", reserve(|request| request.demand = None)),
        ("no action", settle(1, 1, 0)),
        ("an action of a later version", settle(1, 1, 99)),
        ("none to settle", settle(1, 0, 1)),
        ("no id to settle", settle(0, 1, 1)),
    ]
}

#[tokio::test]
async fn wrong_calls_fail_in_their_place_and_the_others_are_answered() {
    let (cell, mut client) = cell().await;
    let wrong = wrong_calls();
    let mut calls: Vec<v1::Call> = wrong
        .iter()
        .zip(1..)
        .map(|((_, call), correlation)| v1::Call { correlation, call: call.clone() })
        .collect();
    calls.push(call(1000, bid(honest())));
    let answers = say(&mut client, v1::AuctionRequest { calls }).await.unwrap().unwrap().answers;
    assert_eq!(answers.len(), wrong.len() + 1);
    for ((what, _), answer) in wrong.iter().zip(&answers) {
        assert!(matches!(answer.answer, Some(v1::answer::Answer::Failure(_))), "{what}: {answer:?}");
    }
    assert!(matches!(answers[wrong.len()].answer, Some(v1::answer::Answer::Bid(bid)) if bid.room == 1));
    still_serves(&cell).await;
}

#[tokio::test]
async fn wrong_unary_calls_are_invalid_arguments() {
    let (cell, mut client) = cell().await;
    for (what, call) in wrong_calls() {
        let status = match call {
            None => continue,
            Some(Call::Bid(request)) => client.bid(request).await.map(|_| ()),
            Some(Call::Reserve(request)) => client.reserve(request).await.map(|_| ()),
            Some(Call::Settle(request)) => client.settle(request).await.map(|_| ()),
        };
        assert_eq!(status.unwrap_err().code(), Code::InvalidArgument, "{what}");
    }
    still_serves(&cell).await;
}

#[tokio::test]
async fn absurd_times_are_cut_and_hold_at_most_the_longest() {
    let (cell, mut client) = cell().await;
    let demand = Some(honest());
    let request = v1::ReserveRequest { demand, epoch: 1, first_id: 1, count: 1, ttl_us: u64::MAX };
    assert_eq!(client.reserve(request).await.unwrap().into_inner().held, 1);
    let over_us = cell.service.now_us() + celda_auction::ledger::TTL_MAX_US + 1;
    assert_eq!(cell.service.ledger().expire(over_us), 1);
    still_serves(&cell).await;
}

#[tokio::test]
async fn an_epoch_of_another_life_holds_nothing() {
    let (cell, mut client) = cell().await;
    for epoch in [0, 2, u64::MAX] {
        let request =
            v1::ReserveRequest { demand: Some(honest()), epoch, first_id: 1, count: 1, ttl_us: 1_000_000 };
        let answer = client.reserve(request).await.unwrap().into_inner();
        assert_eq!(
            (answer.held, answer.refused(), answer.epoch),
            (0, v1::reserve_response::Refused::Epoch, 1)
        );
    }
    still_serves(&cell).await;
}

#[tokio::test]
async fn more_calls_than_a_message_may_have_end_the_stream() {
    let (cell, mut client) = cell().await;
    let calls = vec![v1::Call { correlation: 1, call: None }; CALLS_MAX + 1];
    let status = say(&mut client, v1::AuctionRequest { calls }).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    still_serves(&cell).await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_the_stream() {
    let (cell, mut client) = cell().await;
    let tags = vec!["x".repeat(MESSAGE_BYTES_MAX)];
    let requirements = Some(v1::Requirements { tags, ..Default::default() });
    let calls = vec![call(1, bid(v1::Demand { requirements, ..honest() }))];
    let status = say(&mut client, v1::AuctionRequest { calls }).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    still_serves(&cell).await;
}

/// Sends bytes as a message, whatever they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length).to_vec()))
    }
}

/// Calls `Bid` with these bytes for a message.
async fn bid_raw(cell: &Served, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let channel = Endpoint::from_shared(cell.address.to_string()).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/celda.auction.v1.Cell/Bid");
    Ok(soon("an answer", client.unary(tonic::Request::new(bytes), path, Raw)).await?.into_inner())
}

#[tokio::test]
async fn fields_that_are_not_known_are_tolerated() {
    let (cell, _) = cell().await;
    let mut bytes = v1::BidRequest { demand: Some(honest()), count: 1 }.encode_to_vec();
    // Field 1000, a string: as a later version may have it.
    bytes.extend([0xc2, 0x3e, 2, b'h', b'i']);
    let answer = bid_raw(&cell, bytes).await.unwrap();
    assert_eq!(v1::BidResponse::decode(&answer[..]).unwrap().room, 1);
    still_serves(&cell).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let (cell, _) = cell().await;
    // No field, a length past the end, groups without end, a number too long.
    for rubbish in
        [vec![0xff; 64], vec![0x0a, 0xff, 0x7f], vec![0x0b; 4096], vec![0x10; 1], [0x80; 32].to_vec()]
    {
        let status = bid_raw(&cell, rubbish).await.unwrap_err();
        assert_eq!(status.code(), Code::Internal, "{status:?}");
    }
    still_serves(&cell).await;
}

/// Sends the bytes as they are, closes this direction and reads what comes until the cell closes, or says no more.
async fn raw(address: &Address, bytes: &[u8]) -> Vec<u8> {
    let Address::Loopback(address) = address else { panic!("a loopback address: {address}") };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // The cell may close before all is written.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = soon("the cell to close", stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test]
async fn bytes_that_are_no_http_end_the_connection() {
    let (cell, _) = cell().await;
    for rubbish in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 4096],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrubbish!!!",
    ] {
        raw(&cell.address, rubbish).await;
    }
    still_serves(&cell).await;
}

#[tokio::test]
async fn one_stream_more_than_may_be_is_refused() {
    let limits = Limits { streams_max: 1, ..Limits::default() };
    let cell = serve(ledger(), limits).await;
    let mut client = CellClient::connect(cell.address.to_string()).await.unwrap();
    let (ends, ended) = tokio::sync::oneshot::channel::<()>();
    let calls = stream::once(async {
        let _ = ended.await;
        v1::AuctionRequest::default()
    });
    let mut first = client.auction(calls).await.unwrap().into_inner();
    let refused = client.auction(stream::pending()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    drop(ends);
    assert!(soon("its end", first.message()).await.unwrap().is_none());
    soon("a place", async {
        while client.auction(stream::pending()).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_connection_more_than_may_be_is_closed() {
    let cell = serve(ledger(), Limits { connections_max: 1, ..Limits::default() }).await;
    let mut first = CellClient::connect(cell.address.to_string()).await.unwrap();
    let request = || v1::BidRequest { demand: Some(honest()), count: 1 };
    assert!(first.bid(request()).await.is_ok());
    assert_eq!(raw(&cell.address, b"").await, [], "closed without a word");
    assert!(first.bid(request()).await.is_ok(), "the first is not harmed");
}
