//! What went away before it was sent: a notice for each log, as many as are kept, and the count of lines beyond.

use std::collections::VecDeque;

use super::Line;

/// Notices that wait to be sent. An outage may be long, and the instances that come and go meanwhile are many.
pub(super) const NOTICES_MAX: usize = 4096;

/// Notices with the lines that each tells of.
#[derive(Debug, Default)]
pub(super) struct Gone {
    notices: VecDeque<(Line, u64)>,
    /// Lines that no notice tells of.
    untold_count: u64,
}

impl Gone {
    /// Has a notice sent, or, when too many wait, the lines that it tells of counted when the next one is.
    pub(super) fn push(&mut self, notice: Line, lost_count: u64) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push_back((notice, lost_count));
            return;
        }
        if self.untold_count == 0 {
            tracing::warn!(
                "{NOTICES_MAX} notices of lost lines wait to be forwarded: further ones are counted only"
            );
        }
        self.untold_count += lost_count;
    }

    /// At most so many notices, and the lines that are lost.
    pub(super) fn take(&mut self, notices_max: usize) -> (Vec<Line>, u64) {
        let count = self.notices.len().min(notices_max);
        let (mut lines, mut lost_count) = (Vec::with_capacity(count), 0);
        for (notice, count) in self.notices.drain(..count) {
            lines.push(notice);
            lost_count += count;
        }
        if count > 0 {
            lost_count += std::mem::take(&mut self.untold_count);
        }
        (lines, lost_count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::logs::{Entry, Stream};

    #[test]
    fn notices_are_bounded_and_every_lost_line_is_counted() {
        let notice = |sequence| {
            let stream = Stream::Notice;
            let entry = Entry { sequence, time_ns: 0, stream, is_partial: false, payload: Vec::new() };
            Line { id: "web-0".into(), app: "shop".into(), index: 0, entry }
        };
        let mut gone = Gone::default();
        let count = NOTICES_MAX as u64 + 10;
        for sequence in 0..count {
            gone.push(notice(sequence), 2);
        }
        assert_eq!(gone.notices.len(), NOTICES_MAX);
        let (mut lines, mut lost_count) = (Vec::new(), 0);
        loop {
            let (taken, lost) = gone.take(1000);
            if taken.is_empty() {
                assert_eq!(lost, 0);
                break;
            }
            lines.extend(taken);
            lost_count += lost;
        }
        assert_eq!(lost_count, 2 * count);
        assert!(lines.iter().zip(0..).all(|(line, sequence)| line.entry.sequence == sequence));
    }
}
