//! Logs through real pipes and files: what is kept, what is told, and what a kill at any moment leaves.

mod killed;
mod limits;
mod lines;
mod support;
