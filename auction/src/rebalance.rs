//! Which instances to move when a cell or a zone joins or returns. Pure, and budgeted.
//!
//! ```text
//! zones   app A:  z0 4  z1 4  z2 0   ->  from the zone with most to the one with fewest, until they differ by one
//! cells   c0 80 % c1 80 % c2 0 %     ->  off the fullest cell of a zone, while it is above the mean by a margin
//! ```
//! A move is: reserve elsewhere, start, route, drain, stop. A plan says which instances are to be auctioned anew and in
//! which zone; the auction says on which cell. Every move makes its zone or cell pair more even than it was, so plans
//! come to an end: a plan made after all moves of the last one is empty, or goes on where the budget cut it.

use crate::demand::AppId;
use crate::view::{CellIndex, ZONES_MAX, ZoneIndex};
use std::collections::BTreeMap;

/// An instance that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    /// The caller's number for it.
    pub instance: u64,
    /// Its app.
    pub app: AppId,
    /// Its cell.
    pub cell: CellIndex,
    /// The part of its cell that it uses, in units of [`crate::score::PRICE_ONE`].
    pub share: u64,
}

/// A cell that may take instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The cell.
    pub cell: CellIndex,
    /// Its zone.
    pub zone: ZoneIndex,
    /// How much of it is used, in units of [`crate::score::PRICE_ONE`].
    pub used: u64,
}

/// An instance to be placed anew, started there, and then stopped where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The caller's number for it.
    pub instance: u64,
    /// Its app.
    pub app: AppId,
    /// The cell that it leaves.
    pub from: CellIndex,
    /// The zone that it is to go to.
    pub to: ZoneIndex,
}

/// How much a plan may disturb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The most moves of a plan.
    pub moves_max: usize,
    /// The most moves of one app: an app with few instances must not have all of them on the way at once.
    pub moves_per_app_max: usize,
    /// Cells are left alone while the fullest of a zone is above the mean by no more than this, in units of
    /// [`crate::score::PRICE_ONE`]. Above the share of a usual instance, or cells swap instances for nothing.
    pub margin: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { moves_max: 32, moves_per_app_max: 1, margin: crate::score::PRICE_ONE / 10 }
    }
}

/// The moves that even out apps over zones, then cells within each zone.
///
/// Instances on cells that are no sites stay: who leaves or is drained is not a matter of balance.
#[must_use]
pub fn plan(running: &[Running], sites: &[Site], budget: &Budget) -> Vec<Move> {
    let mut plan =
        Plan { sites: BTreeMap::new(), by_app: BTreeMap::new(), moves: Vec::new(), budget: *budget };
    for site in sites.iter().filter(|site| usize::from(site.zone.0) < ZONES_MAX) {
        plan.sites.insert(site.cell, *site);
    }
    let mut instances: Vec<Running> =
        running.iter().filter(|instance| plan.sites.contains_key(&instance.cell)).copied().collect();
    instances.sort_unstable_by_key(|instance| (instance.app, instance.instance));
    let mut left = Vec::with_capacity(instances.len());
    for app in instances.chunk_by(|a, b| a.app == b.app) {
        left.extend(plan.even_zones(app));
    }
    plan.even_cells(&mut left);
    plan.moves
}

struct Plan {
    sites: BTreeMap<CellIndex, Site>,
    by_app: BTreeMap<AppId, usize>,
    moves: Vec<Move>,
    budget: Budget,
}

impl Plan {
    fn may_move(&self, app: AppId) -> bool {
        let moved = self.by_app.get(&app).copied().unwrap_or(0);
        self.moves.len() < self.budget.moves_max && moved < self.budget.moves_per_app_max
    }

    fn used(&self, cell: CellIndex) -> u64 {
        self.sites.get(&cell).map_or(0, |site| site.used)
    }

    fn push(&mut self, instance: &Running, to: ZoneIndex) {
        let Running { instance: number, app, cell, share } = *instance;
        if let Some(site) = self.sites.get_mut(&cell) {
            site.used = site.used.saturating_sub(share);
        }
        *self.by_app.entry(app).or_default() += 1;
        self.moves.push(Move { instance: number, app, from: cell, to });
    }

    /// Evens an app's instances out over the zones that have sites. Says which stay.
    fn even_zones(&mut self, app: &[Running]) -> Vec<Running> {
        let mut counts = [None; ZONES_MAX];
        for site in self.sites.values() {
            counts[usize::from(site.zone.0)] = Some(0u32);
        }
        let mut staying = app.to_vec();
        let zone_of = |plan: &Self, instance: &Running| usize::from(plan.sites[&instance.cell].zone.0);
        for instance in app {
            counts[zone_of(self, instance)] = counts[zone_of(self, instance)].map(|count| count + 1);
        }
        while self.may_move(app[0].app) {
            let known =
                || counts.iter().enumerate().filter_map(|(zone, count)| count.map(|count| (count, zone)));
            let (Some((most, from)), Some((fewest, to))) = (known().max(), known().min()) else { break };
            if most <= fewest + 1 {
                break;
            }
            let in_zone = staying.iter().enumerate().filter(|(_, instance)| zone_of(self, instance) == from);
            // Off the fullest cell of the zone.
            let Some((index, _)) = in_zone.max_by_key(|(_, instance)| self.used(instance.cell)) else {
                break;
            };
            let instance = staying.swap_remove(index);
            self.push(&instance, ZoneIndex(to as u8));
            counts[from] = Some(most - 1);
            counts[to] = Some(fewest + 1);
        }
        staying
    }

    /// Evens the cells of each zone out, with instances that the zones left alone.
    fn even_cells(&mut self, instances: &mut Vec<Running>) {
        for zone in (0..ZONES_MAX as u8).map(ZoneIndex) {
            let used: Vec<u64> =
                self.sites.values().filter(|site| site.zone == zone).map(|site| site.used).collect();
            let Some(mean) = used.iter().sum::<u64>().checked_div(used.len() as u64) else { continue };
            while self.moves.len() < self.budget.moves_max && self.move_in(zone, mean, instances) {}
        }
    }

    /// One move off the fullest cell of a zone. Each one leaves an instance less, so they come to an end.
    fn move_in(&mut self, zone: ZoneIndex, mean: u64, instances: &mut Vec<Running>) -> bool {
        let in_zone = || self.sites.values().filter(|site| site.zone == zone);
        let Some(fullest) = in_zone().max_by_key(|site| site.used).copied() else { return false };
        let Some(emptiest) = in_zone().min_by_key(|site| site.used).copied() else { return false };
        if fullest.used <= mean.saturating_add(self.budget.margin) {
            return false;
        }
        // No more than half the difference, or the two cells only change places.
        let share_max = (fullest.used - emptiest.used) / 2;
        let movable = instances.iter().enumerate().filter(|(_, instance)| {
            let fits = instance.share > 0 && instance.share <= share_max;
            instance.cell == fullest.cell && fits && self.may_move(instance.app)
        });
        let Some((index, _)) = movable.max_by_key(|(_, instance)| instance.share) else { return false };
        let instance = instances.swap_remove(index);
        self.push(&instance, zone);
        // Where the auction will most likely put it.
        if let Some(site) = self.sites.get_mut(&emptiest.cell) {
            site.used += instance.share;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::PRICE_ONE;
    use proptest::prelude::*;

    const SHARE: u64 = PRICE_ONE / 50;

    /// Sites with the use that their instances make.
    fn sites(running: &[Running], zones: &[u8]) -> Vec<Site> {
        let used = |cell| {
            running.iter().filter(|instance| instance.cell == cell).map(|instance| instance.share).sum()
        };
        let site = |(cell, zone): (usize, &u8)| {
            let cell = CellIndex(cell as u32);
            Site { cell, zone: ZoneIndex(*zone), used: used(cell) }
        };
        zones.iter().enumerate().map(site).collect()
    }

    /// Executes moves as an auction would: on the emptiest cell of the zone.
    fn execute(running: &mut [Running], zones: &[u8], moves: &[Move]) {
        for one in moves {
            let sites = sites(running, zones);
            let target =
                sites.iter().filter(|site| site.zone == one.to).min_by_key(|site| site.used).unwrap().cell;
            let instance = running.iter_mut().find(|instance| instance.instance == one.instance).unwrap();
            assert_eq!(instance.cell, one.from);
            instance.cell = target;
        }
    }

    fn skew(running: &[Running], zones: &[u8], app: AppId) -> u32 {
        let mut counts = BTreeMap::new();
        zones.iter().for_each(|zone| {
            counts.insert(*zone, 0u32);
        });
        for instance in running.iter().filter(|instance| instance.app == app) {
            *counts.get_mut(&zones[instance.cell.0 as usize]).unwrap() += 1;
        }
        counts.values().max().unwrap() - counts.values().min().unwrap()
    }

    #[test]
    fn a_zone_that_returns_gets_its_part() {
        let running: Vec<Running> = (0..8)
            .map(|n| Running { instance: n, app: AppId(1), cell: CellIndex((n % 4) as u32), share: SHARE })
            .collect();
        let zones = [0, 0, 1, 1, 2, 2];
        let budget = Budget { moves_per_app_max: 9, ..Budget::default() };
        let moves = plan(&running, &sites(&running, &zones), &budget);
        assert_eq!(moves.len(), 2, "{moves:?}");
        assert!(moves.iter().all(|one| one.to == ZoneIndex(2)));
        assert_ne!(moves[0].from, moves[1].from);
        let one_each = plan(&running, &sites(&running, &zones), &Budget::default());
        assert_eq!(one_each, moves[..1]);
    }

    #[test]
    fn a_cell_that_joins_is_filled_within_the_budget() {
        let mut running: Vec<Running> = (0..80)
            .map(|n| Running { instance: n, app: AppId(n), cell: CellIndex((n % 2) as u32), share: SHARE })
            .collect();
        let zones = [0, 0, 0];
        let mut moves_count = 0;
        for turn in 0..10 {
            let budget = Budget { moves_max: 5, ..Budget::default() };
            let moves = plan(&running, &sites(&running, &zones), &budget);
            assert!(moves.len() <= 5);
            moves_count += moves.len();
            execute(&mut running, &zones, &moves);
            assert!(turn < 9 || moves.is_empty(), "still moving");
        }
        let used: Vec<u64> = sites(&running, &zones).iter().map(|site| site.used).collect();
        let mean = used.iter().sum::<u64>() / 3;
        assert!(used.iter().all(|used| *used <= mean + Budget::default().margin), "{used:?}");
        // Nine off each of two cells bring 40 of 50 down to the mean of 26.7 and a margin of 5.
        assert_eq!(moves_count, 18);
    }

    #[test]
    fn instances_on_cells_that_are_no_sites_stay() {
        let running = [Running { instance: 1, app: AppId(1), cell: CellIndex(9), share: SHARE }];
        assert_eq!(plan(&running, &sites(&running, &[0, 1]), &Budget::default()), []);
        assert_eq!(plan(&running, &[], &Budget::default()), []);
    }

    proptest! {
        #[test]
        fn plans_come_to_an_end_with_zones_even(
            placed in proptest::collection::vec((0u64..5, 0u32..6), 1..60),
            moves_max in 1usize..20,
        ) {
            let zones = [0, 0, 1, 1, 2, 2];
            let mut running: Vec<Running> = placed
                .into_iter()
                .enumerate()
                .map(|(n, (app, cell))| Running { instance: n as u64, app: AppId(app), cell: CellIndex(cell), share: SHARE })
                .collect();
            let budget = Budget { moves_max, moves_per_app_max: 3, margin: SHARE * 2 };
            // Each plan of one move or more brings some zone or cell nearer to the mean.
            let mut is_settled = false;
            for _ in 0..200 {
                let moves = plan(&running, &sites(&running, &zones), &budget);
                prop_assert!(moves.len() <= moves_max);
                is_settled = moves.is_empty();
                if is_settled {
                    break;
                }
                execute(&mut running, &zones, &moves);
            }
            prop_assert!(is_settled);
            for app in 0..5 {
                prop_assert!(skew(&running, &zones, AppId(app)) <= 1);
            }
        }
    }
}
