//! A stream's bytes to lines; pure.
//!
//! ```text
//! "one\ntwo and more than LINE_BYTES_MAX ...\nrest"  ->  [one] [two and ..., partial] [...] | rest stays in its pipe
//! ```

use super::record::LINE_BYTES_MAX;

/// Bytes of the longest UTF-8 sequence but one.
const UTF8_REST_BYTES_MAX: usize = 3;

/// What becomes one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Bytes of the payload.
    pub payload_bytes: usize,
    /// Bytes of the stream that it stands for: with the line's end.
    pub stream_bytes: usize,
    /// The line goes on.
    pub is_partial: bool,
}

/// The piece at the beginning of `bytes`; nothing when it is not complete, unless `flush` asks for what there is.
pub fn first_piece(bytes: &[u8], flush: bool) -> Option<Piece> {
    let window = bytes.get(..=LINE_BYTES_MAX).unwrap_or(bytes);
    if let Some(end) = memchr::memchr(b'\n', window) {
        return Some(Piece { payload_bytes: end, stream_bytes: end + 1, is_partial: false });
    }
    let bytes_count = if bytes.len() > LINE_BYTES_MAX {
        whole_characters(window.get(..LINE_BYTES_MAX).unwrap_or(window))
    } else if flush && !bytes.is_empty() {
        bytes.len()
    } else {
        return None;
    };
    Some(Piece { payload_bytes: bytes_count, stream_bytes: bytes_count, is_partial: true })
}

/// Bytes without a UTF-8 sequence that the end cuts; all of them where that is no UTF-8.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.iter().rev().take(UTF8_REST_BYTES_MAX);
    for (back, byte) in tail.enumerate() {
        let sequence_bytes = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf7 => 4,
            _ => 1,
        };
        return if sequence_bytes > back + 1 { bytes.len() - back - 1 } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(mut bytes: &[u8], flush: bool) -> (Vec<(Vec<u8>, bool)>, &[u8]) {
        let mut all = Vec::new();
        while let Some(piece) = first_piece(bytes, flush) {
            all.push((bytes[..piece.payload_bytes].to_vec(), piece.is_partial));
            bytes = &bytes[piece.stream_bytes..];
        }
        (all, bytes)
    }

    #[test]
    fn lines_end_at_newlines_and_the_rest_waits() {
        let (all, rest) = pieces(b"one\n\ntwo", false);
        assert_eq!((all, rest), (vec![(b"one".to_vec(), false), (Vec::new(), false)], &b"two"[..]));
        assert_eq!(pieces(b"two", true).0, [(b"two".to_vec(), true)]);
        assert_eq!(first_piece(b"", true), None);
    }

    #[test]
    fn the_longest_line_is_not_split_and_one_byte_more_is() {
        let mut line = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(first_piece(&line, false), None);
        line.push(b'\n');
        assert_eq!(
            first_piece(&line, false).map(|piece| (piece.payload_bytes, piece.is_partial)),
            Some((LINE_BYTES_MAX, false))
        );
        line.insert(0, b'x');
        assert_eq!(
            first_piece(&line, false).map(|piece| (piece.payload_bytes, piece.is_partial)),
            Some((LINE_BYTES_MAX, true))
        );
    }

    #[test]
    fn a_split_keeps_characters_whole() {
        for character in ["é", "€", "🦀"] {
            for shift in 0..5 {
                let text = "a".repeat(shift) + &character.repeat(LINE_BYTES_MAX);
                let piece = first_piece(text.as_bytes(), false).expect("long enough");
                assert!(
                    std::str::from_utf8(&text.as_bytes()[..piece.payload_bytes]).is_ok(),
                    "{character} {shift}"
                );
                assert!(piece.payload_bytes > LINE_BYTES_MAX - 4);
            }
        }
        assert_eq!(
            first_piece(&[0x80; LINE_BYTES_MAX + 1], false).map(|piece| piece.payload_bytes),
            Some(LINE_BYTES_MAX)
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made(
            parts in proptest::collection::vec((any::<u8>(), 0..40_000_usize, any::<bool>()), 0..6), flush in any::<bool>()
        ) {
            let mut stream = Vec::new();
            for (byte, count, ends) in parts {
                stream.extend(std::iter::repeat_n(byte, count));
                if ends { stream.push(b'\n') }
            }
            let (all, rest) = pieces(&stream, flush);
            let mut again: Vec<u8> = Vec::new();
            for (payload, is_partial) in &all {
                prop_assert!(payload.len() <= LINE_BYTES_MAX && !payload.contains(&b'\n'));
                again.extend_from_slice(payload);
                if !is_partial { again.push(b'\n') }
            }
            prop_assert!(!flush || rest.is_empty());
            prop_assert!(rest.len() <= LINE_BYTES_MAX && !rest.contains(&b'\n'));
            again.extend_from_slice(rest);
            prop_assert_eq!(again, stream);
        }
    }
}
