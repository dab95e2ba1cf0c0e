//! Two layers, from the bytes of their tars to an index and back.
//!
//! Invariants:
//! - never panics, whatever the layers say; time and memory are bounded by the limits;
//! - an index that is written can be read, and shows exactly the merged tree: names, inodes, hard links, bytes;
//! - the same tree gives the same bytes again.
//!
//! The first byte of the input chooses where the first layer ends; if it is odd, checksums are made right, so that
//! mutations get past them. The `tar` crate as another reader is in layerfs/tests/tar_gnu.rs. As a third input the written index itself is read with one byte changed.
#![no_main]

use celda_layerfs::erofs::{self, Device};
use celda_layerfs::tar::read_all;
use celda_layerfs::tree::Merger;
use celda_layerfs::{Digest, Limits};
use libfuzzer_sys::fuzz_target;

fn limits() -> Limits {
    Limits {
        layer_bytes: 1 << 24,
        entries_count: 1000,
        file_bytes: 1 << 30,
        sparse_segments_count: 1000,
        metadata_bytes: 1 << 20,
        ..Limits::default()
    }
}

fn repair_checksums(tar: &mut [u8]) {
    for block in tar.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, rest)) = input.split_first() else { return };
    let mut bytes = rest.to_vec();
    if first % 2 == 1 {
        repair_checksums(&mut bytes);
    }
    let blocks = bytes.len() / 512;
    let cut = blocks * usize::from(first) / 256 * 512;
    let layers = [&bytes[..cut], &bytes[cut..]];
    let mut merger = Merger::new(&limits());
    for layer in layers {
        let Ok(entries) = read_all(layer, &limits()) else { return };
        if merger.add_layer(entries).is_err() {
            return;
        }
    }
    let tree = merger.finish();
    let devices = layers.map(|tar| Device { tar_bytes: tar.len() as u64, diff_id: Digest::of(tar) });
    let mut content = |layer: u16, offset: u64, into: &mut [u8]| {
        let from = usize::try_from(offset).map_err(std::io::Error::other)?;
        let bytes = layers[usize::from(layer)].get(from..from + into.len());
        into.copy_from_slice(bytes.ok_or_else(|| std::io::Error::other("outside of the tar"))?);
        Ok(())
    };
    let Ok(index) = erofs::write(&tree, &devices, &mut content) else { return };
    assert_eq!(erofs::write(&tree, &devices, &mut content).ok().as_ref(), Some(&index), "not deterministic");
    let parsed = erofs::parse(&index, &limits()).expect("an index that was written can be read");
    assert_eq!(parsed.difference(&index, &tree, &mut content).expect("the tars are there"), None);
    let mut changed = index;
    let at = usize::from(first) * 97 % changed.len();
    changed[at] ^= first | 1;
    if let Ok(parsed) = erofs::parse(&changed, &limits()) {
        let _ = parsed.difference(&changed, &tree, &mut content);
    }
});
