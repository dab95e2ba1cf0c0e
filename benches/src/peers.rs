//! Which engines are here, and how each is told to do the same thing.
//!
//! Every peer runs the same program with the same isolation: new pid, network (with nothing in it), ipc, uts, mount and
//! cgroup namespaces, default capabilities and seccomp, no limits. crun and runc start an unpacked bundle, which spares
//! them the mount of an image; celda, podman and containerd start a named image with a writable layer over it.

mod celda;
mod ctr;
mod podman;
mod runtimes;

pub(crate) use self::celda::NAME as CELDA;
use crate::Result;
use crate::containerd::Containerd;
use crate::worker::{Argv, Measured, Worker, argv};

/// How to pull a reference, from an empty store, and run it once.
pub(crate) type Pull = fn(place: usize, reference: &str) -> Measured;

/// One engine in one root.
pub(crate) struct Peer {
    /// Name, version and root: `crun 1.8.1 (bookworm)`.
    pub(crate) name: String,
    /// Which of the workers runs it.
    pub(crate) worker: usize,
    /// Run once before anything is measured.
    pub(crate) prepare: Vec<Argv>,
    /// Starts the image that is present.
    pub(crate) start: Measured,
    /// From an empty store to an ended process, for a reference in the registry.
    pub(crate) pull: Option<Pull>,
}

/// Where images come from.
pub(crate) struct Sources<'a> {
    /// The busybox image in the registry, for engines that read no layout. None when there is no registry.
    pub(crate) small: Option<&'a str>,
}

/// Workers, the peers in them, and the daemons they need.
pub(crate) struct Field {
    pub(crate) workers: Vec<Worker>,
    pub(crate) peers: Vec<Peer>,
    daemons: Vec<(usize, Containerd)>,
}

impl Field {
    /// Finds the peers in each worker's root and prepares them. A peer that cannot be prepared is left out aloud.
    ///
    /// # Errors
    /// When celda itself cannot be prepared, or a worker is lost.
    pub(crate) fn assemble(
        mut workers: Vec<Worker>,
        sources: &Sources<'_>,
        only: &[String],
        pulls: bool,
    ) -> Result<Self> {
        let mut found = vec![self::celda::peer()];
        let mut daemons = Vec::new();
        if !pulls {
            found.push(self::celda::library());
        }
        for (place, worker) in workers.iter_mut().enumerate() {
            if !pulls {
                found.extend(runtimes::find(place, worker));
            }
            let Some(small) = sources.small else { continue };
            found.extend(podman::find(place, worker, small));
            if only.is_empty() || only.iter().any(|only| "containerd overlayfs erofs".contains(only.as_str()))
            {
                match Containerd::start(place, worker) {
                    Ok(Some(daemon)) => {
                        found.extend(ctr::find(place, worker, &daemon, small));
                        daemons.push((place, daemon));
                    }
                    Ok(None) => {}
                    Err(error) => eprintln!("benches: leaving out containerd ({}): {error}", worker.label),
                }
            }
        }
        let mut field = Self { workers, peers: Vec::new(), daemons };
        for peer in found {
            if !only.is_empty()
                && !peer.name.starts_with(CELDA)
                && !only.iter().any(|only| peer.name.contains(only))
            {
                continue;
            }
            match field.prepare(&peer) {
                Ok(()) => field.peers.push(peer),
                Err(error) if peer.name == CELDA => return Err(error),
                Err(error) => eprintln!("benches: leaving out {}: {error}", peer.name),
            }
        }
        Ok(field)
    }

    /// Everything that is done once, and one start that shows that it works.
    fn prepare(&mut self, peer: &Peer) -> Result<()> {
        let worker = &mut self.workers[peer.worker];
        for argv in &peer.prepare {
            worker.once(argv)?;
        }
        let batch =
            worker.measure(&Measured { count_min: 1, count_max: 1, concurrency: 1, ..peer.start.clone() })?;
        batch.failure.map_or(Ok(()), |failure| Err(failure.into()))
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        for (place, daemon) in &self.daemons {
            if let Err(error) = daemon.stop(&mut self.workers[*place]) {
                eprintln!("benches: ending containerd: {error}");
            }
        }
    }
}

/// The last word of the first line that `--version` prints which looks like a version.
pub(crate) fn version(worker: &mut Worker, command: &[&str]) -> Option<String> {
    let text = worker.once(&argv(command)).ok()?;
    let line = text.lines().next()?;
    let word = line.split_whitespace().find(|word| {
        let digits = word.trim_start_matches('v');
        digits.contains('.') && digits.starts_with(|c: char| c.is_ascii_digit())
    })?;
    Some(word.trim_start_matches('v').split(['~', '+']).next()?.to_owned())
}
