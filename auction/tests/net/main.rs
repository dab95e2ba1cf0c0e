//! Auctioneers and cells over real sockets on loopback: honest ones, and peers that send rubbish, lie, fall silent,
//! answer twice, late or for others, or restart.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

mod access;
mod fake;
mod hostile_auctioneers;
mod hostile_cells;
mod support;
mod together;
