//! Containers of a busybox, started for real: what they see, what they cannot reach, what is left behind.

mod devices;
mod errors;
mod lifecycle;
mod limits;
mod support;
mod traps;
mod users;
mod view;
