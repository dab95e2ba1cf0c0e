//! Named steps of everything that changes the store, and a way for tests to die at each of them.
//!
//! Between any two of these steps a `kill -9` or a power cut must leave a store that opens, shows each image whole
//! or not at all, and lets the next pull, removal or gc finish the work. `crash_tests.rs` proves it step by step.

/// A point between two changes of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A layer's staging file is made and locked.
    LayerStaged,
    /// Some of the layer's bytes are written.
    LayerHalfWritten,
    /// All bytes are written and both digests are right.
    LayerVerified,
    /// The layer's bytes are on the disk, still under the staging name.
    LayerSynced,
    /// The layer has its own name.
    LayerRenamed,
    /// The layer can be found by its compressed digest.
    LayerMapped,
    /// A manifest or config is staged.
    BlobStaged,
    /// A manifest or config has its own name.
    BlobRenamed,
    /// The index is staged and on the disk.
    IndexStaged,
    /// The index has its own name.
    IndexRenamed,
    /// A directory tree is half unpacked in staging.
    TreeStaged,
    /// The directory tree has its own name.
    TreeRenamed,
    /// The image record is staged and on the disk.
    RecordStaged,
    /// The image record has its own name.
    RecordRenamed,
    /// The name record is staged and on the disk.
    NameStaged,
    /// The name points to the image.
    NameRenamed,
    /// `remove` has taken the name away.
    NameRemoved,
    /// `remove` has taken the image record away.
    RecordRemoved,
    /// gc is about to drop the first image record that has no name.
    GcMarked,
    /// gc has dropped image records, their indexes are still there.
    GcRecordsSwept,
    /// gc has dropped indexes and trees, their layers are still there.
    GcIndexesSwept,
    /// gc has dropped layers, blobs are still there.
    GcLayersSwept,
    /// verify has taken a broken file away, its successor is not there yet.
    BrokenRemoved,
}

impl Step {
    /// Every step, for the tests that die at each.
    pub const ALL: [Self; 23] = [
        Self::LayerStaged,
        Self::LayerHalfWritten,
        Self::LayerVerified,
        Self::LayerSynced,
        Self::LayerRenamed,
        Self::LayerMapped,
        Self::BlobStaged,
        Self::BlobRenamed,
        Self::IndexStaged,
        Self::IndexRenamed,
        Self::TreeStaged,
        Self::TreeRenamed,
        Self::RecordStaged,
        Self::RecordRenamed,
        Self::NameStaged,
        Self::NameRenamed,
        Self::NameRemoved,
        Self::RecordRemoved,
        Self::GcMarked,
        Self::GcRecordsSwept,
        Self::GcIndexesSwept,
        Self::GcLayersSwept,
        Self::BrokenRemoved,
    ];
}

/// Dies by SIGKILL here if the environment variable `CELDA_CRASH_AT` names `step`; tests only.
#[cfg(any(test, feature = "crash-points"))]
pub(crate) fn reached(step: Step) {
    if std::env::var("CELDA_CRASH_AT").is_ok_and(|name| name == format!("{step:?}")) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is delivered before the kill returns to this process; this line is for the compiler.
        std::process::abort();
    }
}

/// Nothing, outside tests.
#[cfg(not(any(test, feature = "crash-points")))]
#[inline(always)]
pub(crate) fn reached(_step: Step) {}
