//! Starts through the library, as a cell that stays up does: no process of celda's own, roots and network namespaces
//! out of pools, the filter compiled once.
//!
//! ```text
//! lease, image mount, spec, filter, pools   once
//! request -> root and network (spare or new), cgroup, plan, clone3 -> execve | exit, looked at and given back
//!         <-------------- the latency that is reported --------------> |
//! ```

use super::WORK;
use crate::Result;
use celda::sandbox::cgroup::Hierarchy;
use celda::sandbox::seccomp::{self, Arch, BpfInstruction};
use celda::sandbox::{NetworkNamespaces, Request, Stdio, is_sealed, plan};
use celda_layerfs::mount::{Ladder, Root, RootPool, WritableLayer};
use celda_layerfs::progress::Progress;
use celda_layerfs::pull::{PullOptions, pull};
use celda_layerfs::store::ImageLease;
use celda_layerfs::transport::Cancel;
use celda_layerfs::{Reference, Store, StoreOptions};
use oci_spec::runtime::{LinuxResources, Spec};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Network namespaces kept ready, besides those that come back.
const POOL_COUNT: usize = 8;

/// All that starts share.
pub(super) struct Library {
    ladder: Ladder,
    /// Held for as long as the mount below.
    _lease: ImageLease,
    image: OwnedFd,
    containers: PathBuf,
    spec: Spec,
    filter: Vec<BpfInstruction>,
    cgroups: Hierarchy,
    networks: NetworkNamespaces,
    roots: RootPool,
}

impl Library {
    /// Pulls the image into a store of its own and leases it.
    ///
    /// # Errors
    /// When there is no image, or the kernel cannot mount it.
    pub(super) fn open() -> Result<Self> {
        let root = PathBuf::from(format!("{WORK}/library-root"));
        let store = Store::open(&root, StoreOptions::default())?;
        let reference: Reference = format!("oci:{WORK}/image:bench").parse()?;
        let silent: Arc<dyn Progress> = Arc::new(celda_layerfs::progress::Silent);
        let image = pull(&store, &reference, &PullOptions::default(), &silent, &Cancel::default())?;
        let lease = store.lease(&image)?;
        let spec: Spec = serde_json::from_slice(&std::fs::read(format!("{WORK}/bundle/config.json"))?)?;
        let profile = spec
            .linux()
            .as_ref()
            .and_then(|linux| linux.seccomp().as_ref())
            .ok_or("a bundle without seccomp")?;
        let ladder = Ladder::load(&root, Path::new("/run/celda-library"));
        Ok(Self {
            image: ladder.mount_image(lease.source(), lease.tars())?,
            ladder,
            _lease: lease,
            containers: root.join("containers"),
            filter: seccomp::compile(profile, Arch::host())?,
            spec,
            cgroups: Hierarchy::find()?,
            networks: NetworkNamespaces::new(POOL_COUNT)?,
            roots: RootPool::default(),
        })
    }

    /// One container from request to exit; answers the time to its execve.
    ///
    /// # Errors
    /// What the library says.
    pub(super) fn start(&self, id: &str) -> Result<Duration> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let stdio = Stdio::Files([null.try_clone()?.into(), null.try_clone()?.into(), null.into()]);
        let requested = Instant::now();
        let network = self.networks.take()?;
        let mut root = match self.roots.take() {
            Some(root) => root,
            None => self.new_root(id)?,
        };
        if !is_sealed(&self.spec, &stdio, true) {
            return Err("the bench's container is not sealed: nothing of it could be used again".into());
        }
        let used = network.try_clone()?;
        let request = Request {
            id: id.to_owned(),
            spec: self.spec.clone(),
            rootfs: root.mount()?,
            stdio,
            cgroup: Some(self.cgroups.create(id, &LinuxResources::default())?),
            network: Some(network),
            seccomp: Some(self.filter.clone()),
            init: false,
            dies_with_caller: false,
        };
        let container = plan(request)?.start()?;
        let latency = requested.elapsed();
        let exit = container.wait()?;
        self.roots.give_back(root)?;
        self.networks.give_back(used);
        if exit == celda::sandbox::Exit::Code(0) {
            Ok(latency)
        } else {
            Err(format!("{id} ended with {exit:?}").into())
        }
    }

    fn new_root(&self, id: &str) -> Result<Root> {
        let layer = WritableLayer::create(&self.containers, id)?;
        let overlay = self.ladder.overlay(self.image.as_fd(), Some(layer.path()))?;
        let mut root = Root::new(layer, overlay);
        root.settle()?;
        Ok(root)
    }
}
