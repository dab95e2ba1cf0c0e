//! The messages and services that celda's cells, auctioneers and fronts share, generated from `proto/`.
//!
//! ```text
//! proto/celda/auction/v1/auction.proto  ->  auction::v1   bids and reservations between auctioneers and cells
//! ```
//! A package's version is in its name: a change that an old peer would misread gets a new version, every other change
//! is a new field, and a peer ignores the fields that it does not know.
#![forbid(unsafe_code)]

/// Bids and reservations between auctioneers and cells.
pub mod auction {
    /// Version 1.
    #[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
    pub mod v1 {
        tonic::include_proto!("celda.auction.v1");
    }
}
