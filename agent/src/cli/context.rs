//! What every command starts from: the store, the ladder, and how registries are reached.

use std::time::Duration;

use celda_layerfs::io::IoChoice;
use celda_layerfs::mount::{Ladder, Rung};
use celda_layerfs::platform::Platform;
use celda_layerfs::pull::{PullOptions, PullPolicy};
use celda_layerfs::reference::Reference;
use celda_layerfs::store::{Sink, Store, StoreOptions};
use celda_layerfs::transport::NetworkOptions;

use super::args::{Global, Io, Mount, SourceArgs};
use crate::{Error, Result};

/// The global flags, as meant.
pub(super) struct Context {
    pub(super) global: Global,
}

impl Context {
    /// The directories become absolute: a volume's path is handed to the sandbox, which knows no working directory.
    ///
    /// # Errors
    /// [`Error::Io`] when a directory is relative and the working directory is gone.
    pub(super) fn new(mut global: Global) -> Result<Self> {
        for directory in [&mut global.root, &mut global.run] {
            *directory = std::path::absolute(&*directory)
                .map_err(Error::io("find the absolute path of", &*directory))?;
        }
        Ok(Self { global })
    }

    pub(super) fn ladder(&self) -> Ladder {
        let ladder = Ladder::load(&self.global.root, &self.global.run);
        match self.global.mount {
            Mount::Auto => ladder,
            Mount::File => ladder.with_rung(Rung::FileBacked { inode_share: false, directio: false }),
            Mount::Loop => ladder.with_rung(Rung::Loop),
            Mount::Directory => ladder.with_rung(Rung::Directory),
        }
    }

    /// The store, and the ladder that decides what its images are mounted from.
    pub(super) fn store_and_ladder(&self) -> Result<(Store, Ladder)> {
        // The store first: the ladder probes the filesystem that its directory is on.
        Store::open(&self.global.root, StoreOptions::default())?;
        let ladder = self.ladder();
        let sink = match ladder.rung {
            Rung::Directory => Sink::Directory,
            _ => Sink::Index,
        };
        let options = StoreOptions { io: self.io(), sink, ..StoreOptions::default() };
        Ok((Store::open(&self.global.root, options)?, ladder))
    }

    pub(super) fn store(&self) -> Result<Store> {
        Ok(self.store_and_ladder()?.0)
    }

    fn io(&self) -> IoChoice {
        match self.global.io {
            Io::Auto => IoChoice::Auto,
            Io::Ring => IoChoice::Ring,
            Io::Threads => IoChoice::Threads,
        }
    }
}

/// The flags of `run` and `pull` that say how an image is reached.
pub(super) fn pull_options(source: &SourceArgs, policy: PullPolicy) -> Result<PullOptions> {
    let wrong = |what: &str, reason: String| Error::Argument { what: what.into(), reason };
    let platform = match &source.platform {
        Some(text) => text
            .parse()
            .map_err(|e: celda_layerfs::platform::PlatformError| wrong("--platform", e.to_string()))?,
        None => Platform::host(),
    };
    let mirrors = source.mirror.iter().map(|text| text.parse().map_err(|e| wrong("--mirror", e)));
    let defaults = NetworkOptions::default();
    let network = NetworkOptions {
        plain_http: source.plain_http,
        docker_config: source.authfile.clone(),
        mirrors: mirrors.collect::<Result<_>>()?,
        retries_count: source.retry.unwrap_or(defaults.retries_count),
        stall: source.stall_timeout.map_or(defaults.stall, Duration::from_secs),
        ..defaults
    };
    Ok(PullOptions { platform, policy, network, ..PullOptions::default() })
}

/// The reference that the user wrote.
pub(super) fn reference(text: &str) -> Result<Reference> {
    let parsed = text.parse::<Reference>();
    parsed.map_err(|error| Error::Argument { what: format!("image {text:?}"), reason: error.to_string() })
}

/// The name that the store knows `text` by, or `text` itself where it is no reference: an id, perhaps.
pub(super) fn store_name(text: &str) -> String {
    let name = text.parse::<Reference>().ok().and_then(|reference| reference.store_name().ok());
    name.unwrap_or_else(|| text.to_owned())
}
