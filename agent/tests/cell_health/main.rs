//! Health checks against real servers, hostile ones among them.

mod hostile;
mod programs;
mod support;
