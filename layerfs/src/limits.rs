//! Every bound on what an image may cost, by name, in one place; and the budget that its layers share.
//!
//! An image is hostile input: without these, 1 kB of gzip could become a terabyte of disk. The defaults are far
//! above what real images need (the largest public ones stay below 40 GiB and two million entries) and far below
//! what hurts a machine that runs hundreds of containers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds on what layers, manifests and archives may cost. Values are inclusive maxima.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest, an index or an image config. Registries cap manifests at 4 MiB (distribution-spec 1.1).
    pub manifest_bytes: u64,
    /// Layers of one image. overlayfs-based engines stop at 128; nobody ships more.
    pub layers_count: usize,
    /// Bytes of one uncompressed layer. Also what EROFS addresses with 32-bit numbers of 512-byte blocks: 2 TiB.
    pub layer_bytes: u64,
    /// Bytes of all uncompressed layers of one image, those that were there before counted too.
    pub image_bytes: u64,
    /// Uncompressed bytes for each compressed byte, checked once [`ratio_floor_bytes`](Self::ratio_floor_bytes)
    /// came out. DEFLATE itself tops out at 1032; sparse-ish database images reach 300.
    pub ratio: u64,
    /// Uncompressed bytes below which the ratio is not looked at.
    pub ratio_floor_bytes: u64,
    /// Entries of all layers of one image.
    pub entries_count: u64,
    /// Bytes of an entry's path or link target: PATH_MAX less its NUL.
    pub path_bytes: usize,
    /// Bytes of one path component: NAME_MAX.
    pub name_bytes: usize,
    /// Bytes of one pax or GNU long-name record block.
    pub pax_bytes: u64,
    /// Bytes of all extended attributes of one entry, names and values: what the kernel lists at most.
    pub xattrs_bytes: usize,
    /// Logical bytes of one file, holes included.
    pub file_bytes: u64,
    /// Data segments of one sparse file.
    pub sparse_segments_count: usize,
    /// Memory that the metadata (paths, xattrs, link targets) of all entries of one image may hold. Half a gigabyte
    /// is what two million entries take.
    pub metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            layers_count: 512,
            layer_bytes: 256 << 30,
            image_bytes: 256 << 30,
            ratio: 1_100,
            ratio_floor_bytes: 64 << 20,
            entries_count: 4_000_000,
            path_bytes: 4095,
            name_bytes: 255,
            pax_bytes: 1 << 20,
            xattrs_bytes: 64 << 10,
            file_bytes: 1 << 40,
            sparse_segments_count: 1 << 20,
            metadata_bytes: 1 << 30,
        }
    }
}

/// The layers of an image cost too much together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("all layers of the image together are more than the limit {limit} = {allowed}")]
pub struct OverBudget {
    /// Which field of [`Limits`].
    pub limit: &'static str,
    /// Its value.
    pub allowed: u64,
}

/// What the layers of one image have cost so far. Each is within the limits by itself, and hundreds of them are held
/// in memory until the image's tree is made. Attempts that failed count as well.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: Account,
    entries_count: Account,
    metadata_bytes: Account,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            bytes: Account::new("image_bytes", limits.image_bytes),
            entries_count: Account::new("entries_count", limits.entries_count),
            metadata_bytes: Account::new("metadata_bytes", limits.metadata_bytes),
        }
    }

    /// Counts bytes of an uncompressed layer.
    pub(crate) fn take_bytes(&self, bytes: u64) -> Result<(), OverBudget> {
        self.bytes.take(bytes)
    }

    /// Counts an entry that holds `metadata_bytes` of memory.
    pub(crate) fn take_entry(&self, metadata_bytes: u64) -> Result<(), OverBudget> {
        self.entries_count.take(1)?;
        self.metadata_bytes.take(metadata_bytes)
    }
}

/// One sum against its limit; layers that are taken in side by side add to it.
#[derive(Debug)]
struct Account {
    limit: &'static str,
    allowed: u64,
    taken: AtomicU64,
}

impl Account {
    fn new(limit: &'static str, allowed: u64) -> Self {
        Self { limit, allowed, taken: AtomicU64::new(0) }
    }

    fn take(&self, amount: u64) -> Result<(), OverBudget> {
        // Who goes over ends the pull, and what is taken at once is small: the sum does not wrap.
        let before = self.taken.fetch_add(amount, Ordering::Relaxed);
        if before.saturating_add(amount) > self.allowed {
            return Err(OverBudget { limit: self.limit, allowed: self.allowed });
        }
        Ok(())
    }
}
