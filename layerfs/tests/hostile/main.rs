//! A registry that fails and lies in every way we could think of. Each way gives a clear error and publishes
//! nothing, or is got over.
#![cfg(feature = "registry")]
#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod server;

mod authentication;
mod documents;
mod layers;
mod network;

use std::time::Duration;

use celda_layerfs::pull::PullOptions;
use celda_layerfs::transport::NetworkOptions;

/// Options that try again at once; on a busy machine an answer may still take its time.
fn hasty() -> PullOptions {
    let network = NetworkOptions {
        retries_count: 2,
        backoff: Duration::from_millis(2),
        // A directory that has no config: nobody's own credentials are in play.
        docker_config: None,
        ..NetworkOptions::default()
    };
    PullOptions { network, ..common::always() }
}

/// [`hasty`], for servers that fall silent.
fn impatient() -> PullOptions {
    let mut options = hasty();
    options.network.stall = Duration::from_millis(400);
    options
}

/// [`hasty`], with blobs in ranges of this many bytes.
fn ranged(range_bytes: u64) -> PullOptions {
    let mut options = hasty();
    options.network.range_bytes = range_bytes;
    options
}

/// An image of one layer with half a megabyte in it.
fn image() -> common::Image {
    common::Image::of(&[common::tar("one", 500_000)])
}

/// Asserts that the error says all of `expected`.
fn says(error: &str, expected: &[&str]) {
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}
