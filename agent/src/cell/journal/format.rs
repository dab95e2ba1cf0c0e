//! The journal's bytes, read and written without I/O.
//!
//! ```text
//! file    "celda journal 1\n" | frame | frame | ...
//! frame   magic u32 | length u32 | synced u64 | crc u32 | payload of `length` bytes       little-endian
//!         crc: CRC-32 of length, synced and payload
//!         synced: bytes of the file that were on the disk for sure when this frame was written
//! payload a record a line, JSON
//! ```
//! A crash of the machine may lose or spoil what was written and not synced: such a tail is cut, and nobody was promised
//! anything of it. `synced` tells that from damage: where a frame that is bad or gone lies below what was once on the
//! disk, the disk or somebody has changed it, and nothing is guessed.

/// What the file begins with; the number is the format's version.
pub const HEADER: &[u8; 16] = b"celda journal 1\n";
/// Bytes before a frame's payload.
pub const FRAME_HEAD_BYTES: usize = 20;
/// Bytes that one frame's payload may have.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Bytes that a journal may have: more is no journal of ours, which is compacted long before.
pub const FILE_BYTES_MAX: u64 = 512 << 20;

const MAGIC: u32 = 0xce1d_a10b;

/// What a journal holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents<'a> {
    /// The payloads of the whole frames, in order.
    pub payloads: Vec<&'a [u8]>,
    /// How many bytes of the file are whole: what follows is a torn tail.
    pub whole_bytes: usize,
}

/// Why bytes are no journal that can be gone on from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The first bytes are not the header.
    #[error("it does not begin as a journal of this version does")]
    Header,
    /// Bytes that were on the disk once are not what they were.
    #[error("the frame at byte {at} is damaged, though {synced_bytes} bytes were on the disk once")]
    Frame {
        /// Where.
        at: usize,
        /// What was on the disk.
        synced_bytes: u64,
    },
    /// It is larger than any journal.
    #[error("it has more than {FILE_BYTES_MAX} bytes")]
    Size,
    /// A frame whose checksum holds has a record that this version does not know.
    #[error("a record of it is not known to this version: {0}")]
    Record(String),
}

/// Reads a journal's bytes.
///
/// # Errors
/// [`Damage::Header`] and [`Damage::Frame`].
pub fn read(bytes: &[u8]) -> Result<Contents<'_>, Damage> {
    if !bytes.starts_with(HEADER) {
        return Err(Damage::Header);
    }
    // Header and first frame are synced before the file has its name: a piece of them was never a journal.
    if frame(bytes, HEADER.len()).is_none() {
        return Err(Damage::Frame { at: HEADER.len(), synced_bytes: bytes.len() as u64 });
    }
    let (mut at, mut payloads, mut synced_bytes) = (HEADER.len(), Vec::new(), 0);
    while let Some(frame) = frame(bytes, at) {
        payloads.push(frame.payload);
        synced_bytes = synced_bytes.max(frame.synced_bytes);
        at = frame.end;
    }
    let later = later_frames(bytes, at).map(|frame| frame.synced_bytes).max().unwrap_or(0);
    let synced_bytes = synced_bytes.max(later);
    if synced_bytes > at as u64 {
        return Err(Damage::Frame { at, synced_bytes });
    }
    Ok(Contents { payloads, whole_bytes: at })
}

/// Appends a frame to `out`. `synced_bytes` are on the disk for sure.
pub fn write(out: &mut Vec<u8>, payload: &[u8], synced_bytes: u64) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&synced_bytes.to_le_bytes());
    out.extend_from_slice(&checksum(length, synced_bytes, payload).to_le_bytes());
    out.extend_from_slice(payload);
}

struct Frame<'a> {
    payload: &'a [u8],
    synced_bytes: u64,
    end: usize,
}

/// The frame that begins at `at`, if a whole one does.
fn frame(bytes: &[u8], at: usize) -> Option<Frame<'_>> {
    let head = bytes.get(at..at.checked_add(FRAME_HEAD_BYTES)?)?;
    let word = |from: usize| Some(u32::from_le_bytes(head.get(from..from + 4)?.try_into().ok()?));
    let length = word(4)?;
    if word(0)? != MAGIC || length as usize > PAYLOAD_BYTES_MAX {
        return None;
    }
    let synced_bytes = u64::from_le_bytes(head.get(8..16)?.try_into().ok()?);
    let end = at.checked_add(FRAME_HEAD_BYTES)?.checked_add(length as usize)?;
    let payload = bytes.get(at + FRAME_HEAD_BYTES..end)?;
    (checksum(length, synced_bytes, payload) == word(16)?).then_some(Frame { payload, synced_bytes, end })
}

/// Whole frames after a bad one, wherever they begin. Bytes are hashed once for each magic number in them, so a payload
/// that is full of magic numbers could make this slow: a frame found is skipped as a whole, and the search ends after
/// [`SEARCHES_COUNT_MAX`] that were none.
fn later_frames(bytes: &[u8], from: usize) -> impl Iterator<Item = Frame<'_>> {
    let (mut at, mut searches) = (from, 0);
    std::iter::from_fn(move || {
        while searches < SEARCHES_COUNT_MAX {
            let rest = bytes.get(at..)?;
            let found = rest.windows(4).position(|four| four == MAGIC.to_le_bytes())?;
            at += found;
            if let Some(frame) = frame(bytes, at) {
                at = frame.end;
                return Some(frame);
            }
            at += 1;
            searches += 1;
        }
        None
    })
}

/// Places that look like a frame's begin and are none: more is an attack on whoever reads, or a broken disk.
const SEARCHES_COUNT_MAX: usize = 4096;

fn checksum(length: u32, synced_bytes: u64, payload: &[u8]) -> u32 {
    let mut digest = crc32fast::Hasher::new();
    digest.update(&length.to_le_bytes());
    digest.update(&synced_bytes.to_le_bytes());
    digest.update(payload);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A journal of these payloads, each synced before the next; and where its frames end.
    fn journal(payloads: &[&[u8]], synced: bool) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = HEADER.to_vec();
        let mut ends = Vec::new();
        for payload in payloads {
            let synced_bytes = if synced { bytes.len() as u64 } else { 0 };
            write(&mut bytes, payload, synced_bytes);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn what_is_written_is_read() {
        let (bytes, _) = journal(&[b"one", b"", b"three"], true);
        let contents = read(&bytes).expect("whole");
        assert_eq!(
            (contents.payloads, contents.whole_bytes),
            (vec![&b"one"[..], b"", b"three"], bytes.len())
        );
    }

    #[test]
    fn every_torn_tail_is_cut() {
        let (bytes, ends) = journal(&[b"one", b"two", b"three"], true);
        for length in ends[1]..bytes.len() {
            assert_eq!(read(&bytes[..length]).expect("torn").whole_bytes, ends[1], "{length}");
        }
        let mut spoiled = bytes.clone();
        spoiled[ends[1]..].fill(0);
        assert_eq!(read(&spoiled).expect("a tail of zeros").whole_bytes, ends[1]);
    }

    #[test]
    fn every_changed_bit_of_what_was_synced_is_seen() {
        let (bytes, ends) = journal(&[b"one", b"two", b"three"], true);
        for bit in 0..ends[1] * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&changed).is_err(), "bit {bit}");
        }
        for length in 0..ends[0] {
            assert!(read(&bytes[..length]).is_err(), "the first frame has {length} bytes");
        }
        let lost = &bytes[..ends[0]];
        assert_eq!(read(lost).expect("nothing says that there was more").whole_bytes, ends[0]);
    }

    #[test]
    fn what_was_never_synced_may_be_lost_in_any_order() {
        let (mut bytes, ends) = journal(&[b"one", b"two", b"three"], false);
        bytes[ends[0] + 3] ^= 1;
        assert_eq!(read(&bytes).expect("torn").whole_bytes, ends[0]);
    }

    #[test]
    fn another_files_bytes_are_refused() {
        for bytes in [&b""[..], b"{}", b"celda journal 2\n", b"celda", &[0; 64]] {
            assert_eq!(read(bytes), Err(Damage::Header));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), begins in any::<bool>()) {
            if begins {
                bytes.splice(0..0, HEADER.iter().copied());
            }
            if let Ok(contents) = read(&bytes) {
                prop_assert!(contents.whole_bytes <= bytes.len());
            }
        }
    }
}
