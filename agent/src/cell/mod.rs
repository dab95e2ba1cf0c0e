//! The cell.

pub mod health;
pub mod logs;
pub mod network;
