//! Honest auctioneers and honest cells.

use crate::support::{
    Served, auctioneer, auctions, batch, cells, demand, ledger, member, options, serve, soon, taken,
};
use celda_api::auction::v1;
use celda_api::auction::v1::cell_client::CellClient;
use celda_auction::client::{Auctioneer, Auctions, Options};
use celda_auction::demand::{Batch, Requirements, Resource};
use celda_auction::ledger::Epoch;
use celda_auction::membership::{Change, List, Member};
use celda_auction::service::{CellService, Limits, Listener};
use celda_auction::transport::{Address, Error, Users};
use celda_auction::view::Class;
use celda_auction::wire::{Action, Settled};
use std::sync::Arc;

async fn served(count: usize) -> Vec<Served> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(serve(ledger(), Limits::default()).await);
    }
    all
}

#[tokio::test]
async fn many_auctioneers_fill_cells_to_the_last_slot_and_no_further() {
    let all = served(4).await;
    let cells = cells(options(), &all.iter().map(|cell| &cell.address).collect::<Vec<_>>());
    let tasks = (0..8).map(|_| {
        let auctioneer = auctioneer(&cells);
        async move {
            let mut held = 0;
            for _ in 0..4 {
                held += auctioneer.place(batch(3)).await.unwrap().held();
            }
            held
        }
    });
    let held: u32 = soon("all batches", futures_util::future::join_all(tasks)).await.iter().sum();
    assert_eq!(held, 40, "96 are wanted, and 4 cells have 10 slots each");
    for cell in &all {
        assert_eq!(taken(cell.service.ledger()), 10);
    }
    let refused = soon("a refusal", auctioneer(&cells).place(batch(1))).await.unwrap();
    assert_eq!((refused.held(), refused.refused, refused.is_late), (0, 1, false));
    assert!(refused.refusal.is_certain());
    assert_eq!(refused.refusal.short_of(Resource::Containers), 4);
}

#[tokio::test]
async fn a_batch_is_one_call_for_each_cell_and_spread_evenly() {
    let all = served(3).await;
    let cells = cells(options(), &all.iter().map(|cell| &cell.address).collect::<Vec<_>>());
    let outcome = soon("a batch", auctioneer(&cells).place(batch(9))).await.unwrap();
    assert_eq!(outcome.held(), 9);
    assert!(all.iter().all(|cell| taken(cell.service.ledger()) == 3));
    let traffic = cells.traffic();
    assert_eq!((traffic.calls, traffic.answers, traffic.connections), (6, 6, 3), "3 asks and 3 reservations");
}

#[tokio::test]
async fn what_is_committed_stays_and_what_is_released_is_free() {
    let all = served(1).await;
    let cells = cells(options(), &[&all[0].address]);
    let outcome = soon("a batch", auctioneer(&cells).place(batch(4))).await.unwrap();
    let [placement] = &outcome.placements[..] else { panic!("one cell: {outcome:?}") };
    let settle = |count, action| cells.settle("cell-0", placement.first, count, action);
    let all_done = Settled { done: 4, ..Settled::default() };
    assert_eq!(soon("a commit", settle(4, Action::Commit)).await.unwrap(), all_done);
    assert_eq!(soon("it again", settle(4, Action::Commit)).await.unwrap(), all_done, "twice is once");
    all[0].service.ledger().begin_epoch(Epoch(2));
    assert_eq!(taken(all[0].service.ledger()), 4, "committed outlives the epoch");
    let released = soon("a release", settle(5, Action::Release)).await.unwrap();
    assert_eq!(released, Settled { done: 4, unknown: 1, busy: 0 });
    assert_eq!(taken(all[0].service.ledger()), 0);
    let nobody = cells.settle("cell-9", placement.first, 1, Action::Commit).await;
    assert!(matches!(nobody, Err(Error::NoMember { name }) if name == "cell-9"));
}

#[tokio::test]
async fn more_batches_than_may_be_under_way_are_refused_at_once() {
    let all = served(1).await;
    let cells = cells(options(), &[&all[0].address]);
    let auctioneer = Auctioneer::new(cells, Auctions { rounds_max: 2, ..auctions() }).unwrap();
    let three = [auctioneer.place(batch(1)), auctioneer.place(batch(1)), auctioneer.place(batch(1))];
    let outcomes = soon("three batches", futures_util::future::join_all(three)).await;
    let busy = outcomes.iter().filter(|outcome| matches!(outcome, Err(Error::Busy { max: 2 }))).count();
    assert_eq!(busy, 1);
    assert_eq!(soon("a fourth", auctioneer.place(batch(1))).await.unwrap().held(), 1, "a seat is free again");
}

#[tokio::test]
async fn members_of_a_list_are_followed_and_those_that_left_are_not_asked() {
    let all = served(2).await;
    let text = format!("name,zone,address\ncell-0,z,{}\ncell-1,z,{}\n", all[0].address, all[1].address);
    let cells = cells(options(), &[]);
    soon("the list", cells.follow(List::from_csv(text.as_bytes()).unwrap())).await.unwrap();
    assert_eq!((cells.count(), soon("connections", cells.connect()).await), (2, 2));
    cells.apply(Change::Left("cell-0".into())).unwrap();
    assert!(matches!(cells.apply(Change::Left("cell-0".into())), Err(Error::NoMember { .. })));
    let outcome = soon("a batch", auctioneer(&cells).place(batch(4))).await.unwrap();
    assert_eq!((outcome.held(), taken(all[0].service.ledger())), (4, 0));
    // Its index is given to another one now, and means that one.
    cells.apply(Change::Joined(member("cell-2", "z", &all[0].address))).unwrap();
    let outcome = soon("a batch", auctioneer(&cells).place(batch(4))).await.unwrap();
    assert!(outcome.placements.iter().any(|placement| &*placement.cell.name == "cell-2"), "{outcome:?}");
}

#[tokio::test]
async fn a_cell_that_is_not_what_the_list_says_refuses() {
    let all = served(1).await;
    let cells = cells(options(), &[]);
    let class = Class { architecture: "arm64".into(), ..Class::default() };
    let said = Member { class, ..(*member("cell-0", "z", &all[0].address)).clone() };
    cells.apply(Change::Joined(Arc::new(said))).unwrap();
    let requirements = Requirements { architecture: Some("arm64".into()), ..Requirements::default() };
    let demand = celda_auction::Demand { requirements, ..demand() };
    let outcome =
        soon("a refusal", auctioneer(&cells).place(Batch::new(demand, 1, &[]).unwrap())).await.unwrap();
    assert_eq!((outcome.held(), outcome.refusal.contended), (0, 1), "{outcome:?}");
}

#[tokio::test]
async fn a_cell_that_restarts_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cell");
    let users = Users::owner_of(directory.path()).unwrap();
    let start = || {
        let listener = Listener::unix(&path, users.clone()).unwrap();
        let service = CellService::new(ledger(), Class::default(), Limits::default());
        let (stops, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = service.clone().serve(listener, async {
            let _ = stopped.await;
        });
        (service, stops, tokio::spawn(serving))
    };
    let (_, stops, serving) = start();
    let options = Options { users: users.clone(), backoff_min: std::time::Duration::ZERO, ..options() };
    let cells = cells(options, &[&Address::Unix(path.clone())]);
    let auctioneer = auctioneer(&cells);
    assert_eq!(soon("a batch", auctioneer.place(batch(1))).await.unwrap().held(), 1);
    drop(stops);
    soon("the end of the service, with its streams", serving).await.unwrap().unwrap();
    std::fs::remove_file(&path).unwrap();
    let (service, _stops, _serving) = start();
    soon("the cell that is back", async {
        while auctioneer.place(batch(1)).await.unwrap().held() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!((taken(service.ledger()), cells.traffic().connections), (1, 2));
}

#[tokio::test]
async fn a_simple_client_uses_the_unary_forms() {
    let all = served(1).await;
    let mut client = CellClient::connect(all[0].address.to_string()).await.unwrap();
    let demand = Some(celda_auction::wire::demand_message(&demand()));
    let bid = client.bid(v1::BidRequest { demand: demand.clone(), count: 20 }).await.unwrap().into_inner();
    assert_eq!((bid.room, bid.epoch), (10, 1));
    let reserve = v1::ReserveRequest { demand, epoch: 1, first_id: 5, count: 12, ttl_us: 1_000_000 };
    let reserved = client.reserve(reserve.clone()).await.unwrap().into_inner();
    assert_eq!(
        (reserved.held, reserved.refused(), reserved.short & 8),
        (10, v1::reserve_response::Refused::Short, 8)
    );
    assert_eq!(client.reserve(reserve).await.unwrap().into_inner().held, 10, "the same ids hold once");
    let action = v1::settle_request::Action::Release.into();
    let settled =
        client.settle(v1::SettleRequest { first_id: 5, count: 12, action }).await.unwrap().into_inner();
    assert_eq!((settled.done, settled.unknown), (10, 2));
}
