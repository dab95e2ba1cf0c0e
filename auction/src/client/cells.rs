//! The cells that a process knows, and a link to each.

use super::Options;
use super::link::{Link, NotSent, Traffic};
use crate::ledger::ReservationId;
use crate::membership::{Change, Member, Membership};
use crate::transport::{Error, Result};
use crate::view::{CellIndex, View};
use crate::wire::{Action, SettleRequest, Settled};
use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;
use tokio::sync::oneshot;

/// Connections that are opened at the same time when all are.
const CONNECTING_MAX: usize = 64;

/// The cells that a process knows. Clones are the same cells.
#[derive(Debug, Clone)]
pub struct Cells(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Arc<Options>,
    began: Instant,
    connections: Arc<AtomicU32>,
    world: RwLock<World>,
}

/// Who there is.
#[derive(Debug, Default)]
pub(super) struct World {
    pub(super) view: View,
    entries: Vec<Option<Entry>>,
    by_name: HashMap<Box<str>, CellIndex>,
    /// What went over links that are gone.
    gone: Traffic,
}

#[derive(Debug)]
struct Entry {
    link: Arc<Link>,
    joined_us: u64,
}

impl World {
    /// The link of a cell that was there at `since_us`. An index of a cell that left is given to another one, so a
    /// round that began before must not use it: it would mean the other.
    pub(super) fn link(&self, cell: CellIndex, since_us: u64) -> Result<&Arc<Link>, NotSent> {
        let entry = self.entries.get(cell.0 as usize).and_then(Option::as_ref);
        match entry.filter(|entry| entry.joined_us <= since_us) {
            Some(entry) => Ok(&entry.link),
            None => Err(NotSent("it left")),
        }
    }

    fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.entries.iter().flatten().map(|entry| &entry.link)
    }

    fn remove(&mut self, name: &str) -> bool {
        let Some(cell) = self.by_name.remove(name) else { return false };
        // Both were added together.
        let _ = self.view.leave(cell);
        if let Some(entry) = self.entries[cell.0 as usize].take() {
            entry.link.leave();
            self.gone += entry.link.traffic();
        }
        true
    }
}

impl Cells {
    /// No cells yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self(Arc::new(Inner {
            options: Arc::new(options),
            began: Instant::now(),
            connections: Arc::default(),
            world: RwLock::default(),
        }))
    }

    /// Takes in a change: a cell joined, is different from now on, or left.
    ///
    /// # Errors
    /// [`Error::Member`] for a class, zone or number of cells that a view cannot keep, [`Error::NoMember`].
    pub fn apply(&self, change: Change) -> Result<()> {
        let now_us = self.now_us();
        let mut world = self.write();
        match change {
            Change::Left(name) => {
                if world.remove(&name) {
                    Ok(())
                } else {
                    Err(Error::NoMember { name: name.into() })
                }
            }
            Change::Joined(member) => {
                world.remove(&member.name);
                let view = &mut world.view;
                let joined = view.zone(&member.zone).and_then(|zone| {
                    let class = view.class(&member.class)?;
                    view.join(class, zone)
                });
                let cell =
                    joined.map_err(|source| Error::Member { name: member.name.to_string(), source })?;
                let index = cell.0 as usize;
                if world.entries.len() <= index {
                    world.entries.resize_with(index + 1, || None);
                }
                world.by_name.insert(member.name.clone(), cell);
                let (options, connections) = (self.0.options.clone(), self.0.connections.clone());
                let link = Arc::new(Link::new(member, options, connections));
                world.entries[index] = Some(Entry { link, joined_us: now_us });
                Ok(())
            }
        }
    }

    /// Takes in all changes of a source, until it has no more. Stops when the future is dropped.
    ///
    /// # Errors
    /// Those of [`Self::apply`].
    pub async fn follow(&self, mut membership: impl Membership) -> Result<()> {
        while let Some(change) = membership.next().await {
            self.apply(change)?;
        }
        Ok(())
    }

    /// Opens the connections to all cells that have none, so that the first batches need not wait for it. Says how many
    /// cells are connected.
    pub async fn connect(&self) -> usize {
        let links: Vec<Arc<Link>> = self.read().links().cloned().collect();
        let mut connected = 0;
        for some in links.chunks(CONNECTING_MAX) {
            let warmed = futures_util::future::join_all(some.iter().map(Link::warm)).await;
            connected += warmed.into_iter().filter(|is_open| *is_open).count();
        }
        connected
    }

    /// How many cells there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.read().view.cells_count()
    }

    /// The cell of this name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<Arc<Member>> {
        self.find(name).ok().map(|link| link.member().clone())
    }

    /// What went over all links so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let world = self.read();
        let mut sum = world.gone;
        world.links().for_each(|link| sum += link.traffic());
        sum
    }

    /// Commits or releases `count` reservations of a cell, from `first` on, and says what became of them. Asks again,
    /// with the same ids, when no answer comes.
    ///
    /// # Errors
    /// [`Error::NoMember`]; [`Error::NotSent`]; [`Error::Deadline`] when it is not known what became of them;
    /// [`Error::Answer`].
    pub async fn settle(
        &self,
        cell: &str,
        first: ReservationId,
        count: u32,
        action: Action,
    ) -> Result<Settled> {
        let options = &self.0.options;
        let name = || cell.to_owned();
        let mut is_sent = false;
        for _ in 0..options.settle_sends_max.max(1) {
            let (sender, receiver) = oneshot::channel();
            let sent = self.find(cell)?.settle(SettleRequest { first, count, action }, Some(sender));
            match sent {
                Ok(()) => is_sent = true,
                Err(NotSent(why)) if !is_sent => return Err(Error::NotSent { name: name(), why }),
                // It broke off just now; what was sent may have arrived, so the answer is of worth still.
                Err(NotSent(_)) => {
                    tokio::time::sleep(options.settle_deadline).await;
                    continue;
                }
            }
            // Otherwise the connection ended, or nothing came.
            if let Ok(Ok(answer)) = tokio::time::timeout(options.settle_deadline, receiver).await {
                return answer.map_err(|source| Error::Answer { name: name(), source });
            }
        }
        let waited = options.settle_deadline.saturating_mul(options.settle_sends_max.max(1));
        Err(Error::Deadline { name: name(), deadline_ms: waited.as_millis() as u64 })
    }

    fn find(&self, name: &str) -> Result<Arc<Link>> {
        let world = self.read();
        let cell = world.by_name.get(name).copied();
        let entry = cell.and_then(|cell| world.entries[cell.0 as usize].as_ref());
        entry.map(|entry| entry.link.clone()).ok_or_else(|| Error::NoMember { name: name.to_owned() })
    }

    pub(super) fn began(&self) -> Instant {
        self.0.began
    }

    /// The time of rounds, in microseconds since the cells were made.
    pub(super) fn now_us(&self) -> u64 {
        self.0.began.elapsed().as_micros() as u64
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, World> {
        self.0.world.read().expect("nothing panics while it holds this")
    }

    fn write(&self) -> RwLockWriteGuard<'_, World> {
        self.0.world.write().expect("nothing panics while it holds this")
    }
}
