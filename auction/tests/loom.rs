//! Every interleaving of two or three threads on one ledger, by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p celda-auction --release --test loom`
//!
//! ```text
//! before: ops in a row -> threads: a list of ops each -> join -> check
//! ```
//! What the threads were told must be what the oracle says in some order of their operations, and what is left must be
//! what the oracle has then. An operation that was told "busy" (or "full", when a slot was just being left) changed
//! nothing. A sweep frees one slot after another, so it counts as one operation for each id; and what is freed is gone a
//! moment before its room is back, so in between another thread may find the cell full.
#![cfg(loom)]
#![allow(clippy::unwrap_used)]

#[path = "ledger/ops.rs"]
mod ops;

use celda_auction::{Epoch, Ledger};
use loom::sync::Arc;
use loom::thread;
use ops::{Answer, Op, Oracle, capacity, check, run};

const MEMORY: u32 = 4;
/// Schedules with more than so many preemptions are not tried: bugs need few, and all of them would take days.
const PREEMPTIONS_OF_TWO_MAX: usize = 5;
const PREEMPTIONS_OF_THREE_MAX: usize = 2;

/// What a thread's operations amount to, one indivisible change each.
#[derive(Debug, Clone, Copy)]
enum Change {
    Answered(Op, Answer),
    ExpireOne { id: u64, now: u64 },
    SetEpoch(u64),
    DropHeld { id: u64 },
    GiveBack,
}

fn changes(op: Op, answer: Answer, ids: &[u64]) -> Vec<Change> {
    match op {
        _ if answer.is_retry() => Vec::new(),
        Op::Expire { now } => {
            ids.iter().flat_map(|id| [Change::ExpireOne { id: *id, now }, Change::GiveBack]).collect()
        }
        Op::Release { id } => vec![Change::Answered(op, answer), Change::GiveBack],
        Op::BeginEpoch { epoch } => {
            let dropped = ids.iter().flat_map(|id| [Change::DropHeld { id: *id }, Change::GiveBack]);
            std::iter::once(Change::SetEpoch(epoch)).chain(dropped).collect()
        }
        _ => vec![Change::Answered(op, answer)],
    }
}

/// Whether the oracle comes from here to `live` in some order of what is left of the lists.
fn explains(
    oracle: &Oracle,
    lists: &[&[Change]],
    live: &std::collections::BTreeMap<u64, (u32, Option<u64>)>,
) -> bool {
    if lists.iter().all(|list| list.is_empty()) {
        return oracle.live == *live;
    }
    (0..lists.len()).any(|thread| {
        let Some((change, rest)) = lists[thread].split_first() else { return false };
        let mut next = oracle.clone();
        next.thread = thread;
        let agrees = match *change {
            Change::Answered(op, answer) => next.begin(op) == answer,
            Change::ExpireOne { id, now } => {
                next.expire_one(id, now);
                true
            }
            Change::SetEpoch(epoch) => {
                next.epoch = epoch;
                true
            }
            Change::GiveBack => {
                next.give_back();
                true
            }
            Change::DropHeld { id } => {
                next.drop_held(id);
                true
            }
        };
        let mut lists = lists.to_vec();
        lists[thread] = rest;
        agrees && explains(&next, &lists, live)
    })
}

fn model(before: &[Op], threads: &[&[Op]]) {
    let before = before.to_vec();
    let threads: Vec<Vec<Op>> = threads.iter().map(|list| list.to_vec()).collect();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound =
        Some(if threads.len() > 2 { PREEMPTIONS_OF_THREE_MAX } else { PREEMPTIONS_OF_TWO_MAX });
    builder.check(move || {
        let ledger = Arc::new(Ledger::new(&capacity(MEMORY), 2, Epoch(1)).unwrap());
        let mut oracle = Oracle::new(MEMORY, 1);
        for op in &before {
            assert_eq!(run(&ledger, *op), oracle.run(*op), "{op:?}");
        }
        let others: Vec<_> = threads[1..]
            .iter()
            .map(|list| {
                let (ledger, list) = (Arc::clone(&ledger), list.clone());
                thread::spawn(move || list.iter().map(|op| run(&ledger, *op)).collect::<Vec<_>>())
            })
            .collect();
        let mut answers = vec![threads[0].iter().map(|op| run(&ledger, *op)).collect::<Vec<_>>()];
        answers.extend(others.into_iter().map(|thread| thread.join().unwrap()));
        let live = check(&ledger, MEMORY);
        // Slots are swept in the order of the table, which ids do not show: both orders of two ids are tried.
        let explained = [[1, 2, 3], [3, 2, 1]].iter().any(|ids| {
            let lists: Vec<Vec<Change>> = threads
                .iter()
                .zip(&answers)
                .map(|(list, answers)| {
                    list.iter().zip(answers).flat_map(|(op, answer)| changes(*op, *answer, ids)).collect()
                })
                .collect();
            explains(&oracle, &lists.iter().map(Vec::as_slice).collect::<Vec<_>>(), &live)
        });
        assert!(explained, "no order explains {answers:?} and {live:?} after {threads:?}");
    });
}

const fn reserve(id: u64, size: u32) -> Op {
    Op::Reserve { id, size, epoch: 1, now: 0, ttl: 10 }
}

const fn reserve_at(id: u64, size: u32, now: u64) -> Op {
    Op::Reserve { id, size, epoch: 1, now, ttl: 10 }
}

#[test]
fn reserve_reserve() {
    model(&[], &[&[reserve(1, 3)], &[reserve(2, 3)]]);
}

#[test]
fn reserve_reserve_both_fit() {
    model(&[], &[&[reserve(1, 2)], &[reserve(2, 2)]]);
}

#[test]
fn reserve_reserve_reserve() {
    model(&[], &[&[reserve(1, 2)], &[reserve(2, 2)], &[reserve(3, 2)]]);
}

#[test]
fn same_id_twice() {
    model(&[], &[&[reserve(1, 2)], &[reserve(1, 2)]]);
}

#[test]
fn same_id_twice_while_another_leaves_its_bucket() {
    model(
        &[reserve(2, 1), Op::Commit { id: 2 }],
        &[&[reserve(1, 2)], &[reserve(1, 2)], &[Op::Release { id: 2 }]],
    );
}

/// Ids 1 and 3 have the same first bucket, which holds one here: while 3 is there, 1 goes to its second.
#[test]
fn same_id_twice_across_buckets() {
    model(
        &[reserve(3, 1), Op::Commit { id: 3 }],
        &[&[reserve(1, 1)], &[Op::Release { id: 3 }, reserve(1, 1)]],
    );
}

#[test]
fn same_id_twice_across_buckets_that_another_leaves() {
    model(
        &[reserve(3, 1), Op::Commit { id: 3 }],
        &[&[reserve(1, 1)], &[reserve(1, 1)], &[Op::Release { id: 3 }]],
    );
}

#[test]
fn same_id_commits_across_buckets() {
    model(
        &[reserve(3, 1), reserve(1, 1)],
        &[&[Op::Release { id: 3 }], &[Op::Commit { id: 1 }, reserve(1, 1)]],
    );
}

#[test]
fn reserve_expire() {
    model(&[reserve(1, 3)], &[&[reserve_at(2, 3, 5)], &[Op::Expire { now: 10 }]]);
}

#[test]
fn reserve_makes_room_while_another_expires() {
    model(&[reserve(1, 3)], &[&[reserve_at(2, 3, 10)], &[Op::Expire { now: 10 }]]);
}

#[test]
fn commit_expire() {
    model(&[reserve(1, 3)], &[&[Op::Commit { id: 1 }], &[Op::Expire { now: 10 }]]);
}

#[test]
fn commit_expire_reserve() {
    model(&[reserve(1, 3)], &[&[Op::Commit { id: 1 }], &[Op::Expire { now: 10 }], &[reserve_at(2, 3, 9)]]);
}

#[test]
fn release_reserve() {
    model(&[reserve(1, 3)], &[&[Op::Release { id: 1 }], &[reserve(2, 3)]]);
}

#[test]
fn release_reserve_same_id() {
    model(&[reserve(1, 3)], &[&[Op::Release { id: 1 }], &[reserve(1, 3)]]);
}

#[test]
fn release_release_commit() {
    model(&[reserve(1, 3)], &[&[Op::Release { id: 1 }], &[Op::Release { id: 1 }], &[Op::Commit { id: 1 }]]);
}

#[test]
fn release_expire_reserve() {
    model(&[reserve(1, 3)], &[&[Op::Release { id: 1 }], &[Op::Expire { now: 10 }], &[reserve_at(2, 2, 5)]]);
}

#[test]
fn epoch_change_while_reserving() {
    model(&[], &[&[reserve(1, 3)], &[Op::BeginEpoch { epoch: 2 }]]);
}

#[test]
fn epoch_change_while_committing() {
    model(&[reserve(1, 3)], &[&[Op::Commit { id: 1 }], &[Op::BeginEpoch { epoch: 2 }]]);
}

#[test]
fn epoch_change_while_releasing_and_reserving() {
    const NEXT: Op = Op::Reserve { id: 2, size: 3, epoch: 2, now: 0, ttl: 10 };
    model(&[reserve(1, 3)], &[&[Op::Release { id: 1 }], &[Op::BeginEpoch { epoch: 2 }, NEXT]]);
}

#[test]
fn commit_then_release_while_another_reserves() {
    model(&[reserve(1, 3)], &[&[Op::Commit { id: 1 }, Op::Release { id: 1 }], &[reserve(2, 3)]]);
}
