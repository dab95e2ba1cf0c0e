//! From an image's name to an image in the store.
//!
//! ```text
//! resolve_local     name -> record: two small files read, nothing else
//! pull              Source: manifest -> config -> layers, side by side:
//!                       source.layer --bytes--> store.ingest (two digests)      one worker thread per layer
//!                   then store.build_index -> store.put_image                   the name comes last
//! Refetch           one layer or document again, for `verify`
//! ```
//!
//! The first layer that fails stops the others; what is published by then is whole and stays for the next attempt.

mod fetch;
mod layers;
mod local;
mod refetch;

use std::sync::Arc;

pub use local::resolve_local;
pub use refetch::Refetch;

use crate::platform::Platform;
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};
use crate::transport::{Cancel, NetworkOptions, Source};
use crate::{Error, Result};

/// Layers that are fetched and taken in at once, unless an option says otherwise: enough to keep two cores
/// inflating while a third layer waits for the network.
const WORKERS_COUNT: usize = 3;
/// The most that an option may ask for.
const WORKERS_COUNT_MAX: usize = 32;

/// When to ask the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Always; what is there already is not fetched again.
    Always,
    /// Only for images that are not there.
    #[default]
    Missing,
    /// Never: an image that is not there is an error.
    Never,
}

/// How images are pulled.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// What the image must run on.
    pub platform: Platform,
    /// When to ask the source.
    pub policy: PullPolicy,
    /// Layers fetched at once, 1 to 32.
    pub workers_count: usize,
    /// How registries are reached.
    pub network: NetworkOptions,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: Platform::host(),
            policy: PullPolicy::default(),
            workers_count: WORKERS_COUNT,
            network: NetworkOptions::default(),
        }
    }
}

impl PullOptions {
    fn workers(&self) -> usize {
        self.workers_count.clamp(1, WORKERS_COUNT_MAX)
    }
}

/// Brings the image into the store, as far as the policy wants it.
///
/// # Errors
/// Everything that can be wrong with a name, a source, an image, and the disk. Then nothing is published under the
/// name; layers that were whole stay.
pub fn pull(
    store: &Store,
    reference: &Reference,
    options: &PullOptions,
    progress: &Arc<dyn Progress>,
    cancel: &Cancel,
) -> Result<ImageRecord> {
    if options.policy != PullPolicy::Always
        && let Some(record) = resolve_local(store, reference, options)?
    {
        return Ok(record);
    }
    if options.policy == PullPolicy::Never {
        return Err(Error::NotPresent {
            image: reference.to_string(),
            platform: options.platform.to_string(),
        });
    }
    // Its own flag, so that a failed layer stops the others and nobody else's pull.
    let stop = cancel.child();
    let guard = store.begin_pull()?.stopped_by(&stop);
    let source = open(reference, options, store, progress, &stop)?;
    let found = fetch::manifest(source.as_ref(), reference, options, store.limits())?;
    if let Some(record) = fetch::present(store, &guard, reference, options, &found)? {
        local::remember(store, &guard, source.stamp(), &record)?;
        return Ok(record);
    }
    let image = fetch::with_config(source.as_ref(), reference, options, store.limits(), found)?;
    progress.event(Event::Resolved {
        image: reference.to_string(),
        manifest: image.manifest,
        layers: image.layers.iter().map(|layer| (layer.blob.digest, layer.blob.size_bytes)).collect(),
    });
    let taken = layers::take_in(store, &guard, source.as_ref(), reference, &image, options, progress);
    let taken = match taken {
        // Whoever failed because the user stopped it says so, in whatever words.
        Err(_) if cancel.is_cancelled() => Err(Error::Cancelled { what: format!("pull of {reference}") }),
        taken => taken,
    }?;
    let record = fetch::publish(store, &guard, reference, options, &image, taken)?;
    local::remember(store, &guard, source.stamp(), &record)?;
    progress.event(Event::Ready { image: reference.to_string(), manifest: image.manifest });
    Ok(record)
}

/// The source that `reference` names.
fn open(
    reference: &Reference,
    options: &PullOptions,
    store: &Store,
    progress: &Arc<dyn Progress>,
    stop: &Cancel,
) -> Result<Box<dyn Source>> {
    use crate::transport::{DockerArchive, OciLayout};
    let limits = store.limits();
    Ok(match reference {
        Reference::OciLayout { dir, tag } => {
            Box::new(OciLayout::directory(dir, tag.as_deref(), limits, stop))
        }
        Reference::OciArchive { file, tag } => {
            Box::new(OciLayout::archive(file, tag.as_deref(), limits, stop)?)
        }
        Reference::DockerArchive { file, tag } => {
            Box::new(DockerArchive::open(file, tag.as_deref(), limits, stop)?)
        }
        #[cfg(feature = "registry")]
        Reference::Registry(name) => {
            use crate::transport::registry::Registry;
            Box::new(Registry::open(name, &options.network, limits, progress, stop)?)
        }
        #[cfg(not(feature = "registry"))]
        Reference::Registry(_) => {
            let _ = (options, progress);
            return Err(Error::NoRegistries { image: reference.to_string() });
        }
    })
}
