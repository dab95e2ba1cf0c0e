//! From the logs of all instances to batches: round robin, so that one that writes without end keeps no other back.

use std::collections::{BTreeMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::catalog::Catalog;
use super::gone::Gone;
use super::places::Places;
use super::{BATCH_BYTES, BATCH_LINES_MAX, Line};
use crate::cell::core::Written;
use crate::cell::logs::{Entry, Follower, From, Log, Stream};

/// Bytes read of a log before it is the next one's turn.
const CHUNK_BYTES: usize = 16 << 10;

/// One instance's log.
struct Source {
    id: Arc<str>,
    app: Arc<str>,
    index: u32,
    log: Log,
    /// It costs a file: nothing for a log that is at its end for good.
    follower: Option<Follower>,
    is_over: bool,
    /// Sequence of the record that is read next.
    next: u64,
}

/// Lines to be sent, and the places after them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<Line>,
    /// Lines that are gone, which notices among `lines` tell of.
    pub(super) lost_count: u64,
    places: Vec<(String, u64)>,
}

pub(super) struct Reader<C> {
    catalog: C,
    places: Places,
    sources: BTreeMap<String, Source>,
    /// The log that was read last.
    last: String,
    /// No list was read yet.
    is_first: bool,
    /// Ended instances that have none.
    without: HashSet<String>,
    gone: Gone,
}

impl<C: Catalog> Reader<C> {
    pub(super) fn new(catalog: C, places: Places) -> Self {
        Self {
            catalog,
            places,
            sources: BTreeMap::new(),
            last: String::new(),
            is_first: true,
            without: HashSet::new(),
            gone: Gone::default(),
        }
    }

    pub(super) fn places(&mut self) -> &mut Places {
        &mut self.places
    }

    /// Takes up logs that are new, and lets go those that are gone.
    pub(super) async fn refresh(&mut self) {
        if !self.catalog.has_changed() {
            return;
        }
        let Some(known) = self.catalog.list().await else { return };
        let names: HashSet<String> = known.iter().map(|one| one.name.clone()).collect();
        for one in known {
            self.take_up(one).await;
        }
        self.is_first = false;
        let gone: Vec<_> = self.sources.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            if let Some(source) = self.sources.remove(&name) {
                let lost_count = source.log.next_sequence().saturating_sub(source.next);
                if lost_count > 0 {
                    self.gone.push(source.notice(lost_count, "its instance was removed"), lost_count);
                }
            }
        }
        self.without.retain(|name| names.contains(name));
        self.places.retain(|name| names.contains(name));
    }

    async fn take_up(&mut self, one: Written) {
        if let Some(source) = self.sources.get_mut(&one.name) {
            source.is_over = one.is_over;
            source.let_go();
            // Another container of the instance writes on where the last one ended.
            if let Some(log) = one.log.filter(|log| !log.is_same(&source.log)) {
                (source.log, source.follower) = (log, None);
            }
            return;
        }
        let log = match &one.log {
            Some(log) => log.clone(),
            // It begins, or goes on, when its container runs.
            None if !one.is_over || self.without.contains(&one.name) => return,
            None => match self.catalog.open(&one).await {
                Ok(Some(log)) => log,
                Ok(None) => {
                    self.without.insert(one.name);
                    return;
                }
                Err(error) => return tracing::warn!(log = one.name, %error, "a log is not forwarded"),
            },
        };
        let Written { id, app, index, name, is_over, .. } = one;
        let next = match self.places.next(&name) {
            Some(next) => next,
            // What was gone before there was a forwarder, or while nobody knows its place, is not its loss.
            None if self.is_first => log.follower(From::Oldest).map_or(0, |oldest| oldest.next_sequence()),
            None => 0,
        };
        let source = Source { id: id.into(), app: app.into(), index, log, follower: None, is_over, next };
        self.sources.insert(name, source);
    }

    /// What there is to be sent now; nothing when that is nothing. Files that were just written are read from memory, all
    /// the same the caller is to see to it that nobody waits.
    pub(super) fn fill(&mut self) -> Option<Batch> {
        let (lines, lost_count) = self.gone.take(BATCH_LINES_MAX);
        let mut batch = Batch { lines, lost_count, places: Vec::new() };
        let mut bytes = 0;
        let after = self.sources.range::<str, _>((Bound::Excluded(self.last.as_str()), Bound::Unbounded));
        let mut names: Vec<String> =
            after.filter(|(_, source)| source.has_more()).map(|(name, _)| name.clone()).collect();
        let before = self.sources.range::<str, _>((Bound::Unbounded, Bound::Included(self.last.as_str())));
        names.extend(before.filter(|(_, source)| source.has_more()).map(|(name, _)| name.clone()));
        for name in names {
            if batch.lines.len() >= BATCH_LINES_MAX || bytes >= BATCH_BYTES {
                break;
            }
            let Some(source) = self.sources.get_mut(&name) else { continue };
            match source.read(&mut batch) {
                Ok(read_bytes) => bytes += read_bytes,
                // Its files are gone, most likely with the instance: that is told when it is out of the catalog.
                Err(error) => tracing::debug!(log = name, %error, "a log is not read"),
            }
            batch.places.push((name.clone(), source.next));
            self.last = name;
        }
        (!batch.lines.is_empty()).then_some(batch)
    }

    /// The other side has it.
    pub(super) fn done(&mut self, batch: Batch) {
        // That of a log which went away meanwhile goes with the next list.
        for (name, next) in batch.places {
            self.places.set(&name, next);
        }
    }
}

impl Source {
    fn has_more(&self) -> bool {
        self.next < self.log.next_sequence()
    }

    /// Adds about a chunk of what is next, and answers its bytes.
    fn read(&mut self, batch: &mut Batch) -> crate::cell::logs::Result<usize> {
        let mut follower = match self.follower.take() {
            Some(follower) => follower,
            None => self.log.follower(From::Sequence(self.next))?,
        };
        let chunk = follower.read(CHUNK_BYTES)?;
        if chunk.missed_count > 0 {
            batch.lines.push(self.notice(chunk.missed_count, "its files were full before they were sent"));
            batch.lost_count += chunk.missed_count;
        }
        let mut bytes = 0;
        for entry in chunk.entries {
            bytes += entry.payload.len();
            batch.lines.push(self.line(entry));
        }
        self.next = follower.next_sequence();
        self.follower = Some(follower);
        self.let_go();
        Ok(bytes)
    }

    fn let_go(&mut self) {
        if self.is_over && !self.has_more() {
            self.follower = None;
        }
    }

    fn line(&self, entry: Entry) -> Line {
        Line { id: Arc::clone(&self.id), app: Arc::clone(&self.app), index: self.index, entry }
    }

    fn notice(&self, lost_count: u64, why: &str) -> Line {
        let time_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
        let payload = format!("celda: {lost_count} lines were lost before they were forwarded: {why}");
        let (stream, payload) = (Stream::Notice, payload.into_bytes());
        self.line(Entry { sequence: self.next, time_ns, stream, is_partial: false, payload })
    }
}
