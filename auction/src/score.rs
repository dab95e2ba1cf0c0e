//! A ledger's snapshot and a demand to a price. Pure.
//!
//! ```text
//! spread   mean of the used fractions (cpu, memory, disk, containers), with the instance placed
//!          + 0.25 for each instance that is still starting + 1000 for each of the same app        low is cheap
//! pack     1 - the same mean                                                                      full is cheap
//! ```
//! These are the terms, weights and order of Diego's auction (`auctionrunner`: `ScoreForLRP`), with cpu counted too.
//! All three terms grow by the same amount with every further instance, so a bid says the price of the first and the
//! step to the next, and a whole batch is dealt out from one set of bids.
//!
//! [`fits`] is the one test of room: bids and reservations both use it, so nobody plans what a cell then refuses for
//! ever.

use crate::demand::{Demand, Resource, Resources, Shortage, Strategy};
use crate::ledger::{Epoch, LANES_COUNT, Lanes, Shape};

/// What a price of 1, a whole cell, is.
pub const PRICE_ONE: u64 = 1 << 16;
/// The price of an instance that is still starting: 0.25.
pub const STARTING_WEIGHT: u64 = PRICE_ONE / 4;
/// The price of an instance of the same app: 1000.
pub const SAME_APP_WEIGHT: u64 = 1000 * PRICE_ONE;
/// The highest price: what a cell asks above it counts as this. The most that this module can ask is below:
/// 2^16 instances at 1000.25 * 2^16 each.
pub const PRICE_MAX: u64 = (1 << 47) - 1;

/// A price in units of 2^-16; lower is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Price(pub u64);

/// The state of a cell that a bid rests on.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The cell's capacity.
    pub shape: &'a Shape,
    /// What is free of it.
    pub free: Lanes,
    /// How many ports are free.
    pub ports: u32,
    /// How many instances are held or starting.
    pub starting: u32,
    /// How many instances of the demand's app are there.
    pub same_app: u32,
}

/// What a cell answers to "what would instances of this demand cost".
///
/// The n-th more instance costs `first + (n - 1) * step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// The epoch that a reservation must name.
    pub epoch: Epoch,
    /// How many instances fit, cut to what was asked for; 0 is a refusal.
    pub room: u32,
    /// The price of the first.
    pub first: Price,
    /// How much more each further one costs.
    pub step: Price,
    /// How much of the cell is in use: the part of a spread price that lasts. 0 when `room` is.
    pub used: Price,
    /// What is short when `room` is 0.
    pub short: Shortage,
    /// What is free.
    pub free: Resources,
}

/// What `resources` take of a cell of this shape with so much free, or what is short.
///
/// # Errors
/// The resources of which too little is free.
pub fn fits(shape: &Shape, free: Lanes, ports: u32, resources: &Resources) -> Result<Lanes, Shortage> {
    let need = shape.need(resources)?;
    let mut short = free.short_of(need);
    if resources.ports > ports {
        short = short.with(Resource::Ports);
    }
    if short.is_none() { Ok(need) } else { Err(short) }
}

/// The price of one more instance, or nothing if it does not fit.
#[must_use]
pub fn price(snapshot: &Snapshot<'_>, demand: &Demand) -> Option<Price> {
    let need = fits(snapshot.shape, snapshot.free, snapshot.ports, &demand.resources).ok()?;
    Some(curve(snapshot, demand.strategy, need).0)
}

/// A bid for up to `count` instances.
#[must_use]
pub fn bid(snapshot: &Snapshot<'_>, demand: &Demand, count: u32, epoch: Epoch) -> Bid {
    let free = snapshot.shape.resources(snapshot.free, snapshot.ports);
    match fits(snapshot.shape, snapshot.free, snapshot.ports, &demand.resources) {
        Ok(need) => {
            let (first, step) = curve(snapshot, demand.strategy, need);
            let room = room(snapshot, need, demand.resources.ports, count);
            let used = Price(snapshot.shape.mean_fraction(used(snapshot)));
            Bid { epoch, room, first, step, used, short: Shortage::NONE, free }
        }
        Err(short) => Bid { epoch, room: 0, first: Price(0), step: Price(0), used: Price(0), short, free },
    }
}

/// How many instances fit, of which one does, and at most `count`.
fn room(snapshot: &Snapshot<'_>, need: Lanes, ports: u32, count: u32) -> u32 {
    if count <= 1 {
        return count;
    }
    let by_lanes = (0..LANES_COUNT).filter_map(|lane| snapshot.free.get(lane).checked_div(need.get(lane)));
    let by_ports = snapshot.ports.checked_div(ports);
    by_lanes.chain(by_ports).fold(count, u32::min)
}

/// What is in use.
fn used(snapshot: &Snapshot<'_>) -> Lanes {
    // No lane of free is above the capacity.
    Lanes(snapshot.shape.total().0 - snapshot.free.0)
}

/// The price of the first instance and the step to the next.
fn curve(snapshot: &Snapshot<'_>, strategy: Strategy, need: Lanes) -> (Price, Price) {
    let shape = snapshot.shape;
    // None of need is above free.
    let fraction = shape.mean_fraction(Lanes(used(snapshot).0 + need.0));
    match strategy {
        Strategy::Spread => {
            let starting = u64::from(snapshot.starting) * STARTING_WEIGHT;
            let same_app = u64::from(snapshot.same_app) * SAME_APP_WEIGHT;
            let step = shape.mean_fraction(need) + STARTING_WEIGHT + SAME_APP_WEIGHT;
            (Price(fraction + starting + same_app), Price(step))
        }
        Strategy::Pack => (Price(PRICE_ONE.saturating_sub(fraction)), Price(0)),
    }
}
