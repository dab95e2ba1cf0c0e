//! A trace on a fleet: arrivals, lifetimes, how full to be, and what is measured on the way.
//!
//! ```text
//! bins ─> departures ─> admission (not above a given fill) ─> scheduler: all of a bin's batches at once
//!                                                              └─> spread of use, skew of zones, refusals
//! ```

use super::fleet::Fleet;
use super::trace::{Arrival, Bin, FOR_EVER};
use crate::Result;
use celda_auction::demand::{Demand, Resources};
use celda_auction::ledger::ReservationId;
use celda_auction::score;
use celda_auction::view::ZONES_MAX;
use celda_auction::{AppId, view::ZoneIndex};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Fills below the one aimed at that still count as being there, in parts of the capacity.
const NEAR: f64 = 0.01;
/// Bits of an app's number that tell copies of a trace apart.
const COPY_SHIFT: u32 = 40;

/// Equal instances to be placed. An app's follow each other.
pub(super) struct Work {
    pub(super) demand: Demand,
    pub(super) count: u32,
}

/// One that is placed.
pub(super) struct Instance {
    /// Which work it is of.
    pub(super) work: usize,
    pub(super) cell: usize,
    pub(super) id: ReservationId,
}

/// Who places.
pub(super) trait Scheduler {
    fn fleet(&self) -> &Fleet;
    /// Places what it can of the work, commits it, and adds it to `instances`.
    fn place(&mut self, now_us: u64, work: &[Work], instances: &mut Vec<Instance>) -> Result<()>;
}

/// What is measured.
#[derive(Debug, Default, Clone)]
pub(super) struct Measured {
    pub(super) placed: u64,
    pub(super) refused: u64,
    /// Refused though some cell had room.
    pub(super) refused_wrongly: u64,
    /// The largest difference between zones, over all apps, while every zone had room.
    pub(super) skew_max: u32,
    /// Apps with a difference of more than one, whether there was room or not.
    pub(super) skewed_apps: u64,
    pub(super) apps: u64,
    /// At the fill that was aimed at.
    pub(super) at_fill: Spread,
    /// By fill in hundredths.
    pub(super) by_fill: Vec<Spread>,
    /// The fullest moment.
    pub(super) fill_max: f64,
}

/// The spread of use over cells, summed over bins.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Spread {
    bins: u64,
    /// Of each cell's mean of cpu and memory in use, in hundredths.
    deviation: f64,
    cpu_deviation: f64,
    memory_deviation: f64,
    /// The fullest cell over the mean.
    max_to_mean: f64,
}

impl Spread {
    fn mean(&self, sum: f64) -> Option<f64> {
        (self.bins > 0).then(|| sum / self.bins as f64)
    }

    /// The standard deviation of cells' use (the mean of cpu and memory), of their cpu, and of their memory, in
    /// hundredths; and the fullest over the mean. Nothing if there was no such bin.
    pub(super) fn means(&self) -> Option<[f64; 4]> {
        let sums = [self.deviation, self.cpu_deviation, self.memory_deviation, self.max_to_mean];
        Some(sums.map(|sum| self.mean(sum).unwrap_or(0.0))).filter(|_| self.bins > 0)
    }

    fn add(&mut self, other: &Self) {
        self.bins += other.bins;
        self.deviation += other.deviation;
        self.cpu_deviation += other.cpu_deviation;
        self.memory_deviation += other.memory_deviation;
        self.max_to_mean += other.max_to_mean;
    }

    /// The spread over a fleet now.
    fn of(fleet: &Fleet, capacities: &[Resources]) -> Self {
        let part = |free: u32, all: u32| 100.0 * (1.0 - f64::from(free) / f64::from(all.max(1)));
        let (mut cpu, mut memory, mut both) = (Vec::new(), Vec::new(), Vec::new());
        for (ledger, capacity) in fleet.ledgers.iter().zip(capacities) {
            let free = ledger.free();
            cpu.push(part(free.cpu_milli, capacity.cpu_milli));
            memory.push(part(free.memory_mib, capacity.memory_mib));
            both.push((cpu[cpu.len() - 1] + memory[memory.len() - 1]) / 2.0);
        }
        let mean = both.iter().sum::<f64>() / both.len() as f64;
        let max = both.iter().copied().fold(0.0, f64::max);
        Self {
            bins: 1,
            deviation: deviation(&both),
            cpu_deviation: deviation(&cpu),
            memory_deviation: deviation(&memory),
            max_to_mean: if mean > 0.0 { max / mean } else { 1.0 },
        }
    }
}

fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

/// How a trace is played.
#[derive(Debug, Clone, Copy)]
pub(super) struct Play {
    /// How many copies of each arrival come.
    pub(super) copies: u32,
    /// Arrivals that would fill the fleet above this part of its cpu or memory are left out.
    pub(super) fill: f64,
}

/// When an instance leaves (seconds), on which cell, under which id, and how much it gives back (milli, MiB).
type Departure = (u32, usize, ReservationId, u32, u32);

/// A trace on a scheduler's fleet.
struct Replay<'a, S> {
    scheduler: &'a mut S,
    play: Play,
    capacities: Vec<Resources>,
    zones: Vec<ZoneIndex>,
    capacity: [f64; 2],
    used: [f64; 2],
    /// The next one on top.
    departures: BinaryHeap<Reverse<Departure>>,
    measured: Measured,
}

/// Plays a trace.
///
/// # Errors
/// What the scheduler says.
pub(super) fn play<S: Scheduler>(scheduler: &mut S, bins: &[Bin], play: Play) -> Result<Measured> {
    let fleet = scheduler.fleet();
    let capacities: Vec<Resources> = fleet.cells().map(|(cell, _)| fleet.capacity(cell)).collect();
    let zones = fleet.cells().map(|(_, zone)| zone).collect();
    let sum =
        |amount: fn(&Resources) -> u32| capacities.iter().map(|all| f64::from(amount(all))).sum::<f64>();
    let capacity = [sum(|all| all.cpu_milli), sum(|all| all.memory_mib)];
    let measured = Measured { by_fill: vec![Spread::default(); 101], ..Measured::default() };
    let (used, departures) = ([0.0; 2], BinaryHeap::new());
    let mut replay = Replay { scheduler, play, capacities, zones, capacity, used, departures, measured };
    for bin in bins {
        replay.depart(bin.at_s);
        replay.arrive(bin)?;
    }
    Ok(replay.measured)
}

impl<S: Scheduler> Replay<'_, S> {
    fn depart(&mut self, now_s: u32) {
        while let Some(Reverse((_, cell, id, cpu_milli, memory_mib))) = self.departures.peek().copied() {
            if self.departures.peek().is_some_and(|Reverse((at_s, ..))| *at_s > now_s) {
                return;
            }
            self.departures.pop();
            self.scheduler.fleet().ledgers[cell].release(id);
            self.used[0] -= f64::from(cpu_milli);
            self.used[1] -= f64::from(memory_mib);
        }
    }

    /// Whether an arrival may come; then it counts as used.
    fn admit(&mut self, arrival: &Arrival) -> bool {
        let count = arrival.lifetimes_s.len() as f64;
        let Resources { cpu_milli, memory_mib, .. } = arrival.resources;
        let more = [f64::from(cpu_milli) * count, f64::from(memory_mib) * count];
        let fits =
            (0..2).all(|index| self.used[index] + more[index] <= self.play.fill * self.capacity[index]);
        if fits {
            self.used.iter_mut().zip(more).for_each(|(used, more)| *used += more);
        }
        fits
    }

    fn arrive(&mut self, bin: &Bin) -> Result<()> {
        let (mut work, mut lifetimes) = (Vec::new(), Vec::new());
        for copy in 0..u64::from(self.play.copies) {
            for arrival in &bin.arrivals {
                if self.admit(arrival) {
                    let app = AppId(copy << COPY_SHIFT | arrival.app);
                    let demand = Demand { app, resources: arrival.resources, ..Demand::default() };
                    work.push(Work { demand, count: arrival.lifetimes_s.len() as u32 });
                    lifetimes.push(&arrival.lifetimes_s);
                }
            }
        }
        let mut instances = Vec::new();
        self.scheduler.place(u64::from(bin.at_s) * 1_000_000, &work, &mut instances)?;
        let mut placed = vec![0; work.len()];
        for instance in &instances {
            let Resources { cpu_milli, memory_mib, .. } = work[instance.work].demand.resources;
            let lifetime_s = lifetimes[instance.work][placed[instance.work] as usize];
            placed[instance.work] += 1;
            if lifetime_s != FOR_EVER {
                let until_s = bin.at_s.saturating_add(lifetime_s);
                let departure = (until_s, instance.cell, instance.id, cpu_milli, memory_mib);
                self.departures.push(Reverse(departure));
            }
        }
        self.measured.placed += instances.len() as u64;
        self.measure_refusals(&work, &placed);
        self.measure_skew(&work, &instances);
        self.measure_spread();
        Ok(())
    }

    fn measure_refusals(&mut self, work: &[Work], placed: &[u32]) {
        for (Work { demand, count }, placed) in work.iter().zip(placed) {
            let refused = count - placed;
            if refused == 0 {
                continue;
            }
            let Resources { cpu_milli, memory_mib, .. } = demand.resources;
            self.used[0] -= f64::from(cpu_milli) * f64::from(refused);
            self.used[1] -= f64::from(memory_mib) * f64::from(refused);
            self.measured.refused += u64::from(refused);
            // Nothing departs within a bin: what fits now fitted then.
            if self.zones_with_room(demand) != 0 {
                self.measured.refused_wrongly += u64::from(refused);
            }
        }
    }

    /// The zones in which some cell has room for one more, as bits.
    fn zones_with_room(&self, demand: &Demand) -> u32 {
        let ledgers = self.scheduler.fleet().ledgers.iter().zip(&self.zones);
        let with_room =
            ledgers.filter(|(ledger, _)| score::price(&ledger.snapshot(demand.app), demand).is_some());
        with_room.fold(0, |zones, (_, zone)| zones | 1 << zone.0)
    }

    /// How evenly each app of this bin lies in the zones.
    fn measure_skew(&mut self, work: &[Work], instances: &[Instance]) {
        let zones_count = self.scheduler.fleet().view.zones_count();
        let mut counts = vec![[0u32; ZONES_MAX]; work.len()];
        let app_of: Vec<usize> = work
            .iter()
            .enumerate()
            .scan(0, |first, (number, entry)| {
                if work[*first].demand.app != entry.demand.app {
                    *first = number;
                }
                Some(*first)
            })
            .collect();
        for instance in instances {
            counts[app_of[instance.work]][usize::from(self.zones[instance.cell].0)] += 1;
        }
        for (number, counts) in counts.iter().enumerate().filter(|(number, _)| app_of[*number] == *number) {
            let counts = &counts[..zones_count];
            let (Some(most), Some(least)) = (counts.iter().max(), counts.iter().min()) else { continue };
            self.measured.apps += 1;
            if most - least <= 1 {
                self.measured.skew_max = self.measured.skew_max.max(most - least);
                continue;
            }
            self.measured.skewed_apps += 1;
            // A zone that is full excuses.
            let apps = (number..work.len()).take_while(|other| app_of[*other] == number);
            let all = (1u32 << zones_count) - 1;
            if apps.into_iter().all(|other| self.zones_with_room(&work[other].demand) == all) {
                self.measured.skew_max = self.measured.skew_max.max(most - least);
            }
        }
    }

    fn measure_spread(&mut self) {
        let fill = (self.used[0] / self.capacity[0]).max(self.used[1] / self.capacity[1]);
        let spread = Spread::of(self.scheduler.fleet(), &self.capacities);
        self.measured.fill_max = self.measured.fill_max.max(fill);
        self.measured.by_fill[((fill * 100.0) as usize).min(100)].add(&spread);
        if self.play.fill > 1.0 || fill >= self.play.fill - NEAR {
            self.measured.at_fill.add(&spread);
        }
    }
}
