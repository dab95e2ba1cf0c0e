//! How answers look: tables for people, JSON for programs, sizes and ages as Docker writes them.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

/// Writes `value` as indented JSON and a newline to standard output.
///
/// # Errors
/// When standard output is closed.
pub(super) fn json<T: Serialize + ?Sized>(value: &T) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, value)?;
    out.write_all(b"\n")
}

/// Writes `text` and a newline to standard output; a reader that went away (`| head`) is no error.
pub(super) fn line(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// A table with a header line and columns padded to their widest cell; the last column is not padded.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
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
    for row in rows {
        line(&mut row.iter().map(String::as_str));
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
}
