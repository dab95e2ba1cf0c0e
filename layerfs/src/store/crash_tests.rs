//! kill -9 at every named step; the store that is left must be right, and the work can be finished.
//!
//! The test executable runs itself: `child` does one job and dies at the step it is told by the environment.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use crate::io::IoChoice;
use crate::store::testing::{PLATFORM, TestLayer, ingest, options, pull, record, staged};
use crate::store::{Heal, ImageRecord, Outcome, PullGuard, Sink, Step, Store};
use crate::{Digest, Result};

const ROOT: &str = "CELDA_CRASH_ROOT";
const JOB: &str = "CELDA_CRASH_JOB";
const IO: &str = "CELDA_CRASH_IO";
const SINK: &str = "CELDA_CRASH_SINK";

/// What the child does, by the step it is to die at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    Pull,
    Remove,
    Gc,
    Verify,
}

impl Job {
    fn of(step: Step) -> Self {
        match step {
            Step::NameRemoved | Step::RecordRemoved => Self::Remove,
            Step::GcMarked | Step::GcRecordsSwept | Step::GcIndexesSwept | Step::GcLayersSwept => Self::Gc,
            Step::BrokenRemoved => Self::Verify,
            _ => Self::Pull,
        }
    }

    fn run(self, store: &Store) -> Result<()> {
        match self {
            Self::Pull => pull(store, "a:1", &layers()).map(drop),
            Self::Remove => match store.remove("a:1", false) {
                Err(crate::Error::UnknownImage(_)) => Ok(()),
                other => other.map(drop),
            },
            Self::Gc => store.gc().map(drop),
            Self::Verify => store.verify(&Refetch).map(drop),
        }
    }
}

fn base() -> Vec<TestLayer> {
    vec![TestLayer::new(1, 5000)]
}

fn layers() -> Vec<TestLayer> {
    vec![TestLayer::new(1, 5000), TestLayer::new(2, 3_000_000), TestLayer::new(3, 100)]
}

/// Fetches from thin air.
struct Refetch;

impl Heal for Refetch {
    fn fetch_layer(
        &self,
        store: &Store,
        guard: &PullGuard,
        image: &ImageRecord,
        layer: usize,
    ) -> Result<bool> {
        let wanted = image.layers[layer].diff_id;
        let found = layers().into_iter().find(|layer| layer.diff_id() == wanted).expect("one of ours");
        ingest(store, guard, found.spec(), &found.blob).map(|_| true)
    }

    fn fetch_blob(&self, _: &Store, _: &PullGuard, _: &ImageRecord, _: &Digest) -> Result<bool> {
        Ok(false)
    }
}

fn store_at(root: &Path, io: IoChoice, sink: Sink) -> Store {
    Store::open(root, options(io, sink)).expect("store opens")
}

#[test]
fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let variable = |name: &str| std::env::var(name).expect("set by the parent");
    let job = match variable(JOB).as_str() {
        "Pull" => Job::Pull,
        "Remove" => Job::Remove,
        "Gc" => Job::Gc,
        _ => Job::Verify,
    };
    let sink = if variable(SINK) == "Directory" { Sink::Directory } else { Sink::Index };
    let store = store_at(Path::new(&root), variable(IO).parse().expect("an I/O path"), sink);
    job.run(&store).expect("nothing but the kill ends it");
}

/// This test executable, told to do one job.
fn child_command(root: &Path, job: Job, io: IoChoice, sink: Sink) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["store::crash_tests::child", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env(JOB, format!("{job:?}"))
        .env(IO, io.to_string())
        .env(SINK, format!("{sink:?}"))
        .stdout(std::process::Stdio::null());
    command
}

fn die(root: &Path, step: Step, job: Job, io: IoChoice, sink: Sink) {
    let mut command = child_command(root, job, io, sink);
    let status = command.env("CELDA_CRASH_AT", format!("{step:?}")).status().expect("the test runs itself");
    assert_eq!(status.signal(), Some(9), "{step:?} was not reached: {status}");
}

fn die_and_recover(step: Step, io: IoChoice, sink: Sink) {
    let place = tempfile::tempdir().expect("temporary directory");
    let root = place.path();
    let store = store_at(root, io, sink);
    let job = Job::of(step);
    let base = pull(&store, "base:1", &base()).expect("pulled");
    let image = record("a:1", &layers());
    if job != Job::Pull {
        pull(&store, "a:1", &layers()).expect("pulled");
    }
    if job == Job::Gc {
        store.remove("a:1", false).expect("removed");
        // An image whose record is there and whose name is not, as a name that moved on leaves it.
        std::fs::write(store.layout().image(&image.manifest), serde_json::to_vec(&image).expect("JSON"))
            .expect("write");
    }
    if job == Job::Verify {
        let path = store.layer_path(&image.layers[1].diff_id);
        std::fs::write(&path, b"broken").expect("write");
    }
    die(root, step, job, io, sink);

    // Whole or nothing: every name that is there leads to an image that can be leased.
    let store = store_at(root, io, sink);
    assert!(store.is_whole(&base), "{step:?}");
    drop(store.lease(&base).expect("the other image is untouched"));
    for named in store.images().expect("listed") {
        if named.name.is_some() && job != Job::Verify {
            drop(store.lease(&named.record).expect("a named image is whole"));
        }
    }
    for (name, path) in store.files_in("layers/sha256").expect("listed") {
        let bytes = std::fs::read(path).expect("read");
        assert_eq!(format!("{}.tar", Digest::of(&bytes).hex()), name, "{step:?}");
    }
    drop(store.begin_pull().expect("guard"));
    assert!(staged(&store).is_empty(), "{step:?}: staging is swept");

    job.run(&store).expect("finishes what was begun");
    assert!(staged(&store).is_empty(), "{step:?}");
    match job {
        Job::Pull | Job::Verify => {
            assert_eq!(store.image("a:1", PLATFORM).expect("read"), Some(image.clone()), "{step:?}");
            drop(store.lease(&image).expect("whole"));
            let report = store.verify(&Refetch).expect("verified");
            let bad: Vec<_> = report.items.iter().filter(|item| item.outcome != Outcome::Good).collect();
            assert!(bad.is_empty(), "{step:?}: {bad:?}");
        }
        Job::Remove | Job::Gc => {
            assert_eq!(store.image("a:1", PLATFORM).expect("read"), None, "{step:?}");
            store.gc().expect("gc");
            let kept = store.files_in("layers/sha256").expect("listed");
            assert_eq!(kept.len(), 1, "{step:?}: {kept:?}");
            assert_eq!(store.files_in("images").expect("listed").len(), 1, "{step:?}");
            assert!(store.is_whole(&base), "{step:?}");
        }
    }
}

fn is_tree_step(step: Step) -> bool {
    matches!(step, Step::TreeStaged | Step::TreeRenamed)
}

#[test]
fn killed_at_any_step_with_an_index() {
    for step in Step::ALL {
        if !is_tree_step(step) {
            die_and_recover(step, IoChoice::Threads, Sink::Index);
        }
    }
}

#[test]
fn killed_at_any_step_with_a_directory_tree() {
    for step in Step::ALL {
        if !matches!(step, Step::IndexStaged | Step::IndexRenamed) {
            die_and_recover(step, IoChoice::Threads, Sink::Directory);
        }
    }
}

#[test]
fn killed_while_the_ring_writes() {
    for step in [Step::LayerStaged, Step::LayerHalfWritten, Step::LayerVerified, Step::LayerSynced] {
        die_and_recover(step, IoChoice::Ring, Sink::Index);
    }
}

#[test]
fn a_sweep_spares_what_a_living_process_stages() {
    let place = tempfile::tempdir().expect("temporary directory");
    let store = store_at(place.path(), IoChoice::Threads, Sink::Index);
    let guard = store.begin_pull().expect("guard");
    let layer = TestLayer::new(2, 100_000);
    let crate::ingest::Ingest::Started(mut begun) = store.ingest(&guard, layer.spec()).expect("begun") else {
        panic!("is new")
    };
    std::fs::write(store.layout().staging().join("left"), b"by a dead process").expect("write");
    std::fs::create_dir_all(store.layout().staging().join("tree-1-1/rootfs")).expect("mkdir");
    drop(store.begin_pull().expect("a second pull sweeps"));
    assert_eq!(staged(&store).len(), 1);
    begun.feed(&layer.blob).expect("fed");
    begun.finish().expect("published");
}

#[test]
fn processes_that_pull_the_same_image_at_once_all_get_it() {
    for sink in [Sink::Index, Sink::Directory] {
        let place = tempfile::tempdir().expect("temporary directory");
        let store = store_at(place.path(), IoChoice::Threads, sink);
        let children: Vec<_> = [IoChoice::Threads, IoChoice::Ring, IoChoice::Auto, IoChoice::Threads]
            .into_iter()
            .map(|io| {
                let mut command = child_command(place.path(), Job::Pull, io, sink);
                command.stderr(std::process::Stdio::piped()).spawn().expect("the test runs itself")
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().expect("waited");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{sink:?}: {}: {said}", output.status);
        }
        let image = store.image("a:1", PLATFORM).expect("read").expect("pulled");
        drop(store.lease(&image).expect("whole"));
        assert!(staged(&store).is_empty());
        assert_eq!(store.files_in("layers/sha256").expect("listed").len(), 3);
    }
}
