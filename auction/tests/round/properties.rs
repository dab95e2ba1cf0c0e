//! What holds of a round whatever happens.

use crate::stage::{Stage, batch, bid, view};
use celda_auction::demand::{Resource, Shortage};
use celda_auction::ledger::Refused;
use celda_auction::round::{AskId, AttemptId, Config, Effect, Event};
use celda_auction::score::PRICE_MAX;
use celda_auction::{CellIndex, Epoch};
use proptest::prelude::*;

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
