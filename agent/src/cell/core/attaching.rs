//! What is needed to attach to an instance's container.

use std::os::fd::OwnedFd;

use super::Core;
use super::calls::NOT_THERE;
use crate::cell::logs::Log;

/// A container that somebody attaches to.
#[derive(Debug)]
pub struct Attachment {
    /// Of the instance's containers, this is the n-th.
    pub attempt: u32,
    /// Its first process.
    pub pidfd: OwnedFd,
    /// What it writes; none while that is just being taken up.
    pub log: Option<Log>,
    /// What it reads, if somebody may write to it.
    pub input: Option<OwnedFd>,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
}

impl Core {
    pub(super) fn attach(&self, id: &str) -> Result<Attachment, String> {
        let entry = self.entries.get(id).ok_or(NOT_THERE)?;
        let Some(running) = &entry.running else {
            let state = entry.machine.state().name();
            return Err(format!("it is {state}: only a running instance can be attached to"));
        };
        let failed = |error: std::io::Error| format!("copy its descriptors: {error}");
        let copy = |is_wanted: bool| {
            let wanted = running.input.as_ref().filter(|_| is_wanted);
            wanted.map(OwnedFd::try_clone).transpose().map_err(failed)
        };
        Ok(Attachment {
            attempt: entry.machine.attempt(),
            pidfd: running.pidfd.try_clone().map_err(failed)?,
            log: entry.log.clone().filter(|log| entry.is_taken_up && !log.has_ended()),
            input: copy(entry.wish.is_interactive())?,
            terminal: copy(entry.wish.flags.tty)?,
        })
    }
}
