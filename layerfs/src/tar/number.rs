//! Numbers as tars write them: octal text, base-256, decimal text, and decimal times.

use super::Timestamp;

/// Digits after which a decimal number cannot fit 64 bits any more.
const DECIMAL_DIGITS: usize = 20;
const NANOSECOND_DIGITS: usize = 9;

/// A header field: octal digits, led by spaces or NULs and ended by a space or NUL; or base-256, a big-endian two's
/// complement number whose topmost bit is set as the mark (GNU tar manual, "Extensions"). An empty field is 0.
pub(super) fn header_number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 { base_256(field) } else { octal(field) }
}

fn octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|&byte| byte != b' ' && byte != 0).unwrap_or(field.len());
    let text = &field[start..];
    let end = text.iter().position(|&byte| byte == 0).unwrap_or(text.len());
    // At most 12 digits of 3 bits: no overflow.
    text[..end].trim_ascii_end().iter().try_fold(0i64, |value, &byte| match byte {
        b'0'..=b'7' => Some(value << 3 | i64::from(byte - b'0')),
        _ => None,
    })
}

fn base_256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let first = if negative { -1i128 } else { i128::from(field[0] & 0x7f) };
    // The longest field has 12 bytes, so that 96 bits are the most that come together.
    let value = field[1..].iter().fold(first, |value, &byte| value << 8 | i128::from(byte));
    let sign_bits_hold = !negative || field[0] == 0xff;
    sign_bits_hold.then(|| i64::try_from(value).ok()).flatten()
}

/// Decimal digits and nothing else.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > DECIMAL_DIGITS {
        return None;
    }
    text.iter().try_fold(0u64, |value, &byte| match byte {
        b'0'..=b'9' => value.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

/// A pax time: decimal seconds with an optional sign and fraction, rounded down to a nanosecond.
pub(super) fn timestamp(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let point = text.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match point {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    let (kept, dropped) = fraction.split_at(fraction.len().min(NANOSECOND_DIGITS));
    let scale = 10u32.pow((NANOSECOND_DIGITS - kept.len()) as u32);
    let nanoseconds = kept.iter().fold(0u32, |value, &byte| value * 10 + u32::from(byte - b'0')) * scale;
    if !negative {
        return Some(Timestamp { seconds, nanoseconds });
    }
    // Down is away from zero here: what lies beyond the nanosecond counts as one more.
    let nanoseconds = nanoseconds + u32::from(dropped.iter().any(|&byte| byte != b'0'));
    Some(match nanoseconds {
        0 => Timestamp { seconds: -seconds, nanoseconds: 0 },
        part => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - part },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_with_every_padding() {
        for field in
            [&b"0000644\0"[..], b"   644 \0", b"644\0\0\0\0\0", b"\0\0 644 \0", b"644\0junk", b"00000644"]
        {
            assert_eq!(header_number(field), Some(0o644), "{field:?}");
        }
        assert_eq!(header_number(b"        "), Some(0));
        assert_eq!(header_number(&[0; 8]), Some(0));
        assert_eq!(header_number(b"777777777777"), Some(0o777_777_777_777));
    }

    #[test]
    fn octal_garbage() {
        for field in [&b"0000648\0"[..], b"-000644\0", b"6 44\0\0\0\0", b"0x1\0\0\0\0\0"] {
            assert_eq!(header_number(field), None, "{field:?}");
        }
    }

    #[test]
    fn base_256_both_signs() {
        assert_eq!(header_number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(header_number(&[0xff; 12]), Some(-1));
        let mut field = [0xff; 12];
        field[10] = 0xfe;
        field[11] = 0;
        assert_eq!(header_number(&field), Some(-512));
        let mut large = [0; 12];
        large[0] = 0x80;
        large[4..].copy_from_slice(&i64::MAX.to_be_bytes());
        assert_eq!(header_number(&large), Some(i64::MAX));
        large[3] = 1;
        assert_eq!(header_number(&large), None);
        assert_eq!(header_number(&[0xc0, 0, 0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn times_round_down() {
        let at = |seconds, nanoseconds| Some(Timestamp { seconds, nanoseconds });
        assert_eq!(timestamp(b"1"), at(1, 0));
        assert_eq!(timestamp(b"1."), at(1, 0));
        assert_eq!(timestamp(b"1.5"), at(1, 500_000_000));
        assert_eq!(timestamp(b"1.9999999999"), at(1, 999_999_999));
        assert_eq!(timestamp(b"-1"), at(-1, 0));
        assert_eq!(timestamp(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(timestamp(b"-0.1"), at(-1, 900_000_000));
        assert_eq!(timestamp(b"-1.0000000001"), at(-2, 999_999_999));
        assert_eq!(timestamp(b"-0.9999999999"), at(-1, 0));
        for bad in [&b""[..], b"-", b".5", b"1.x", b"1e9", b"--1", b"99999999999999999999", b"1.5 "] {
            assert_eq!(timestamp(bad), None, "{bad:?}");
        }
    }
}
