//! Logs of instances: taken up when a container runs, finished when it ends, removed when the instance is forgotten.
//!
//! An instance has one log for all its containers. The next container's pipes are taken up when the last one's are let
//! go, which may take as long as the disk is full, so it is waited for on the runtime and never here.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{Core, Input, Written};
use crate::cell::error::{CellError, Result};
use crate::cell::logs::{Limits, Log, Logs, LogsError, Source};

/// How often a log is asked for that another reader has just opened.
const ATTACH_TRIES_COUNT: u32 = 100;
const ATTACH_WAIT: Duration = Duration::from_millis(20);

impl Core {
    /// Takes up what the instance's container writes.
    pub(super) fn log(&mut self, id: &str) {
        let Some(entry) = self.entries.get(id) else { return };
        let Some(running) = &entry.running else { return };
        let pipes = running.output.try_clone().and_then(|output| Ok((output, running.error.try_clone()?)));
        let (output, error) = match pipes {
            Ok(pipes) => pipes,
            Err(error) => {
                tracing::error!(id, %error, "its output is not taken up, and it will wait for that");
                return;
            }
        };
        let source = Source {
            name: entry.log_name(id),
            app: entry.app.clone(),
            rate: self.parts.config.logs.rate(),
            limits: self.parts.config.logs.limits(),
            output: Some(output),
            error: Some(error),
        };
        let before = entry.log.clone();
        let (logs, sender) = (Arc::clone(&self.parts.logs), self.parts.sender.clone());
        let (id, attempt) = (id.to_owned(), entry.machine.attempt());
        self.parts.runtime.spawn(async move {
            if let Some(before) = before {
                before.ended().await;
            }
            match attach(&logs, source).await {
                Ok(log) => drop(sender.send(Input::Logging { id, attempt, log })),
                Err(error) => {
                    tracing::error!(id, %error, "its output is not taken up, and it will wait for that");
                }
            }
        });
    }

    /// A log was taken up. Its container may have ended meanwhile.
    pub(super) fn logging(&mut self, id: &str, attempt: u32, log: Log) {
        let name = match self.entries.get_mut(id) {
            Some(entry) => {
                entry.log = Some(log);
                let is_over = entry.machine.attempt() != attempt || entry.running.is_none();
                is_over.then(|| entry.log_name(id))
            }
            None => None, // forgotten: its log goes with it, see `forget_log`
        };
        if let Some(name) = name {
            self.finish_log(&name);
        }
        // Readers that follow the instance look again.
        self.parts.events.push([]);
    }

    /// Its container ended: what is in the pipes is the last of it.
    pub(super) fn finish_log(&self, name: &str) {
        if let Err(error) = self.parts.logs.finish(name) {
            tracing::error!(name, %error, "a log was not finished");
        }
    }

    /// Removes the log of an instance that is forgotten.
    pub(super) fn forget_log(&self, name: String, log: Option<Log>) {
        let logs = Arc::clone(&self.parts.logs);
        self.parts.runtime.spawn(async move {
            let _ = logs.finish(&name);
            if let Some(log) = log {
                log.ended().await;
            }
            for _ in 0..ATTACH_TRIES_COUNT {
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

/// A log that nobody writes, for a reader.
///
/// # Errors
/// [`LogsError`].
pub async fn open_log(logs: &Logs, limits: Limits, written: &Written) -> std::result::Result<Log, LogsError> {
    let (name, app) = (written.name.clone(), written.app.clone());
    attach(logs, Source { name, app, rate: None, limits, output: None, error: None }).await
}

/// Attaches; a reader of an ended log has it for a moment.
///
/// # Errors
/// [`LogsError`].
pub async fn attach(logs: &Logs, mut source: Source) -> std::result::Result<Log, LogsError> {
    for _ in 0..ATTACH_TRIES_COUNT {
        let copy =
            |fd: &Option<std::os::fd::OwnedFd>| fd.as_ref().map(std::os::fd::OwnedFd::try_clone).transpose();
        let copies = copy(&source.output).and_then(|output| Ok((output, copy(&source.error)?)));
        let (output, error) = copies.map_err(|source| LogsError::Kernel { action: "copy a pipe", source })?;
        let given = Source { name: source.name.clone(), app: source.app.clone(), output, error, ..source };
        let Source { rate, limits, .. } = given;
        // Files are opened, which waits for a busy disk: other tasks go on meanwhile.
        match tokio::task::block_in_place(|| logs.attach(given)) {
            Err(LogsError::Attached { name }) => {
                source = Source {
                    name,
                    app: source.app,
                    rate,
                    limits,
                    output: source.output,
                    error: source.error,
                };
                tokio::time::sleep(ATTACH_WAIT).await;
            }
            answer => return answer,
        }
    }
    tokio::task::block_in_place(|| logs.attach(source))
}
