//! What a round makes of late, doubled, absurd and missing answers.

use crate::stage::{Stage, batch, bid, ledgers, view};
use celda_auction::demand::{Resource, Shortage};
use celda_auction::ledger::Refused;
use celda_auction::round::{AskId, AttemptId, Config, Effect, Event};
use celda_auction::score::Bid;
use celda_auction::{CellIndex, Epoch};

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
