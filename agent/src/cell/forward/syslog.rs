//! A line as a message of RFC 5424, framed by octet counting (RFC 6587, 3.4.1); pure.
//!
//! ```text
//! LENGTH SP <PRI>1 SP TIME SP HOST SP APP SP INSTANCE SP STREAM SP [celda@32473 index="0" ...] SP TEXT
//! ```

use std::fmt::Write as _;

use time::OffsetDateTime;

use super::Line;
use crate::cell::logs::Stream;

/// Severities (RFC 5424, 6.2.1): error, notice, informational.
const ERROR: u8 = 3;
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;
/// The most bytes of the header's fields (RFC 5424, 6).
const HOST_BYTES_MAX: usize = 255;
const APP_BYTES_MAX: usize = 48;
const INSTANCE_BYTES_MAX: usize = 128;

/// Appends the message of a line that was written in the cell `host`.
pub fn message(out: &mut Vec<u8>, line: &Line, host: &str, facility: u8) {
    let mut text = String::with_capacity(line.entry.payload.len() + 256);
    let severity = match line.entry.stream {
        Stream::Output => INFORMATIONAL,
        Stream::Error => ERROR,
        Stream::Notice => NOTICE,
    };
    let _ = write!(text, "<{}>1 ", u16::from(facility) * 8 + u16::from(severity));
    timestamp(&mut text, line.entry.time_ns);
    for (field, bytes_max) in
        [(host, HOST_BYTES_MAX), (&line.app, APP_BYTES_MAX), (&line.id, INSTANCE_BYTES_MAX)]
    {
        text.push(' ');
        header(&mut text, field, bytes_max);
    }
    // The number that RFC 5612 leaves for examples: none is registered for celda.
    let _ = write!(text, " {} [celda@32473", line.stream());
    for (name, value) in [("app", &*line.app), ("instance", &*line.id), ("stream", line.stream())] {
        let _ = write!(text, " {name}=\"");
        parameter(&mut text, value);
        text.push('"');
    }
    let _ = write!(text, " index=\"{}\" sequence=\"{}\"", line.index, line.entry.sequence);
    if line.entry.is_partial {
        text.push_str(" partial=\"true\"");
    }
    text.push_str("] ");
    escape(&mut text, &line.entry.payload);
    out.extend_from_slice(text.len().to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(text.as_bytes());
}

/// RFC 3339 in UTC, with microseconds: RFC 5424 has no more digits.
fn timestamp(text: &mut String, time_ns: u64) {
    match OffsetDateTime::from_unix_timestamp_nanos(time_ns.into()) {
        Ok(time) => {
            let (year, month, day) = time.to_calendar_date();
            let (hour, minute, second, micro) = time.to_hms_micro();
            let month = u8::from(month);
            let _ =
                write!(text, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z");
        }
        Err(_) => text.push('-'),
    }
}

/// A field of the header: printable ASCII without spaces, or `-` for none.
fn header(text: &mut String, field: &str, bytes_max: usize) {
    if field.is_empty() {
        text.push('-');
    }
    text.extend(field.chars().take(bytes_max).map(|char| if char.is_ascii_graphic() { char } else { '?' }));
}

/// A value of structured data (RFC 5424, 6.3.3), with nothing that would end a line in a file.
fn parameter(text: &mut String, value: &str) {
    for char in value.chars() {
        if matches!(char, '"' | '\\' | ']') {
            text.push('\\');
        }
        text.push(if char.is_control() { '\u{fffd}' } else { char });
    }
}

/// What was written, where each byte that is no text is `\xNN`: receivers write messages into files of lines, and show them
/// on terminals.
fn escape(text: &mut String, payload: &[u8]) {
    for chunk in payload.utf8_chunks() {
        for char in chunk.valid().chars() {
            if char.is_control() && char != '\t' {
                hex(text, char.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(char);
            }
        }
        hex(text, chunk.invalid());
    }
}

fn hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::logs::Entry;

    fn line(app: &str, stream: Stream, is_partial: bool, payload: &[u8]) -> Line {
        // 2026-01-02T03:04:05.006007Z
        let time_ns = 1_767_323_045_006_007_008;
        let entry = Entry { sequence: 9, time_ns, stream, is_partial, payload: payload.to_vec() };
        Line { id: "web-1".into(), app: app.into(), index: 1, entry }
    }

    fn text(line: &Line, host: &str) -> String {
        let mut out = Vec::new();
        message(&mut out, line, host, 16);
        let text = String::from_utf8(out).expect("it is text");
        let (length, rest) = text.split_once(' ').expect("a length");
        assert_eq!(length.parse::<usize>().expect("a number"), rest.len());
        rest.to_owned()
    }

    #[test]
    fn a_line_is_a_message_of_the_rfc() {
        assert_eq!(
            text(&line("shop", Stream::Error, true, b"it broke"), "cell-1"),
            "<131>1 2026-01-02T03:04:05.006007Z cell-1 shop web-1 stderr [celda@32473 app=\"shop\" instance=\"web-1\" \
             stream=\"stderr\" index=\"1\" sequence=\"9\" partial=\"true\"] it broke"
        );
        let none = text(&line("", Stream::Output, false, b""), "");
        assert!(
            none.starts_with("<134>1 2026-01-02T03:04:05.006007Z - - web-1 stdout [") && none.ends_with("] ")
        );
    }

    #[test]
    fn hostile_bytes_stay_in_their_field() {
        let said = b"a\n<0>1 - - - - - - forged\r\0\x1b[31m\xff\xfe\t\xc2\x9b end";
        let hostile = line("sh\"op] [x@1 y=\"\\\nz", Stream::Output, false, said);
        let text = text(&hostile, "ho st\n\u{e4}");
        assert!(!text.contains(['\n', '\r', '\0', '\x1b', '\u{9b}']), "{text:?}");
        assert!(text.contains(" ho?st?? sh\"op]?[x@1?y=\"\\?z web-1 "), "{text}");
        assert!(text.contains("app=\"sh\\\"op\\] [x@1 y=\\\"\\\\\u{fffd}z\""), "{text}");
        assert!(
            text.ends_with("] a\\x0a<0>1 - - - - - - forged\\x0d\\x00\\x1b[31m\\xff\\xfe\t\\xc2\\x9b end"),
            "{text}"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_one_frame_without_control_characters(app in ".*", host in ".*", payload: Vec<u8>) {
            let text = text(&line(&app, Stream::Output, false, &payload), &host);
            assert!(!text.chars().any(|char| char.is_control() && char != '\t'));
            assert_eq!(text.split(' ').nth(5), Some("stdout"), "six fields before the data: {text}");
        }
    }
}
