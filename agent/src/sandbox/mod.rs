//! One container: from a runtime spec and a root filesystem to a running process.
//!
//! ```text
//! Request -> plan -> start -> the child walks the steps -> execve
//!   spec,     pure,    opens, clone3      raw syscalls only     |
//!   fds       printable                                         v
//!                                                  Container: wait, kill, Exit
//! ```

pub mod caps;
pub mod cgroup;
mod container;
pub(crate) mod devices;
mod error;
pub mod exec;
mod exit;
mod failure;
pub mod idmap;
mod inherited;
mod init;
pub mod network;
mod open;
mod plan;
mod relay;
mod request;
pub mod rlimit;
mod sealed;
pub mod seccomp;
mod start;
pub(crate) mod step;
mod userns;
pub mod users;

pub use container::{Container, Pipes, Timings};
pub use error::{Result, SandboxError};
pub use exit::{Exit, LimitOwner};
pub use network::{NetworkNamespaces, POOL_COUNT_MAX, PreparingNetwork};
pub use relay::{Foreground, resize, terminal_size};
pub use request::{Request, Stdio, TerminalSize};
pub use sealed::is_sealed;
pub use start::{Plan, plan};
pub use userns::user_namespace;
