//! A cell as its users see it: `celda agent` and the commands that talk to it, on a store of the test's own.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/net.rs"]
mod net;

mod adoption;
mod auction;
mod batch;
mod health;
mod journal;
mod life;
mod network;
mod support;
mod words;
