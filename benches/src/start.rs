//! Start latency: the image is present, the page cache warm or cold, a number of them at once.

use crate::Result;
use crate::options::Measure;
use crate::peers::{Field, Sources};
use crate::registry::Registry;
use crate::report::Report;
use crate::samples::Samples;
use crate::worker::{Measured, Worker};
use crate::{fixture, plot};
use std::path::{Path, PathBuf};

/// Samples of a peer per round at least, so that a slow peer has some as well.
const ROUND_SAMPLES_MIN: usize = 2;
/// Cold starts of each peer; each drops the page cache of the machine first.
const COLD_COUNT: usize = 5;

/// Measures and reports.
///
/// # Errors
/// When celda cannot be measured. A peer that cannot is left out aloud.
pub(crate) fn run(options: &Measure) -> Result<()> {
    let directory = work_directory(options)?;
    let work = directory.path();
    fixture::make(work)?;
    let (_registry, small) = registry_with_small(work);
    let sources = Sources { small: small.as_deref() };
    let mut field = Field::assemble(workers(&options.peer_roots, work)?, &sources, &options.only, false)?;

    let mut report = Report::new("start");
    for concurrency in options.concurrency.iter().copied().filter(|count| !options.smoke || *count <= 4) {
        for samples in warm(&mut field, options, concurrency)? {
            report.add(&samples);
        }
    }
    if !options.smoke {
        for samples in cold(&mut field)? {
            report.add(&samples);
        }
    }
    drop(field);
    report.finish(options)?;
    if !options.smoke {
        plot::starts(&report.rows, &options.docs.join("start.svg"))?;
    }
    Ok(())
}

/// A registry with the small image in it, and the image's name there. Without one, those who read no layout are left out
/// aloud.
pub(crate) fn registry_with_small(work: &Path) -> (Option<Registry>, Option<String>) {
    let layout = format!("oci:{}:bench", work.join("image").display());
    let filled = Registry::start(&work.join("registry")).and_then(|registry| {
        let name = registry.push(&layout, "bench:1")?;
        Ok((registry, name))
    });
    match filled {
        Ok((registry, name)) => (Some(registry), Some(name)),
        Err(error) => {
            eprintln!("benches: leaving out podman and containerd: {error}");
            (None, None)
        }
    }
}

/// A directory for everything the run makes, removed at its end, with the binary under test in it.
pub(crate) fn work_directory(options: &Measure) -> Result<tempfile::TempDir> {
    let parent = options.work.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new().prefix("celda-benches-").tempdir_in(parent)?;
    std::fs::create_dir(work.path().join("tmp"))?;
    std::fs::copy(&options.celda, work.path().join("celda")).map_err(|error| {
        format!("--celda {}: {error}; cargo build --release makes it", options.celda.display())
    })?;
    Ok(work)
}

/// One worker for the machine's own root and one for each `--peer-root`.
pub(crate) fn workers(peer_roots: &[PathBuf], work: &Path) -> Result<Vec<Worker>> {
    let mut workers = vec![Worker::start(Path::new("/"), work)?];
    for root in peer_roots {
        workers.push(Worker::start(root, work)?);
    }
    Ok(workers)
}

fn warm(field: &mut Field, options: &Measure, concurrency: usize) -> Result<Vec<Samples>> {
    let rounds = if options.smoke { 1 } else { options.rounds.max(1) };
    let seconds = if options.smoke { 0.2 } else { options.seconds };
    let mut all = Vec::new();
    for peer in &field.peers {
        all.push(Samples::new(&peer.name, "warm", concurrency)?);
    }
    for _ in 0..rounds {
        for (peer, samples) in field.peers.iter().zip(&mut all) {
            let job = Measured {
                count_min: ROUND_SAMPLES_MIN.max(concurrency),
                count_max: if options.smoke { 10.max(concurrency) } else { usize::MAX },
                budget_ms: (seconds * 1000.0) as u64 / rounds as u64,
                concurrency,
                ..peer.start.clone()
            };
            samples.add(field.workers[peer.worker].measure(&job)?);
        }
    }
    Ok(all)
}

fn cold(field: &mut Field) -> Result<Vec<Samples>> {
    let mut all = Vec::new();
    for peer in &field.peers {
        all.push(Samples::new(&peer.name, "cold", 1)?);
    }
    for _ in 0..COLD_COUNT {
        for (peer, samples) in field.peers.iter().zip(&mut all) {
            if let Err(error) = drop_caches() {
                eprintln!("benches: no cold starts: {error}");
                return Ok(Vec::new());
            }
            let job = Measured { count_min: 1, count_max: 1, concurrency: 1, ..peer.start.clone() };
            samples.add(field.workers[peer.worker].measure(&job)?);
        }
    }
    Ok(all)
}

/// Empties the page cache of the machine: clean pages, dentries and inodes.
pub(crate) fn drop_caches() -> Result<()> {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3")
        .map_err(|error| format!("/proc/sys/vm/drop_caches: {error}"))?;
    Ok(())
}
