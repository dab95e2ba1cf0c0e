//! What one container runs in and from: root, network, spec; made ready, started, given back.
//!
//! ```text
//! prepare: root (spare or new) -> spec -> files laid out -> settled -> network -> body      on a worker
//! launch:  mounted again, handed to the holder with the locks                               on a worker
//! clean:   the holder lets go -> root and network to the next container, or removed         on a worker
//! ```

use std::collections::HashMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use celda_layerfs::mount::{Root, remove_container};

use super::error::CellError;
use super::holder::{Body, Handed, Holder, Started};
use super::image::{Image, Images};
use super::instance::Cause;
use super::network::{Attached, Grant, Offer};
use super::wish::Wish;
use super::words::bounded;
use crate::sandbox::cgroup::Hierarchy;
use crate::sandbox::idmap::Userns;
use crate::sandbox::seccomp::BpfInstruction;
use crate::sandbox::{NetworkNamespaces, Stdio, is_sealed};
use crate::spec::{self, Built, Host, Network, OnNetwork, SeccompChoice};
use crate::{Error, Result, root};

/// What all places are made from.
#[derive(Debug)]
pub struct Ground {
    /// Images.
    pub images: Arc<Images>,
    /// `ROOT`.
    pub root: PathBuf,
    /// `ROOT/cell/layers`: writable layers, apart from those of `celda run`, which are nobody's when it ends.
    pub layers: PathBuf,
    /// cgroup v2, with the parent of this cell's containers.
    pub hierarchy: Hierarchy,
    /// The cell's own network.
    pub offer: Offer,
    /// Networks of those that want none.
    networks: NetworkNamespaces,
    /// celda's own filter, compiled, by the capabilities that it depends on.
    filters: Mutex<HashMap<u64, Arc<[BpfInstruction]>>>,
}

/// How often a layer is tried to be removed that is still locked, and what is waited between: an agent that was killed may
/// have sent the lock to the holder, which lets go of it when it finds that nobody is there.
const REMOVE_TRIES_COUNT: u32 = 100;
const REMOVE_WAIT: Duration = Duration::from_millis(20);

/// Sets of capabilities whose filter is remembered.
const FILTERS_COUNT_MAX: usize = 64;

impl Ground {
    /// Ground in the store `root`, with so many empty networks kept ready.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn new(
        images: Arc<Images>,
        root: PathBuf,
        hierarchy: Hierarchy,
        offer: Offer,
        networks_count: u32,
    ) -> Result<Self> {
        Ok(Self {
            images,
            layers: root.join("cell/layers"),
            root,
            hierarchy,
            offer,
            networks: NetworkNamespaces::new(networks_count as usize)?,
            filters: Mutex::default(),
        })
    }

    fn filter(&self, built: &Built) -> Result<Option<Arc<[BpfInstruction]>>> {
        if built.seccomp != SeccompChoice::Builtin {
            return Ok(spec::filter(built)?.map(Into::into));
        }
        let caps = spec::bounding(built).bits();
        let lock = || self.filters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = lock().get(&caps) {
            return Ok(Some(Arc::clone(filter)));
        }
        let filter: Option<Arc<[BpfInstruction]>> = spec::filter(built)?.map(Into::into);
        let mut filters = lock();
        if let (Some(filter), true) = (&filter, filters.len() < FILTERS_COUNT_MAX) {
            filters.insert(caps, Arc::clone(filter));
        }
        Ok(filter)
    }

    /// The network of a wish.
    fn network(&self, wish: &Wish) -> Network {
        let default = if self.offer.why_not().is_none() { Network::Cell } else { Network::None };
        wish.network.unwrap_or(default)
    }

    /// Gives back what a container had of the cell's network.
    pub fn leave(&self, attached: &Attached) {
        if let Err(error) = self.offer.leave(attached) {
            tracing::warn!(address = %attached.address, %error, "an address is not given back; the next agent does it");
        }
    }

    /// Removes what a container left that no place of this agent stands for: one that was adopted, or half made.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn remove(&self, container: &str) -> Result<()> {
        self.hierarchy.remove_stale(container)?;
        for _ in 1..REMOVE_TRIES_COUNT {
            match remove_container(&self.layers, container) {
                Err(celda_layerfs::Error::LayerInUse { .. }) => std::thread::sleep(REMOVE_WAIT),
                answer => return Ok(answer?),
            }
        }
        Ok(remove_container(&self.layers, container)?)
    }
}

/// The place of one container.
#[derive(Debug)]
pub struct Place {
    image: Arc<Image>,
    root: Root,
    network: Option<OwnedFd>,
    /// Its network is the cell's.
    attached: Option<Attached>,
    is_on_cell: bool,
    is_sealed: bool,
    init: bool,
    input: bool,
    stop_signal: i32,
    body: Arc<OwnedFd>,
}

impl Place {
    /// Makes everything ready for the container `container` of instance `id`, with the ports that lead to it.
    ///
    /// # Errors
    /// What is wrong with the wish, the image or the machine; nothing is left behind.
    pub fn prepare(
        ground: &Ground,
        image: Arc<Image>,
        wish: &Wish,
        (id, container): (&str, &str),
        ports: &[Grant],
    ) -> Result<Self> {
        let (uids, gids) = spec::id_mappings(&wish.flags.userns)?;
        let is_usual = uids.is_empty() && wish.disk_bytes.is_none();
        let spare = if is_usual { image.roots.take() } else { None };
        let mut root = match spare {
            Some(mut root) => {
                // By its name an agent that adopts the container finds the layer.
                if let Err(error) = root.rename(&ground.layers, container) {
                    root.remove()?;
                    return Err(error.into());
                }
                root
            }
            None => {
                let place = (ground.layers.as_path(), container);
                let ids = (&uids[..], &gids[..]);
                root::create(ground.images.ladder(), image.lower.as_fd(), ids, place, wish.disk_bytes)?
            }
        };
        let filled = Joined::new(ground, wish, ports).and_then(|joined| {
            let filled = Self::fill(ground, &image, wish, id, &mut root, &joined);
            filled.inspect_err(|_| joined.leave(ground)).map(|filled| (filled, joined))
        });
        match filled {
            Ok((Filled { body, stop_signal, is_sealed }, Joined { network, namespace, attached })) => {
                let (init, is_on_cell) = (wish.flags.init, network == Network::Cell);
                let (network, input) = (namespace, wish.is_interactive());
                Ok(Self {
                    image,
                    root,
                    network,
                    attached,
                    is_on_cell,
                    is_sealed,
                    init,
                    input,
                    stop_signal,
                    body,
                })
            }
            Err(error) => {
                root.remove()?;
                Err(error)
            }
        }
    }

    fn fill(
        ground: &Ground,
        image: &Image,
        wish: &Wish,
        id: &str,
        root: &mut Root,
        joined: &Joined,
    ) -> Result<Filled> {
        let mut host = Host::here(&ground.root, root.path());
        // The agent's environment is nobody's business.
        host.env.clear();
        let resolver = || ground.offer.resolver().to_owned();
        let on_network = |attached: &Attached| OnNetwork { address: attached.address, resolver: resolver() };
        host.network = joined.attached.as_ref().map(on_network);
        let flags = spec::RunFlags { id: id.to_owned(), network: joined.network, ..wish.flags.clone() };
        let built = spec::build(&image.record.config_json, &flags, root.overlay().as_fd(), &host)?;
        built.prepare(root.overlay().as_fd())?;
        let is_builtin = built.seccomp == SeccompChoice::Builtin;
        let is_sealed = is_sealed(&built.spec, &Stdio::Pipes, is_builtin);
        if is_sealed {
            root.settle()?;
        }
        let filter = ground.filter(&built)?;
        let body = Body::write(&built.spec, filter.as_deref()).map_err(Error::io("write down", "a spec"))?;
        Ok(Filled { body: Arc::new(body), stop_signal: built.stop_signal, is_sealed })
    }

    /// What it has of the cell's network; once. It is to be [given back](Ground::leave) when the place is cleared away.
    pub fn take_attached(&mut self) -> Option<Attached> {
        self.attached.take()
    }

    /// The signal that asks the container to end.
    pub fn stop_signal(&self) -> i32 {
        self.stop_signal
    }

    /// Spec and filter, see [`Body`].
    pub fn body(&self) -> &Arc<OwnedFd> {
        &self.body
    }

    /// Has the holder start the container.
    ///
    /// # Errors
    /// [`CellError`] when the holder is gone; that the container does not run is no error but an answer.
    pub fn launch(&mut self, holder: &Holder, container: &str) -> std::result::Result<Started, CellError> {
        let rootfs = match self.root.mount() {
            Ok(rootfs) => rootfs,
            Err(error) => return Ok(Err((125, error.to_string()))),
        };
        let handed = Handed {
            body: self.body.as_fd(),
            rootfs: rootfs.as_fd(),
            lock: self.root.lock(),
            lease: self.image.lease.file().as_fd(),
            network: self.network.as_ref().map(|network| network.as_fd()),
            init: self.init,
            input: self.input,
        };
        holder.start(container, &handed)
    }

    /// Gives root and network to the next container, if this one, which has ended, left them as they were and
    /// `was_entered` by nobody.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn clean(self, ground: &Ground, was_entered: bool) -> Result<()> {
        let Self { image, root, network, is_on_cell, is_sealed, .. } = self;
        let network = network.filter(|_| !is_on_cell); // of the cell's there is a new one for each
        if !is_sealed || was_entered {
            return Ok(root.remove()?);
        }
        if let Some(network) = network {
            ground.networks.give_back(network);
        }
        Ok(image.roots.give_back(root)?)
    }
}

struct Filled {
    body: Arc<OwnedFd>,
    stop_signal: i32,
    is_sealed: bool,
}

/// The network that a container is on.
struct Joined {
    network: Network,
    namespace: Option<OwnedFd>,
    attached: Option<Attached>,
}

impl Joined {
    fn new(ground: &Ground, wish: &Wish, ports: &[Grant]) -> Result<Self> {
        let network = ground.network(wish);
        let (namespace, attached) = match network {
            Network::Host => (None, None),
            // A user namespace must own its network, which is made with it.
            Network::None if wish.flags.userns != Userns::Host => (None, None),
            Network::None => (Some(ground.networks.take()?), None),
            Network::Cell => {
                let (attachment, attached) = ground.offer.attach(ports)?;
                (Some(attachment.namespace), Some(attached))
            }
        };
        Ok(Self { network, namespace, attached })
    }

    fn leave(&self, ground: &Ground) {
        if let Some(attached) = &self.attached {
            ground.leave(attached);
        }
    }
}

/// An error as the reason of an end.
pub fn failed(error: &Error) -> Cause {
    Cause::Failed { status: error.status(), why: bounded(error) }
}
