//! A container of `celda run` before its start and after its end: its root and its network, new or used again.
//!
//! ```text
//! take a spare root, its network beside it  ---or--- image mount, writable layer, overlay; a thread makes the network
//!       ^                                                 |
//!       '--- sealed, nothing written, no packet ---- the container ends ---- else ---> removed
//! ```

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use celda_layerfs::mount::{Ladder, Root};
use celda_layerfs::store::{ImageLease, ImageRecord, Store};

use super::run_args::RunArgs;
use crate::container::State;
use crate::sandbox::{PreparingNetwork, network};
use crate::spec::Network;
use crate::{Error, Result, root, spec};

/// What a spare root's network is pinned as.
const NETWORK_PIN: &str = "net";

/// The place a container runs in.
pub(super) struct Place<'a> {
    ladder: &'a Ladder,
    record: &'a ImageRecord,
    root: Root,
    network: Source,
    /// A descriptor of the network, for after the container.
    used: Option<OwnedFd>,
    _lease: ImageLease,
}

/// Where the container's network namespace comes from.
enum Source {
    /// The host's own.
    Host,
    /// A spare root's.
    Spare(OwnedFd),
    /// A thread makes it: that waits for the kernel longest, and goes on beside the mounts.
    New(PreparingNetwork),
    Taken,
}

impl<'a> Place<'a> {
    /// A place for the container `id`: a spare one, or a new one.
    pub(super) fn new(
        args: &RunArgs,
        store: &Store,
        ladder: &'a Ladder,
        record: &'a ImageRecord,
        id: &str,
    ) -> Result<Self> {
        let lease = store.lease(record)?;
        let containers = store.root().join("containers");
        let (uids, gids) = spec::id_mappings(&args.userns.meant)?;
        let limit_bytes = args.disk_bytes();
        let is_usual = uids.is_empty() && limit_bytes.is_none();
        let spare = if is_usual { ladder.take_root(&record.chain_id, &containers, id) } else { None };
        let pinned = spare
            .as_ref()
            .and_then(Root::key)
            .and_then(|key| network::pinned(&ladder.pinned(NETWORK_PIN, &key)));
        let network = match (args.network.unwrap_or_default(), pinned) {
            (Network::Host, _) => Source::Host,
            (Network::None | Network::Cell, Some(namespace)) => Source::Spare(namespace),
            (Network::None | Network::Cell, None) => Source::New(PreparingNetwork::begin()?),
        };
        let root = match spare {
            Some(root) => root,
            None => {
                let lower = ladder.shared_image(&record.chain_id, lease.source(), lease.tars())?;
                root::create(ladder, lower.as_fd(), (&uids, &gids), (&containers, id), limit_bytes)?
            }
        };
        Ok(Self { ladder, record, root, network, used: None, _lease: lease })
    }

    /// The container's directory.
    pub(super) fn directory(&self) -> &Path {
        self.root.path()
    }

    /// The root, to lay out files in.
    pub(super) fn overlay(&self) -> BorrowedFd<'_> {
        self.root.overlay().as_fd()
    }

    /// The root, to become the container's.
    pub(super) fn mount(&mut self) -> Result<OwnedFd> {
        Ok(self.root.mount()?)
    }

    /// The network namespace, unless it is the host's; once.
    pub(super) fn network(&mut self) -> Result<Option<OwnedFd>> {
        let namespace = match std::mem::replace(&mut self.network, Source::Taken) {
            Source::Host | Source::Taken => return Ok(None),
            Source::Spare(namespace) => namespace,
            Source::New(preparing) => preparing.finish()?,
        };
        self.used = Some(namespace.try_clone().map_err(Error::io("copy", "a network namespace"))?);
        Ok(Some(namespace))
    }

    /// Everything that is celda's own is in the root now; what comes after is the container's.
    pub(super) fn settle(&mut self) -> Result<()> {
        Ok(self.root.settle()?)
    }

    /// Leaves the directory, with all that the container wrote, until `celda gc`.
    pub(super) fn leave(self) {
        self.unpin_network();
        self.root.unpin();
    }

    /// Removes the place with all in it.
    pub(super) fn remove(self) -> Result<()> {
        self.unpin_network();
        Ok(self.root.remove()?)
    }

    /// Gives the place to the next container if this one, which was sealed, left it as it was; else removes it.
    pub(super) fn give_back(self) -> Result<()> {
        if let Err(error) = State::strike(self.directory()) {
            return self.remove().and(Err(error));
        }
        let is_unused = |namespace: &OwnedFd| network::is_unused(namespace.as_fd()).unwrap_or(false);
        let key = self.root.key();
        let Self { ladder, record, root, used, .. } = self;
        let unused = used.filter(is_unused);
        let kept = ladder.keep_root(&record.chain_id, root)?;
        let key = kept.as_ref().map(|kept| kept.key().to_owned()).or(key);
        let Some(pin) = key.map(|key| ladder.pinned(NETWORK_PIN, &key)) else { return Ok(()) };
        match (&kept, unused) {
            // Where that fails the next container gets a new one.
            (Some(_), Some(namespace)) if network::pinned(&pin).is_none() => {
                let _ = network::pin(namespace.as_fd(), &pin);
            }
            (Some(_), Some(_)) => {}
            _ => ladder.unpin(&pin),
        }
        if let Some(kept) = kept {
            kept.offer();
        }
        Ok(())
    }

    /// The network of a root that was spare before goes with it, or when something went through it.
    fn unpin_network(&self) {
        if let Some(key) = self.root.key() {
            self.ladder.unpin(&self.ladder.pinned(NETWORK_PIN, &key));
        }
    }
}
