//! Every bound on what an image may cost, by name, in one place.
//!
//! An image is hostile input: without these, 1 kB of gzip could become a terabyte of disk. The defaults are far
//! above what real images need (the largest public ones stay below 40 GiB and two million entries) and far below
//! what hurts a machine that runs hundreds of containers.

/// Bounds on what layers, manifests and archives may cost. Values are inclusive maxima.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a manifest, an index or an image config. Registries cap manifests at 4 MiB (distribution-spec 1.1).
    pub manifest_bytes: u64,
    /// Layers of one image. overlayfs-based engines stop at 128; nobody ships more.
    pub layers_count: usize,
    /// Bytes of one uncompressed layer. Also what EROFS addresses with 32-bit numbers of 512-byte blocks: 2 TiB.
    pub layer_bytes: u64,
    /// Uncompressed bytes for each compressed byte, checked once [`ratio_floor_bytes`](Self::ratio_floor_bytes)
    /// came out. DEFLATE itself tops out at 1032; sparse-ish database images reach 300.
    pub ratio: u64,
    /// Uncompressed bytes below which the ratio is not looked at.
    pub ratio_floor_bytes: u64,
    /// Entries of one layer.
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
    /// Memory that the metadata (paths, xattrs, link targets) of one layer's entries may hold.
    pub metadata_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_bytes: 4 << 20,
            layers_count: 512,
            layer_bytes: 256 << 30,
            ratio: 1_100,
            ratio_floor_bytes: 64 << 20,
            entries_count: 4_000_000,
            path_bytes: 4095,
            name_bytes: 255,
            pax_bytes: 1 << 20,
            xattrs_bytes: 64 << 10,
            file_bytes: 1 << 40,
            sparse_segments_count: 1 << 20,
            metadata_bytes: 2 << 30,
        }
    }
}
