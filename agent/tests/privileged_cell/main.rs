//! A cell as its users see it: `celda agent` and the commands that talk to it, on a store of the test's own.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/net.rs"]
mod net;

mod adoption;
mod attach;
mod auction;
mod bad_input;
mod batch;
mod churn;
mod cut_off;
mod disk;
mod forward;
mod full_disk;
mod health;
mod hostile;
mod hostile_clients;
mod hostile_specs;
mod images;
mod journal;
mod life;
mod network;
mod remote;
mod support;
mod told;
mod witness;
mod words;
