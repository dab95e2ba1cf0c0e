//! Any bytes as a segment of a log.
//!
//! Invariants:
//! - never panics, whatever comes;
//! - what is answered was in the bytes: encoded again it is the same, up to where the valid bytes end;
//! - sequences follow one another from the segment's first on;
//! - any cut gives the records before it, and no other.
//!
//! The first byte chooses: an odd one also has every record's checksum made right, so that mutations get past it.
#![no_main]

#[path = "../../agent/src/cell/logs/record.rs"]
#[allow(dead_code, unreachable_pub)]
mod record;

use libfuzzer_sys::fuzz_target;
use record::{HEADER_BYTES, Record, Records, SEGMENT_HEADER_BYTES, SegmentHeader};

/// Makes the checksums right, as far as lengths lead to records.
fn mend(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(length) = bytes.get(at + 4..at + 6) {
        let end = at + HEADER_BYTES + usize::from(u16::from_le_bytes([length[0], length[1]]));
        let Some(checked) = bytes.get(at + 4..end) else { return };
        let crc = crc32fast::hash(checked);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    let mut data = data.to_vec();
    let first = SegmentHeader::decode(&data).map_or(0, |header| {
        assert_eq!(header.encode(), data[..SEGMENT_HEADER_BYTES]);
        header.first_sequence
    });
    let Some(bytes) = data.get_mut(SEGMENT_HEADER_BYTES..) else { return };
    if choice & 1 == 1 {
        mend(bytes);
    }
    let mut records = Records::new(bytes, first);
    let (mut again, mut sequence, mut ends) = (Vec::new(), first, Vec::new());
    for record in records.by_ref() {
        assert_eq!(record.sequence, sequence);
        sequence += 1;
        record.encode(&mut again);
        ends.push(again.len());
    }
    assert_eq!(again, bytes[..records.valid_bytes()]);
    let cut = usize::from(*choice) * bytes.len() / 256;
    assert_eq!(Records::new(&bytes[..cut], first).count(), ends.iter().filter(|end| **end <= cut).count());
    if let Ok((record, length)) = Record::decode(bytes) {
        assert_eq!(length, Record::encoded_bytes(record.payload.len()));
    }
});
