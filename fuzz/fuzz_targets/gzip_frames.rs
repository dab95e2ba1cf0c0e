//! Any bytes as a gzip or zstd blob.
//!
//! Invariants:
//! - never panics, and never hands out more than the limit;
//! - any chunking gives the same bytes, and the same yes or no;
//! - gzip: where flate2's `MultiGzDecoder` accepts, the output is the same; what is accepted here and not there
//!   is padded with zeros.
//!
//! The first byte chooses the codec and the chunks.
#![no_main]

use std::io::Read;

use celda_layerfs::Limits;
use celda_layerfs::decompress::{Compression, DecompressError, Decompressor};
use libfuzzer_sys::fuzz_target;

const LAYER_BYTES: u64 = 1 << 20;

fn run<'a>(kind: Compression, chunks: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, DecompressError> {
    let limits = Limits { layer_bytes: LAYER_BYTES, ..Limits::default() };
    let mut decompressor = Decompressor::new(kind, &limits)?;
    let mut bytes = Vec::new();
    for chunk in chunks {
        decompressor.feed(chunk, &mut |piece| {
            bytes.extend_from_slice(piece);
            assert!(bytes.len() as u64 <= LAYER_BYTES);
            Ok::<_, DecompressError>(())
        })?;
    }
    assert_eq!(decompressor.finish()?, bytes.len() as u64);
    Ok(bytes)
}

fn reference(blob: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut decoder = flate2::bufread::MultiGzDecoder::new(blob).take(LAYER_BYTES + 1);
    decoder.read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= LAYER_BYTES).then_some(bytes)
}

fuzz_target!(|input: &[u8]| {
    let Some((&first, blob)) = input.split_first() else { return };
    let kind = if first & 0x80 == 0 { Compression::Gzip } else { Compression::Zstd };
    let whole = run(kind, std::iter::once(blob));
    let pieces = run(kind, blob.chunks(usize::from(first & 0x7f) + 1));
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces),
        (whole, pieces) => assert_eq!(
            whole.is_ok(),
            pieces.is_ok(),
            "{:?} {:?}",
            whole.as_ref().err(),
            pieces.as_ref().err()
        ),
    }
    if kind == Compression::Gzip {
        match (&whole, reference(blob)) {
            (Ok(bytes), Some(expected)) => assert!(*bytes == expected),
            (Ok(_), None) => assert_eq!(blob.last(), Some(&0), "accepted here alone"),
            // RFC 1952 reserves three flag bits that flate2 lets pass, and no other reason is known.
            (Err(error), Some(expected)) => {
                assert!(matches!(error, DecompressError::Corrupt { .. }) || expected.is_empty(), "{error}");
            }
            (Err(_), None) => {}
        }
    }
});
