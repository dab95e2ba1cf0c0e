//! Ctrl-C, as a value: what ends requests, waits and writes early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often whatever waits looks whether it was cancelled.
#[cfg(feature = "registry")]
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(25);

/// Ends a pull early from any thread or signal handler. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    own: Arc<AtomicBool>,
    parent: Option<Arc<AtomicBool>>,
}

impl Cancel {
    /// One that nobody has cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that is cancelled by setting `flag`, as a signal handler can.
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self { own: flag, parent: None }
    }

    /// Asks whoever holds a clone to stop.
    pub fn cancel(&self) {
        self.own.store(true, Ordering::Release);
    }

    /// Whether [`cancel`](Self::cancel) was called on this one or on the one it is a child of.
    pub fn is_cancelled(&self) -> bool {
        self.own.load(Ordering::Acquire)
            || self.parent.as_ref().is_some_and(|parent| parent.load(Ordering::Acquire))
    }

    /// One that is cancelled with this one, and can be alone: how a failed layer stops the others.
    pub(crate) fn child(&self) -> Self {
        Self { own: Arc::default(), parent: Some(Arc::clone(&self.own)) }
    }

    /// Returns once cancelled. A poll, because a signal handler can do no more than set a flag.
    #[cfg(feature = "registry")]
    pub(crate) async fn cancelled(&self) {
        while !self.is_cancelled() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
