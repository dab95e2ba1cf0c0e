//! The cell: containers on one machine.
#![deny(unsafe_code)]

pub mod sandbox;
pub mod spec;
