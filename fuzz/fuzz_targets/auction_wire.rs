//! Any bytes as what an auctioneer and a cell send each other.
//!
//! Invariants:
//! - never panics;
//! - a call that is taken is within the limits, survives being sent on, and a cell can answer it: what that cell's ledger
//!   then holds is within its capacity, and its answer is one that the auctioneer takes;
//! - an answer that is taken offers and holds no more than was asked for.
//!
//! The first byte says how many instances the answers are for; the rest is a message of calls, and one of answers.
#![no_main]

use celda_api::auction::v1;
use celda_auction::demand::{BATCH_MAX, Resources};
use celda_auction::ledger::{Epoch, Ledger, TTL_MAX_US, Terms};
use celda_auction::score::PRICE_MAX;
use celda_auction::wire::{self, CALLS_MAX, DETAIL_BYTES_MAX, Request};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const CAPACITY: Resources =
    Resources { cpu_milli: 4000, memory_mib: 4096, disk_mib: 4096, containers: 8, ports: 8 };

fn check_demand(demand: &celda_auction::Demand) {
    demand.check().expect("decoding checked it");
    assert_eq!(wire::demand(wire::demand_message(demand)).as_ref(), Ok(demand));
}

fn answer(ledger: &Ledger, call: v1::call::Call) {
    match wire::request(call) {
        Ok(Request::Bid(request)) => {
            check_demand(&request.demand);
            let bid = ledger.bid(&request.demand, request.count);
            wire::bid(&wire::bid_message(&bid), request.count).expect("a ledger's own bid");
        }
        Ok(Request::Reserve(request)) => {
            check_demand(&request.demand);
            assert!((1..=BATCH_MAX).contains(&request.count) && (1..=TTL_MAX_US).contains(&request.ttl_us));
            let terms = Terms { epoch: request.epoch, now_us: 0, ttl_us: request.ttl_us };
            let (held, refused) = ledger.reserve_batch(request.first, request.count, &request.demand, terms);
            let reserved = wire::reserved(&wire::reserved_message(held, refused), request.count);
            assert_eq!(reserved, Ok((held, refused)));
        }
        Ok(Request::Settle(request)) => {
            assert!((1..=BATCH_MAX).contains(&request.count));
            ledger.release(request.first);
        }
        Err(malformed) => assert!(wire::failure(&malformed).detail.len() <= DETAIL_BYTES_MAX),
    }
    let free = ledger.free();
    assert!(free.amounts().into_iter().zip(CAPACITY.amounts()).all(|(free, capacity)| free <= capacity));
}

fn check_answer(answer: v1::answer::Answer, count: u32) {
    match answer {
        v1::answer::Answer::Bid(message) => {
            if let Ok(bid) = wire::bid(&message, count) {
                assert!(bid.room <= count && bid.first.0.max(bid.step.0) <= PRICE_MAX);
            }
        }
        v1::answer::Answer::Reserve(message) => {
            if let Ok((held, refused)) = wire::reserved(&message, count) {
                assert!(held <= count && refused.is_some() == (held < count));
            }
        }
        v1::answer::Answer::Settle(message) => {
            if let Ok(settled) = wire::settled(&message, count) {
                assert_eq!(settled.done + settled.unknown + settled.busy, count);
            }
        }
        v1::answer::Answer::Failure(message) => {
            let wire::Malformed::Failed { detail } = message.into() else { panic!("a failure is one") };
            assert!(detail.len() <= DETAIL_BYTES_MAX);
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((count, bytes)) = bytes.split_first() else { return };
    let ledger = Ledger::new(&CAPACITY, 16, Epoch(1)).expect("a capacity that a ledger can keep");
    if let Ok(message) = v1::AuctionRequest::decode(bytes)
        && let Ok(calls) = wire::calls(message)
    {
        assert!(calls.len() <= CALLS_MAX);
        calls.into_iter().filter_map(|call| call.call).for_each(|call| answer(&ledger, call));
    }
    if let Ok(message) = v1::AuctionResponse::decode(bytes)
        && let Ok(answers) = wire::answers(message)
    {
        assert!(answers.len() <= CALLS_MAX);
        answers
            .into_iter()
            .filter_map(|answer| answer.answer)
            .for_each(|answer| check_answer(answer, u32::from(*count) + 1));
    }
});
