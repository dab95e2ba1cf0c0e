//! Pull to running: the store is empty, the image lies in a registry on loopback, and the clock stops when the program
//! in it has ended. The registry's own CPU time is not counted, everything of the engine is.

use crate::Result;
use crate::fixture::{self, Layout};
use crate::options::Measure;
use crate::peers::{Field, Sources};
use crate::registry::Registry;
use crate::report::Report;
use crate::samples::Samples;
use crate::start::{drop_caches, work_directory, workers};
use crate::worker::Measured;
use crate::{big, plot};

/// Bytes of the generated layer's archive.
const TAR_BYTES: usize = 370_000_000;
const SMOKE_TAR_BYTES: usize = 6_000_000;
/// Tags of the real images that are pulled beside the generated one.
const REAL: [&str; 3] = ["debian-python:1", "debian-nginx:1", "forty:1"];
/// Pulls of each image by each peer at most: they take seconds.
const ROUNDS_MAX: usize = 5;

/// Measures and reports.
///
/// # Errors
/// When there is no registry, or celda cannot be measured.
pub(crate) fn run(options: &Measure) -> Result<()> {
    let directory = work_directory(options)?;
    let work = directory.path();
    fixture::make(work)?;
    let registry = Registry::start(&work.join("registry"))?;
    let layout = Layout::create(&work.join("image"))?;
    let busybox = std::fs::read(work.join("bundle/rootfs/bin/busybox"))?;
    let layer = big::layer(&layout, &busybox, if options.smoke { SMOKE_TAR_BYTES } else { TAR_BYTES })?;
    let title = format!(
        "generated, {} MB gzip, {} MB tar",
        layer.blob_bytes / 1_000_000,
        layer.tar_bytes / 1_000_000
    );
    layout.name("big", &[layer])?;
    let mut images =
        vec![(title, registry.push(&format!("oci:{}:big", work.join("image").display()), "big:1")?)];
    if let Some(directory) = options.images.as_ref().filter(|_| !options.smoke) {
        for tag in REAL {
            let source = format!("oci:{}:{tag}", directory.join("oci").display());
            match registry.push(&source, tag) {
                Ok(reference) => images.push((tag.to_owned(), reference)),
                Err(error) => eprintln!("benches: leaving out {tag}: {error}"),
            }
        }
    }
    let small = registry.push(&format!("oci:{}:bench", work.join("image").display()), "bench:1")?;
    let sources = Sources { small: Some(&small) };
    let mut field = Field::assemble(workers(&options.peer_roots, work)?, &sources, &options.only, true)?;

    let mut report = Report::new("pull");
    for (title, reference) in &images {
        for samples in pulls(&mut field, options, title, reference)? {
            report.add(&samples);
        }
    }
    drop(field);
    report.finish(options)?;
    if !options.smoke {
        plot::pulls(&report.rows, &options.docs.join("pull.svg"))?;
    }
    Ok(())
}

fn pulls(field: &mut Field, options: &Measure, title: &str, reference: &str) -> Result<Vec<Samples>> {
    let rounds = if options.smoke { 1 } else { options.rounds.clamp(1, ROUNDS_MAX) };
    let mut all = Vec::new();
    for peer in &field.peers {
        all.push(Samples::new(&peer.name, title, 1)?);
    }
    for _ in 0..rounds {
        for (peer, samples) in field.peers.iter().zip(&mut all) {
            let Some(pull) = peer.pull else { continue };
            // What the last one left dirty must not be written during this one.
            if drop_caches().is_err() {
                nix::unistd::sync();
            }
            let job = Measured { count_min: 1, count_max: 1, concurrency: 1, ..pull(peer.worker, reference) };
            samples.add(field.workers[peer.worker].measure(&job)?);
        }
    }
    Ok(all)
}
