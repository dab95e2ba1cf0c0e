//! The logs of the cell's instances, as the core knows them.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_channel::Sender;
use tokio::sync::{oneshot, watch};

use crate::cell::core::{Call, Input, Written, open_log};
use crate::cell::logs::{Limits, Log, Logs, LogsError};

/// Which logs there are.
pub trait Catalog: Send + 'static {
    /// Whether there may be other logs than when this was last asked.
    fn has_changed(&mut self) -> bool;
    /// All of them; nothing when nobody can say for now.
    fn list(&self) -> impl Future<Output = Option<Vec<Written>>> + Send;
    /// One that nobody writes any more; nothing of an instance that never ran.
    fn open(&self, written: &Written) -> impl Future<Output = Result<Option<Log>, LogsError>> + Send;
}

/// What the core knows.
#[derive(Debug)]
pub struct OfCore {
    core: Sender<Input>,
    news: watch::Receiver<u64>,
    logs: Arc<Logs>,
    limits: Limits,
    /// Of all logs.
    root: PathBuf,
    is_new: bool,
}

impl OfCore {
    /// Of a core that is reached by `core`, and says by `news` when there is something new.
    pub fn new(
        core: Sender<Input>,
        news: watch::Receiver<u64>,
        logs: Arc<Logs>,
        limits: Limits,
        root: PathBuf,
    ) -> Self {
        Self { core, news, logs, limits, root, is_new: true }
    }
}

impl Catalog for OfCore {
    fn has_changed(&mut self) -> bool {
        let has_news = self.news.has_changed().unwrap_or(false);
        self.news.mark_unchanged();
        std::mem::take(&mut self.is_new) || has_news
    }

    async fn list(&self) -> Option<Vec<Written>> {
        let (answer, answered) = oneshot::channel();
        self.core.send(Input::Call(Call::EveryLog(answer))).ok()?;
        answered.await.ok()
    }

    async fn open(&self, written: &Written) -> Result<Option<Log>, LogsError> {
        if !self.root.join(&written.name).exists() {
            return Ok(None);
        }
        open_log(&self.logs, self.limits, written).await.map(Some)
    }
}
