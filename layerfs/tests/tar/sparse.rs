//! The four GNU sparse formats, right and wrong.

use celda_layerfs::Limits;
use celda_layerfs::tar::{EntryKind, TarReason};

use super::tar_builder::{Head, TarBuilder};
use super::{content, paths, read, read_within};

/// What every tar here stores: 512 bytes of `a` at 0, 100 of `b` at 4096, and a hole up to 8192.
fn logical() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..512].fill(b'a');
    bytes[4096..4196].fill(b'b');
    bytes
}

fn stored() -> Vec<u8> {
    [vec![b'a'; 512], vec![b'b'; 100]].concat()
}

fn check(tar: TarBuilder) {
    let tar = tar.file("next", b"x").end();
    let entries = read(&tar).unwrap();
    assert_eq!(paths(&entries), ["sparse", "next"]);
    let EntryKind::File(data) = &entries[0].kind else { panic!("{entries:?}") };
    assert_eq!(data.segments.len(), 2);
    assert_eq!(data.segments[0].tar_offset % 512, 0);
    assert!(content(&tar, &entries[0]) == logical());
}

fn refusal(tar: TarBuilder) -> &'static str {
    match read(&tar.file("next", b"x").end()) {
        Err(TarReason::Sparse(what)) => what,
        Err(other) => panic!("{other:?}"),
        Ok(entries) => panic!("{} entries were read", entries.len()),
    }
}

/// An old GNU header with its runs; those beyond four go to extension blocks.
fn old_gnu(runs: &[(u64, u64)], real_size: u64, stored: &[u8]) -> TarBuilder {
    let mut head = Head::gnu(b'S', "sparse").size(stored.len() as u64).octal(483, 12, real_size);
    let (first, more) = runs.split_at(runs.len().min(4));
    for (number, &(offset, length)) in first.iter().enumerate() {
        head = head.octal(386 + 24 * number, 12, offset).octal(398 + 24 * number, 12, length);
    }
    let mut tar = TarBuilder::new().head(head.field(482, &[u8::from(!more.is_empty())]));
    let mut chunks = more.chunks(21).peekable();
    while let Some(chunk) = chunks.next() {
        let mut block = Head { block: [0; 512] };
        for (number, &(offset, length)) in chunk.iter().enumerate() {
            block = block.octal(24 * number, 12, offset).octal(24 * number + 12, 12, length);
        }
        tar = tar.content(&block.field(504, &[u8::from(chunks.peek().is_some())]).block);
    }
    tar.content(stored)
}

fn pax_0_1(map: &str, size: &str, stored: &[u8]) -> TarBuilder {
    let records: [(&str, &[u8]); 3] = [
        ("GNU.sparse.size", size.as_bytes()),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.map", map.as_bytes()),
    ];
    TarBuilder::new().pax(&records).entry(Head::ustar(b'0', "GNUSparseFile.1/sparse"), stored)
}

fn pax_1_0(map: &str, size: &str, stored: &[u8]) -> TarBuilder {
    let mut body = map.as_bytes().to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body.extend_from_slice(stored);
    let records: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"sparse"),
        ("GNU.sparse.realsize", size.as_bytes()),
    ];
    TarBuilder::new().pax(&records).entry(Head::ustar(b'0', "GNUSparseFile.1/sparse"), &body)
}

#[test]
fn old_gnu_in_the_header() {
    check(old_gnu(&[(0, 512), (4096, 100), (8192, 0)], 8192, &stored()));
}

#[test]
fn old_gnu_with_extension_blocks() {
    // Runs of one byte with a hole of one byte between them, over two extension blocks.
    let runs: Vec<(u64, u64)> = (0..40).map(|number| (number * 2, 1)).collect();
    let stored: Vec<u8> = (1..=40).collect();
    let tar = old_gnu(&runs, 80, &stored).file("next", b"x").end();
    let entries = read(&tar).unwrap();
    assert_eq!(paths(&entries), ["sparse", "next"]);
    let expected: Vec<u8> = (1..=40).flat_map(|byte| [byte, 0]).collect();
    assert_eq!(content(&tar, &entries[0]), expected);
    let EntryKind::File(data) = &entries[0].kind else { panic!("{entries:?}") };
    assert_eq!((data.segments.len(), data.segments[0].tar_offset), (40, 3 * 512));
}

#[test]
fn pax_0_0() {
    let records: [(&str, &[u8]); 6] = [
        ("GNU.sparse.size", b"8192"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"0"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"100"),
    ];
    check(TarBuilder::new().pax(&records).entry(Head::ustar(b'0', "sparse"), &stored()));
}

#[test]
fn pax_0_1_and_1_0() {
    check(pax_0_1("0,512,4096,100", "8192", &stored()));
    check(pax_1_0("2\n0\n512\n4096\n100\n", "8192", &stored()));
    check(pax_1_0("3\n0\n512\n4096\n100\n8192\n0\n", "8192", &stored()));
}

#[test]
fn pax_1_0_with_a_map_of_several_blocks() {
    let runs = 300;
    let map: String = std::iter::once(format!("{runs}\n"))
        .chain((0..runs).map(|at| format!("{}\n1\n", at * 1000)))
        .collect();
    let stored = vec![b'z'; runs];
    let tar = pax_1_0(&map, "300000", &stored).end();
    let entries = read(&tar).unwrap();
    let bytes = content(&tar, &entries[0]);
    assert!((0..runs).all(|at| bytes[at * 1000] == b'z' && bytes[at * 1000 + 1] == 0));
}

#[test]
fn all_hole_and_all_data() {
    let tar = pax_1_0("1\n4096\n0\n", "4096", b"").file("next", b"").end();
    let entries = read(&tar).unwrap();
    assert_eq!(content(&tar, &entries[0]), vec![0; 4096]);
    let none = pax_1_0("0\n", "4096", b"").end();
    assert_eq!(content(&none, &read(&none).unwrap()[0]), vec![0; 4096]);
    let adjacent = pax_0_1("0,10,10,10", "20", &[b'x'; 20]).end();
    let entries = read(&adjacent).unwrap();
    let EntryKind::File(data) = &entries[0].kind else { panic!("{entries:?}") };
    assert_eq!(data.segments.len(), 1);
}

#[test]
fn maps_that_cannot_be() {
    refusal(pax_0_1("0,512,100,100", "8192", &stored()));
    refusal(pax_0_1("4096,100,0,512", "8192", &stored()));
    refusal(pax_0_1("0,512,8192,100", "8192", &stored()));
    refusal(pax_0_1("0,512", "8192", &stored()));
    refusal(pax_0_1("0,512,4096,101", "8192", &stored()));
    refusal(pax_0_1("18446744073709551615,1", "8192", b"x"));
    refusal(pax_1_0("2\n0\n512\n4096\n", "8192", &stored()));
    refusal(pax_1_0("x\n", "8192", &stored()));
    refusal(pax_1_0("1", "8192", b""));
    refusal(old_gnu(&[(0, 512), (256, 100)], 8192, &stored()));
    refusal(TarBuilder::new().pax(&[("GNU.sparse.numbytes", b"1")]).file("sparse", b"x"));
    refusal(TarBuilder::new().pax(&[("GNU.sparse.offset", b"1")]).file("sparse", b"x"));
    refusal(TarBuilder::new().pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.size", b"1")]).file("s", b"x"));
    refusal(TarBuilder::new().pax(&[("GNU.sparse.map", b"0,1")]).file("sparse", b"x"));
    let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"1"), ("GNU.sparse.map", b"0,1")];
    refusal(TarBuilder::new().pax(&records).directory("sparse"));
}

#[test]
fn sparse_bombs() {
    let limit = |tar: TarBuilder, limits: &Limits| match read_within(&tar.end(), limits) {
        Err(TarReason::Limit { limit, .. }) => limit,
        Err(other) => panic!("{other:?}"),
        Ok(entries) => panic!("{} entries were read", entries.len()),
    };
    let base = Limits::default;
    let huge = pax_0_1("0,1", "9000000000000000000", b"x");
    assert_eq!(limit(huge, &base()), "file_bytes");
    let few = Limits { sparse_segments_count: 2, ..base() };
    assert_eq!(limit(pax_0_1("0,1,2,1,4,1", "8", b"xxx"), &few), "sparse_segments_count");
    assert_eq!(limit(pax_1_0("3\n0\n1\n2\n1\n4\n1\n", "8", b"xxx"), &few), "sparse_segments_count");
    assert_eq!(limit(old_gnu(&[(0, 1), (2, 1), (4, 1)], 8, b"xxx"), &few), "sparse_segments_count");
}
