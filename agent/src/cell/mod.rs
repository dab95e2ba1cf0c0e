//! The cell.

pub mod health;
pub mod logs;
