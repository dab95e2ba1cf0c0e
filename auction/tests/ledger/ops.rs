//! The operations of a ledger, what a plain oracle says to each, and what must hold when nobody is at work.
//!
//! One list of operations is run by proptest in a row against the oracle, by threads (also under Miri), and by loom in
//! every interleaving.

use celda_auction::ledger::{Outcome, Refused, Reserved, State, Terms};
use celda_auction::{AppId, Demand, Epoch, Ledger, ReservationId, Resources};
use std::collections::BTreeMap;

/// The app of all instances here, so that its count is that of all.
pub(crate) const APP: AppId = AppId(7);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// Reserve `size` MiB and ports under `epoch`, at `now` for `ttl`.
    Reserve {
        id: u64,
        size: u32,
        epoch: u64,
        now: u64,
        ttl: u64,
    },
    Commit {
        id: u64,
    },
    Release {
        id: u64,
    },
    Expire {
        now: u64,
    },
    BeginEpoch {
        epoch: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Reserved(Result<Reserved, Refused>),
    Outcome(Outcome),
    Freed(u32),
    Nothing,
}

impl Answer {
    /// Whether the operation found another thread in its way, or a slot that was just being left, and changed nothing.
    #[allow(dead_code, reason = "only interleavings meet it")]
    pub(crate) fn is_retry(&self) -> bool {
        let refused = matches!(self, Self::Reserved(Err(Refused::Busy | Refused::Full)));
        refused || *self == Self::Outcome(Outcome::Busy)
    }
}

pub(crate) fn id(id: u64) -> ReservationId {
    ReservationId::new(id).unwrap()
}

/// A cell of `memory` MiB, as many ports, and more than enough of the rest.
pub(crate) fn capacity(memory: u32) -> Resources {
    Resources { cpu_milli: 1000, memory_mib: memory, disk_mib: 1000, containers: 100, ports: memory }
}

fn demand(size: u32) -> Demand {
    let resources = Resources { cpu_milli: 1, memory_mib: size, disk_mib: 1, containers: 1, ports: size / 2 };
    Demand { app: APP, resources, ..Demand::default() }
}

pub(crate) fn run(ledger: &Ledger, op: Op) -> Answer {
    match op {
        Op::Reserve { id: number, size, epoch, now, ttl } => {
            let terms = Terms { epoch: Epoch(epoch), now_us: now, ttl_us: ttl };
            Answer::Reserved(ledger.reserve(id(number), &demand(size), terms))
        }
        Op::Commit { id: number } => Answer::Outcome(ledger.commit(id(number))),
        Op::Release { id: number } => Answer::Outcome(ledger.release(id(number))),
        Op::Expire { now } => Answer::Freed(ledger.expire(now)),
        Op::BeginEpoch { epoch } => {
            ledger.begin_epoch(Epoch(epoch));
            Answer::Nothing
        }
    }
}

/// A ledger as one would write it without threads in mind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Oracle {
    pub(crate) memory: u32,
    pub(crate) epoch: u64,
    /// By id: size, and expiry unless it is committed.
    pub(crate) live: BTreeMap<u64, (u32, Option<u64>)>,
    /// The thread whose operation comes next.
    pub(crate) thread: usize,
    /// What threads have freed while its room is not back yet. In a row there is none between two operations.
    leaving: Vec<(usize, u32)>,
}

impl Oracle {
    pub(crate) fn new(memory: u32, epoch: u64) -> Self {
        Self { memory, epoch, live: BTreeMap::new(), thread: 0, leaving: Vec::new() }
    }

    fn free(&self) -> u32 {
        let live = self.live.values().map(|(size, _)| size).sum::<u32>();
        self.memory - live - self.leaving.iter().map(|(_, size)| size).sum::<u32>()
    }

    /// An id is gone, and its room will be back.
    fn leave(&mut self, id: u64) -> bool {
        let was = self.live.remove(&id);
        self.leaving.extend(was.map(|(size, _)| (self.thread, size)));
        was.is_some()
    }

    /// The room of what the thread has freed is back.
    pub(crate) fn give_back(&mut self) {
        self.leaving.retain(|(thread, _)| *thread != self.thread);
    }

    fn is_over(&self, id: u64, now: u64) -> bool {
        self.live.get(&id).is_some_and(|(_, expires)| expires.is_some_and(|expires| expires <= now))
    }

    /// One slot's part of a sweep.
    pub(crate) fn expire_one(&mut self, id: u64, now: u64) -> bool {
        self.is_over(id, now) && self.leave(id)
    }

    /// One slot's part of a new epoch.
    pub(crate) fn drop_held(&mut self, id: u64) {
        if self.live.get(&id).is_some_and(|(_, expires)| expires.is_some()) {
            self.leave(id);
        }
    }

    /// A whole operation.
    pub(crate) fn run(&mut self, op: Op) -> Answer {
        let answer = self.begin(op);
        self.leaving.clear();
        answer
    }

    /// An operation without the return of what it frees.
    pub(crate) fn begin(&mut self, op: Op) -> Answer {
        match op {
            Op::Reserve { id, size, epoch, now, ttl } => {
                if epoch != self.epoch {
                    return Answer::Reserved(Err(Refused::Epoch(Epoch(self.epoch))));
                }
                if self.live.contains_key(&id) {
                    return Answer::Reserved(Ok(Reserved::Already));
                }
                if size > self.free() {
                    for id in self.live.keys().copied().collect::<Vec<_>>() {
                        if self.expire_one(id, now) {
                            self.give_back();
                        }
                    }
                }
                if size > self.free() {
                    return Answer::Reserved(Err(Refused::Short(short(size, self.free()))));
                }
                self.live.insert(id, (size, Some(now + ttl)));
                Answer::Reserved(Ok(Reserved::Now))
            }
            Op::Commit { id } => Answer::Outcome(match self.live.get_mut(&id) {
                Some((_, expires)) => {
                    *expires = None;
                    Outcome::Done
                }
                None => Outcome::Unknown,
            }),
            Op::Release { id } => {
                let was = self.leave(id);
                Answer::Outcome(if was { Outcome::Done } else { Outcome::Unknown })
            }
            Op::Expire { now } => {
                let ids: Vec<u64> = self.live.keys().copied().collect();
                Answer::Freed(ids.into_iter().map(|id| u32::from(self.expire_one(id, now))).sum())
            }
            Op::BeginEpoch { epoch } => {
                self.epoch = epoch;
                for id in self.live.keys().copied().collect::<Vec<_>>() {
                    self.drop_held(id);
                }
                Answer::Nothing
            }
        }
    }
}

/// What the ledger says is short: ports are half of the memory, and there are as many, so memory is short first.
fn short(_size: u32, _free: u32) -> celda_auction::demand::Shortage {
    celda_auction::demand::Shortage::NONE.with(celda_auction::demand::Resource::Memory)
}

/// What must hold while nobody is at work: nothing below zero, nothing lost, nothing held twice.
pub(crate) fn check(ledger: &Ledger, memory: u32) -> BTreeMap<u64, (u32, Option<u64>)> {
    let mut live = BTreeMap::new();
    let (mut taken, mut ports, mut held) = (0, 0, 0);
    ledger.each(|entry| {
        let expires = match entry.state {
            State::Held { expires_us } => Some(expires_us),
            State::Committed => None,
        };
        taken += entry.takes.memory_mib;
        ports += entry.takes.ports;
        held += u32::from(expires.is_some());
        let before = live.insert(entry.id.get(), (entry.takes.memory_mib, expires));
        assert_eq!(before, None, "{:?} is held twice", entry.id);
        assert_eq!(ledger.state(entry.id), Some(entry.state));
    });
    let count = live.len() as u32;
    let expected = Resources {
        cpu_milli: 1000 - count,
        memory_mib: memory - taken,
        disk_mib: 1000 - count,
        containers: 100 - count,
        ports: memory - ports,
    };
    assert_eq!(ledger.free(), expected, "{live:?}");
    assert_eq!(ledger.starting(), held, "{live:?}");
    assert_eq!(ledger.instances(APP), count, "{live:?}");
    live
}
