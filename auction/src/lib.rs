//! Placement without a leader: any number of auctioneers at once, none knowing of the others.
//!
//! ```text
//!  demand ──> round ──Ask──────> cell: ledger ──snapshot──> score ──> bid        each bid is fresh
//!  (a batch)  │  ^ <──Bid─────────────────────────────────────────────┘
//!             │  │   ──Reserve──> cell: ledger   compare-and-swap, never below zero, one hold for one id
//!             │  └── <──Answer──
//!             v
//!           Placed | Refused (which resource was short on how many cells, the largest slot seen)
//! ```
//! | room | its one job |
//! |---|---|
//! | [`demand`] | what an instance needs; a batch of equal ones |
//! | [`ledger`] | what a cell has left, in atomics |
//! | [`score`] | a ledger's snapshot and a demand to a price; the one `fits` for both sides |
//! | [`view`] | the cells that an auctioneer knows, by class and zone |
//! | [`round`] | one batch from demand to answers, without I/O: events in, effects out |
//! | [`rebalance`] | which instances to move when a cell or a zone joins or returns |
//! | [`local`] | rounds against ledgers in the same process |
//! | `wire`, `transport`, `membership` | messages, addresses, who the cells are; with the feature `net` |
//! | `client`, `service` | rounds over gRPC, and a cell's ledger behind it; with the feature `net` |
//!
//! But for the rooms of `net`, nothing here reads a clock, opens a socket or draws a random number of its own: time
//! (microseconds, from any start that the caller keeps) and generators are arguments, so a run with the same arguments
//! is the same run.
#![forbid(unsafe_code)]

#[cfg(all(feature = "net", not(loom)))]
pub mod client;
pub mod demand;
pub mod error;
pub mod ledger;
pub mod local;
#[cfg(all(feature = "net", not(loom)))]
pub mod membership;
pub mod rebalance;
pub mod round;
pub mod score;
#[cfg(all(feature = "net", not(loom)))]
pub mod service;
#[cfg(all(feature = "sim", not(loom)))]
pub mod sim;
#[cfg(all(feature = "net", not(loom)))]
pub mod transport;
pub mod view;
#[cfg(all(feature = "net", not(loom)))]
pub mod wire;

pub use demand::{AppId, Batch, Demand, Resources};
pub use error::{Error, Result};
pub use ledger::{Epoch, Ledger, ReservationId};

pub use round::Round;
pub use view::{CellIndex, View, ZoneIndex};
