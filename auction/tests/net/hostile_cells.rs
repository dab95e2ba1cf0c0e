//! Auctioneers against cells that misbehave. Beside each stands an honest one, which must get the instances.

use crate::fake::{Fake, says};
use crate::support::{auctioneer, batch, cells, ledger, options, serve, soon, taken};
use celda_api::auction::v1;
use celda_api::auction::v1::answer::Answer;
use celda_auction::client::{Cells, Options, Outcome};
use celda_auction::ledger::Epoch;
use celda_auction::service::Limits;
use celda_auction::wire::{Action, DETAIL_BYTES_MAX};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Places 4 instances on the fake cell and an honest one, and says what became of them.
async fn place_beside_honest(fake: &Fake) -> (Outcome, u32, Cells) {
    let honest = serve(ledger(), Limits::default()).await;
    let cells = cells(options(), &[&fake.address, &honest.address]);
    let outcome = soon("a batch", auctioneer(&cells).place(batch(4))).await.unwrap();
    (outcome, taken(honest.service.ledger()), cells)
}

fn is_bid(answer: &v1::Answer) -> bool {
    matches!(answer.answer, Some(Answer::Bid(_)))
}

#[tokio::test]
async fn a_cell_that_never_answers_holds_nobody_up() {
    let fake = Fake::serve(|_, _, _| Vec::new());
    let (outcome, honest, cells) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
    soon("its connection to be given up", fake.ended.notified()).await;
    assert_eq!(cells.traffic().answers, 2, "a bid and a reservation of the other");
}

#[tokio::test]
async fn silence_of_the_only_cell_is_a_refusal_that_says_so() {
    let fake = Fake::serve(|_, _, _| Vec::new());
    let cells = cells(options(), &[&fake.address]);
    let outcome = soon("a refusal", auctioneer(&cells).place(batch(2))).await.unwrap();
    assert_eq!((outcome.held(), outcome.refused), (0, 2));
    assert!(!outcome.refusal.is_certain());
}

#[tokio::test]
async fn a_cell_that_bids_and_then_falls_silent_loses_its_instances_to_others() {
    let fake = Fake::serve(|_, _, answer| if is_bid(&answer) { says(vec![answer]) } else { Vec::new() });
    let (outcome, honest, _) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
    assert!(outcome.refusal.unreachable > 0);
}

#[tokio::test]
async fn answers_that_come_twice_count_once() {
    let fake = Fake::serve(|_, _, answer| says(vec![answer.clone(), answer]));
    let (outcome, honest, cells) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest, taken(&fake.ledger)), (4, 2, 2), "{outcome:?}");
    assert_eq!(cells.traffic().strays, 2);
}

#[tokio::test]
async fn answers_that_come_late_count_once_and_what_they_hold_is_cancelled() {
    // Every answer to a reservation is kept back until the cancel comes.
    let kept = Mutex::new(Vec::new());
    let fake = Fake::serve(move |_, call, answer| match (is_bid(&answer), &call.call) {
        (true, _) => says(vec![answer]),
        (_, Some(v1::call::Call::Settle(_))) => says(std::mem::take(&mut *kept.lock().unwrap())),
        _ => {
            kept.lock().unwrap().push(answer);
            Vec::new()
        }
    });
    let (outcome, honest, cells) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
    soon("the late answers", async {
        while cells.traffic().answers < 6 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(taken(&fake.ledger), 0, "it was cancelled");
}

#[tokio::test]
async fn a_flood_of_doubles_costs_the_cell_its_connection() {
    let fake = Fake::serve(|_, _, answer| says(vec![answer; 200]));
    let honest = serve(ledger(), Limits::default()).await;
    let cells = cells(options(), &[&fake.address, &honest.address]);
    let outcome = soon("a batch", auctioneer(&cells).place(batch(2))).await.unwrap();
    assert_eq!(outcome.held(), 2);
    soon("its connection to be given up", fake.ended.notified()).await;
    assert_eq!(fake.opened.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn answers_for_calls_of_others_change_nothing() {
    let fake = Fake::serve(|_, _, mut answer| {
        answer.correlation = answer.correlation.wrapping_add(1 << 40);
        says(vec![answer])
    });
    let (outcome, honest, cells) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
    assert!(cells.traffic().strays > 0);
}

#[tokio::test]
async fn a_cell_that_lies_about_its_room_is_asked_once_and_then_passed_over() {
    // Room for all, at no price, until it comes to it.
    let fake = Fake::serve(|_, call, mut answer| {
        match (&mut answer.answer, &call.call) {
            (Some(Answer::Bid(bid)), Some(v1::call::Call::Bid(request))) => {
                (bid.room, bid.first, bid.step) = (request.count, 0, 0);
            }
            (Some(Answer::Reserve(reserved)), _) => {
                *reserved = v1::ReserveResponse { held: 0, refused: 1, short: 2, epoch: 0 };
            }
            _ => {}
        }
        says(vec![answer])
    });
    let (outcome, honest, cells) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
    assert!(cells.traffic().calls <= 5, "{:?}", cells.traffic());
}

#[tokio::test]
async fn absurd_bids_are_no_bids() {
    for absurd in [
        v1::BidResponse { room: u32::MAX, ..Default::default() },
        v1::BidResponse { room: 1, first: u64::MAX, ..Default::default() },
        v1::BidResponse { room: 1, step: 1 << 47, ..Default::default() },
        v1::BidResponse { short: u32::MAX, ..Default::default() },
        v1::BidResponse { room: 1, used: u32::MAX, ..Default::default() },
    ] {
        let fake = Fake::serve(move |_, _, mut answer| {
            answer.answer = Some(Answer::Bid(absurd));
            says(vec![answer])
        });
        let (outcome, honest, _) = place_beside_honest(&fake).await;
        assert_eq!(
            (outcome.held(), honest, outcome.refusal.unreachable),
            (4, 4, 1),
            "{absurd:?} {outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_cell_that_holds_more_than_was_asked_for_is_not_believed() {
    let fake = Fake::serve(|_, _, mut answer| {
        if let Some(Answer::Reserve(reserved)) = &mut answer.answer {
            reserved.held = 1000;
        }
        says(vec![answer])
    });
    let (outcome, honest, _) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
}

#[tokio::test]
async fn answers_of_another_kind_or_of_none_are_failures() {
    let failure = || v1::Failure { reason: 1, detail: "x".repeat(DETAIL_BYTES_MAX * 3) };
    let kinds: [fn(v1::Failure) -> Option<Answer>; 3] = [
        |_| None,
        |failure| Some(Answer::Failure(failure)),
        |_| Some(Answer::Settle(v1::SettleResponse::default())),
    ];
    for kind in kinds {
        let fake = Fake::serve(move |_, _, mut answer| {
            answer.answer = kind(failure());
            says(vec![answer])
        });
        let (outcome, honest, cells) = place_beside_honest(&fake).await;
        assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
        let id = celda_auction::ReservationId::new(1).unwrap();
        assert!(soon("a settlement", cells.settle("cell-0", id, 1, Action::Commit)).await.is_err());
    }
}

#[tokio::test]
async fn messages_past_the_limits_end_the_connection() {
    let many = |answer: v1::Answer| vec![answer; 300];
    let large = |mut answer: v1::Answer| {
        let failure = v1::Failure { reason: 1, detail: "x".repeat(1 << 17) };
        answer.answer = Some(Answer::Failure(failure));
        vec![answer]
    };
    let kinds: [fn(v1::Answer) -> Vec<v1::Answer>; 2] = [many, large];
    for kind in kinds {
        let fake = Fake::serve(move |_, _, answer| says(kind(answer)));
        let (outcome, honest, _) = place_beside_honest(&fake).await;
        assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
        soon("its connection to be given up", fake.ended.notified()).await;
    }
}

#[tokio::test]
async fn a_cell_that_restarts_between_bid_and_reservation_is_asked_again() {
    let fake = Fake::serve(|ledger, _, answer| {
        if is_bid(&answer) && ledger.epoch() == Epoch(1) {
            ledger.begin_epoch(Epoch(2));
        }
        says(vec![answer])
    });
    let cells = cells(options(), &[&fake.address]);
    let outcome = soon("a batch", auctioneer(&cells).place(batch(4))).await.unwrap();
    assert_eq!((outcome.held(), taken(&fake.ledger)), (4, 4), "{outcome:?}");
    assert!(outcome.placements.iter().all(|placement| placement.epoch == Epoch(2)));
    assert_eq!(cells.traffic().calls, 4, "a bid and a reservation, each twice");
}

#[tokio::test]
async fn a_cell_that_is_in_another_epoch_each_time_is_given_up() {
    let fake = Fake::serve(|ledger, _, answer| {
        ledger.begin_epoch(Epoch(ledger.epoch().0 + 1));
        says(vec![answer])
    });
    let (outcome, honest, cells) = place_beside_honest(&fake).await;
    assert_eq!((outcome.held(), honest), (4, 4), "{outcome:?}");
    assert!(cells.traffic().calls < 200, "{:?}", cells.traffic());
}

#[tokio::test]
async fn unanswered_calls_are_bounded_and_one_more_is_not_sent() {
    let fake = Fake::serve(|_, _, _| Vec::new());
    let options = Options { in_flight_max: 3, silence_max: std::time::Duration::from_secs(60), ..options() };
    let cells = cells(options, &[&fake.address]);
    let auctioneer = auctioneer(&cells);
    let batches = (0..8).map(|_| auctioneer.place(batch(1)));
    let outcomes = soon("refusals", futures_util::future::join_all(batches)).await;
    assert!(outcomes.iter().all(|outcome| outcome.as_ref().unwrap().refused == 1));
    assert_eq!((cells.traffic().calls, cells.traffic().unsent), (3, 5));
}

#[tokio::test]
async fn where_nobody_listens_is_found_out_at_once_and_left_alone() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        celda_auction::transport::Address::Loopback(listener.local_addr().unwrap())
    };
    let options = Options { backoff_min: std::time::Duration::from_secs(60), ..options() };
    let cells = cells(Options { backoff_max: std::time::Duration::from_secs(60), ..options }, &[&address]);
    for _ in 0..3 {
        let outcome = soon("a refusal", auctioneer(&cells).place(batch(1))).await.unwrap();
        assert_eq!((outcome.refused, outcome.refusal.is_certain()), (1, false));
    }
    assert_eq!(cells.traffic().unsent, 2, "only the first tried to connect");
}
