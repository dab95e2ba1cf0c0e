//! The images that instances run from: leased and mounted once for all of them, fetched once however many wait.
//!
//! ```text
//! open(wish, then) ── here ──> then(image), at once
//!                 └── not here ──> a puller's thread ──> then(image) of everybody who waits for it
//!                                    ^ abandoned by all of them: cancelled
//! ```
//! An image stays leased while a container of it is prepared or runs, and a minute longer.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use celda_layerfs::mount::{Ladder, RootPool};
use celda_layerfs::progress::Silent;
use celda_layerfs::pull::{PullOptions, PullPolicy, pull, resolve_local};
use celda_layerfs::reference::Reference;
use celda_layerfs::store::{ImageLease, ImageRecord, Store};
use celda_layerfs::{Cancel, Digest};
use crossbeam_channel::Sender;

use super::config::Limits;
use super::wish::Wish;
use crate::Result;

/// How long an image that nobody uses is kept mounted, with its spare roots.
const IDLE_WAIT: Duration = Duration::from_secs(60);
/// How long a name is taken to mean the image that it meant.
const NAME_WAIT: Duration = Duration::from_secs(1);
/// What those are told who do not wait any more.
const ABANDONED: &str = "it was stopped before its image was here";

/// An image that containers run from.
#[derive(Debug)]
pub struct Image {
    /// What the store knows of it.
    pub record: ImageRecord,
    /// Keeps it from the store's collection.
    pub lease: ImageLease,
    /// Its mount, which the overlays lie over.
    pub lower: OwnedFd,
    /// Roots that the last container left untouched.
    pub roots: RootPool,
    /// By which it is mounted.
    ladder: Ladder,
}

impl Drop for Image {
    fn drop(&mut self) {
        if let Err(error) = self.roots.clear() {
            tracing::warn!(%error, "spare roots of an image were left behind");
        }
        self.ladder.release(self.lower.as_fd());
    }
}

/// What is to be done with an image, or with why there is none.
pub type Then = Box<dyn FnOnce(std::result::Result<Arc<Image>, String>) + Send>;

/// All images in use.
#[derive(Debug)]
pub struct Images {
    store: Store,
    ladder: Ladder,
    /// Used roots kept of each.
    roots_count_max: usize,
    shared: Mutex<Shared>,
    /// With the number of the wait that wants it.
    pulls: Sender<(Reference, u64)>,
}

#[derive(Default)]
struct Shared {
    /// By manifest.
    open: HashMap<Digest, Open>,
    /// What names meant when they were looked up last.
    names: HashMap<String, (Digest, Instant)>,
    /// Who waits for a pull, by the reference's text.
    waiting: HashMap<String, Waiting>,
    waits_count: u64,
    /// When used roots were looked through last.
    trimmed_at: Option<Instant>,
}

/// Those who wait for one pull.
struct Waiting {
    /// Another pull of the same reference has another.
    number: u64,
    /// Of the pull.
    cancel: Cancel,
    /// Each with its own: cancelled, it does not wait any more.
    all: Vec<(Cancel, Then)>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("open", &self.open).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Open {
    image: Arc<Image>,
    used_at: Instant,
}

impl Images {
    /// Images of a store, with pulls and used roots as many as the limits say.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn new(store: Store, ladder: Ladder, limits: &Limits) -> std::io::Result<Arc<Self>> {
        // As many as there are instances can wait, each for another image.
        let (pulls, wanted) = crossbeam_channel::unbounded();
        let roots_count_max = limits.roots_spare_max as usize;
        let images = Arc::new(Self { store, ladder, roots_count_max, shared: Mutex::default(), pulls });
        for _ in 0..limits.pulls_count {
            let (images, wanted) = (Arc::downgrade(&images), wanted.clone());
            std::thread::Builder::new().name("puller".into()).spawn(move || {
                for (reference, number) in wanted {
                    let Some(images) = images.upgrade() else { return };
                    images.fetch(&reference, number);
                }
            })?;
        }
        Ok(images)
    }

    /// The ladder by which they are mounted.
    pub fn ladder(&self) -> &Ladder {
        &self.ladder
    }

    /// Where they are.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the image of a wish and does `then` with it: at once, or on another thread when it was fetched, or
    /// [abandoned](Self::abandon) because `cancel` was.
    pub fn open(&self, wish: &Wish, cancel: &Cancel, then: Then) {
        let found = match self.known(&wish.image) {
            Some(image) => Ok(Some(image)),
            None => self.look(&wish.image).map_err(|error| error.to_string()),
        };
        match found {
            Ok(Some(image)) => then(Ok(image)),
            Err(error) => then(Err(error)),
            Ok(None) if wish.pull == PullPolicy::Never => {
                then(Err(format!("image {} is not here, and is not to be pulled", wish.image)));
            }
            Ok(None) => {
                let mut shared = self.shared();
                if cancel.is_cancelled() {
                    drop(shared); // after this look whoever abandons it finds it among those who wait
                    return then(Err(ABANDONED.into()));
                }
                let Shared { waiting, waits_count, .. } = &mut *shared;
                let waiting = waiting.entry(wish.image.to_string()).or_insert_with(|| {
                    *waits_count += 1;
                    let _ = self.pulls.send((wish.image.clone(), *waits_count));
                    Waiting { number: *waits_count, cancel: Cancel::default(), all: Vec::new() }
                });
                waiting.all.push((cancel.clone(), then));
            }
        }
    }

    /// Answers those who wait for this image and were cancelled; when nobody else waits, its pull is cancelled too.
    pub fn abandon(&self, reference: &Reference) {
        let name = reference.to_string();
        let mut shared = self.shared();
        let Some(waiting) = shared.waiting.get_mut(&name) else { return };
        let abandoned: Vec<_> = waiting.all.extract_if(.., |(cancel, _)| cancel.is_cancelled()).collect();
        if waiting.all.is_empty()
            && let Some(waiting) = shared.waiting.remove(&name)
        {
            waiting.cancel.cancel();
        }
        drop(shared);
        for (_, then) in abandoned {
            then(Err(ABANDONED.into()));
        }
    }

    /// The image that the name meant a moment ago.
    fn known(&self, reference: &Reference) -> Option<Arc<Image>> {
        let mut shared = self.shared();
        let (manifest, looked_at) = *shared.names.get(&reference.to_string())?;
        let open = shared.open.get_mut(&manifest)?;
        if looked_at.elapsed() > NAME_WAIT {
            return None;
        }
        open.used_at = Instant::now();
        Some(Arc::clone(&open.image))
    }

    fn look(&self, reference: &Reference) -> Result<Option<Arc<Image>>> {
        match resolve_local(&self.store, reference, &PullOptions::default())? {
            Some(record) => self.opened(reference, record).map(Some),
            None => Ok(None),
        }
    }

    /// The image of a record, leased and mounted.
    fn opened(&self, reference: &Reference, record: ImageRecord) -> Result<Arc<Image>> {
        let now = Instant::now();
        let name = reference.to_string();
        let mut shared = self.shared();
        shared.names.insert(name, (record.manifest, now));
        if let Some(open) = shared.open.get_mut(&record.manifest) {
            open.used_at = now;
            return Ok(Arc::clone(&open.image));
        }
        // Under the lock: those who want it next wait for this mount and make none of their own. It takes 0.2 ms.
        let lease = self.store.lease(&record)?;
        let lower = self.ladder.shared_image(&record.chain_id, lease.source(), lease.tars())?;
        let (ladder, roots) = (self.ladder.clone(), RootPool::new(self.roots_count_max));
        let image = Arc::new(Image { record, lease, lower, roots, ladder });
        shared.open.insert(image.record.manifest, Open { image: Arc::clone(&image), used_at: now });
        Ok(image)
    }

    fn fetch(&self, reference: &Reference, number: u64) {
        let name = reference.to_string();
        let of_ours = |waiting: &Waiting| waiting.number == number;
        let Some(cancel) =
            self.shared().waiting.get(&name).filter(|one| of_ours(one)).map(|one| one.cancel.clone())
        else {
            return; // nobody waits any more
        };
        let options = PullOptions::default();
        let silent: Arc<dyn celda_layerfs::progress::Progress> = Arc::new(Silent);
        tracing::info!(image = name, "pulling");
        let pulled = pull(&self.store, reference, &options, &silent, &cancel);
        let image = pulled.map_err(crate::Error::from).and_then(|record| self.opened(reference, record));
        let image = image.map_err(|error| error.to_string());
        let mut shared = self.shared();
        let is_ours = shared.waiting.get(&name).is_some_and(of_ours);
        let waiting = if is_ours { shared.waiting.remove(&name) } else { None };
        drop(shared);
        for (_, then) in waiting.into_iter().flat_map(|waiting| waiting.all) {
            then(image.clone());
        }
    }

    /// Lets go of images that nobody has used for a while, and of used roots that nobody needed meanwhile.
    pub fn sweep(&self) {
        let mut shared = self.shared();
        let is_idle = |open: &Open| Arc::strong_count(&open.image) == 1 && open.used_at.elapsed() > IDLE_WAIT;
        let idle: Vec<Open> = shared.open.extract_if(|_, open| is_idle(open)).map(|(_, open)| open).collect();
        let Shared { open, names, trimmed_at, .. } = &mut *shared;
        names.retain(|_, (manifest, _)| open.contains_key(manifest));
        let is_time = trimmed_at.is_none_or(|at| at.elapsed() > IDLE_WAIT);
        let trimmed: Vec<_> = open.values().filter(|_| is_time).map(|open| Arc::clone(&open.image)).collect();
        if is_time {
            *trimmed_at = Some(Instant::now());
        }
        drop(shared);
        for open in &idle {
            self.store.touch(&open.image.record.chain_id);
        }
        drop(idle); // their spare roots are removed without the lock
        for image in trimmed {
            if let Err(error) = image.roots.trim() {
                tracing::warn!(%error, "spare roots of an image were left behind");
            }
        }
    }

    /// Lets go of all images that nobody uses.
    pub fn close(&self) {
        let mut shared = self.shared();
        let open = std::mem::take(&mut shared.open);
        drop(shared);
        for open in open.values() {
            self.store.touch(&open.image.record.chain_id);
        }
        drop(open);
    }
}
