//! Rounds against cells over gRPC.
//!
//! ```text
//! Auctioneer ── place(batch) ─┐                             ┌─ Link ── one stream ──> cell
//! Auctioneer ── place(batch) ─┼─ Cells { view, links } ─────┼─ Link ── one stream ──> cell
//!   rounds, at most so many   │    follows a Membership     └─ Link   (opened when first asked)
//!     ^                       │
//!     └── events <── inbox <──┴── answers, each to the call that it names
//! ```
//! All auctioneers of a process share one stream to each cell: what several have to say at the same time travels in one
//! message. Every call has an entry in its link until it is answered, so an answer that comes twice, late, or for
//! another's call finds nothing and changes nothing. Entries, links and rounds are bounded: past a bound a call is not
//! sent, and the round learns so at once.
//!
//! A cell that cannot be reached, falls silent or speaks rubbish is left alone for a while that doubles; until then it
//! counts as unreachable in refusals. What it may still hold frees itself after the reservation's ttl.

mod auctioneer;
mod cells;
mod connect;
mod inbox;
mod link;
mod pending;

pub use auctioneer::{Auctioneer, Auctions, Outcome, Placement};
pub use cells::Cells;
pub use link::Traffic;

use crate::transport::{Certificates, Users};
use std::time::Duration;

/// How cells are reached.
#[derive(Debug, Clone)]
pub struct Options {
    /// What this side shows and trusts on `https` addresses; without it those cannot be reached.
    pub certificates: Option<Certificates>,
    /// Who may be at the other end of a unix socket; nobody, unless given.
    pub users: Users,
    /// How long connecting, TLS and opening the stream may take.
    pub connect_deadline: Duration,
    /// How long a cell may leave calls unanswered, all of them, before its connection is given up. Above any round's
    /// deadlines.
    pub silence_max: Duration,
    /// After how long without a call a connection is closed. Above `silence_max`.
    pub idle_max: Duration,
    /// How long a cell that failed is left alone at first; doubles up to `backoff_max`.
    pub backoff_min: Duration,
    /// How long a cell that failed is left alone at most.
    pub backoff_max: Duration,
    /// Open connections at most; each is a descriptor.
    pub connections_max: u32,
    /// Unanswered calls to one cell at most.
    pub in_flight_max: u32,
    /// How long the answer to a commit or a release is waited for before it is sent again.
    pub settle_deadline: Duration,
    /// How often a commit or a release is sent, at least 1.
    pub settle_sends_max: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            certificates: None,
            users: Users::these(&[]),
            connect_deadline: Duration::from_secs(2),
            silence_max: Duration::from_secs(2),
            idle_max: Duration::from_secs(300),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            connections_max: 8192,
            in_flight_max: 1024,
            settle_deadline: Duration::from_millis(250),
            settle_sends_max: 4,
        }
    }
}
