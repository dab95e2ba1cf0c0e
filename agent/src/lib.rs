//! The cell: containers on one machine.
//!
//! `unsafe` and raw `libc` calls live only in `sys`.
#![deny(unsafe_code)]

pub mod cell;
pub mod cli;
pub mod container;
pub mod error;
mod orphan;
pub mod root;
pub mod sandbox;
pub mod spec;
mod sys;

pub use error::{Error, Result};
