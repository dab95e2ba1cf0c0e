//! Any bytes as a tar.
//!
//! Invariants:
//! - never panics, whatever comes;
//! - any chunking gives the entries and the error of one feed, and a good tar those of `read_all`;
//! - every path is relative and normalised; every segment lies inside the tar, ascending and inside its file;
//! - what is kept is bounded by the limits, not by what the tar claims.
//!
//! The first two bytes of the input choose the chunks; an odd first byte also has the checksum of every block with
//! a magic made right, so that mutations get past it.
#![no_main]

use celda_layerfs::Limits;
use celda_layerfs::tar::{Entry, EntryKind, TarError, TarReader, TarSummary, read_all};
use libfuzzer_sys::fuzz_target;

const METADATA_BYTES: u64 = 1 << 20;

fn limits() -> Limits {
    Limits {
        layer_bytes: 1 << 24,
        entries_count: 1000,
        file_bytes: 1 << 30,
        sparse_segments_count: 1000,
        metadata_bytes: METADATA_BYTES,
        ..Limits::default()
    }
}

fn run<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Entry>, Result<TarSummary, TarError>) {
    let mut entries = Vec::new();
    let mut reader = TarReader::new(&limits());
    for chunk in chunks {
        let fed = reader.feed(chunk, &mut |entry| {
            entries.push(entry);
            Ok(())
        });
        if let Err(error) = fed {
            assert!(reader.finish().is_err(), "a refused tar finished well");
            return (entries, Err(error));
        }
    }
    let summary = reader.finish();
    (entries, summary)
}

fn check_path(path: &[u8]) {
    for component in path.split(|&byte| byte == b'/') {
        assert!(!matches!(component, b"" | b"." | b".."), "{path:?}");
        assert!(!component.contains(&0), "{path:?}");
    }
}

fn check(entry: &Entry, tar_bytes: Option<u64>) {
    if !entry.path.is_empty() {
        check_path(&entry.path);
    }
    assert!(!entry.path.is_empty() || entry.kind == EntryKind::Directory);
    assert!(entry.mode <= 0o7777 && entry.mtime.nanoseconds < 1_000_000_000);
    match &entry.kind {
        EntryKind::HardLink(target) => check_path(target),
        EntryKind::File(data) => {
            let (mut logical, mut physical) = (0, entry.header_offset + 512);
            for segment in &data.segments {
                assert!(segment.length_bytes > 0);
                assert!(segment.logical_offset >= logical && segment.tar_offset >= physical);
                logical = segment.logical_offset + segment.length_bytes;
                physical = segment.tar_offset + segment.length_bytes;
            }
            assert!(logical <= data.size_bytes);
            assert!(data.segments.first().is_none_or(|segment| segment.tar_offset % 512 == 0));
            assert!(tar_bytes.is_none_or(|tar_bytes| physical <= tar_bytes || data.segments.is_empty()));
        }
        _ => {}
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
    let Some((&[first, second], tar)) = input.split_first_chunk() else { return };
    let mut tar = tar.to_vec();
    if first % 2 == 1 {
        repair_checksums(&mut tar);
    }
    let tar = tar.as_slice();
    let whole = run(std::iter::once(tar));
    let (head, tail) = tar.split_at(tar.len().min(usize::from(second) * 3));
    let chunk_bytes = usize::from(first) * 5 + 1;
    let pieces = run(head.chunks(chunk_bytes).chain(tail.chunks(chunk_bytes * 3)));
    assert_eq!(whole, pieces);
    match (&whole, read_all(tar, &limits())) {
        ((entries, Ok(_)), Ok(all)) => assert_eq!(*entries, all),
        ((_, Err(error)), Err(other)) => assert_eq!(*error, other),
        (whole, all) => panic!("{whole:?} but {all:?}"),
    }
    let (entries, summary) = whole;
    let tar_bytes = summary.is_ok().then_some(tar.len() as u64);
    entries.iter().for_each(|entry| check(entry, tar_bytes));
    let kept: usize = entries
        .iter()
        .map(|entry| {
            size_of::<Entry>() + entry.path.len() + entry.xattrs.iter().map(|x| x.value.len()).sum::<usize>()
        })
        .sum();
    assert!(kept as u64 <= METADATA_BYTES);
});
