//! The bridge to the auction: reservations that a start takes over, and capacity that comes back once.

use celda_api::auction::v1 as auction;
use celda_api::auction::v1::cell_client::CellClient as AuctionClient;
use celda_api::cell::v1;
use celda_api::cell::v1::outcome::Result as Outcome;

use crate::support::{Cell, FOR_EVER};

fn demand() -> auction::Demand {
    let resources = auction::Resources { containers: 1, cpu_milli: 10, ..auction::Resources::default() };
    auction::Demand { app: 7, resources: Some(resources), ..auction::Demand::default() }
}

#[test]
fn privileged_a_start_takes_over_a_reservation_and_its_end_gives_it_back() {
    let Some(cell) = Cell::up("a_start_takes_over") else { return };
    let (mut client, mut auctioneer) = (cell.client(), AuctionClient::new(cell.channel()));
    let free = || {
        let mut client = cell.client();
        let described = cell.runtime.block_on(client.describe(v1::DescribeRequest {})).unwrap().into_inner();
        described.free.unwrap().containers
    };
    assert_eq!(free(), 400);
    let bid = auction::BidRequest { demand: Some(demand()), count: 2 };
    let bid = cell.runtime.block_on(auctioneer.bid(bid)).unwrap().into_inner();
    assert_eq!(bid.room, 2);
    let reserve = auction::ReserveRequest {
        demand: Some(demand()),
        epoch: bid.epoch,
        first_id: 1000,
        count: 2,
        ttl_us: 60_000_000,
    };
    let held = cell.runtime.block_on(auctioneer.reserve(reserve)).unwrap().into_inner().held;
    assert_eq!((held, free()), (2, 398));
    let mut start = |ids: &[&str], reservations: &[u64]| {
        let process = v1::Process {
            command: ["/bin/sh", "-c", FOR_EVER].map(str::to_owned).to_vec(),
            ..v1::Process::default()
        };
        let spec = v1::Spec { image: cell.image(), process: Some(process), ..v1::Spec::default() };
        let group = v1::StartGroup {
            spec: Some(spec),
            ids: ids.iter().map(|id| (*id).to_owned()).collect(),
            reservations: reservations.to_vec(),
            ..v1::StartGroup::default()
        };
        let request = v1::StartRequest { groups: vec![group] };
        let outcomes = cell.runtime.block_on(client.start(request)).unwrap().into_inner().outcomes;
        outcomes.iter().map(v1::Outcome::result).collect::<Vec<_>>()
    };
    assert_eq!(start(&["a", "b"], &[1000, 1001]), [Outcome::Done; 2]);
    assert_eq!(free(), 398, "nothing is taken twice");
    assert_eq!(start(&["a", "b"], &[1000, 1001]), [Outcome::Already; 2], "an answer that was lost");
    assert_eq!(start(&["c"], &[5]), [Outcome::Short], "a reservation that never was");
    // Its auctioneer never heard of the start, and gives back what it takes for its own.
    let action = auction::settle_request::Action::Release.into();
    let release = auction::SettleRequest { first_id: 1000, count: 2, action };
    let settled = cell.runtime.block_on(auctioneer.settle(release)).unwrap().into_inner();
    assert_eq!((settled.done, settled.unknown, free()), (0, 2, 398), "they are the instances'");
    for id in ["a", "b"] {
        cell.wait(id, |one| one.status() == v1::Status::Running);
    }
    cell.ok(&["rm", "-f", "a"]);
    assert_eq!(free(), 399);
    cell.ok(&["stop", "-t", "0", "b"]);
    cell.ok(&["stop", "-t", "0", "b"]);
    assert_eq!(free(), 400);
    cell.ok(&["drain"]);
    let bid = auction::BidRequest { demand: Some(demand()), count: 2 };
    let bid = cell.runtime.block_on(auctioneer.bid(bid)).unwrap().into_inner();
    assert_eq!(bid.room, 0, "a cell that drains bids nothing");
    cell.leaves_nothing("reservations");
}
