//! How much of the disk files take, for the reports.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Bytes on the disk of one file, 0 if it is not there.
pub(crate) fn bytes_of(path: &Path) -> u64 {
    // st_blocks counts 512-byte units whatever the filesystem's block size is (stat(2)).
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Bytes on the disk of all files below a directory; what cannot be looked at counts nothing.
pub(crate) fn bytes_of_tree(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(items) = std::fs::read_dir(&directory) else { continue };
        for item in items.flatten() {
            let Ok(metadata) = item.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(item.path());
            }
        }
    }
    bytes
}
