//! What is encoded is decoded as it was; what is decoded from anything is within its limits.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use celda_api::auction::v1;
use celda_auction::demand::{
    AMOUNT_MAX, AppId, BATCH_MAX, Demand, Requirements, Resources, SLOTS_MAX, Strategy as Layout,
};
use celda_auction::ledger::{Epoch, ReservationId, TTL_MAX_US};
use celda_auction::wire::{self, Action, BidRequest, Request, ReserveRequest, SettleRequest};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

fn names() -> impl Strategy<Value = Vec<Box<str>>> {
    vec("[a-zä]{0,64}".prop_map(Into::into), 0..=32)
}

fn demand() -> impl Strategy<Value = Demand> {
    let amounts = (0..=AMOUNT_MAX, 0..=AMOUNT_MAX, 0..=AMOUNT_MAX, 1..=SLOTS_MAX, 0..=SLOTS_MAX);
    let name = || proptest::option::of("[a-z0-9]{1,128}".prop_map(Into::into));
    (any::<u64>(), amounts, any::<bool>(), name(), name(), names(), names()).prop_map(
        |(app, (cpu, memory, disk, containers, ports), packs, architecture, stack, tags, volumes)| Demand {
            app: AppId(app),
            resources: Resources::from_amounts([cpu, memory, disk, containers, ports]),
            requirements: Requirements { architecture, stack, tags, volumes },
            strategy: if packs { Layout::Pack } else { Layout::Spread },
            ..Demand::default()
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let first = || (1..=1_u64 << 63).prop_map(|id| ReservationId::new(id).unwrap());
    let count = || 1..=BATCH_MAX;
    prop_oneof![
        (demand(), count()).prop_map(|(demand, count)| Request::Bid(BidRequest { demand, count })),
        (demand(), any::<u64>(), first(), count(), 1..=TTL_MAX_US).prop_map(
            |(demand, epoch, first, count, ttl_us)| {
                Request::Reserve(ReserveRequest { demand, epoch: Epoch(epoch), first, count, ttl_us })
            }
        ),
        (first(), count(), any::<bool>()).prop_map(|(first, count, commits)| {
            let action = if commits { Action::Commit } else { Action::Release };
            Request::Settle(SettleRequest { first, count, action })
        }),
    ]
}

fn call(request: &Request) -> v1::call::Call {
    match request {
        Request::Bid(request) => v1::call::Call::Bid(request.message()),
        Request::Reserve(request) => v1::call::Call::Reserve(request.message()),
        Request::Settle(request) => v1::call::Call::Settle(request.message()),
    }
}

proptest! {
    #[test]
    fn a_request_survives_the_way(request in request()) {
        let calls = vec![v1::Call { correlation: 1, call: Some(call(&request)) }];
        let bytes = v1::AuctionRequest { calls }.encode_to_vec();
        let mut calls = wire::calls(v1::AuctionRequest::decode(&bytes[..]).unwrap()).unwrap();
        prop_assert_eq!(wire::request(calls.pop().unwrap().call.unwrap()), Ok(request));
    }

    #[test]
    fn any_bytes_are_a_request_within_its_limits_or_an_error(bytes in vec(any::<u8>(), 0..256)) {
        let Ok(message) = v1::Call::decode(&bytes[..]) else { return Ok(()) };
        match message.call.map(wire::request) {
            Some(Ok(Request::Bid(request))) => {
                prop_assert!(request.demand.check().is_ok() && (1..=BATCH_MAX).contains(&request.count));
            }
            Some(Ok(Request::Reserve(request))) => {
                prop_assert!(request.demand.check().is_ok() && (1..=BATCH_MAX).contains(&request.count));
                prop_assert!((1..=TTL_MAX_US).contains(&request.ttl_us));
            }
            Some(Ok(Request::Settle(request))) => prop_assert!((1..=BATCH_MAX).contains(&request.count)),
            Some(Err(_)) | None => {}
        }
    }
}

#[test]
fn the_longest_demand_fits_into_a_message() {
    let name = || Box::<str>::from("x".repeat(128));
    let requirements = Requirements {
        architecture: Some(name()),
        stack: Some(name()),
        tags: vec![name(); 32],
        volumes: vec![name(); 32],
    };
    let demand = Demand {
        app: AppId(u64::MAX),
        resources: Resources::from_amounts([AMOUNT_MAX, AMOUNT_MAX, AMOUNT_MAX, SLOTS_MAX, SLOTS_MAX]),
        requirements,
        ..Demand::default()
    };
    demand.check().unwrap();
    let request = BidRequest { demand, count: BATCH_MAX };
    // The client puts so many calls into a message without counting their bytes.
    let calls = vec![v1::Call { correlation: u64::MAX, call: Some(call(&Request::Bid(request))) }; 4];
    assert!(v1::AuctionRequest { calls }.encoded_len() <= wire::MESSAGE_BYTES_MAX);
}

#[test]
fn the_longest_answers_fit_into_a_message() {
    let failure = v1::Failure { reason: 1, detail: "x".repeat(wire::DETAIL_BYTES_MAX) };
    let answer = v1::Answer { correlation: u64::MAX, answer: Some(v1::answer::Answer::Failure(failure)) };
    let answers = vec![answer; wire::CALLS_MAX];
    assert!(v1::AuctionResponse { answers }.encoded_len() <= wire::MESSAGE_BYTES_MAX);
}
