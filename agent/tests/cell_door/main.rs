//! TCP with certificates on both sides: who is let in, and what those cost who are not.

#![allow(clippy::unwrap_used)]

mod files;
mod hostile;
mod let_in;
mod support;
