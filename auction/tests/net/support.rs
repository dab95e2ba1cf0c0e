//! Cells and auctioneers for tests.

use celda_auction::client::{Auctioneer, Auctions, Cells, Options};
use celda_auction::demand::{AppId, Batch, Demand, Resources};
use celda_auction::ledger::{Epoch, Ledger};
use celda_auction::membership::{Change, Member};
use celda_auction::round::Config;
use celda_auction::service::{CellService, Limits, Listener};
use celda_auction::transport::Address;
use celda_auction::view::Class;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Nothing here takes this long: a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many times slower than a machine of its own this one is: `CELDA_TEST_SLOW`, which emulated guests set; else 1.
fn slowness() -> u32 {
    std::env::var("CELDA_TEST_SLOW")
        .ok()
        .map_or(1, |factor| factor.parse().expect("CELDA_TEST_SLOW is a whole number"))
}

/// The future's value.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let value = tokio::time::timeout(PATIENCE * slowness(), future).await;
    value.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub(crate) const CELL: Resources =
    Resources { cpu_milli: 10_000, memory_mib: 10_000, disk_mib: 10_000, containers: 10, ports: 100 };

pub(crate) fn ledger() -> Arc<Ledger> {
    Arc::new(Ledger::new(&CELL, 64, Epoch(1)).unwrap())
}

/// A served cell; it ends when this is dropped.
pub(crate) struct Served {
    pub(crate) address: Address,
    pub(crate) service: CellService,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A cell with this ledger, on a loopback port of its own.
pub(crate) async fn serve(ledger: Arc<Ledger>, limits: Limits) -> Served {
    serve_on(Listener::loopback("127.0.0.1:0").await.unwrap(), ledger, limits)
}

pub(crate) fn serve_on(listener: Listener, ledger: Arc<Ledger>, limits: Limits) -> Served {
    let address = listener.address().clone();
    let service = CellService::new(ledger, Class::default(), limits);
    let served = service.clone();
    let task = tokio::spawn(async move { served.serve(listener, std::future::pending()).await.unwrap() });
    Served { address, service, task }
}

pub(crate) fn member(name: &str, zone: &str, address: &Address) -> Arc<Member> {
    let class = Class::default();
    Arc::new(Member { name: name.into(), zone: zone.into(), class, address: address.clone() })
}

/// Short waits, so that a peer that does not answer is found out soon.
pub(crate) fn options() -> Options {
    let options = Options::default();
    Options {
        connect_deadline: options.connect_deadline * slowness(),
        silence_max: Duration::from_millis(300) * slowness(),
        settle_deadline: Duration::from_millis(100) * slowness(),
        ..options
    }
}

pub(crate) fn auctions() -> Auctions {
    let (auctions, deadline_us) = (Auctions::default(), 100_000 * u64::from(slowness()));
    Auctions {
        round: Config { ask_deadline_us: deadline_us, reserve_deadline_us: deadline_us, ..Config::default() },
        deadline: auctions.deadline * slowness(),
        ..auctions
    }
}

/// The cells at these addresses, `cell-0`, `cell-1` and so on, all in one zone.
pub(crate) fn cells(options: Options, addresses: &[&Address]) -> Cells {
    let cells = Cells::new(options);
    for (index, address) in addresses.iter().enumerate() {
        cells.apply(Change::Joined(member(&format!("cell-{index}"), "z", address))).unwrap();
    }
    cells
}

pub(crate) fn auctioneer(cells: &Cells) -> Auctioneer {
    Auctioneer::new(cells.clone(), auctions()).unwrap()
}

pub(crate) fn demand() -> Demand {
    let resources = Resources { cpu_milli: 1000, memory_mib: 1000, disk_mib: 1000, containers: 1, ports: 1 };
    Demand { app: AppId(7), resources, ..Demand::default() }
}

pub(crate) fn batch(count: u32) -> Batch {
    Batch::new(demand(), count, &[]).unwrap()
}

/// How many container slots are taken.
pub(crate) fn taken(ledger: &Ledger) -> u32 {
    CELL.containers - ledger.free().containers
}
