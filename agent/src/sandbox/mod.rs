//! One container: from a runtime spec and a root filesystem to a running process.

pub mod caps;
pub mod cgroup;
pub mod idmap;
pub mod rlimit;
pub mod seccomp;
pub mod users;
