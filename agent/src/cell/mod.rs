//! The cell.

pub mod logs;
