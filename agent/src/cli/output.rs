//! How answers look: tables for people, JSON for programs, sizes and ages as Docker writes them.
//!
//! Names in images and messages of registries are whatever their authors wrote, terminal escapes included. All that celda
//! prints goes through here, where they become text: [`complain`], [`line`], [`table`], [`json`], and [`printable`] for
//! what shows progress.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

/// Writes `value` as indented JSON and a newline to standard output.
///
/// # Errors
/// When standard output is closed.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let text = json_printable(&serde_json::to_string_pretty(value)?);
    writeln!(io::stdout(), "{text}")
}

/// JSON for a terminal as well: characters that one acts on are escaped as JSON has it. The line ends of its layout stay.
pub(super) fn json_printable(text: &str) -> String {
    let mut units = [0_u16; 2];
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\n' || !is_acted_on(c) {
            printable.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut units) {
            let _ = write!(printable, "\\u{unit:04x}");
        }
    }
    printable
}

/// Writes `text` and a newline to standard output; a reader that went away (`| head`) is no error.
pub(super) fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.split('\n').map(printable).collect::<Vec<_>>().join("\n"));
}

/// Says on standard error what went wrong; where that is closed nobody wants to know.
pub(super) fn complain(what: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "celda: {}", printable(&what.to_string()));
}

/// `text` on one line, with escapes in place of what a terminal acts on.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_acted_on) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if is_acted_on(c) { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    Cow::Owned(printable)
}

/// Control characters (C0, DEL and C1), and those that turn the direction of what follows (Unicode's Bidi_Control).
fn is_acted_on(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A table with a header line and columns padded to their widest cell; the last column is not padded.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut padded = String::new();
        for (cell, width) in cells.zip(&widths) {
            let _ = write!(padded, "{cell:<width$}   ");
        }
        text.push_str(padded.trim_end());
        text.push('\n');
    };
    line(&mut header.iter().copied());
    for row in &rows {
        line(&mut row.iter().map(Cow::as_ref));
    }
    text
}

/// A size in decimal units with three significant digits, as `docker images` shows it.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let decimals = match value {
        _ if unit == 0 || value >= 100.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_dockers_do() {
        for (count, text) in
            [(0, "0B"), (999, "999B"), (1_500, "1.50kB"), (13_400_000, "13.4MB"), (117_000_000, "117MB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn tables_align_and_leave_no_trailing_space() {
        let text = table(
            &["NAME", "SIZE"],
            &[vec!["a-long-name".into(), "1B".into()], vec!["b".into(), "2B".into()]],
        );
        assert_eq!(text, "NAME          SIZE\na-long-name   1B\nb             2B\n");
    }

    #[test]
    fn terminal_escapes_become_text() {
        assert_eq!(printable("\u{1b}[2J\u{7}"), "\\u{1b}[2J\\u{7}");
        assert_eq!(printable("one\ntwo\u{9b}31m\u{202e}"), "one\\ntwo\\u{9b}31m\\u{202e}");
        assert!(matches!(printable("na\u{ef}ve \u{1f980}"), Cow::Borrowed(_)));
        let text = table(&["NAME"], &[vec!["a\u{1b}c\nd".into()]]);
        assert_eq!(text, "NAME\na\\u{1b}c\\nd\n");
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({"a": "\u{9b}\u{7f}\u{1b}\u{202e}\n", "b": [1, 2]});
        let text = json_printable(&serde_json::to_string_pretty(&value).expect("JSON"));
        assert!(!text.chars().any(|c| c != '\n' && is_acted_on(c)), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).expect("JSON"), value);
    }
}
