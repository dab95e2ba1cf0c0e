//! Batches to placements: drives rounds against real cells.

use super::cells::{Cells, World};
use super::inbox::Inbox;
use super::link::NotSent;
use crate::demand::Batch;
use crate::ledger::{Epoch, ReservationId};
use crate::membership::Member;
use crate::round::{Config, Effect, Event, Refusal, Round};
use crate::transport::{Error, Result};
use crate::wire::{self, Action, SettleRequest};
use celda_api::auction::v1;
use rand::SeedableRng;
use rand::rngs::SysRng;
use rand_pcg::Pcg64Mcg;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// How an auctioneer works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auctions {
    /// How a round works.
    pub round: Config,
    /// Rounds at the same time; one more batch is refused with [`Error::Busy`].
    pub rounds_max: usize,
    /// How long a batch may take in all. Above the round's deadlines for a reservation, with all its sends.
    pub deadline: Duration,
}

impl Default for Auctions {
    fn default() -> Self {
        Self { round: Config::default(), rounds_max: 64, deadline: Duration::from_secs(5) }
    }
}

/// Instances that are held on a cell, to be committed before the ttl is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Where.
    pub cell: Arc<Member>,
    /// The epoch of the reservation.
    pub epoch: Epoch,
    /// The id of the first; the others follow in a row.
    pub first: ReservationId,
    /// How many.
    pub count: u32,
}

/// What became of a batch.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What is held.
    pub placements: Vec<Placement>,
    /// How many instances are held nowhere.
    pub refused: u32,
    /// Why, as far as cells said so; also what was in the way of those that are held.
    pub refusal: Refusal,
    /// The batch's deadline came first: there may be room, and what was asked for last may be held until its ttl.
    pub is_late: bool,
}

impl Outcome {
    /// How many instances are held.
    #[must_use]
    pub fn held(&self) -> u32 {
        self.placements.iter().map(|placement| placement.count).sum()
    }
}

/// Places batches on cells. Any number of them share one [`Cells`]; others, elsewhere, know nothing of them.
#[derive(Debug)]
pub struct Auctioneer {
    cells: Cells,
    auctions: Auctions,
    /// Rounds that rest, and how many there are in all.
    seats: Mutex<(Vec<Seat>, usize)>,
    seeds: Mutex<Pcg64Mcg>,
}

/// One round with what it needs, kept from batch to batch.
#[derive(Debug)]
struct Seat {
    round: Round,
    inbox: Arc<Inbox>,
    rng: Pcg64Mcg,
    effects: Vec<Effect>,
    events: Vec<Event>,
    demand: v1::Demand,
    began_us: u64,
    wake_us: u64,
}

/// A seat that is taken. Comes back when it is dropped, wherever the batch was then.
struct Taken<'a> {
    auctioneer: &'a Auctioneer,
    seat: Option<Seat>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.auctioneer.lock_seats().0.push(seat);
        }
    }
}

impl Auctioneer {
    /// An auctioneer, with a generator that the system seeds.
    ///
    /// # Errors
    /// [`Error::Seed`].
    pub fn new(cells: Cells, auctions: Auctions) -> Result<Self> {
        let seeds = Pcg64Mcg::try_from_rng(&mut SysRng)
            .map_err(|error| Error::Seed(std::io::Error::other(error.to_string())))?;
        Ok(Self { cells, auctions, seats: Mutex::default(), seeds: Mutex::new(seeds) })
    }

    /// The cells.
    #[must_use]
    pub fn cells(&self) -> &Cells {
        &self.cells
    }

    /// Places a batch. What is held when the future is dropped frees itself after the ttl.
    ///
    /// # Errors
    /// [`Error::Busy`] with [`Auctions::rounds_max`] batches under way.
    pub async fn place(&self, batch: Batch) -> Result<Outcome> {
        let mut taken = self.take_seat()?;
        let seat = taken.seat.as_mut().expect("it stays until the drop");
        let mut outcome = Outcome::default();
        let count = batch.count();
        seat.demand = wire::demand_message(batch.demand());
        seat.began_us = self.cells.now_us();
        seat.wake_us = u64::MAX;
        let deadline_us = seat.began_us.saturating_add(self.auctions.deadline.as_micros() as u64);
        {
            let world = self.cells.read();
            let Seat { round, rng, effects, began_us, .. } = seat;
            round.begin(batch, *began_us, &world.view, rng, effects);
            seat.execute(&world, &mut outcome);
        }
        if !seat.round.is_done() {
            let mut sleep = pin!(tokio::time::sleep_until(self.instant(seat.wake_us.min(deadline_us))));
            while !seat.round.is_done() {
                let wake_us = seat.wake_us.min(deadline_us);
                let is_woken = wait(seat, sleep.as_mut()).await;
                let now_us = self.cells.now_us();
                if is_woken && now_us >= deadline_us {
                    outcome.is_late = true;
                    break;
                }
                let world = self.cells.read();
                if is_woken {
                    seat.wake_us = u64::MAX;
                    seat.step(Event::Wake, now_us, &world, &mut outcome);
                }
                let mut events = std::mem::take(&mut seat.events);
                for event in events.drain(..) {
                    seat.step(event, now_us, &world, &mut outcome);
                }
                seat.events = events;
                if seat.wake_us.min(deadline_us) != wake_us || is_woken {
                    sleep.as_mut().reset(self.instant(seat.wake_us.min(deadline_us)));
                }
            }
        }
        outcome.refusal = *seat.round.refusal();
        outcome.refused = count.saturating_sub(outcome.held());
        Ok(outcome)
    }

    fn instant(&self, at_us: u64) -> Instant {
        // Only the batch's deadline bounds the other times, so this is near.
        Instant::from_std(self.cells.began()) + Duration::from_micros(at_us)
    }

    fn take_seat(&self) -> Result<Taken<'_>> {
        let mut seats = self.lock_seats();
        if let Some(seat) = seats.0.pop() {
            return Ok(Taken { auctioneer: self, seat: Some(seat) });
        }
        let max = self.auctions.rounds_max;
        if seats.1 >= max {
            return Err(Error::Busy { max });
        }
        seats.1 += 1;
        let mut seeds = self.seeds.lock().expect("nothing panics while it holds this");
        let seat = Seat {
            round: Round::new(self.auctions.round),
            inbox: Arc::default(),
            rng: Pcg64Mcg::from_rng(&mut *seeds),
            effects: Vec::new(),
            events: Vec::new(),
            demand: v1::Demand::default(),
            began_us: 0,
            wake_us: u64::MAX,
        };
        Ok(Taken { auctioneer: self, seat: Some(seat) })
    }

    fn lock_seats(&self) -> std::sync::MutexGuard<'_, (Vec<Seat>, usize)> {
        self.seats.lock().expect("nothing panics while it holds this")
    }
}

/// Waits for events, which are then in the seat, or for the time to wake. Says whether it is the time.
async fn wait(seat: &mut Seat, mut sleep: Pin<&mut Sleep>) -> bool {
    poll_fn(|cx| {
        if seat.inbox.poll_take(cx, &mut seat.events).is_ready() {
            return Poll::Ready(false);
        }
        sleep.as_mut().poll(cx).map(|()| true)
    })
    .await
}

impl Seat {
    fn step(&mut self, event: Event, now_us: u64, world: &World, outcome: &mut Outcome) {
        self.round.step(event, now_us, &world.view, &mut self.rng, &mut self.effects);
        if !self.effects.is_empty() {
            self.execute(world, outcome);
        }
    }

    /// Does what the round wants done. What cannot be sent is told to it with the next events.
    fn execute(&mut self, world: &World, outcome: &mut Outcome) {
        let mut effects = std::mem::take(&mut self.effects);
        for effect in effects.drain(..) {
            match effect {
                Effect::Ask { ask, cell, count } => {
                    let sent = world
                        .link(cell, self.began_us)
                        .and_then(|link| link.ask(&self.inbox, ask, &self.demand, count));
                    if sent.is_err() {
                        self.inbox.push(Event::NoBid { ask });
                    }
                }
                Effect::Reserve { attempt, cell, epoch, first, count, ttl_us } => {
                    let (demand, epoch, first_id) = (Some(self.demand.clone()), epoch.0, first.get());
                    let request = v1::ReserveRequest { demand, epoch, first_id, count, ttl_us };
                    let sent = world
                        .link(cell, self.began_us)
                        .and_then(|link| link.reserve(&self.inbox, attempt, request));
                    if sent.is_err() {
                        self.inbox.push(Event::NotSent { attempt });
                    }
                }
                Effect::Cancel { cell, first, count } => {
                    let release = SettleRequest { first, count, action: Action::Release };
                    // Nobody waits for the answer, and the ttl frees what cannot be told.
                    let _: Result<(), NotSent> =
                        world.link(cell, self.began_us).and_then(|link| link.settle(release, None));
                }
                Effect::Placed { cell, epoch, first, count } => {
                    if let Ok(link) = world.link(cell, self.began_us) {
                        let cell = link.member().clone();
                        outcome.placements.push(Placement { cell, epoch, first, count });
                    }
                }
                Effect::Refused { .. } => {}
                Effect::WakeAt { at_us } => self.wake_us = at_us,
            }
        }
        self.effects = effects;
    }
}
