//! Strangers' tasks, at most so many at once: one more ends the oldest.
//!
//! Whoever is quick is never the oldest for long, so those who stall cost each other their places, and nobody else's.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::{AbortHandle, JoinSet};

/// Tasks that end with it.
#[derive(Debug)]
pub struct Crowd {
    tasks: JoinSet<()>,
    oldest_first: VecDeque<AbortHandle>,
    max: usize,
}

impl Crowd {
    /// Of at most so many.
    pub fn new(max: usize) -> Self {
        Self { tasks: JoinSet::new(), oldest_first: VecDeque::new(), max }
    }

    /// Adds one.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        if self.oldest_first.len() >= self.max {
            self.oldest_first.retain(|task| !task.is_finished());
        }
        if self.oldest_first.len() >= self.max
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            oldest.abort();
        }
        self.oldest_first.push_back(self.tasks.spawn(task));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    #[tokio::test]
    async fn the_oldest_makes_room_and_who_is_done_counts_no_more() {
        let (told, mut ends) = mpsc::unbounded_channel();
        struct Says(u32, mpsc::UnboundedSender<u32>);
        impl Drop for Says {
            fn drop(&mut self) {
                let _ = self.1.send(self.0);
            }
        }
        let mut crowd = Crowd::new(2);
        for number in [1, 2] {
            let says = Says(number, told.clone());
            crowd.spawn(async move {
                std::future::pending::<()>().await;
                drop(says);
            });
        }
        let says = Says(3, told.clone());
        crowd.spawn(async move { drop(says) });
        assert_eq!(ends.recv().await, Some(1), "the oldest ended");
        assert_eq!(ends.recv().await, Some(3), "done");
        tokio::task::yield_now().await;
        let says = Says(4, told.clone());
        crowd.spawn(async move { drop(says) });
        assert_eq!(ends.recv().await, Some(4), "in the place of the one that was done");
        drop(crowd);
        assert_eq!(ends.recv().await, Some(2));
    }
}
