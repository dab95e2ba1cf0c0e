//! Every flag and command, by its effect.
//!
//! ```text
//! inside    flags of `run` that a script inside sees
//! limits    flags of `run` that need a cgroup controller: kept where there is one, refused where there is none
//! record    flags of `run` that show in the container's record; `inspect`
//! source    flags that say how a registry is reached, with a registry that looks at the requests
//! store     flags of every command, and the commands that show what is there
//! ```
#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod command;
#[path = "../../../layerfs/tests/common/mod.rs"]
mod common;
#[path = "../../../layerfs/tests/hostile/server.rs"]
mod server;

mod inside;
mod limits;
mod record;
mod source;
mod store;
