//! Two layers, from the bytes of their tars to an index and back.
//!
//! Invariants:
//! - never panics, whatever the layers say; time and memory are bounded by the limits;
//! - an index that is written can be read, and shows exactly the merged tree: names, inodes, hard links, bytes;
//! - the same tree gives the same bytes again;
//! - where the `tar` crate reads a layer without an error, it reads the same names, kinds and bytes: a layer that is
//!   one tree to this reader and another to that one could show one to a scanner and the other to a container.
//!
//! The first byte of the input chooses where the first layer ends; if it is odd, checksums are made right, so that
//! mutations get past them. As a third input the written index itself is read with one byte changed.
#![no_main]

use celda_layerfs::erofs::{self, Device};
use celda_layerfs::tar::{Entry, EntryKind, read_all};
use celda_layerfs::tree::Merger;
use celda_layerfs::{Digest, Limits};
use libfuzzer_sys::fuzz_target;
use std::io::Read as _;

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

/// What both readers say of an entry: its path without what normalising takes away, its kind, its bytes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: Vec<u8>,
    kind: tar::EntryType,
    target: Option<Vec<u8>>,
    content: Vec<u8>,
}

fn normalised(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let parts: Vec<&[u8]> =
        path[..end].split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

fn seen_here(layer: &[u8], entry: &Entry) -> Seen {
    let (kind, target) = match &entry.kind {
        EntryKind::File(_) => (tar::EntryType::Regular, None),
        EntryKind::Directory => (tar::EntryType::Directory, None),
        EntryKind::Symlink(target) => (tar::EntryType::Symlink, Some(target.to_vec())),
        EntryKind::HardLink(target) => (tar::EntryType::Link, Some(normalised(target))),
        EntryKind::CharDevice { .. } => (tar::EntryType::Char, None),
        EntryKind::BlockDevice { .. } => (tar::EntryType::Block, None),
        EntryKind::Fifo => (tar::EntryType::Fifo, None),
    };
    let mut content = Vec::new();
    if let EntryKind::File(data) = &entry.kind {
        for segment in &data.segments {
            let from = segment.tar_offset as usize;
            content.extend_from_slice(&layer[from..from + segment.length_bytes as usize]);
        }
    }
    Seen { path: entry.path.to_vec(), kind, target, content }
}

/// The entries as the `tar` crate reads them; none where it refuses something, or means to read something else.
fn seen_there(layer: &[u8]) -> Option<Vec<Seen>> {
    let mut archive = tar::Archive::new(layer);
    let mut all = Vec::new();
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let path = entry.path_bytes().into_owned();
        let header = entry.header();
        // Of a header without a type only the slash tells.
        let type_byte = match header.as_bytes()[156] {
            0 if path.ends_with(b"/") => b'5',
            other => other,
        };
        match (type_byte, header.entry_size().ok()?) {
            // Labels and the like, which are nothing of the tree.
            (b'V' | b'A' | b'E', _) => continue,
            (0 | b'0', _) | (b'1'..=b'6', 0) => {}
            // Types of one reader only, and content that one of them does not expect.
            _ => return None,
        }
        let kind = tar::EntryType::new(type_byte);
        let target = match kind {
            tar::EntryType::Symlink => Some(entry.link_name_bytes()?.into_owned()),
            tar::EntryType::Link => Some(normalised(&entry.link_name_bytes()?)),
            _ => None,
        };
        let mut content = Vec::new();
        entry.read_to_end(&mut content).ok()?;
        all.push(Seen { path: normalised(&path), kind, target, content });
    }
    Some(all)
}

/// Whether the layer has only what both readers mean to support: ustar and GNU headers of the POSIX types, GNU long
/// names, pax headers without sparse maps, and each pax key once (POSIX lets the last one win, the crate the first). GNU
/// headers have nothing where others have a prefix: what is no time there is taken for one by this reader only.
fn is_common(layer: &[u8], entries: &[Entry]) -> bool {
    let magic = |block: &[u8]| match &block[257..265] {
        b"ustar\x0000" => true,
        b"ustar  \0" => block[345..500].iter().all(|&byte| byte == 0),
        _ => false,
    };
    let count = |words: &[u8]| layer.windows(words.len()).filter(|window| *window == words).count();
    let blocks = layer.as_chunks::<512>().0;
    blocks.iter().filter(|block| &block[257..262] == b"ustar").all(|block| {
        let is_empty = block[124..136].iter().all(|byte| matches!(byte, b'0' | b' ' | 0));
        match block[156] {
            0 | b'0' | b'x' | b'L' | b'K' => magic(&block[..]),
            b'1'..=b'6' => magic(&block[..]) && is_empty,
            _ => false,
        }
    }) && entries.iter().all(|entry| magic(&layer[entry.header_offset as usize..][..512]))
        && count(b"GNU.sparse") == 0
        && [&b" path="[..], b" linkpath=", b" size="].into_iter().all(|key| count(key) <= 1)
}

fn compare_readers(layer: &[u8], entries: &[Entry]) {
    if !is_common(layer, entries) {
        return;
    }
    let Some(there) = seen_there(layer) else { return };
    let here: Vec<Seen> = entries.iter().map(|entry| seen_here(layer, entry)).collect();
    assert_eq!(here, there, "two readers, two trees");
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
        compare_readers(layer, &entries);
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
