//! Programs run in containers that run already: what they may, what they see, how they end, and what hostile or ending
//! containers make of it.

#[path = "../privileged_sandbox/support.rs"]
mod support;

mod hostile;
mod same;
