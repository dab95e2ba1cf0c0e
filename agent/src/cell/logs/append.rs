//! A chunk of a stream to encoded records, with what the rate limit drops counted; pure.

use super::NOTICE_INTERVAL;
use super::rate::Bucket;
use super::record::{Record, Stream};
use super::split::first_piece;

/// Bytes of encoded records that one chunk may become; what is beyond stays in the pipe for the next.
pub(super) const OUTPUT_BYTES_MAX: usize = 256 << 10;
/// Room for a record or a notice beyond that.
const OUTPUT_SLACK_BYTES: usize = 32 << 10;

/// Capacity that [`encode`] never outgrows.
pub(super) const OUTPUT_CAPACITY: usize = OUTPUT_BYTES_MAX + OUTPUT_SLACK_BYTES;

/// Whether lines are being dropped, and what was dropped since the last notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropping {
    is_on: bool,
    /// Not all of what was dropped was counted: an agent ended meanwhile.
    is_unsure: bool,
    lines: u64,
    bytes: u64,
    noticed_at_ns: u64,
    dropped_at_ns: u64,
}

/// What became of a chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Encoded {
    /// Bytes of the stream that were taken.
    pub(super) stream_bytes: usize,
    /// Records, notices among them.
    pub(super) records_count: u64,
    /// Lines, or parts of them, that were kept.
    pub(super) kept_count: u64,
    /// Lines, or parts of them, that were dropped.
    pub(super) dropped_count: u64,
}

/// Where records go.
pub(super) struct Output<'a> {
    pub(super) bytes: &'a mut Vec<u8>,
    pub(super) now_ns: u64,
    /// Sequence of the next record.
    pub(super) sequence: u64,
}

impl Output<'_> {
    fn record(&mut self, stream: Stream, is_partial: bool, is_dropping: bool, payload: &[u8]) {
        let (sequence, time_ns) = (self.sequence, self.now_ns);
        Record { sequence, time_ns, stream, is_partial, is_dropping, payload }.encode(self.bytes);
        self.sequence += 1;
    }
}

impl Dropping {
    /// That of a log whose last notice says so.
    pub(super) fn taken_up(is_on: bool) -> Self {
        Self { is_on, is_unsure: is_on, ..Self::default() }
    }

    /// Lines are being dropped.
    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    fn add(&mut self, bytes: usize, bucket: &Bucket, output: &mut Output<'_>) {
        if !self.is_on {
            let rate = bucket.rate().bytes_per_s;
            let text =
                format!("celda: the app logs more than {rate} bytes a second; lines are being dropped");
            output.record(Stream::Notice, false, true, text.as_bytes());
            *self = Self { is_on: true, noticed_at_ns: output.now_ns, ..Self::default() };
        }
        self.lines += 1;
        self.bytes += bytes as u64;
        self.dropped_at_ns = output.now_ns;
    }

    /// Says how much was dropped, when that is due, and that no more is, when that is so.
    pub(super) fn notice(&mut self, is_last: bool, output: &mut Output<'_>) {
        let interval_ns = NOTICE_INTERVAL.as_nanos() as u64;
        let is_over = is_last || output.now_ns.saturating_sub(self.dropped_at_ns) >= interval_ns;
        if !self.is_on || (!is_over && output.now_ns.saturating_sub(self.noticed_at_ns) < interval_ns) {
            return;
        }
        let (lines, bytes) = (self.lines, self.bytes);
        let unsure = if self.is_unsure { ", and some more while the agent was restarted" } else { "" };
        let end = if is_over { "; no more are" } else { "" };
        let text = format!("celda: {lines} lines of {bytes} bytes were dropped{unsure}{end}");
        output.record(Stream::Notice, false, !is_over, text.as_bytes());
        *self = Self {
            is_on: !is_over,
            noticed_at_ns: output.now_ns,
            dropped_at_ns: self.dropped_at_ns,
            ..Self::default()
        };
    }
}

/// Encodes the whole lines of `input`; with `flush` what has no end yet as well.
pub(super) fn encode(
    input: &[u8],
    stream: Stream,
    flush: bool,
    mut bucket: Option<&mut Bucket>,
    dropping: &mut Dropping,
    output: &mut Output<'_>,
) -> Encoded {
    let mut encoded = Encoded::default();
    let begin = output.sequence;
    dropping.notice(false, output);
    while output.bytes.len() < OUTPUT_BYTES_MAX {
        let rest = input.get(encoded.stream_bytes..).unwrap_or_default();
        let Some(piece) = first_piece(rest, flush) else { break };
        let payload = rest.get(..piece.payload_bytes).unwrap_or_default();
        encoded.stream_bytes += piece.stream_bytes;
        let now_ns = output.now_ns;
        if let Some(bucket) = &mut bucket
            && !bucket.take(piece.stream_bytes as u64, now_ns)
        {
            dropping.add(piece.stream_bytes, bucket, output);
            encoded.dropped_count += 1;
        } else {
            output.record(stream, piece.is_partial, false, payload);
            encoded.kept_count += 1;
        }
    }
    encoded.records_count = output.sequence - begin;
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::rate::Rate;
    use super::super::record::Records;
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn texts(bytes: &[u8], first: u64) -> Vec<(Stream, bool, String)> {
        let text = |record: Record<'_>| {
            (record.stream, record.is_dropping, String::from_utf8_lossy(record.payload).into_owned())
        };
        let mut records = Records::new(bytes, first);
        let all = records.by_ref().map(text).collect();
        assert_eq!(records.valid_bytes(), bytes.len());
        all
    }

    #[test]
    fn what_is_dropped_is_counted_and_its_end_told() {
        let mut bucket = Bucket::new(Rate { bytes_per_s: 1, burst_bytes: 4 }, 0);
        let mut dropping = Dropping::default();
        let mut bytes = Vec::new();
        let mut output = Output { bytes: &mut bytes, now_ns: 5, sequence: 9 };
        let encoded = encode(
            b"one\ntwo\nthree\n",
            Stream::Output,
            false,
            Some(&mut bucket),
            &mut dropping,
            &mut output,
        );
        assert_eq!(
            (encoded.stream_bytes, encoded.records_count, encoded.kept_count, encoded.dropped_count),
            (14, 2, 1, 2)
        );
        output.now_ns += SECOND_NS;
        assert_eq!(
            encode(b"", Stream::Output, false, Some(&mut bucket), &mut dropping, &mut output).records_count,
            1
        );
        assert!(!dropping.is_on);
        let all = texts(&bytes, 9);
        assert_eq!(all[0], (Stream::Output, false, "one".to_owned()));
        assert!(all[1].1 && all[1].2.contains("more than 1 bytes a second"), "{all:?}");
        assert_eq!(
            all[2],
            (Stream::Notice, false, "celda: 2 lines of 10 bytes were dropped; no more are".to_owned())
        );
    }

    #[test]
    fn lines_between_dropped_ones_make_no_flood_of_notices() {
        let mut bucket = Bucket::new(Rate { bytes_per_s: 200, burst_bytes: 2 }, 0);
        let (mut dropping, mut bytes) = (Dropping::default(), Vec::new());
        let mut output = Output { bytes: &mut bytes, now_ns: 0, sequence: 0 };
        for _ in 0..1000 {
            output.now_ns += SECOND_NS / 200;
            encode(b"a\nb\nc\n", Stream::Output, false, Some(&mut bucket), &mut dropping, &mut output);
        }
        let notices = texts(&bytes, 0).iter().filter(|(stream, ..)| *stream == Stream::Notice).count();
        // Five seconds of it: that it begins, and once a second.
        assert!((5..=6).contains(&notices), "{notices}");
    }

    #[test]
    fn a_chunk_of_line_ends_keeps_to_its_bound() {
        let input = vec![b'\n'; 64 << 10];
        let mut bytes = Vec::with_capacity(OUTPUT_CAPACITY);
        let mut output = Output { bytes: &mut bytes, now_ns: 0, sequence: 0 };
        let encoded = encode(&input, Stream::Error, false, None, &mut Dropping::default(), &mut output);
        assert!(encoded.stream_bytes < input.len() && encoded.stream_bytes as u64 == encoded.records_count);
        assert_eq!(bytes.capacity(), OUTPUT_CAPACITY, "nothing was allocated");
    }
}
