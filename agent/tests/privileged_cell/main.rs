//! A cell as its users see it: `celda agent` and the commands that talk to it, on a store of the test's own.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod adoption;
mod attach;
mod auction;
mod batch;
mod health;
mod hostile;
mod hostile_clients;
mod journal;
mod life;
mod support;
mod witness;
mod words;
