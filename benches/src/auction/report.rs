//! Tables on the terminal, as JSON, and as a section of docs/figures.md.

use super::AuctionOptions;
use crate::Result;
use crate::machine::Machine;
use serde::Serialize;
use std::fmt::Write as _;

/// Results of one kind, a line for each.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&'static str]) -> Self {
        Self { title: title.into(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// As Markdown, with the columns in line: readable on a terminal too.
    fn markdown(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.columns[column].chars().count(), 3]).max().unwrap_or(3)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = format!("### {}\n", self.title);
        let mut line = |cells: &mut dyn Iterator<Item = String>| {
            for (column, cell) in cells.enumerate() {
                let _ = match column {
                    0 => write!(text, "| {cell:<width$} |", width = widths[0]),
                    _ => write!(text, " {cell:>width$} |", width = widths[column]),
                };
            }
            text.push('\n');
        };
        line(&mut self.columns.iter().map(|column| (*column).to_owned()));
        line(&mut widths.iter().enumerate().map(|(column, width)| match column {
            0 => "-".repeat(*width),
            _ => "-".repeat(width - 1) + ":",
        }));
        for row in &self.rows {
            line(&mut row.iter().cloned());
        }
        text
    }
}

/// What one part of the bench found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Names the section of the document: `auction-scenarios`.
    kind: &'static str,
    title: &'static str,
    machine: Machine,
    command: String,
    notes: String,
    tables: Vec<Table>,
    /// A picture beside the document.
    #[serde(skip)]
    picture: Option<&'static str>,
}

impl Report {
    /// A report with nothing in it yet. To be made before the work, so that the load it names is that of others.
    pub(crate) fn new(kind: &'static str, title: &'static str, notes: &str) -> Self {
        // A path of this machine says nothing to a reader of the document.
        let words =
            std::env::args().skip(1).map(|word| if word.starts_with('/') { "FILE".into() } else { word });
        let command = words.fold("target/release/benches".to_owned(), |line, word| line + " " + &word);
        Self {
            kind,
            title,
            machine: Machine::read(),
            command,
            notes: notes.to_owned(),
            tables: Vec::new(),
            picture: None,
        }
    }

    pub(crate) fn add(&mut self, table: Table) {
        self.tables.push(table);
    }

    pub(crate) fn picture(&mut self, file: &'static str) {
        self.picture = Some(file);
    }

    /// Prints, and writes the document unless this is a smoke run.
    ///
    /// # Errors
    /// When the document cannot be written.
    pub(crate) fn finish(&self, options: &AuctionOptions) -> Result<()> {
        if options.json {
            println!("{}", serde_json::to_string_pretty(self)?);
        } else {
            self.tables.iter().for_each(|table| println!("{}", table.markdown()));
        }
        if options.smoke {
            return Ok(());
        }
        crate::report::write_section(&options.docs, self.kind, &self.section())
    }

    fn section(&self) -> String {
        let Machine { kernel, system, processor, cores_count, memory_mib, date, load } = &self.machine;
        let mut text = format!(
            "## {}\n\n    {}\n\n{date}, {cores_count} cores ({processor}), {memory_mib} MiB, Linux {kernel}, {system}; \
             load before {load}.\n\n{}\n",
            self.title, self.command, self.notes
        );
        for table in &self.tables {
            let _ = write!(text, "\n{}", table.markdown());
        }
        if let Some(picture) = self.picture {
            let _ = write!(text, "\n![]({picture})\n");
        }
        text
    }
}

/// A number of a rate or a count with its thousands apart.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Table, thousands};

    #[test]
    fn thousands_are_apart() {
        for (number, text) in [(0.0, "0"), (999.4, "999"), (1000.0, "1,000"), (1_234_567.0, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new("t", &["who", "n"]);
        table.rows.push(vec!["celda".into(), "12".into()]);
        assert_eq!(table.markdown(), "### t\n| who   |   n |\n| ----- | --: |\n| celda |  12 |\n");
    }
}
