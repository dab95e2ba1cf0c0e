//! Bad input through the command. Whatever it is: exit status 125, words that name what is wrong, nothing published, and
//! no mount, open file, cgroup or process left; bounded time and memory.
//!
//! ```text
//! layout    what lies on this disk: torn and changed blobs, configs that do not fit
//! registry  what a server says: statuses, silence, lies, bombs, documents without end
//! place     where the store is: full, read-only, another user's
//! pulls     two at once, and pulls that are killed
//! ```
#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod command;
#[path = "../../../layerfs/tests/common/mod.rs"]
mod common;
#[path = "../../../layerfs/tests/hostile/server.rs"]
mod server;

mod layout;
mod place;
mod pulls;
mod registry;

use std::fs;
use std::time::{Duration, Instant};

use command::Celda;
use serde_json::Value;

/// Seconds that a refusal may take, on the slowest machine that runs these tests. With [`HASTY`] no wait of celda's own
/// comes near it.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(60);
/// Memory that a celda may take at most while it refuses something, in KiB.
const MEMORY_MAX_KIB: i64 = 512 << 10;
/// The patience of a test.
const HASTY: [&str; 4] = ["--stall-timeout", "1", "--retry", "1"];

/// `celda pull` and `celda run` of `image` must both fail with these words, and leave nothing.
fn is_refused(celda: &Celda, image: &str, words: &[&str]) {
    let pull = [&["pull", "--quiet"][..], &HASTY, &[image]].concat();
    let run = [&["run", "--rm"][..], &HASTY, &[image, "/bin/busybox", "true"]].concat();
    for args in [pull, run] {
        let before = celda.leftovers();
        let began = Instant::now();
        let error = celda.fails(125, &args);
        assert!(began.elapsed() < REFUSAL_TIME_MAX, "{args:?} took {:?}", began.elapsed());
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not all in: {error}");
        before.assert_unchanged(celda.directory(), &format!("{args:?}"));
        has_nothing(celda, &error);
    }
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    assert!(usage.max_rss() < MEMORY_MAX_KIB, "some celda took {} KiB", usage.max_rss());
}

/// No image, and no part of one.
fn has_nothing(celda: &Celda, after: &str) {
    let images: Value = serde_json::from_str(&celda.ok(&["images", "--json"])).unwrap();
    assert_eq!(images.as_array().map(Vec::len), Some(0), "{images} after: {after}");
    for kept in ["layers/sha256", "layers/blobs", "index/sha256", "trees", "staging", "containers", "names"] {
        let kept = celda.root().join(kept);
        let left: Vec<_> =
            fs::read_dir(&kept).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{left:?} after: {after}");
    }
}
