//! The ledger against its oracle: operations in a row, and from several threads.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

#[path = "ledger/ops.rs"]
mod ops;

use celda_auction::demand::{Demand, Resource, Shortage};
use celda_auction::ledger::{Outcome, Refused, Reserved, State, Terms};
use celda_auction::{AppId, Epoch, Ledger, ReservationId, Resources};
use ops::{Answer, Op, Oracle, capacity, check, id, run};
use proptest::prelude::*;
use std::sync::Barrier;

const MEMORY: u32 = 16;

fn op() -> impl Strategy<Value = Op> {
    let id = 1u64..12;
    prop_oneof![
        6 => (id.clone(), 1u32..9, 1u64..3, 0u64..20, 0u64..10)
            .prop_map(|(id, size, epoch, now, ttl)| Op::Reserve { id, size, epoch, now, ttl }),
        2 => id.clone().prop_map(|id| Op::Commit { id }),
        2 => id.prop_map(|id| Op::Release { id }),
        1 => (0u64..20).prop_map(|now| Op::Expire { now }),
        1 => (1u64..3).prop_map(|epoch| Op::BeginEpoch { epoch }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn operations_in_a_row_answer_as_the_oracle(ops in proptest::collection::vec(op(), 1..120)) {
        let ledger = Ledger::new(&capacity(MEMORY), 16, Epoch(1)).unwrap();
        let mut oracle = Oracle::new(MEMORY, 1);
        for op in ops {
            let answer = run(&ledger, op);
            prop_assert_eq!(answer, oracle.run(op), "{:?}", op);
            prop_assert_eq!(&check(&ledger, MEMORY), &oracle.live, "after {:?}", op);
        }
    }

    #[test]
    fn threads_lose_and_double_nothing(lists in proptest::collection::vec(proptest::collection::vec(op(), 1..40), 2..4)) {
        let ledger = Ledger::new(&capacity(MEMORY), 16, Epoch(1)).unwrap();
        let start = Barrier::new(lists.len());
        std::thread::scope(|scope| {
            for list in &lists {
                let (ledger, start) = (&ledger, &start);
                scope.spawn(move || {
                    start.wait();
                    for op in list {
                        run(ledger, *op);
                    }
                });
            }
        });
        let live = check(&ledger, MEMORY);
        // Whatever is left can be freed, and then all is as it was.
        for number in live.into_keys() {
            prop_assert_eq!(ledger.release(id(number)), Outcome::Done);
        }
        prop_assert_eq!(ledger.free(), capacity(MEMORY));
        prop_assert_eq!(check(&ledger, MEMORY).len(), 0);
    }
}

fn one(memory: u32) -> Demand {
    let resources = Resources { cpu_milli: 1, memory_mib: memory, disk_mib: 1, containers: 1, ports: 0 };
    Demand { resources, ..Demand::default() }
}

const TERMS: Terms = Terms { epoch: Epoch(1), now_us: 0, ttl_us: 10 };

#[test]
fn a_cell_fills_to_the_last_slot_and_says_what_is_short() {
    let ledger = Ledger::new(&capacity(MEMORY), 64, Epoch(1)).unwrap();
    for number in 1..=u64::from(MEMORY) {
        assert_eq!(ledger.reserve(id(number), &one(1), TERMS), Ok(Reserved::Now));
    }
    let short = Shortage::NONE.with(Resource::Memory);
    assert_eq!(ledger.reserve(id(99), &one(1), TERMS), Err(Refused::Short(short)));
    assert_eq!(ledger.bid(&one(1), 1).short, short);
    assert_eq!(ledger.free().memory_mib, 0);
    // The same id still holds, though the cell is full.
    assert_eq!(ledger.reserve(id(1), &one(1), TERMS), Ok(Reserved::Already));
}

#[test]
fn a_batch_holds_a_prefix() {
    let ledger = Ledger::new(&capacity(MEMORY), 64, Epoch(1)).unwrap();
    let (held, refused) = ledger.reserve_batch(id(1000), 7, &one(3), TERMS);
    assert_eq!((held, refused), (5, Some(Refused::Short(Shortage::NONE.with(Resource::Memory)))));
    assert_eq!(ledger.state(id(1004)), Some(State::Held { expires_us: 10 }));
    assert_eq!(ledger.state(id(1005)), None);
    assert_eq!(ledger.reserve_batch(id(1000), 5, &one(3), TERMS), (5, None));
    assert_eq!(ledger.starting(), 5);
}

#[test]
fn what_is_over_makes_room_without_a_sweep() {
    let ledger = Ledger::new(&capacity(MEMORY), 64, Epoch(1)).unwrap();
    assert_eq!(ledger.reserve(id(1), &one(16), TERMS), Ok(Reserved::Now));
    let early = Terms { now_us: 9, ..TERMS };
    assert!(matches!(ledger.reserve(id(2), &one(1), early), Err(Refused::Short(_))));
    let late = Terms { now_us: 10, ..TERMS };
    assert_eq!(ledger.reserve(id(2), &one(1), late), Ok(Reserved::Now));
    assert_eq!(ledger.commit(id(1)), Outcome::Unknown);
}

#[test]
fn a_ttl_is_cut_and_never_overflows() {
    let ledger = Ledger::new(&capacity(MEMORY), 64, Epoch(1)).unwrap();
    let terms = Terms { ttl_us: u64::MAX, ..TERMS };
    assert_eq!(ledger.reserve(id(1), &one(1), terms), Ok(Reserved::Now));
    assert_eq!(ledger.expire(celda_auction::ledger::TTL_MAX_US), 1);
    let terms = Terms { now_us: u64::MAX - 1, ..terms };
    assert_eq!(ledger.reserve(id(1), &one(1), terms), Ok(Reserved::Now));
    assert_eq!(ledger.state(id(1)), Some(State::Held { expires_us: u64::MAX }));
}

#[test]
fn an_absurd_demand_is_refused_and_changes_nothing() {
    let ledger = Ledger::new(&capacity(MEMORY), 64, Epoch(1)).unwrap();
    let resources =
        Resources { cpu_milli: u32::MAX, memory_mib: u32::MAX, disk_mib: 0, containers: 1, ports: u32::MAX };
    let demand = Demand { resources, ..Demand::default() };
    let answer = ledger.reserve(id(1), &demand, TERMS);
    assert!(matches!(answer, Err(Refused::Short(short)) if !short.is_none()), "{answer:?}");
    assert_eq!(ledger.bid(&demand, 1).room, 0);
    assert_eq!(ledger.free(), capacity(MEMORY));
}

#[test]
fn a_table_that_is_full_says_so_and_recovers() {
    let capacity =
        Resources { cpu_milli: 1000, memory_mib: 1000, disk_mib: 1000, containers: 1000, ports: 0 };
    let ledger = Ledger::new(&capacity, 2, Epoch(1)).unwrap();
    let ids: Vec<ReservationId> = (1..=100).map(id).collect();
    let held: Vec<_> =
        ids.into_iter().filter(|id| ledger.reserve(*id, &one(1), TERMS) == Ok(Reserved::Now)).collect();
    assert_eq!(held.len(), 8);
    assert_eq!(ledger.reserve(id(777), &one(1), TERMS), Err(Refused::Full));
    for id in held {
        assert_eq!(ledger.release(id), Outcome::Done);
        assert_eq!(ledger.release(id), Outcome::Unknown);
    }
    assert_eq!(ledger.free(), capacity);
    assert_eq!(ledger.reserve(id(777), &one(1), TERMS), Ok(Reserved::Now));
}

#[test]
fn random_ids_find_slots_for_as_many_as_were_promised() {
    let capacity =
        Resources { cpu_milli: 100_000, memory_mib: 100_000, disk_mib: 100_000, containers: 1000, ports: 0 };
    let ledger = Ledger::new(&capacity, 250, Epoch(1)).unwrap();
    let mut state = 1u64;
    for app in 0..250 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let demand = Demand { app: AppId(app), ..one(1) };
        assert_eq!(ledger.reserve(id(state), &demand, TERMS), Ok(Reserved::Now));
        assert_eq!(ledger.instances(AppId(app)), 1);
    }
    assert_eq!(ledger.expire(10), 250);
    assert_eq!(ledger.free(), capacity);
    assert_eq!(run(&ledger, Op::Expire { now: 11 }), Answer::Freed(0));
}
