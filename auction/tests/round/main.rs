//! A round, fed by hand: what it asks, reserves and says, and what it makes of what comes back.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

mod answers;
mod asking;
mod properties;
mod stage;
