//! The cell's side of the auction: what its ledger holds for whom, given back exactly once.
//!
//! An instance has one committed reservation from the moment it is accepted to its last end. It takes over one that an
//! auctioneer made, by its id, or makes its own. From then on it is the cell's alone: an auctioneer that gives back what
//! became an instance is told that it is over. The ledger is in memory: a cell that comes back begins a new epoch and
//! reserves anew, under the same ids, for what the journal knows.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use celda_auction::ledger::{Epoch, Ledger, Outcome, Refused, ReservationId, Terms};
use celda_auction::service::{CellService, Limits};
use celda_auction::view::Class;
use celda_auction::{Demand, Resources};

use super::config::Config;
use super::error::Result;

/// How long a reservation of the cell's own is held before it is committed, which follows at once, in microseconds.
const OWN_TTL_US: u64 = 1_000_000;
/// How often an id is tried that another thread is at.
const BUSY_TRIES_COUNT: u32 = 16;

/// The ledger, and the service that auctioneers reach it by.
#[derive(Debug, Clone)]
pub struct Books {
    ledger: Arc<Ledger>,
    service: CellService,
    capacity: Resources,
}

impl Books {
    /// A ledger of the configured capacity, in an epoch that begins now.
    ///
    /// # Errors
    /// [`CellError::Ledger`](super::CellError::Ledger) for a capacity that no ledger can keep.
    pub fn new(config: &Config, capacity: Resources) -> Result<Self> {
        // Two starts of a cell within a microsecond do not happen.
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64);
        let reservations = capacity.containers.max(config.limits.instances_max);
        let ledger = Arc::new(Ledger::new(&capacity, reservations, Epoch(now_us))?);
        let names = |names: &[String]| names.iter().map(|name| name.as_str().into()).collect();
        let class = Class {
            architecture: celda_layerfs::Platform::host().architecture.into(),
            stacks: names(&config.cell.stacks),
            tags: names(&config.cell.tags),
            reserved_for: names(&config.cell.reserved_for),
            volumes: Vec::new(),
        };
        let limits = Limits { connections_max: config.socket.connections_max, ..Limits::default() };
        let service = CellService::new(Arc::clone(&ledger), class, limits);
        Ok(Self { ledger, service, capacity })
    }

    /// What auctioneers talk to.
    pub fn service(&self) -> &CellService {
        &self.service
    }

    /// What the cell has in all.
    pub fn capacity(&self) -> Resources {
        self.capacity
    }

    /// What is free.
    pub fn free(&self) -> Resources {
        self.ledger.free()
    }

    /// The epoch of the ledger.
    pub fn epoch(&self) -> u64 {
        self.ledger.epoch().0
    }

    /// Takes over what is reserved under `id`, for good.
    ///
    /// # Errors
    /// Why not, for a person to read.
    pub fn take_over(&self, id: u64) -> std::result::Result<u64, String> {
        let id = ReservationId::new(id).ok_or("0 is no reservation")?;
        match tries(|| self.service.take_over(id), |outcome| *outcome == Outcome::Busy) {
            Outcome::Done => Ok(id.get()),
            Outcome::Unknown => {
                Err(format!("reservation {} is over, or was never made: reserve again", id.get()))
            }
            Outcome::Busy => Err("another call is at this reservation: try again".into()),
        }
    }

    /// Reserves for good under an id of its own.
    ///
    /// # Errors
    /// What is short, for a person to read.
    pub fn reserve(&self, demand: &Demand) -> std::result::Result<u64, String> {
        self.hold(ReservationId::random(&mut rand::rng()), demand)
    }

    /// Reserves for good under an id that was given before the cell came back.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve): the cell was made smaller.
    pub fn restore(&self, id: u64, demand: &Demand) -> std::result::Result<u64, String> {
        self.hold(ReservationId::new(id).ok_or("0 is no reservation")?, demand)
    }

    fn hold(&self, id: ReservationId, demand: &Demand) -> std::result::Result<u64, String> {
        let terms = Terms { epoch: self.ledger.epoch(), now_us: self.service.now_us(), ttl_us: OWN_TTL_US };
        match tries(|| self.ledger.reserve(id, demand, terms), |answer| *answer == Err(Refused::Busy)) {
            Ok(_) => self.take_over(id.get()),
            Err(Refused::Short(short)) => {
                let names: Vec<_> = short.iter().map(|resource| resource.to_string()).collect();
                Err(format!("too little is free of {}", names.join(", ")))
            }
            Err(refused) => Err(format!("the ledger is busy ({refused:?}): try again")),
        }
    }

    /// What each reservation takes, rounded up to the ledger's quanta.
    pub fn reserved(&self) -> HashMap<u64, Resources> {
        let mut all = HashMap::new();
        self.ledger.each(|entry| {
            all.insert(entry.id.get(), entry.takes);
        });
        all
    }

    /// Gives back what is held under `id`.
    pub fn release(&self, id: u64) {
        let Some(id) = ReservationId::new(id) else { return };
        let outcome = tries(|| self.service.give_back(id), |outcome| *outcome == Outcome::Busy);
        if outcome != Outcome::Done {
            tracing::warn!(id = id.get(), ?outcome, "a reservation was not there to be given back");
        }
    }
}

/// Tries again while another thread is in the way.
fn tries<T>(mut one: impl FnMut() -> T, is_busy: impl Fn(&T) -> bool) -> T {
    for _ in 1..BUSY_TRIES_COUNT {
        let answer = one();
        if !is_busy(&answer) {
            return answer;
        }
        std::thread::yield_now();
    }
    one()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn books() -> Books {
        let capacity =
            Resources { cpu_milli: 4000, memory_mib: 4096, disk_mib: 4096, containers: 2, ports: 8 };
        Books::new(&Config::default(), capacity).expect("books")
    }

    fn demand() -> Demand {
        let resources = Resources { containers: 1, ..Resources::default() };
        Demand { resources, ..Demand::default() }
    }

    #[test]
    fn what_is_held_is_given_back_once() {
        let books = books();
        let (first, _second) =
            (books.reserve(&demand()).expect("room"), books.reserve(&demand()).expect("room"));
        let error = books.reserve(&demand()).expect_err("full");
        assert!(error.contains("containers"), "{error}");
        books.release(first);
        books.release(first);
        assert_eq!(books.free().containers, 1);
        books.restore(first, &demand()).expect("the same id again");
        assert_eq!(books.free().containers, 0);
    }

    #[test]
    fn what_became_an_instances_is_given_back_by_its_end_alone() {
        use celda_api::auction::v1;
        use celda_api::auction::v1::cell_server::Cell as _;
        let books = books();
        let service = books.service().clone();
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let settle = |first_id, action: v1::settle_request::Action| {
            let request = v1::SettleRequest { first_id, count: 2, action: action.into() };
            let settled = runtime.block_on(service.settle(tonic::Request::new(request)));
            let v1::SettleResponse { done, unknown, .. } = settled.expect("settled").into_inner();
            (done, unknown)
        };
        let demand = v1::Demand {
            app: 1,
            resources: Some(v1::Resources { containers: 1, ..v1::Resources::default() }),
            ..v1::Demand::default()
        };
        let (demand, ttl_us) = (Some(demand), 60_000_000);
        let reserve = v1::ReserveRequest { demand, epoch: books.epoch(), first_id: 1000, count: 2, ttl_us };
        let held = runtime.block_on(service.reserve(tonic::Request::new(reserve))).expect("reserved");
        assert_eq!(held.into_inner().held, 2);
        assert_eq!(books.take_over(1000), Ok(1000));
        // Of the two, one is the auctioneer's still.
        use v1::settle_request::Action::{Commit, Release};
        assert_eq!(settle(1000, Release), (1, 1));
        assert_eq!(settle(1000, Commit), (1, 1), "a repeated one is as before");
        assert_eq!(settle(1000, Release), (0, 2));
        assert_eq!(books.free().containers, 1, "the instance's is taken");
        books.release(1000);
        books.release(1000);
        assert_eq!(books.free().containers, 2);
        assert_eq!(settle(1000, Release), (0, 2));
        assert_eq!(books.free().containers, 2);
    }

    #[test]
    fn a_reservation_that_is_none_is_not_taken_over() {
        for id in [0, 7] {
            assert!(books().take_over(id).is_err());
        }
    }
}
