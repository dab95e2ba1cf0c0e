//! Removes images that nobody uses before the disk is full.
//!
//! ```text
//! every gc_every_s: statvfs(ROOT) ── below the high mark ──> nothing
//!        '── above it: which images do live instances name? (core) ──> layerfs: choose, evict, gc ──> log, event, metrics
//! ```
//! Which go is layerfs's choice, made of what images take and when they were used last: the least recently used first,
//! none that is leased. One that is wanted again is fetched again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use celda_api::cell::v1;
use celda_layerfs::Digest;
use celda_layerfs::pull::{PullOptions, resolve_local};
use celda_layerfs::reference::Reference;
use celda_layerfs::store::{ImageUse, choose};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::oneshot;

use super::config::ImagesConfig;
use super::core::{Call, Input, Parts, now_ms};
use super::error::{CellError, Result};
use super::events::Events;
use super::image::Images;
use super::metrics::Metrics;

/// The thread that looks. It ends when this is dropped, and when what it is at is done.
#[derive(Debug)]
pub struct ImageGc {
    _ends: Sender<()>,
}

/// What the thread works with.
struct Collector {
    config: ImagesConfig,
    images: Arc<Images>,
    core: Sender<Input>,
    events: Arc<Events>,
    metrics: Arc<Metrics>,
}

impl ImageGc {
    /// Begins to look, at once and then as often as is configured.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(parts: &Parts) -> Result<Self> {
        let collector = Collector {
            config: parts.config.images.clone(),
            images: Arc::clone(&parts.ground.images),
            core: parts.sender.clone(),
            events: Arc::clone(&parts.events),
            metrics: Arc::clone(&parts.metrics),
        };
        let (ends, ended) = crossbeam_channel::bounded(0);
        let spawned =
            std::thread::Builder::new().name("image-gc".into()).spawn(move || collector.run(&ended));
        spawned.map_err(CellError::io("start a thread for", parts.ground.root.as_path()))?;
        Ok(Self { _ends: ends })
    }
}

impl Collector {
    fn run(self, ended: &Receiver<()>) {
        let every = Duration::from_secs(self.config.gc_every_s);
        loop {
            if let Err(error) = self.look() {
                tracing::warn!(%error, "images were not collected; they are looked at again");
            }
            if ended.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn look(&self) -> crate::Result<()> {
        let root = self.images.store().root();
        let facts = rustix::fs::statvfs(root)
            .map_err(|errno| crate::Error::io("look at the space of", root)(errno.into()))?;
        let blocks = facts.f_blocks.saturating_sub(facts.f_bfree);
        let disk =
            Disk { used_bytes: blocks * facts.f_frsize, available_bytes: facts.f_bavail * facts.f_frsize };
        self.metrics.disk_used(disk.used_percent());
        let Some(wanted_bytes) = disk.wanted_bytes(&self.config) else { return Ok(()) };
        // The core is gone when the agent ends.
        let Some(named) = self.named() else { return Ok(()) };
        self.collect(named, wanted_bytes, disk.used_percent())
    }

    /// The images of instances that run or will.
    fn named(&self) -> Option<Vec<Reference>> {
        let (answer, answered) = oneshot::channel();
        self.core.send(Input::Call(Call::Images(answer))).ok()?;
        answered.blocking_recv().ok()
    }

    fn collect(&self, named: Vec<Reference>, wanted_bytes: u64, used_percent: u64) -> crate::Result<()> {
        let store = self.images.store();
        let mut kept = BTreeSet::new();
        for reference in named {
            let record = resolve_local(store, &reference, &PullOptions::default())?;
            kept.extend(record.map(|record| record.manifest));
        }
        let uses = store.image_uses(&kept)?;
        let choice = choose(&uses, wanted_bytes);
        if choice.freed_bytes < wanted_bytes {
            let short_bytes = wanted_bytes - choice.freed_bytes;
            tracing::warn!(
                used_percent,
                short_bytes,
                "the disk is filling, and not by images that nobody uses: free some space, or `celda gc`"
            );
        }
        if choice.manifests.is_empty() {
            return Ok(());
        }
        let gone = store.evict(&choice.manifests)?;
        for chain in chains(&uses, &gone) {
            self.images.ladder().unpin_image(&chain);
        }
        let (report, unfreed) = store.gc_unfreed(&crate::orphan::end)?;
        drop(unfreed);
        self.metrics.images_removed(gone.len() as u64, report.freed_bytes);
        for (manifest, names) in gone {
            let last_use_s = uses.iter().find(|one| one.manifest == manifest).map_or(0, |one| one.last_use_s);
            tracing::info!(%manifest, ?names, last_use_s, used_percent, "an image that nobody used was removed");
            let image_gone = v1::ImageGone {
                manifest: manifest.to_string(),
                names,
                last_use_s: u64::try_from(last_use_s).unwrap_or(0),
                used_percent: u32::try_from(used_percent).unwrap_or(u32::MAX),
            };
            let image_gone = Some(image_gone);
            self.events.push([v1::Event { at_ms: now_ms(), image_gone, ..v1::Event::default() }]);
        }
        tracing::info!(freed_bytes = report.freed_bytes, wanted_bytes, "images were collected");
        Ok(())
    }
}

/// The chains of layers that images were mounted from.
fn chains(uses: &[ImageUse], gone: &[(Digest, Vec<String>)]) -> BTreeSet<Digest> {
    let is_gone = |one: &&ImageUse| gone.iter().any(|(manifest, _)| *manifest == one.manifest);
    uses.iter().filter(is_gone).map(|one| one.chain_id).collect()
}

/// What a filesystem has, for users without privilege.
#[derive(Debug, Clone, Copy)]
struct Disk {
    used_bytes: u64,
    available_bytes: u64,
}

impl Disk {
    fn bytes(self) -> u64 {
        self.used_bytes.saturating_add(self.available_bytes)
    }

    /// As df counts: what is kept for root is neither used nor there.
    fn used_percent(self) -> u64 {
        percent_of(self.used_bytes, self.bytes())
    }

    /// What has to go to come below the low mark; nothing below the high one.
    fn wanted_bytes(self, config: &ImagesConfig) -> Option<u64> {
        if config.gc_high_percent == 100 || self.used_percent() < u64::from(config.gc_high_percent) {
            return None;
        }
        let low_bytes = u128::from(self.bytes()) * u128::from(config.gc_low_percent) / 100;
        let above_bytes = u128::from(self.used_bytes).saturating_sub(low_bytes);
        Some(u64::try_from(above_bytes).unwrap_or(u64::MAX)).filter(|bytes| *bytes > 0)
    }
}

fn percent_of(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted_bytes(used_bytes: u64, available_bytes: u64, high: u32, low: u32) -> Option<u64> {
        let config = ImagesConfig { gc_high_percent: high, gc_low_percent: low, gc_every_s: 1 };
        Disk { used_bytes, available_bytes }.wanted_bytes(&config)
    }

    #[test]
    fn between_the_marks_nothing_goes() {
        assert_eq!(wanted_bytes(849, 151, 85, 75), None);
        assert_eq!(wanted_bytes(850, 150, 85, 75), Some(100));
        assert_eq!(wanted_bytes(1000, 0, 85, 75), Some(250));
        assert_eq!(wanted_bytes(1000, 0, 85, 0), Some(1000));
    }

    #[test]
    fn a_mark_of_a_hundred_is_never_reached_and_odd_disks_are_no_trouble() {
        assert_eq!(wanted_bytes(1000, 0, 100, 75), None);
        assert_eq!(wanted_bytes(0, 0, 85, 75), None, "a filesystem that counts nothing");
        assert_eq!(wanted_bytes(u64::MAX, u64::MAX, 50, 40), Some(u64::MAX - u64::MAX / 5 * 2));
    }
}
