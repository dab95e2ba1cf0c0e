//! Rounds against ledgers in the same process: the transport of a control plane whose cells are beside it.
//!
//! ```text
//! Local { view, ledgers[CellIndex] }   place(batch) -> round -> ask, reserve: plain calls, answered at once
//! ```
//! Any number of threads may each have a [`Local`] on the same ledgers: they are auctioneers that know nothing of each
//! other.

use crate::demand::Batch;
use crate::ledger::{Epoch, Ledger, ReservationId, Terms};
use crate::round::{Config, Effect, Event, Refusal, Round};
use crate::view::{CellIndex, View};
use rand::Rng;

/// How many effects are read ahead: enough that reads overlap, few enough that what they bring stays in the cache.
const WARM_MAX: usize = 64;

/// Instances that are held on a cell, to be committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Where.
    pub cell: CellIndex,
    /// The epoch of the reservation.
    pub epoch: Epoch,
    /// The id of the first; the others follow in a row.
    pub first: ReservationId,
    /// How many.
    pub count: u32,
}

/// How many calls a local auctioneer has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// Asks, one for each cell and batch.
    pub asks: u64,
    /// Reservations, one for each cell and batch.
    pub reserves: u64,
    /// Instances that a cell had bid for and then refused.
    pub refused: u64,
    /// Cancels.
    pub cancels: u64,
}

/// An auctioneer on ledgers in the same process.
#[derive(Debug)]
pub struct Local<'a> {
    view: &'a View,
    ledgers: &'a [Ledger],
    round: Round,
    effects: Vec<Effect>,
    calls: Calls,
}

impl<'a> Local<'a> {
    /// An auctioneer on `ledgers`, indexed by the view's [`CellIndex`].
    ///
    /// Answers come at once, so [`Config::stragglers_sixteenths`] is taken as 0.
    #[must_use]
    pub fn new(view: &'a View, ledgers: &'a [Ledger], config: Config) -> Self {
        let config = Config { stragglers_sixteenths: 0, ..config };
        Self { view, ledgers, round: Round::new(config), effects: Vec::new(), calls: Calls::default() }
    }

    /// Places a batch at the time `now_us`, adds to `placements` what is held, and says why if not all is.
    ///
    /// # Errors
    /// The [`Refusal`], when fewer instances than the batch has are added.
    pub fn place<R: Rng + ?Sized>(
        &mut self,
        batch: Batch,
        now_us: u64,
        rng: &mut R,
        placements: &mut Vec<Placement>,
    ) -> Result<(), Refusal> {
        self.effects.clear();
        self.round.begin(batch, now_us, self.view, rng, &mut self.effects);
        let (mut at, mut warm) = (0, 0);
        // Ends: every effect is an answer's cause, and a round asks each cell a bounded number of times.
        while let Some(effect) = self.effects.get(at).copied() {
            if at >= warm {
                warm = at + WARM_MAX;
                self.warm(at);
            }
            at += 1;
            if let Effect::Placed { cell, epoch, first, count } = effect {
                placements.push(Placement { cell, epoch, first, count });
            } else if let Some(event) = self.execute(effect, now_us) {
                self.round.step(event, now_us, self.view, rng, &mut self.effects);
            }
        }
        match self.effects.last() {
            Some(Effect::Refused { .. }) => Err(*self.round.refusal()),
            _ => Ok(()),
        }
    }

    /// How many calls were made since the start.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.calls
    }

    /// Reads ahead what the next effects will read, each line of all of them before the next line of any.
    fn warm(&self, at: usize) {
        let Some(app) = self.round.batch().map(|batch| batch.demand().app) else { return };
        let ahead = &self.effects[at..self.effects.len().min(at + WARM_MAX)];
        let each = |read: &dyn Fn(&Ledger, Option<ReservationId>) -> u64| {
            let calls = ahead.iter().filter_map(|effect| match *effect {
                Effect::Ask { cell, .. } => Some((cell, None)),
                Effect::Reserve { cell, first, .. } => Some((cell, Some(first))),
                _ => None,
            });
            let read = calls
                .map(|(cell, id)| self.ledgers.get(cell.0 as usize).map_or(0, |ledger| read(ledger, id)));
            // The reads are all that is wanted.
            std::hint::black_box(read.fold(0, |sum, read| sum ^ read));
        };
        each(&|ledger, _| ledger.warm());
        each(&|ledger, id| id.map_or_else(|| ledger.warm_bid(app), |id| ledger.warm_find(id)));
        each(&|ledger, id| id.map_or(0, |id| ledger.warm_reserve(id)));
    }

    /// Does what is to be done, and says what happened.
    fn execute(&mut self, effect: Effect, now_us: u64) -> Option<Event> {
        match effect {
            Effect::Ask { ask, cell, count } => {
                self.calls.asks += 1;
                let demand = self.round.batch()?.demand();
                let event = match self.ledgers.get(cell.0 as usize) {
                    Some(ledger) => Event::Bid { ask, bid: ledger.bid(demand, count) },
                    None => Event::NoBid { ask },
                };
                Some(event)
            }
            Effect::Reserve { attempt, cell, epoch, first, count, ttl_us } => {
                self.calls.reserves += 1;
                let demand = self.round.batch()?.demand();
                let Some(ledger) = self.ledgers.get(cell.0 as usize) else {
                    return Some(Event::NotSent { attempt });
                };
                let terms = Terms { epoch, now_us, ttl_us };
                let (held, refused) = ledger.reserve_batch(first, count, demand, terms);
                self.calls.refused += u64::from(count - held);
                Some(Event::Reserved { attempt, held, refused })
            }
            Effect::Cancel { cell, first, count } => {
                self.calls.cancels += 1;
                let ledger = self.ledgers.get(cell.0 as usize)?;
                for offset in 0..count {
                    ledger.release(first.plus(offset));
                }
                None
            }
            // Nothing is waited for.
            Effect::Placed { .. } | Effect::Refused { .. } | Effect::WakeAt { .. } => None,
        }
    }
}
