//! What the kernel says: how long work waited (PSI), and what the agent itself takes.

use std::path::Path;

use super::text::Text;
use crate::sandbox::cgroup::read::{Pressure, keyed};

/// Bytes of a file of the kernel's that is read here.
const FILE_BYTES_MAX: u64 = 64 << 10;
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// What it said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// Of the machine and of the cell's containers, where the kernel measures it: whose, of what.
    pressures: Vec<(&'static str, &'static str, Pressure)>,
    resident_bytes: u64,
    threads_count: u64,
    files_count: u64,
}

impl Kernel {
    /// Reads it; `cgroup` is the parent of all containers' groups.
    pub fn read(cgroup: &Path) -> Self {
        let mut pressures = Vec::new();
        for resource in RESOURCES {
            let machine = Path::new("/proc/pressure").join(resource);
            let cell = cgroup.join(format!("{resource}.pressure"));
            for (whose, path) in [("machine", machine), ("containers", cell)] {
                if let Some(text) = text(&path) {
                    pressures.push((whose, resource, Pressure::parse(&text)));
                }
            }
        }
        pressures.sort_by_key(|(whose, resource, _)| (*whose, *resource));
        let status = text(Path::new("/proc/self/status")).unwrap_or_default().replace(":\t", " ");
        let number = |key| {
            let line = status.lines().find_map(|line| line.strip_prefix(key))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Self {
            pressures,
            resident_bytes: number("VmRSS ").unwrap_or(0) << 10,
            threads_count: keyed(&status, "Threads").unwrap_or(0),
            files_count: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64),
        }
    }

    pub(super) fn show(&self, text: &mut Text) {
        if !self.pressures.is_empty() {
            text.counter(
                "celda_pressure_waiting_seconds_total",
                "Time in which some task waited for a resource, or all did: of the machine and of all containers.",
            );
        }
        for (whose, resource, Pressure { some, full }) in &self.pressures {
            for (tasks, stall) in [("some", some), ("all", full)] {
                let labels = [("of", *whose), ("resource", *resource), ("tasks", tasks)];
                text.labelled(&labels, stall.total_us as f64 / 1e6);
            }
        }
        text.gauge("process_resident_memory_bytes", "Memory of the agent.").value(self.resident_bytes);
        text.gauge("process_threads", "Threads of the agent.").value(self.threads_count);
        text.gauge("process_open_fds", "Open files of the agent.").value(self.files_count);
    }
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).ok()?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, FILE_BYTES_MAX), &mut text).ok()?;
    Some(text)
}
