//! What a layer's tar may contain, and what is refused: one test for each, with tars built by hand.
#![allow(clippy::unwrap_used)]

#[path = "support/tar_builder.rs"]
mod tar_builder;

#[path = "tar/features.rs"]
mod features;
#[path = "tar/refusals.rs"]
mod refusals;
#[path = "tar/sparse.rs"]
mod sparse;

use celda_layerfs::Limits;
use celda_layerfs::tar::{Entry, EntryKind, FileData, Segment, TarReader, TarReason, TarSummary, read_all};

/// Reads `tar` whole, then in awkward chunks, and insists on one answer.
fn read(tar: &[u8]) -> Result<Vec<Entry>, TarReason> {
    read_within(tar, &Limits::default())
}

fn read_within(tar: &[u8], limits: &Limits) -> Result<Vec<Entry>, TarReason> {
    let whole = read_all(tar, limits);
    for chunk_bytes in [1, 7, 511, 512, 513, 1000] {
        let pieces = read_chunks(tar, chunk_bytes, limits);
        assert_eq!(pieces, whole, "chunks of {chunk_bytes}");
    }
    whole.map_err(|error| error.reason)
}

fn read_chunks(
    tar: &[u8],
    chunk_bytes: usize,
    limits: &Limits,
) -> Result<Vec<Entry>, celda_layerfs::tar::TarError> {
    let mut entries = Vec::new();
    let mut reader = TarReader::new(limits);
    for chunk in tar.chunks(chunk_bytes) {
        reader.feed(chunk, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
    }
    let TarSummary { entries_count, tar_bytes } = reader.finish()?;
    assert_eq!((entries_count, tar_bytes), (entries.len() as u64, tar.len() as u64));
    Ok(entries)
}

fn paths(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

/// The file's bytes, holes filled.
fn content(tar: &[u8], entry: &Entry) -> Vec<u8> {
    let EntryKind::File(FileData { size_bytes, segments }) = &entry.kind else {
        panic!("not a file: {entry:?}")
    };
    let mut bytes = vec![0; usize::try_from(*size_bytes).unwrap()];
    for &Segment { logical_offset, tar_offset, length_bytes } in segments {
        let (to, from, length) = (logical_offset as usize, tar_offset as usize, length_bytes as usize);
        bytes[to..to + length].copy_from_slice(&tar[from..from + length]);
    }
    bytes
}
