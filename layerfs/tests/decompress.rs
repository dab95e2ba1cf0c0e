//! Blobs, whole and broken, in chunks of every size.
#![allow(clippy::unwrap_used)]

use std::io::Write;

use celda_layerfs::Limits;
use celda_layerfs::decompress::{Compression, DecompressError, Decompressor, OUTPUT_CHUNK_BYTES};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

/// Bytes that do not compress to nothing, several output chunks long.
fn sample() -> Vec<u8> {
    let mut state = 1u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 26) as u8
    };
    (0..3 * OUTPUT_CHUNK_BYTES + 77).map(step).collect()
}

fn inflate_chunks(
    kind: Compression,
    blob: &[u8],
    chunk_bytes: usize,
    limits: &Limits,
) -> Result<Vec<u8>, DecompressError> {
    let mut decompressor = Decompressor::new(kind, limits)?;
    let mut bytes = Vec::new();
    for chunk in blob.chunks(chunk_bytes) {
        decompressor.feed(chunk, &mut |piece| {
            assert!(!piece.is_empty() && piece.len() <= OUTPUT_CHUNK_BYTES);
            bytes.extend_from_slice(piece);
            Ok::<_, DecompressError>(())
        })?;
    }
    assert_eq!(decompressor.finish()?, bytes.len() as u64);
    Ok(bytes)
}

fn inflate(kind: Compression, blob: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let limits = Limits::default();
    let whole = inflate_chunks(kind, blob, blob.len().max(1), &limits);
    for chunk_bytes in [1, 3, 1000, 65_536] {
        let pieces = inflate_chunks(kind, blob, chunk_bytes, &limits);
        match (&whole, &pieces) {
            (Ok(whole), Ok(pieces)) => assert!(whole == pieces, "chunks of {chunk_bytes}"),
            (whole, pieces) => assert_eq!(whole.is_err(), pieces.is_err(), "chunks of {chunk_bytes}"),
        }
    }
    whole
}

#[test]
fn one_member_or_frame() {
    let bytes = sample();
    assert!(inflate(Compression::Gzip, &gzip(&bytes)).unwrap() == bytes);
    assert!(inflate(Compression::Zstd, &zstd(&bytes)).unwrap() == bytes);
    assert!(inflate(Compression::None, &bytes).unwrap() == bytes);
    assert_eq!(inflate(Compression::Gzip, &gzip(b"")).unwrap(), b"");
    assert_eq!(inflate(Compression::Zstd, &zstd(b"")).unwrap(), b"");
    assert_eq!(inflate(Compression::None, b"").unwrap(), b"");
}

#[test]
fn sizes_around_an_output_chunk() {
    for size in [OUTPUT_CHUNK_BYTES - 1, OUTPUT_CHUNK_BYTES, OUTPUT_CHUNK_BYTES + 1, 2 * OUTPUT_CHUNK_BYTES] {
        let bytes = vec![7; size];
        assert!(inflate(Compression::Gzip, &gzip(&bytes)).unwrap() == bytes, "{size}");
        assert!(inflate(Compression::Zstd, &zstd(&bytes)).unwrap() == bytes, "{size}");
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    let bytes = sample();
    let members = [gzip(&bytes), gzip(b""), gzip(b"tail")].concat();
    assert!(inflate(Compression::Gzip, &members).unwrap() == [bytes.as_slice(), b"tail"].concat());
    let skippable = [&[0x53, 0x2a, 0x4d, 0x18, 5, 0, 0, 0][..], b"index"].concat();
    let frames = [skippable.clone(), zstd(&bytes), skippable.clone(), zstd(b"tail"), skippable].concat();
    assert!(inflate(Compression::Zstd, &frames).unwrap() == [bytes.as_slice(), b"tail"].concat());
}

#[test]
fn gzip_padding_is_zeros_and_nothing_else() {
    let member = gzip(b"content");
    let padded = [member.as_slice(), &[0; 700]].concat();
    assert_eq!(inflate(Compression::Gzip, &padded).unwrap(), b"content");
    let offset = member.len() as u64;
    let trailing = |offset| DecompressError::TrailingData { format: "gzip", unit: "member", offset };
    let junk = [member.as_slice(), b"junk"].concat();
    assert_eq!(inflate(Compression::Gzip, &junk), Err(trailing(offset)));
    let after_padding = [padded.as_slice(), &member].concat();
    assert_eq!(inflate(Compression::Gzip, &after_padding), Err(trailing(offset + 700)));
}

#[test]
fn zstd_trailing_junk() {
    let frame = zstd(b"content");
    for junk in [&b"junk and more"[..], &[0; 16]] {
        let blob = [frame.as_slice(), junk].concat();
        let offset = frame.len() as u64;
        let expected = DecompressError::TrailingData { format: "zstd", unit: "frame", offset };
        assert_eq!(inflate(Compression::Zstd, &blob), Err(expected));
    }
}

#[test]
fn truncated_anywhere() {
    for (kind, blob) in
        [(Compression::Gzip, gzip(b"some content")), (Compression::Zstd, zstd(b"some content"))]
    {
        for length in 0..blob.len() {
            let answer = inflate(kind, &blob[..length]);
            assert!(
                matches!(answer, Err(DecompressError::Truncated { .. })),
                "{kind:?} {length}: {answer:?}"
            );
        }
    }
}

#[test]
fn corrupt_anywhere_is_never_taken_for_whole() {
    let content = b"some content, some content".repeat(20);
    let blob = gzip(&content);
    // The header's time, flags for extra compression and system say nothing about the content.
    for at in (0..4).chain(10..blob.len()) {
        let mut broken = blob.clone();
        broken[at] ^= 0x55;
        assert!(inflate(Compression::Gzip, &broken).is_err(), "gzip byte {at}");
    }
    let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(&content).unwrap();
    let blob = encoder.finish().unwrap();
    // Byte 5 only asks for a window, and a larger one harms nobody.
    for at in 6..blob.len() {
        let mut broken = blob.clone();
        broken[at] ^= 0x55;
        assert!(inflate(Compression::Zstd, &broken).is_err(), "zstd byte {at}");
    }
}

#[test]
fn bombs() {
    let zeros = vec![0; 4 << 20];
    let small = Limits { layer_bytes: 1 << 20, ..Limits::default() };
    let narrow = Limits { ratio: 100, ratio_floor_bytes: 1 << 20, ..Limits::default() };
    for (kind, blob) in [(Compression::Gzip, gzip(&zeros)), (Compression::Zstd, zstd(&zeros))] {
        let answer = inflate_chunks(kind, &blob, 64, &small);
        assert_eq!(answer, Err(DecompressError::TooLarge { layer_bytes: 1 << 20 }));
        let answer = inflate_chunks(kind, &blob, 64, &narrow);
        assert!(matches!(answer, Err(DecompressError::Ratio { ratio: 100, .. })), "{kind:?}");
    }
    let answer = inflate_chunks(Compression::None, &zeros, 1 << 20, &small);
    assert_eq!(answer, Err(DecompressError::TooLarge { layer_bytes: 1 << 20 }));
}

#[test]
fn zstd_window_is_bounded() {
    // A frame header alone: no single segment, window of 2^28 bytes (RFC 8878, 3.1.1.1.2), one empty last block.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, (28 - 10) << 3, 0x01, 0x00, 0x00];
    let answer = inflate(Compression::Zstd, &frame);
    assert_eq!(answer, Err(DecompressError::Window { window_log: 27 }));
}

#[test]
fn detection() {
    assert_eq!(Compression::detect(&gzip(b"")), Compression::Gzip);
    assert_eq!(Compression::detect(&zstd(b"")), Compression::Zstd);
    assert_eq!(Compression::detect(&[0x50, 0x2a, 0x4d, 0x18]), Compression::Zstd);
    assert_eq!(Compression::detect(b"etc/passwd"), Compression::None);
    assert_eq!(Compression::detect(b""), Compression::None);
}

#[test]
fn refused_once_is_refused_for_good() {
    let mut decompressor = Decompressor::new(Compression::Gzip, &Limits::default()).unwrap();
    let mut ignore = |_: &[u8]| Ok::<_, DecompressError>(());
    assert!(decompressor.feed(b"not gzip at all", &mut ignore).is_err());
    assert_eq!(decompressor.feed(&gzip(b"x"), &mut ignore), Err(DecompressError::AfterError));
    assert_eq!(decompressor.finish(), Err(DecompressError::AfterError));
}
