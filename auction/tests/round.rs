//! A round, fed by hand: what it asks, reserves and says, and what it makes of late, doubled, absurd and missing answers.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use celda_auction::demand::{Resource, Shortage, Strategy, ZoneRule};
use celda_auction::ledger::Refused;
use celda_auction::local::Local;
use celda_auction::round::{AskId, AttemptId, Config, Effect, Event};
use celda_auction::score::{Bid, PRICE_MAX, Price};
use celda_auction::view::Class;
use celda_auction::{AppId, Batch, CellIndex, Demand, Epoch, Ledger, Resources, Round, View, ZoneIndex};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CELL: Resources =
    Resources { cpu_milli: 4000, memory_mib: 4096, disk_mib: 4096, containers: 16, ports: 0 };
const SMALL: Resources = Resources { cpu_milli: 10, memory_mib: 256, disk_mib: 16, containers: 1, ports: 0 };

fn view(cells: u32, zones: u32) -> View {
    let mut view = View::new();
    let class = view.class(&Class::default()).unwrap();
    for cell in 0..cells {
        let zone = view.zone(&format!("z{}", cell % zones)).unwrap();
        assert_eq!(view.join(class, zone).unwrap(), CellIndex(cell));
    }
    view
}

fn ledgers(cells: u32) -> Vec<Ledger> {
    (0..cells).map(|_| Ledger::new(&CELL, 16, Epoch(1)).unwrap()).collect()
}

fn batch(count: u32) -> Batch {
    let demand = Demand { app: AppId(1), resources: SMALL, ..Demand::default() };
    Batch::new(demand, count, &[]).unwrap()
}

fn bid(room: u32, first: u64, step: u64) -> Bid {
    let short = if room == 0 { Shortage::NONE.with(Resource::Memory) } else { Shortage::NONE };
    let used = Price(0);
    Bid { epoch: Epoch(1), room, first: Price(first), step: Price(step), used, short, free: CELL }
}

/// A round and everything that it has said.
struct Stage {
    round: Round,
    view: View,
    rng: Pcg64Mcg,
    new: VecDeque<Effect>,
    said: Vec<Effect>,
}

impl Stage {
    fn new(view: View, config: Config) -> Self {
        let rng = Pcg64Mcg::seed_from_u64(1);
        Self { round: Round::new(config), view, rng, new: VecDeque::new(), said: Vec::new() }
    }

    fn begin(&mut self, batch: Batch) {
        let mut effects = Vec::new();
        self.round.begin(batch, 0, &self.view, &mut self.rng, &mut effects);
        self.hear(effects);
    }

    fn feed(&mut self, now_us: u64, event: Event) {
        let mut effects = Vec::new();
        self.round.step(event, now_us, &self.view, &mut self.rng, &mut effects);
        self.hear(effects);
    }

    fn hear(&mut self, effects: Vec<Effect>) {
        self.said.extend(&effects);
        self.new.extend(effects);
    }

    /// What was said since the last time.
    fn take(&mut self) -> Vec<Effect> {
        self.new.drain(..).collect()
    }

    fn asks(&mut self) -> Vec<(AskId, CellIndex)> {
        let asks = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Ask { ask, cell, .. } => Some((ask, cell)),
            _ => None,
        });
        asks.collect()
    }

    fn reserves(&mut self) -> Vec<(AttemptId, CellIndex, u64, u32)> {
        let reserves = self.take().into_iter().filter_map(|effect| match effect {
            Effect::Reserve { attempt, cell, first, count, .. } => Some((attempt, cell, first.get(), count)),
            _ => None,
        });
        reserves.collect()
    }

    fn placed(&self) -> u32 {
        let counts =
            self.said.iter().map(|effect| if let Effect::Placed { count, .. } = effect { *count } else { 0 });
        counts.sum()
    }
}

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
fn a_bid_counts_once_and_a_stale_one_never() {
    let mut stage = Stage::new(view(4, 1), Config { stragglers_sixteenths: 0, ..Config::default() });
    stage.begin(batch(1));
    let asks = stage.asks();
    assert_eq!(asks.len(), 4);
    for _ in 0..9 {
        stage.feed(1, Event::Bid { ask: asks[0].0, bid: bid(1, 5, 1) });
    }
    assert_eq!(stage.take(), [], "three are still silent");
    stage.feed(1, Event::Bid { ask: AskId(u64::MAX), bid: bid(1, 0, 0) });
    for ask in &asks[1..] {
        stage.feed(2, Event::Bid { ask: ask.0, bid: bid(1, 9, 1) });
    }
    let reserves = stage.reserves();
    assert_eq!(reserves.len(), 1);
    assert_eq!(reserves[0].1, asks[0].1, "the cheapest");
    // The next batch knows its own asks from the last one's.
    stage.begin(batch(1));
    let next = stage.asks();
    stage.feed(3, Event::Bid { ask: asks[0].0, bid: bid(1, 0, 0) });
    stage.feed(3, Event::Reserved { attempt: reserves[0].0, held: 1, refused: None });
    assert!(next.iter().all(|(ask, _)| asks.iter().all(|(old, _)| old != ask)));
    assert_eq!(stage.placed(), 0);
}

#[test]
fn silent_cells_are_not_waited_for_after_the_deadline_and_late_bids_are_used() {
    let config = Config { ask_deadline_us: 100, ..Config::default() };
    let mut stage = Stage::new(view(4, 1), config);
    stage.begin(batch(2));
    let asks = stage.asks();
    stage.feed(1, Event::Bid { ask: asks[0].0, bid: bid(1, 5, 1) });
    assert_eq!(stage.take(), []);
    stage.feed(100, Event::Wake);
    let reserves = stage.reserves();
    assert_eq!(reserves.len(), 1, "one fits on who answered");
    assert_eq!(stage.round.refusal().unreachable, 3);
    stage.feed(101, Event::Bid { ask: asks[1].0, bid: bid(1, 9, 1) });
    let late = stage.reserves();
    assert_eq!((late.len(), late[0].1), (1, asks[1].1));
    stage.feed(102, Event::Reserved { attempt: reserves[0].0, held: 1, refused: None });
    stage.feed(102, Event::Reserved { attempt: late[0].0, held: 1, refused: None });
    assert!(stage.round.is_done());
    assert_eq!(stage.placed(), 2);
}

#[test]
fn a_refusal_with_silent_cells_says_that_it_is_not_certain() {
    let mut stage = Stage::new(view(2, 1), Config { ask_deadline_us: 100, ..Config::default() });
    stage.begin(batch(1));
    let asks = stage.asks();
    stage.feed(1, Event::Bid { ask: asks[0].0, bid: bid(0, 0, 0) });
    stage.feed(100, Event::Wake);
    assert_eq!(stage.take(), [Effect::Refused { count: 1 }]);
    let refusal = *stage.round.refusal();
    assert!(!refusal.is_certain());
    assert_eq!((refusal.cells_asked, refusal.unreachable, refusal.short_of(Resource::Memory)), (2, 1, 1));
}

/// A round of one instance whose reservation was just sent.
fn reserved() -> (Stage, (AttemptId, CellIndex, u64, u32)) {
    let config = Config { reserve_deadline_us: 100, reserve_sends_max: 2, ..Config::default() };
    let mut stage = Stage::new(view(2, 1), config);
    stage.begin(batch(1));
    for (ask, _) in stage.asks() {
        stage.feed(0, Event::Bid { ask, bid: bid(1, 5, 1) });
    }
    let reserve = stage.reserves()[0];
    (stage, reserve)
}

#[test]
fn a_lost_answer_is_asked_for_with_the_same_id_then_cancelled_and_placed_elsewhere() {
    let (mut stage, (attempt, cell, first, _)) = reserved();
    stage.feed(99, Event::Wake);
    assert_eq!(stage.take(), [], "too early");
    stage.feed(100, Event::Wake);
    assert_eq!(stage.reserves(), [(attempt, cell, first, 1)]);
    stage.feed(200, Event::Wake);
    let effects = stage.take();
    let cancels = |effect: &Effect| matches!(effect, Effect::Cancel { cell: at, first: id, count: 1 } if *at == cell && id.get() == first);
    assert!(effects.iter().any(cancels), "{effects:?}");
    let elsewhere = effects.iter().find_map(|effect| match effect {
        Effect::Reserve { attempt, cell, .. } => Some((*attempt, *cell)),
        _ => None,
    });
    let (second, other) = elsewhere.unwrap();
    assert_ne!(other, cell);
    // It held after all: cancelled again, and never placed twice.
    stage.feed(201, Event::Reserved { attempt, held: 1, refused: None });
    assert!(matches!(stage.take()[..], [Effect::Cancel { .. }]));
    stage.feed(202, Event::Reserved { attempt: second, held: 1, refused: None });
    stage.feed(203, Event::Reserved { attempt: second, held: 1, refused: None });
    assert!(matches!(stage.take()[..], [Effect::Placed { count: 1, .. }]));
    assert!(stage.round.is_done());
}

#[test]
fn a_reservation_that_holds_more_than_was_asked_for_is_no_answer() {
    let (mut stage, (attempt, ..)) = reserved();
    stage.feed(1, Event::Reserved { attempt, held: 2, refused: None });
    stage.feed(1, Event::Reserved { attempt: AttemptId(u64::MAX), held: 1, refused: None });
    assert_eq!(stage.take(), []);
    stage.feed(2, Event::Reserved { attempt, held: 1, refused: None });
    assert_eq!(stage.placed(), 1);
}

#[test]
fn a_cell_that_restarted_is_asked_again() {
    let (view, ledgers) = (view(1, 1), ledgers(1));
    let mut stage = Stage::new(view, Config::default());
    stage.begin(batch(1));
    let (ask, _) = stage.asks()[0];
    stage.feed(0, Event::Bid { ask, bid: ledgers[0].bid(batch(1).demand(), 1) });
    let (attempt, ..) = stage.reserves()[0];
    stage.feed(0, Event::Reserved { attempt, held: 0, refused: Some(Refused::Epoch(Epoch(2))) });
    let again = stage.asks();
    assert_eq!(again.len(), 1);
    stage.feed(0, Event::Bid { ask: again[0].0, bid: Bid { epoch: Epoch(2), ..bid(1, 1, 1) } });
    let effects = stage.take();
    assert!(matches!(effects[..], [Effect::Reserve { epoch: Epoch(2), .. }]), "{effects:?}");
}

#[test]
fn a_cell_that_always_restarts_costs_a_bounded_number_of_messages() {
    let mut stage = Stage::new(view(1, 1), Config::default());
    stage.begin(batch(1));
    let mut messages = 0;
    while let Some(effect) = stage.new.pop_front() {
        messages += 1;
        match effect {
            Effect::Ask { ask, .. } => stage.feed(0, Event::Bid { ask, bid: bid(1, 0, 0) }),
            Effect::Reserve { attempt, .. } => {
                stage.feed(0, Event::Reserved { attempt, held: 0, refused: Some(Refused::Epoch(Epoch(9))) });
            }
            _ => {}
        }
    }
    assert!(stage.round.is_done());
    assert_eq!(stage.said.last(), Some(&Effect::Refused { count: 1 }));
    assert!(messages < 3 * celda_auction::round::REASKS_MAX + 10, "{messages} messages");
}

#[test]
fn a_liar_is_reserved_at_once_and_then_left_alone() {
    let mut stage = Stage::new(view(4, 1), Config { stragglers_sixteenths: 0, ..Config::default() });
    stage.begin(batch(4));
    let asks = stage.asks();
    let liar = asks[0];
    stage.feed(0, Event::Bid { ask: liar.0, bid: bid(u32::MAX, 0, 0) });
    stage.feed(0, Event::Bid { ask: asks[1].0, bid: bid(u32::MAX, u64::MAX, u64::MAX) });
    for ask in &asks[2..] {
        stage.feed(0, Event::Bid { ask: ask.0, bid: bid(1, 7, u64::MAX) });
    }
    let mut asked_liar = 0;
    while let Some((attempt, cell, _, count)) = stage.reserves().first().copied() {
        asked_liar += u32::from(cell == liar.1);
        let (held, refused) =
            if cell == liar.1 { (0, Some(Refused::Short(Shortage::NONE))) } else { (count, None) };
        stage.feed(0, Event::Reserved { attempt, held, refused });
        // The others of the same wave.
        for effect in stage.said.clone() {
            if let Effect::Reserve { attempt, cell, count, .. } = effect
                && cell != liar.1
            {
                stage.feed(0, Event::Reserved { attempt, held: count, refused: None });
            }
        }
    }
    assert_eq!(asked_liar, 1);
    assert_eq!(stage.placed(), 4);
    assert!(stage.round.is_done());
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

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Dealing is what one gets by giving each next instance to whoever is cheapest then.
    #[test]
    fn a_batch_is_dealt_out_cheapest_first(
        curves in proptest::collection::vec((0u32..5, 0u64..50, 0u64..20), 1..12),
        count in 1u32..30,
    ) {
        let cells = curves.len() as u32;
        let config = Config { sample_min: cells, stragglers_sixteenths: 0, ..Config::default() };
        let mut stage = Stage::new(view(cells, 1), config);
        stage.begin(batch(count));
        for (ask, cell) in stage.asks() {
            let (room, first, step) = curves[cell.0 as usize];
            stage.feed(0, Event::Bid { ask, bid: bid(room, first, step) });
        }
        let price = |cell: CellIndex, n: u32| {
            let (_, first, step) = curves[cell.0 as usize];
            first + step * u64::from(n)
        };
        let mut dealt = Vec::new();
        for (_, cell, _, count) in stage.reserves() {
            prop_assert!(count <= curves[cell.0 as usize].0);
            dealt.extend((0..count).map(|n| price(cell, n)));
        }
        let all = (0..cells).map(CellIndex).flat_map(|cell| {
            (0..curves[cell.0 as usize].0).map(move |n| price(cell, n))
        });
        let mut all: Vec<u64> = all.collect();
        all.sort_unstable();
        all.truncate(count as usize);
        dealt.sort_unstable();
        prop_assert_eq!(dealt, all);
    }

    /// Whatever comes, in whatever order and however often: no panic, and never more placed than was wanted.
    #[test]
    fn any_events_at_all_place_no_more_than_the_batch(
        events in proptest::collection::vec(event(), 0..200),
        count in 1u32..20,
    ) {
        let mut stage = Stage::new(view(40, 3), Config { ask_deadline_us: 5, reserve_deadline_us: 5, ..Config::default() });
        stage.begin(batch(count));
        for (now, event) in events.into_iter().enumerate() {
            stage.feed(now as u64, event);
        }
        let refused: u32 = stage.said.iter().map(|effect| if let Effect::Refused { count } = effect { *count } else { 0 }).sum();
        prop_assert!(stage.placed() + refused <= count);
        prop_assert_eq!(stage.placed() + refused == count, stage.round.is_done());
    }

    /// The same seed and events are the same round.
    #[test]
    fn a_round_is_its_arguments(events in proptest::collection::vec(event(), 0..60)) {
        let run = || {
            let mut stage = Stage::new(view(40, 3), Config::default());
            stage.begin(batch(7));
            events.iter().enumerate().for_each(|(now, event)| stage.feed(now as u64, *event));
            stage.said
        };
        prop_assert_eq!(run(), run());
    }
}

fn event() -> impl proptest::strategy::Strategy<Value = Event> {
    let bid = (
        0u64..60,
        prop_oneof![Just(0), 0u32..4, Just(u32::MAX)],
        prop_oneof![0u64..9, Just(u64::MAX), Just(PRICE_MAX)],
    )
        .prop_map(|(ask, room, first)| Event::Bid { ask: AskId(ask), bid: bid(room, first, first) });
    let refused = prop_oneof![
        Just(None),
        Just(Some(Refused::Busy)),
        Just(Some(Refused::Full)),
        Just(Some(Refused::Epoch(Epoch(2)))),
        Just(Some(Refused::Short(Shortage::NONE.with(Resource::Cpu)))),
    ];
    prop_oneof![
        6 => bid,
        1 => (0u64..60).prop_map(|ask| Event::NoBid { ask: AskId(ask) }),
        3 => (0u64..30, 0u32..3, refused)
            .prop_map(|(attempt, held, refused)| Event::Reserved { attempt: AttemptId(attempt), held, refused }),
        1 => (0u64..30).prop_map(|attempt| Event::NotSent { attempt: AttemptId(attempt) }),
        1 => Just(Event::Wake),
    ]
}
