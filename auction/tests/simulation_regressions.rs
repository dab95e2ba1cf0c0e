//! What the simulation found, each in the smallest world that shows it.

#![allow(clippy::unwrap_used)]

use celda_auction::demand::{AppId, Batch, Demand, Resource, Resources, Shortage};
use celda_auction::ledger::{Epoch, Ledger, Refused, ReservationId, Terms};
use celda_auction::local::Local;
use celda_auction::round::Config;
use celda_auction::view::{self, Class, View};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

fn resources(amount: u32, ports: u32) -> Resources {
    Resources { cpu_milli: amount, memory_mib: amount, disk_mib: amount, containers: amount, ports }
}

fn demand() -> Demand {
    Demand { app: AppId(1), resources: resources(1, 0), ..Demand::default() }
}

/// One cell in each zone, with room for so many.
fn one_cell_a_zone(rooms: &[u32]) -> (View, Vec<Ledger>) {
    let mut view = View::new();
    let class = view.class(&Class::default()).unwrap();
    for zone in 0..rooms.len() {
        let zone = view.zone(&format!("z{zone}")).unwrap();
        view.join(class, zone).unwrap();
    }
    let ledgers = rooms.iter().map(|room| {
        let ledger = Ledger::new(&resources(64, 0), 64, Epoch(1)).unwrap();
        let terms = Terms { epoch: Epoch(1), now_us: 0, ttl_us: 1_000_000 };
        let first = ReservationId::new(1).unwrap();
        assert_eq!(ledger.reserve_batch(first, 64 - room, &demand(), terms), (64 - room, None));
        ledger
    });
    (view, ledgers.collect())
}

#[test]
fn what_finds_no_room_in_a_full_zone_goes_to_a_cell_that_was_asked_for_less() {
    for seed in 0..20 {
        let (view, ledgers) = one_cell_a_zone(&[0, 64]);
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let batch = Batch::new(demand(), 8, &[]).unwrap();
        let mut placements = Vec::new();
        let placed =
            Local::new(&view, &ledgers, Config::default()).place(batch, 0, &mut rng, &mut placements);
        assert_eq!(placed, Ok(()), "seed {seed}");
        assert_eq!(placements.iter().map(|placement| placement.count).sum::<u32>(), 8);
    }
}

#[test]
fn a_refusal_for_want_of_ports_names_what_else_is_short() {
    let ledger = Ledger::new(&resources(4, 1), 4, Epoch(1)).unwrap();
    let demand = Demand { resources: resources(5, 2), ..demand() };
    let terms = Terms { epoch: Epoch(1), now_us: 0, ttl_us: 1 };
    let refused = ledger.reserve(ReservationId::new(1).unwrap(), &demand, terms);
    let all = Resource::ALL.into_iter().fold(Shortage::NONE, Shortage::with);
    assert_eq!(refused, Err(Refused::Short(all)));
}

#[test]
fn what_a_full_zone_leaves_over_goes_to_bids_that_have_room_to_spare() {
    for seed in 0..20 {
        // The last zone's answer comes last: the others are known to be full by then, and all cells were asked.
        let (view, ledgers) = one_cell_a_zone(&[2, 0, 64]);
        let mut rng = Pcg64Mcg::seed_from_u64(seed);
        let batch = Batch::new(demand(), 30, &[]).unwrap();
        let mut placements = Vec::new();
        let placed =
            Local::new(&view, &ledgers, Config::default()).place(batch, 0, &mut rng, &mut placements);
        assert_eq!(placed, Ok(()), "seed {seed}");
    }
}

#[test]
fn a_cell_that_joins_is_not_taken_for_one_that_just_left() {
    let mut view = View::new();
    let class = view.class(&Class::default()).unwrap();
    let zone = view.zone("z").unwrap();
    let left = view.join(class, zone).unwrap();
    view.leave(left).unwrap();
    let joined = view.join(class, zone).unwrap();
    assert_ne!(joined, left);
    // But indices are used again in the end.
    let mut last = joined;
    for _ in 0..4 * view::VACANT_MIN {
        view.leave(last).unwrap();
        last = view.join(class, zone).unwrap();
    }
    assert!((view.cells_bound() as usize) < 2 * view::VACANT_MIN, "{}", view.cells_bound());
}

#[test]
fn apps_of_one_instance_do_not_fill_zones_by_chance() {
    let mut view = View::new();
    let class = view.class(&Class::default()).unwrap();
    for cell in 0..90 {
        let zone = view.zone(&format!("z{}", cell % 3)).unwrap();
        view.join(class, zone).unwrap();
    }
    let ledgers: Vec<Ledger> =
        (0..90).map(|_| Ledger::new(&resources(64, 0), 64, Epoch(1)).unwrap()).collect();
    let mut local = Local::new(&view, &ledgers, Config::default());
    let (mut rng, mut placements) = (Pcg64Mcg::seed_from_u64(1), Vec::new());
    for app in 0..900 {
        let batch = Batch::new(Demand { app: AppId(app), ..demand() }, 1, &[]).unwrap();
        local.place(batch, 0, &mut rng, &mut placements).unwrap();
    }
    // Ten each: so few cells are all asked.
    for ledger in &ledgers {
        assert_eq!(ledger.starting(), 10);
    }
}
