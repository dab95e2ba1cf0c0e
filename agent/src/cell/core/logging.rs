//! Logs of instances: taken up when a container runs, finished when it ends, removed when the instance is forgotten.
//!
//! ```text
//! started ──> taken up (a task) ──> written ... container ends ──> finished ──> its end is shown
//!                                                      └── LAST_WORDS_WAIT, where nothing can be written ──^
//! ```
//! An instance has one log for all its containers. The next container's pipes are taken up when the last one's are let
//! go, which may take as long as the disk is full, so it is waited for on the runtime and never here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Core, Input, Written};
use crate::cell::error::{CellError, Result};
use crate::cell::holder::Ended;
use crate::cell::logs::{Limits, Log, Logs, LogsError, Source};

/// How long an end is not shown whose last words are not written: a full disk must not keep an instance from being
/// started again. They stay in their pipes, and are written when there is room.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(5);
/// How often a log is asked for that another reader has just opened.
const ATTACH_WAIT: Duration = Duration::from_millis(20);
/// How often a reader asks for a log.
const OPEN_TRIES_COUNT: u32 = 100;
/// How often it is tried to remove a log that somebody reads.
const REMOVE_TRIES_COUNT: u32 = 100;

impl Core {
    /// Takes up what the instance's container writes.
    pub(super) fn log(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let Some(running) = &entry.running else { return };
        let pipes = running.output.try_clone().and_then(|output| Ok((output, running.error.try_clone()?)));
        let (output, error) = match pipes {
            Ok(pipes) => pipes,
            Err(error) => {
                tracing::error!(id, %error, "its output is not taken up, and it will wait for that");
                return;
            }
        };
        let name = entry.log_name(id);
        let source = Source {
            name: name.clone(),
            app: entry.app.clone(),
            rate: self.parts.config.logs.rate(),
            limits: self.parts.config.logs.limits(),
            is_prompt: entry.wish.flags.tty,
            output: Some(output),
            error: Some(error),
        };
        let before = entry.log.clone();
        entry.is_taken_up = false;
        let (logs, sender) = (Arc::clone(&self.parts.logs), self.parts.sender.clone());
        let (id, attempt) = (id.to_owned(), entry.machine.attempt());
        self.parts.runtime.spawn(async move {
            if let Some(before) = before {
                before.ended().await;
            }
            let log = attach(&logs, source).await;
            if let Err(error) = &log {
                tracing::error!(id, %error, "its output is not taken up, and it will wait for that");
            }
            let _ = sender.send(Input::Logging { id, attempt, name, log: log.ok() });
        });
    }

    /// A log was taken up, or could not be. Its container may have ended meanwhile.
    pub(super) fn logging(&mut self, id: &str, attempt: u32, name: String, log: Option<Log>) {
        // Another instance of the same id has a log of another name.
        let Some(entry) = self.entries.get_mut(id).filter(|entry| entry.log_name(id) == name) else {
            return self.forget_log(name, log);
        };
        let is_current = entry.machine.attempt() == attempt;
        entry.is_taken_up |= is_current;
        if is_current && log.is_some() {
            entry.log.clone_from(&log);
        }
        if !is_current || entry.running.is_none() {
            self.finish_log(log.as_ref());
        } else if entry.last_words_of.is_some() {
            self.await_last_words(id);
        }
        // Readers that follow the instance look again.
        self.parts.events.push([]);
    }

    /// A container ended: its end is shown when all is written that it wrote.
    pub(super) fn hear_out(&mut self, id: &str, ended: Ended) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.last_words_of = Some(ended);
        if entry.is_taken_up {
            return self.await_last_words(id);
        }
        let (id, attempt, sender) = (id.to_owned(), entry.machine.attempt(), self.parts.sender.clone());
        self.parts.runtime.spawn(async move {
            tokio::time::sleep(LAST_WORDS_WAIT).await;
            let _ = sender.send(Input::HeardOut { id, attempt });
        });
    }

    fn await_last_words(&mut self, id: &str) {
        let Some(entry) = self.entries.get(id) else { return };
        let (attempt, log) = (entry.machine.attempt(), entry.log.clone());
        self.finish_log(log.as_ref());
        let Some(log) = log else { return self.heard_out(id, attempt) };
        let (id, sender) = (id.to_owned(), self.parts.sender.clone());
        self.parts.runtime.spawn(async move {
            if tokio::time::timeout(LAST_WORDS_WAIT, log.ended()).await.is_err() {
                tracing::warn!(id, "its end is shown before its last words, which cannot be written");
            }
            let _ = sender.send(Input::HeardOut { id, attempt });
        });
    }

    /// Nothing more is waited for: the container's end counts.
    pub(super) fn heard_out(&mut self, id: &str, attempt: u32) {
        let entry = self.entries.get_mut(id).filter(|entry| entry.machine.attempt() == attempt);
        if let Some(ended) = entry.and_then(|entry| entry.last_words_of.take()) {
            self.over(id, ended);
        }
    }

    /// Its container ended: what is in the pipes is the last of it.
    fn finish_log(&self, log: Option<&Log>) {
        if let Some(log) = log
            && let Err(error) = self.parts.logs.finish(log)
        {
            tracing::error!(log = %log.directory().display(), %error, "a log was not finished");
        }
    }

    /// Removes the log of an instance that is forgotten.
    pub(super) fn forget_log(&self, name: String, log: Option<Log>) {
        let logs = Arc::clone(&self.parts.logs);
        self.parts.runtime.spawn(async move {
            let _ = logs.discard(&name);
            if let Some(log) = log {
                log.ended().await;
            }
            for _ in 0..REMOVE_TRIES_COUNT {
                match tokio::task::block_in_place(|| logs.remove(&name)) {
                    Err(LogsError::Attached { .. }) => tokio::time::sleep(ATTACH_WAIT).await,
                    Err(error) => return tracing::warn!(name, %error, "a log was left behind"),
                    Ok(()) => return,
                }
            }
        });
    }

    /// Removes logs of instances that nobody knows.
    ///
    /// # Errors
    /// [`CellError::Io`] when they cannot be listed.
    pub fn sweep_logs(&self, root: &Path) -> Result<()> {
        let names: std::collections::HashSet<_> =
            self.entries.iter().map(|(id, entry)| entry.log_name(id)).collect();
        let listed = std::fs::read_dir(root).map_err(CellError::io("list the logs in", root))?;
        for entry in listed.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !names.contains(&name) {
                self.forget_log(name, None);
            }
        }
        Ok(())
    }
}

/// A log that nobody writes, for a reader; another reader may have it for a moment.
///
/// # Errors
/// [`LogsError`], also when it is being written.
pub async fn open_log(logs: &Logs, limits: Limits, written: &Written) -> std::result::Result<Log, LogsError> {
    let source = || Source {
        name: written.name.clone(),
        app: written.app.clone(),
        rate: None,
        limits,
        is_prompt: false,
        output: None,
        error: None,
    };
    for _ in 0..OPEN_TRIES_COUNT {
        match tokio::task::block_in_place(|| logs.attach(source())) {
            Err(LogsError::Attached { .. }) => tokio::time::sleep(ATTACH_WAIT).await,
            answer => return answer,
        }
    }
    tokio::task::block_in_place(|| logs.attach(source()))
}

/// Attaches, as soon as whoever has the log just now lets it go: a reader of an ended log, or the container before, whose
/// last words cannot be written. Meanwhile what the new one writes waits in its pipes.
async fn attach(logs: &Logs, source: Source) -> std::result::Result<Log, LogsError> {
    loop {
        let copy =
            |fd: &Option<std::os::fd::OwnedFd>| fd.as_ref().map(std::os::fd::OwnedFd::try_clone).transpose();
        let copies = copy(&source.output).and_then(|output| Ok((output, copy(&source.error)?)));
        let (output, error) = copies.map_err(|source| LogsError::Kernel { action: "copy a pipe", source })?;
        let Source { name, app, rate, limits, is_prompt, .. } = &source;
        let given = Source {
            name: name.clone(),
            app: app.clone(),
            rate: *rate,
            limits: *limits,
            is_prompt: *is_prompt,
            output,
            error,
        };
        // Files are opened, which waits for a busy disk: other tasks go on meanwhile.
        match tokio::task::block_in_place(|| logs.attach(given)) {
            Err(LogsError::Attached { .. }) => tokio::time::sleep(ATTACH_WAIT).await,
            answer => return answer,
        }
    }
}
