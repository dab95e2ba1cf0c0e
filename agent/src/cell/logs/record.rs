//! Records of a log file: bytes in, records out; pure.
//!
//! ```text
//! segment:  "celdalog" | version u32 | crc u32 | first sequence u64 | made at, ns u64 | record | record | ...
//! record:   crc u32 | payload bytes u16 | stream u8 | flags u8 | sequence u64 | time, ns u64 | payload
//! ```
//! All little-endian; a crc is CRC-32 (ISO-HDLC) of what follows it. Sequences of a segment are without a hole, so a
//! reader knows how many records it missed between two segments. What does not hold is torn: where that is the end of
//! the last segment it is cut off, since nothing after it can be found again.

/// Bytes before a record's payload.
pub const HEADER_BYTES: usize = 24;
/// Bytes before a segment's first record.
pub const SEGMENT_HEADER_BYTES: usize = 32;
/// Longest payload; a longer line is split into partial records.
pub const LINE_BYTES_MAX: usize = 16 << 10;

const MAGIC: &[u8; 8] = b"celdalog";
const VERSION: u32 = 1;
/// The line goes on in the stream's next record.
const FLAG_PARTIAL: u8 = 1;
/// Lines are being dropped from this notice on.
const FLAG_DROPPING: u8 = 2;

/// Where a record comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// The instance's standard output.
    Output,
    /// Its standard error.
    Error,
    /// The cell itself, about the log.
    Notice,
}

impl Stream {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Output),
            1 => Some(Self::Error),
            2 => Some(Self::Notice),
            _ => None,
        }
    }
}

/// One line, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// One more than the record's before, over both streams.
    pub sequence: u64,
    /// When it was read, in nanoseconds since 1970.
    pub time_ns: u64,
    /// Where it comes from.
    pub stream: Stream,
    /// The line goes on in the next record of its stream.
    pub is_partial: bool,
    /// A notice after which lines are dropped, until a notice without this.
    pub is_dropping: bool,
    /// The line without its end.
    pub payload: &'a [u8],
}

/// What a segment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Sequence of its first record.
    pub first_sequence: u64,
    /// When it was made, in nanoseconds since 1970: no record of it is older.
    pub made_at_ns: u64,
}

/// The bytes are not what was written, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn;

fn fixed<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Torn> {
    bytes.get(at..).and_then(<[u8]>::first_chunk).copied().ok_or(Torn)
}

impl SegmentHeader {
    /// As bytes.
    pub fn encode(self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let fields = [
            (0, &MAGIC[..]),
            (8, &VERSION.to_le_bytes()),
            (16, &self.first_sequence.to_le_bytes()),
            (24, &self.made_at_ns.to_le_bytes()),
        ];
        for (at, field) in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
        }
        let crc = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads it off the beginning of a segment.
    ///
    /// # Errors
    /// [`Torn`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Torn> {
        let is_ours = fixed(bytes, 0)? == *MAGIC && u32::from_le_bytes(fixed(bytes, 8)?) == VERSION;
        let crc = u32::from_le_bytes(fixed(bytes, 12)?);
        let fields: [u8; 16] = fixed(bytes, 16)?;
        if !is_ours || crc32fast::hash(&fields) != crc {
            return Err(Torn);
        }
        let number = |at| fixed(&fields, at).map(u64::from_le_bytes);
        Ok(Self { first_sequence: number(0)?, made_at_ns: number(8)? })
    }
}

impl<'a> Record<'a> {
    /// Appends it; a payload beyond [`LINE_BYTES_MAX`] is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let payload = self.payload.get(..LINE_BYTES_MAX).unwrap_or(self.payload);
        let mut header = [0; HEADER_BYTES];
        header[4..6].copy_from_slice(&(payload.len() as u16).to_le_bytes()); // below 2^16 by the cut
        header[6] = self.stream as u8;
        header[7] = (u8::from(self.is_partial) * FLAG_PARTIAL) | (u8::from(self.is_dropping) * FLAG_DROPPING);
        header[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        header[16..24].copy_from_slice(&self.time_ns.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header[4..]);
        crc.update(payload);
        header[..4].copy_from_slice(&crc.finalize().to_le_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(payload);
    }

    /// Bytes that it takes in a file.
    pub fn encoded_bytes(payload_bytes: usize) -> usize {
        HEADER_BYTES + payload_bytes.min(LINE_BYTES_MAX)
    }

    /// Reads one off the beginning of `bytes`; also how many bytes it has.
    ///
    /// # Errors
    /// [`Torn`] when it is not whole, or never was one.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, usize), Torn> {
        let header: [u8; HEADER_BYTES] = fixed(bytes, 0)?;
        let payload_bytes = usize::from(u16::from_le_bytes(fixed(&header, 4)?));
        let end = HEADER_BYTES + payload_bytes;
        let checked = bytes.get(4..end).ok_or(Torn)?;
        let (stream, flags) = (Stream::from_byte(header[6]).ok_or(Torn)?, header[7]);
        let is_ours = payload_bytes <= LINE_BYTES_MAX && flags & !(FLAG_PARTIAL | FLAG_DROPPING) == 0;
        if !is_ours || crc32fast::hash(checked) != u32::from_le_bytes(fixed(&header, 0)?) {
            return Err(Torn);
        }
        let record = Self {
            sequence: u64::from_le_bytes(fixed(&header, 8)?),
            time_ns: u64::from_le_bytes(fixed(&header, 16)?),
            stream,
            is_partial: flags & FLAG_PARTIAL != 0,
            is_dropping: flags & FLAG_DROPPING != 0,
            payload: bytes.get(HEADER_BYTES..end).ok_or(Torn)?,
        };
        Ok((record, end))
    }
}

/// The records of a part of a segment, as long as they hold and follow one another.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    next_sequence: u64,
}

impl<'a> Records<'a> {
    /// `bytes` begin with the record `first_sequence`, after a segment's header.
    pub fn new(bytes: &'a [u8], first_sequence: u64) -> Self {
        Self { bytes, at: 0, next_sequence: first_sequence }
    }

    /// Bytes of the records that were answered.
    pub fn valid_bytes(&self) -> usize {
        self.at
    }

    /// Sequence of the record that would be next.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (record, bytes) = Record::decode(self.bytes.get(self.at..)?).ok()?;
        if record.sequence != self.next_sequence {
            return None;
        }
        self.at += bytes;
        self.next_sequence = self.next_sequence.checked_add(1)?;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(lines: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, payload) in lines.iter().enumerate() {
            let stream = [Stream::Output, Stream::Error, Stream::Notice][index % 3];
            let (is_partial, is_dropping) = (index % 2 == 0, index % 5 == 0);
            let sequence = 7 + index as u64;
            Record { sequence, time_ns: sequence * 3, stream, is_partial, is_dropping, payload }
                .encode(&mut out);
        }
        out
    }

    #[test]
    fn the_format_is_as_drawn() {
        let header = SegmentHeader { first_sequence: 0x0102, made_at_ns: 3 }.encode();
        assert_eq!(header[..12], *b"celdalog\x01\0\0\0");
        assert_eq!(header[12..16], crc32fast::hash(&header[16..]).to_le_bytes());
        assert_eq!(header[16..], [2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
        let mut out = Vec::new();
        let record = Record {
            sequence: 5,
            time_ns: 6,
            stream: Stream::Error,
            is_partial: true,
            is_dropping: false,
            payload: b"hi",
        };
        record.encode(&mut out);
        assert_eq!(out[4..], *b"\x02\0\x01\x01\x05\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0hi");
        assert_eq!(out[..4], crc32fast::hash(&out[4..]).to_le_bytes());
        assert_eq!(Record::decode(&out), Ok((record, out.len())));
        assert_eq!(out.len(), Record::encoded_bytes(2));
    }

    #[test]
    fn zeros_are_no_record() {
        assert_eq!(Record::decode(&[0; 64]), Err(Torn));
        assert_eq!(SegmentHeader::decode(&[0; 64]), Err(Torn));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
            let bytes = file(&lines);
            let mut records = Records::new(&bytes, 7);
            let read: Vec<Vec<u8>> = records.by_ref().map(|record| record.payload.to_vec()).collect();
            prop_assert_eq!(&read, &lines);
            prop_assert_eq!(records.valid_bytes(), bytes.len());
            prop_assert_eq!(records.next_sequence(), 7 + lines.len() as u64);
        }

        #[test]
        fn a_cut_or_changed_file_is_valid_up_to_there(
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..12),
            at in any::<prop::sample::Index>(), bit in 0..8_u32, cut in any::<bool>()
        ) {
            let mut bytes = file(&lines);
            let at = at.index(bytes.len());
            if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
            let mut records = Records::new(&bytes, 7);
            let count = records.by_ref().count();
            // The record that holds the byte is the first that is not answered.
            let ends = lines.iter().scan(0, |end, line| { *end += Record::encoded_bytes(line.len()); Some(*end) });
            prop_assert_eq!(count, ends.filter(|end| *end <= at).count());
            prop_assert!(records.valid_bytes() <= at);
        }
    }
}
