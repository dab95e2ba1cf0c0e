//! `celda stats`: what runs and what it uses, once or every second; and `celda metrics`.

use std::collections::HashMap;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use celda_api::cell::v1;

use super::cell::Client;
use super::cell_args::{MetricsArgs, StatsArgs};
use super::context::Context;
use super::output;
use crate::{Error, Result};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Moves a terminal's cursor home and clears what is below, ECMA-48.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) fn main(context: &Context, args: &StatsArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let ids = client.resolve(&args.ids)?;
    let mut before: HashMap<String, (u64, u64)> = HashMap::new();
    let is_live = !args.no_stream && !context.global.json;
    loop {
        let usages = client.stats(ids.clone())?.usages;
        if context.global.json {
            let values: Vec<_> = usages.iter().map(value).collect();
            output::json(&values).map_err(Error::io("write to", "standard output"))?;
        } else {
            let rows: Vec<_> = usages.iter().map(|usage| row(usage, before.get(&usage.id))).collect();
            let header = ["ID", "APP", "CPU %", "MEMORY", "PROCESSES", "CPU SECONDS", "STALLED CPU/MEM/IO %"];
            let clear = if is_live && std::io::stdout().is_terminal() { CLEAR } else { "" };
            let table = output::table(&header, &rows);
            if write!(std::io::stdout(), "{clear}{table}").is_err() {
                return Ok(ExitCode::SUCCESS); // the reader went away
            }
        }
        if !is_live {
            return Ok(ExitCode::SUCCESS);
        }
        before = usages.into_iter().map(|usage| (usage.id, (usage.at_us, usage.cpu_us))).collect();
        std::thread::sleep(INTERVAL);
    }
}

pub(super) fn metrics(context: &Context, args: &MetricsArgs) -> Result<ExitCode> {
    output::line(Client::connect(context, &args.cell)?.metrics()?.text.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn row(usage: &v1::Usage, before: Option<&(u64, u64)>) -> Vec<String> {
    let share = before.map_or_else(
        || "-".to_owned(),
        |(at_us, cpu_us)| {
            let (passed_us, used_us) =
                (usage.at_us.saturating_sub(*at_us).max(1), usage.cpu_us.saturating_sub(*cpu_us));
            format!("{:.1}", used_us as f64 * 100.0 / passed_us as f64)
        },
    );
    let memory = if usage.memory_bytes == 0 { "-".to_owned() } else { output::bytes(usage.memory_bytes) };
    let stalled = |pressure: &Option<v1::Pressure>| {
        pressure
            .as_ref()
            .map_or_else(|| "-".to_owned(), |one| format!("{:.2}", f64::from(one.some_10s) / 100.0))
    };
    vec![
        usage.id.clone(),
        if usage.app.is_empty() { "-".to_owned() } else { usage.app.clone() },
        share,
        memory,
        usage.processes.to_string(),
        format!("{:.2}", usage.cpu_us as f64 / 1e6),
        format!("{} {} {}", stalled(&usage.cpu), stalled(&usage.memory), stalled(&usage.io)),
    ]
}

fn value(usage: &v1::Usage) -> serde_json::Value {
    let pressure = |pressure: &Option<v1::Pressure>| {
        pressure.as_ref().map(|one| serde_json::json!({"some10s": one.some_10s, "full10s": one.full_10s, "someUs": one.some_us, "fullUs": one.full_us}))
    };
    serde_json::json!({
        "id": usage.id,
        "app": usage.app,
        "atUs": usage.at_us,
        "cpuUs": usage.cpu_us,
        "memoryBytes": usage.memory_bytes,
        "processes": usage.processes,
        "pressure": {"cpu": pressure(&usage.cpu), "memory": pressure(&usage.memory), "io": pressure(&usage.io)},
    })
}
