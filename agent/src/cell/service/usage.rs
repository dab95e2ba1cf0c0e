//! What an instance uses, read from its cgroup.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use celda_api::cell::v1;

use crate::sandbox::cgroup::read::{Pressure, keyed, single};

/// Bytes of a file of a cgroup.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a running instance uses; nothing of one that does not run, or just ended.
pub(super) fn read(instance: &v1::Instance) -> Option<v1::Usage> {
    if instance.cgroup.is_empty() {
        return None;
    }
    let cgroup = Path::new(&instance.cgroup);
    let text = |file: &str| {
        let mut text = String::new();
        let file = std::fs::File::open(cgroup.join(file)).ok()?;
        std::io::Read::read_to_string(&mut std::io::Read::take(file, FILE_BYTES_MAX), &mut text).ok()?;
        Some(text)
    };
    let pressure = |file: &str| text(file).map(|text| message(&Pressure::parse(&text)));
    let processes = text("cgroup.procs")?.lines().count();
    let at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_micros() as u64);
    Some(v1::Usage {
        id: instance.id.clone(),
        app: instance.app.clone(),
        at_us,
        cpu_us: text("cpu.stat").and_then(|text| keyed(&text, "usage_usec")).unwrap_or(0),
        memory_bytes: text("memory.current").and_then(|text| single(&text)).unwrap_or(0),
        processes: u32::try_from(processes).unwrap_or(u32::MAX),
        cpu: pressure("cpu.pressure"),
        memory: pressure("memory.pressure"),
        io: pressure("io.pressure"),
    })
}

fn message(pressure: &Pressure) -> v1::Pressure {
    v1::Pressure {
        some_10s: pressure.some.average_10s,
        full_10s: pressure.full.average_10s,
        some_us: pressure.some.total_us,
        full_us: pressure.full.total_us,
    }
}
