//! What was measured, as a table, as JSON, and as a section of docs/figures.md.

use crate::Result;
use crate::machine::Machine;
use crate::options::Measure;
use crate::peers::CELDA;
use crate::samples::{Row, Samples};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;

const DOCUMENT_HEAD: &str = "# Figures\n\n\
    Measured by `benches/`; each section says how, on what and when. Times differ by machine, so read the ratio to a\n\
    peer in the same table.\n";

/// All rows of one run.
#[derive(Serialize)]
pub(crate) struct Report {
    /// `start` or `pull`.
    kind: &'static str,
    machine: Machine,
    command: String,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(kind: &'static str) -> Self {
        // A path of this machine says nothing to a reader of the document.
        let words =
            std::env::args().skip(1).map(|word| if word.starts_with('/') { "DIR".into() } else { word });
        let command = words.fold("sudo target/release/benches".to_owned(), |line, word| line + " " + &word);
        Self { kind, machine: Machine::read(), command, rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, samples: &Samples) {
        let row = samples.row();
        eprintln!("{}", line(&row, self.reference(&row)));
        self.rows.push(row);
    }

    /// celda's row under the same condition.
    fn reference(&self, row: &Row) -> Option<&Row> {
        let same = |other: &&Row| {
            other.peer == CELDA && other.condition == row.condition && other.concurrency == row.concurrency
        };
        self.rows.iter().find(same)
    }

    /// Prints, and writes the document unless this is a smoke run.
    ///
    /// # Errors
    /// When celda itself failed, or the document cannot be written.
    pub(crate) fn finish(&self, options: &Measure) -> Result<()> {
        if options.json {
            println!("{}", serde_json::to_string_pretty(self)?);
        }
        if !options.smoke {
            write_section(&options.docs, self.kind, &self.section())?;
        }
        let failed = self.rows.iter().find(|row| row.peer == CELDA && row.failures_count > 0);
        failed.map_or(Ok(()), |row| {
            let why = row.failure.as_deref().unwrap_or_default();
            Err(format!("{} of celda's samples failed ({}): {why}", row.failures_count, row.condition).into())
        })
    }

    fn section(&self) -> String {
        let machine = &self.machine;
        let mut text = format!(
            "## {}\n\n    {}\n\n{}, {} cores ({}), {} MiB, Linux {}, {}; load before {}.\n\n",
            if self.kind == "start" {
                "Start of a present image"
            } else {
                "From an empty store to a running process"
            },
            self.command,
            machine.date,
            machine.cores_count,
            machine.processor,
            machine.memory_mib,
            machine.kernel,
            machine.system,
            machine.load
        );
        text.push_str(match self.kind {
            "start" => START_NOTES,
            _ => PULL_NOTES,
        });
        let mut heading = String::new();
        for row in &self.rows {
            let title = match self.kind {
                "start" => format!("{}, {} at once", row.condition, row.concurrency),
                _ => row.condition.clone(),
            };
            if title != heading {
                let _ = write!(
                    text,
                    "\n### {title}\n| who | p50 ms | p90 | p99 | max | per second | CPU ms each | x celda's p50 | samples | failed |\n\
                     |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
                );
                heading = title;
            }
            text.push_str(&markdown(row, self.reference(row)));
        }
        let _ = write!(text, "\n![]({}.svg)\n", self.kind);
        text
    }
}

const START_NOTES: &str = "\
Whole process against whole process: from before the spawn of the command to its exit. The program is a static busybox's\n\
`true`. Peers take turns in rounds. Each has new pid, network (nothing in it), ipc, uts, mount and cgroup namespaces,\n\
default capabilities, and a default seccomp filter; crun and runc get celda's own. crun and runc start an unpacked\n\
directory, celda, podman and containerd a named image with a writable overlay over it. No limits are set.\n\n\
Every engine runs in a private mount and cgroup namespace whose /sys/fs/cgroup is one empty unified hierarchy, so that no\n\
version 1 hierarchy of the machine is touched: crun with `--cgroup-manager=disabled`, podman with `--cgroups=disabled`, runc\n\
and containerd making one directory a container. CPU is all that the engine's cgroup used, daemons and shims included.\n\
`celda library` is not a process but the library in one that stays up, as a cell uses it: from the request to execve, with\n\
network namespaces from a pool and one mount of the image for all, a writable layer, overlay and cgroup for each; its starts per second are whole lives,\n\
clean-up included.\n\n\
`cold` is with the machine's page cache dropped before each start.\n";

const PULL_NOTES: &str = "\
The store is empty, the image lies in Debian's docker-registry on loopback, and the clock stops when `true` in the new\n\
container has ended: pull, verify, unpack or mount, start, end. containerd is `ctr image pull` and `ctr run`. Dirty\n\
pages are written and caches dropped before each. CPU is all that the engine's cgroup used, daemons included; the\n\
registry is not in it.\n";

fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

fn factor(row: &Row, reference: Option<&Row>) -> String {
    match reference {
        Some(celda) if celda.p50_us > 0 && row.samples_count > 0 => {
            format!("{:.1}", row.p50_us as f64 / celda.p50_us as f64)
        }
        _ => "-".into(),
    }
}

fn markdown(row: &Row, reference: Option<&Row>) -> String {
    format!(
        "| {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.1} | {} | {} | {} |\n",
        row.peer,
        milliseconds(row.p50_us),
        milliseconds(row.p90_us),
        milliseconds(row.p99_us),
        milliseconds(row.max_us),
        row.per_second,
        milliseconds(row.cpu_us_each),
        factor(row, reference),
        row.samples_count,
        row.failures_count
    )
}

/// One row for the terminal.
fn line(row: &Row, reference: Option<&Row>) -> String {
    let mut line = format!(
        "{:<40} {:<28} x{:<3} p50 {:>9.2} ms  p90 {:>9.2}  p99 {:>9.2}  max {:>9.2}  {:>7.1}/s  cpu {:>8.1} ms  x{:<5} n={}",
        row.peer,
        row.condition,
        row.concurrency,
        milliseconds(row.p50_us),
        milliseconds(row.p90_us),
        milliseconds(row.p99_us),
        milliseconds(row.max_us),
        row.per_second,
        milliseconds(row.cpu_us_each),
        factor(row, reference),
        row.samples_count
    );
    if let Some(failure) = &row.failure {
        let _ = write!(line, "\n    {} failed, first: {failure}", row.failures_count);
    }
    line
}

/// Puts a section into `figures.md` in `docs`, in place of the one of that kind.
///
/// # Errors
/// When the document cannot be written.
pub(crate) fn write_section(docs: &Path, kind: &str, section: &str) -> Result<()> {
    std::fs::create_dir_all(docs)?;
    let path = docs.join("figures.md");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| DOCUMENT_HEAD.to_owned());
    write_whole(&path, &replace_section(&text, kind, section))
}

/// `text` with the section between `kind`'s marks replaced, or added at the end.
fn replace_section(text: &str, kind: &str, section: &str) -> String {
    let (begin, end) = (format!("<!-- {kind}: written by benches -->"), format!("<!-- end of {kind} -->"));
    let whole = format!("{begin}\n{section}{end}");
    match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) if from < to => format!("{}{whole}{}", &text[..from], &text[to + end.len()..]),
        _ => format!("{}\n\n{whole}\n", text.trim_end()),
    }
}

fn write_whole(path: &Path, text: &str) -> Result<()> {
    let partial = path.with_extension("md.partial");
    std::fs::write(&partial, text)?;
    Ok(std::fs::rename(partial, path)?)
}

#[cfg(test)]
mod tests {
    use super::replace_section;

    #[test]
    fn a_section_is_added_once_and_then_replaced() {
        let once = replace_section("# Figures\n", "pull", "old\n");
        let start = replace_section(&once, "start", "other\n");
        let twice = replace_section(&start, "pull", "new\n");
        assert!(twice.contains("new\n") && twice.contains("other\n") && !twice.contains("old"), "{twice}");
        assert_eq!(twice.matches("written by benches").count(), 2);
    }
}
