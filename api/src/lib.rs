//! The messages and services that celda's cells, auctioneers and fronts share, generated from `proto/`.
//!
//! ```text
//! proto/celda/auction/v1/resources.proto ─┐
//! proto/celda/auction/v1/auction.proto  ──┴─>  auction::v1   bids and reservations between auctioneers and cells
//! proto/celda/cell/v1/spec.proto ─────────┐
//! proto/celda/cell/v1/cell.proto  ────────┴─>  cell::v1      instances and tasks of one cell
//! ```
//! The .proto files are the reference: they give ranges, limits and what may be repeated.
//!
//! A package's version is in its name: a change that an old peer would misread gets a new version, every other change
//! is a new field, and a peer ignores the fields that it does not know. What is generated here checks nothing but the
//! encoding; `celda_auction::wire` turns it into values that are within their ranges, or says what is wrong.
#![forbid(unsafe_code)]

/// Bids and reservations between auctioneers and cells.
pub mod auction {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("celda.auction.v1");
    }
}

/// Instances and tasks of one cell.
pub mod cell {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("celda.cell.v1");
    }
}
