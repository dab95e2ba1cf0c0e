//! The holder: a small process beside the agent that is the parent of every container, so that the agent may die.
//!
//! ```text
//! agent (may be killed, upgraded)                     holder (one for each cell, started by the first agent)
//!   worker ── Start {spec, root, network, locks} ──>    plan, clone3: its own child; keeps pidfd, pipes, locks
//!          <── Started + pidfd, output, error ─────
//!   events ── Attend ──────────────────────────────>    all containers there are, with the same descriptors
//!          <── Ended {exit status, OOM} ───────────     waits on pidfds, reaps, removes cgroups, remembers the end
//!          ── Forget {id} ─────────────────────────>    the end is journalled: lets go of it
//! ```
//! Only a parent learns an exit status on every kernel that celda runs on, and only a process that lives on can keep the
//! read end of a pipe that a container writes to. So the agent starts nothing itself: between a container's clone and
//! its record there is no instruction at which a kill would lose one. What the holder knows is the truth about what
//! runs, what the [journal](super::journal) knows about what should. The holder ends when no container and no agent is
//! left; docs/decisions.md has the other ways and why not those.
//!
//! Messages are JSON in `SOCK_SEQPACKET` packets with descriptors beside them; a spec is too large for a packet and goes
//! in a memory file.

mod body;
mod client;
mod files;
mod message;
mod server;
mod socket;
mod table;

pub use body::Body;
pub use client::{Attending, Handed, Holder, News, Running, Started};
pub use message::{Ended, VERSION};
pub use server::{raise_files_limit, serve};
