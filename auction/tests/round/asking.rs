//! Whom a round asks and takes: zones, samples, scans, and cells that come and go meanwhile.

use crate::stage::{CELL, SMALL, Stage, batch, bid, ledgers, view};
use celda_auction::demand::{Resource, Strategy, ZoneRule};
use celda_auction::local::Local;
use celda_auction::round::{Config, Effect, Event};
use celda_auction::view::Class;
use celda_auction::{Batch, CellIndex, Demand, Epoch, ZoneIndex};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[test]
fn a_batch_is_even_over_zones_and_cells() {
    let (view, ledgers) = (view(90, 3), ledgers(90));
    let mut local = Local::new(&view, &ledgers, Config::default());
    let mut rng = Pcg64Mcg::seed_from_u64(7);
    let mut placements = Vec::new();
    local.place(batch(30), 0, &mut rng, &mut placements).unwrap();
    let mut zones = [0; 3];
    for placement in &placements {
        assert_eq!(placement.count, 1);
        zones[placement.cell.0 as usize % 3] += 1;
    }
    assert_eq!(zones, [10, 10, 10]);
    assert_eq!(placements.iter().map(|placement| placement.cell).collect::<BTreeSet<_>>().len(), 30);
}

#[test]
fn instances_that_run_already_count_for_their_zones() {
    let (view, ledgers) = (view(9, 3), ledgers(9));
    let mut local = Local::new(&view, &ledgers, Config::default());
    let demand = Demand { resources: SMALL, ..Demand::default() };
    let mut placements = Vec::new();
    let batch = Batch::new(demand, 4, &[5, 1, 2]).unwrap();
    local.place(batch, 0, &mut Pcg64Mcg::seed_from_u64(1), &mut placements).unwrap();
    let mut zones = [5, 1, 2];
    placements.iter().for_each(|placement| zones[placement.cell.0 as usize % 3] += placement.count);
    assert_eq!(zones.iter().sum::<u32>(), 12);
    assert_eq!(zones[0], 5);
    assert!(zones[1].abs_diff(zones[2]) <= 1, "{zones:?}");
}

#[test]
fn a_last_free_cell_is_found_with_each_cell_asked_once() {
    let (view, ledgers) = (view(1000, 4), ledgers(1000));
    for (index, ledger) in ledgers.iter().enumerate().filter(|(index, _)| *index != 123) {
        let terms = celda_auction::ledger::Terms { epoch: Epoch(1), now_us: 0, ttl_us: 1000 };
        let all = Demand { resources: CELL, ..Demand::default() };
        let id = celda_auction::ReservationId::new(index as u64 + 1).unwrap();
        ledger.reserve(id, &all, terms).unwrap();
    }
    let mut local = Local::new(&view, &ledgers, Config::default());
    let mut placements = Vec::new();
    local.place(batch(1), 0, &mut Pcg64Mcg::seed_from_u64(1), &mut placements).unwrap();
    assert_eq!(placements[0].cell, CellIndex(123));
    assert!(local.calls().asks <= 1000, "{:?}", local.calls());
    // Sixteen fit there; four more are refused with what was short on how many cells, and the largest slot seen.
    placements.clear();
    let refusal = local.place(batch(19), 0, &mut Pcg64Mcg::seed_from_u64(2), &mut placements).unwrap_err();
    assert_eq!(placements.iter().map(|placement| placement.count).sum::<u32>(), 15);
    assert_eq!(refusal.cells_asked, 1000);
    assert!(refusal.is_certain());
    assert_eq!(refusal.short_of(Resource::Memory), 999);
    assert_eq!(refusal.short_of(Resource::Ports), 0);
    assert!(refusal.largest.memory_mib < SMALL.memory_mib);
}

#[test]
fn no_cell_of_the_class_is_a_refusal_at_once() {
    let mut stage = Stage::new(view(4, 1), Config::default());
    let requirements =
        celda_auction::demand::Requirements { stack: Some("none".into()), ..Default::default() };
    let demand = Demand { resources: SMALL, requirements, ..Demand::default() };
    stage.begin(Batch::new(demand, 3, &[]).unwrap());
    assert_eq!(stage.take(), [Effect::Refused { count: 3 }]);
    assert!(stage.round.is_done());
    let only = Demand { resources: SMALL, zone: ZoneRule::Only(ZoneIndex(9)), ..Demand::default() };
    stage.begin(Batch::new(only, 3, &[]).unwrap());
    assert_eq!(stage.take(), [Effect::Refused { count: 3 }]);
}

#[test]
fn packing_fills_one_of_the_fullest_that_fit() {
    let (view, ledgers) = (view(64, 1), ledgers(64));
    let terms = celda_auction::ledger::Terms { epoch: Epoch(1), now_us: 0, ttl_us: 1000 };
    for (cell, ledger) in ledgers.iter().enumerate() {
        for n in 0..cell % 16 {
            let id = celda_auction::ReservationId::new((cell * 16 + n + 1) as u64).unwrap();
            ledger.reserve(id, batch(1).demand(), terms).unwrap();
        }
    }
    let config = Config { sample_min: 64, ..Config::default() };
    let mut local = Local::new(&view, &ledgers, config);
    let demand =
        Demand { resources: SMALL, strategy: Strategy::Pack, zone: ZoneRule::Any, ..Demand::default() };
    let mut chosen = BTreeMap::new();
    for seed in 0..40 {
        let mut placements = Vec::new();
        let batch = Batch::new(demand.clone(), 1, &[]).unwrap();
        local.place(batch, 0, &mut Pcg64Mcg::seed_from_u64(seed), &mut placements).unwrap();
        *chosen.entry(placements[0].cell).or_insert(0) += 1;
        ledgers[placements[0].cell.0 as usize].release(placements[0].first);
    }
    assert!(chosen.keys().all(|cell| cell.0 % 16 == 15), "the four that have room for one: {chosen:?}");
    assert_eq!(chosen.len(), 4, "and each of them: {chosen:?}");
}

#[test]
fn more_cells_are_asked_for_each_instance_where_cells_are_uneven() {
    let asks_of_second_batch = |uses: fn(u32) -> u32| {
        let (view, ledgers) = (view(400, 1), ledgers(400));
        let terms = celda_auction::ledger::Terms { epoch: Epoch(1), now_us: 0, ttl_us: 1000 };
        for (cell, ledger) in (0..).zip(&ledgers) {
            for n in 0..uses(cell) {
                let id = celda_auction::ReservationId::new(u64::from(cell * 16 + n + 1)).unwrap();
                ledger.reserve(id, batch(1).demand(), terms).unwrap();
            }
        }
        let mut local = Local::new(&view, &ledgers, Config::default());
        let mut rng = Pcg64Mcg::seed_from_u64(3);
        let mut place = || {
            let before = local.calls().asks;
            local.place(batch(8), 0, &mut rng, &mut Vec::new()).unwrap();
            (local.calls().asks - before) as u32
        };
        assert_eq!(place(), 2 * Config::default().sample_per_four, "nothing is known yet");
        place()
    };
    assert_eq!(asks_of_second_batch(|_| 5), 2 * Config::default().sample_per_four);
    assert_eq!(asks_of_second_batch(|cell| cell % 11), 2 * Config::default().sample_per_four_uneven);
}

#[test]
fn a_scan_of_more_cells_than_a_round_remembers_misses_none() {
    let cells = celda_auction::round::ASKS_MAX as u32 + 4_000;
    for the_one_with_room in [None, Some(CellIndex(cells / 2)), Some(CellIndex(cells - 1))] {
        let mut stage = Stage::new(view(cells, 1), Config::default());
        stage.begin(batch(1));
        let mut queue: VecDeque<_> = stage.asks().into();
        let (mut met, mut first) = (BTreeSet::new(), None);
        while let Some((ask, cell)) = queue.pop_front() {
            first.get_or_insert(ask);
            assert!(met.insert(cell), "{cell:?} is asked twice");
            let room = u32::from(Some(cell) == the_one_with_room);
            stage.feed(0, Event::Bid { ask, bid: bid(room, 0, 0) });
            queue.extend(stage.asks());
        }
        // An answer to an ask that is forgotten changes nothing.
        stage.feed(0, Event::Bid { ask: first.unwrap(), bid: bid(1, 0, 0) });
        match the_one_with_room {
            None => {
                assert_eq!(met.len() as u32, cells);
                assert!(stage.round.is_done());
                assert_eq!(stage.round.refusal().cells_asked, cells);
                assert_eq!(stage.round.refusal().short[Resource::Memory as usize], cells);
                assert!(stage.said.iter().any(|effect| matches!(effect, Effect::Refused { count: 1 })));
            }
            Some(the_one) => {
                let reserve = stage.said.iter().find_map(|effect| match effect {
                    Effect::Reserve { cell, .. } => Some(*cell),
                    _ => None,
                });
                assert_eq!(reserve, Some(the_one));
            }
        }
    }
}

#[test]
fn cells_that_join_and_leave_under_a_scan_are_met_or_left_out() {
    let mut stage = Stage::new(view(300, 1), Config::default());
    stage.begin(batch(1));
    let asks = stage.asks();
    stage.view.leave(CellIndex(7)).unwrap();
    let class = stage.view.class(&Class::default()).unwrap();
    let zone = stage.view.zone("z0").unwrap();
    let joined = stage.view.join(class, zone).unwrap();
    let mut queue: VecDeque<_> = asks.into();
    let mut met = BTreeSet::new();
    while let Some((ask, cell)) = queue.pop_front() {
        met.insert(cell);
        stage.feed(0, Event::Bid { ask, bid: bid(0, 0, 0) });
        queue.extend(stage.asks());
    }
    assert!(met.contains(&joined));
    assert!(met.len() >= 300);
    assert!(stage.round.is_done());
}
