//! The one room with `unsafe`: raw syscalls, `clone3`, and the child that walks a plan.
//!
//! ```text
//! spawn (parent) --clone3 CLONE_VM|CLONE_VFORK--> child: for step in steps { syscalls } -> execve
//!      ^                                            |
//!      +---- suspended until execve or _exit <------+  Report {step, errno, detail, message} in shared memory
//! ```
//!
//! The child shares the parent's memory, so what it may do is narrow: no allocation, no locks, no standard I/O,
//! no panics; only raw syscalls over data that the parent built and keeps alive.
#![allow(unsafe_code)]

mod abi;
mod async_fd;
mod bpf;
mod calls;
mod child;
mod child_console;
mod child_exec;
mod child_guard;
mod child_mounts;
mod child_process;
mod clone3;
mod inherited;
mod mounts;
mod queue;
mod report;
mod shared;
mod spawn;
mod strings;

pub(crate) use async_fd::async_fd;
pub(crate) use bpf::{
    PROGRAMS_COUNT_MAX, attach_device_program, device_programs, load_device_program, program_has_name,
};
pub(crate) use inherited::{
    STANDARD_SIGNALS, has_io_priority, has_personality, has_scheduler, ignored_realtime_signals,
};
pub(crate) use mounts::{MountAttributes, map_ids, set_attributes};
pub(crate) use queue::unacknowledged_bytes;
pub(crate) use report::{DETAIL_AGENT, DETAIL_DIRECTORY, DETAIL_INTERPRETER, DETAIL_REAPER, Report};
pub(crate) use shared::SharedWords;
pub(crate) use spawn::{Job, Spawned, loopback_up, spawn};
pub(crate) use strings::{LateStrings, Strings};
