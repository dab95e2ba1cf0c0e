//! Locks that one agent has at a time.
//!
//! A program that an agent was just starting when it was killed has a copy of its descriptors, locks among them, until it
//! closes them or executes: the next agent waits for that, and not for another agent that is there to stay.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

/// How long such a program may take on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// Takes the lock of a file; false when another agent has it.
pub fn take(file: impl AsFd) -> bool {
    let deadline = Instant::now() + WAIT_MAX;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}
