//! A cell as its users see it: `celda agent` and the commands that talk to it, on a store of the test's own.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod adoption;
mod auction;
mod batch;
mod forward;
mod health;
mod journal;
mod life;
mod remote;
mod support;
mod told;
mod words;
