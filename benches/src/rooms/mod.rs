//! The cell's rooms, each measured beside a floor or a peer of the same run.
//!
//! ```text
//! exec     a program in a running container     beside `crun exec` of the same bundle
//! health   looks at instances                      none beside: its goal is in CPU time
//! logs     lines of many instances to files     beside a `cat >/dev/null` for each
//! network  namespaces for ten thousand          none beside: what is left at the end counts
//! ```

mod exec;
mod health;
mod logs;
mod network;

pub(crate) use exec::run as exec;
pub(crate) use health::run as health;
pub(crate) use logs::run as logs;
pub(crate) use network::run as network;

use crate::Result;
use crate::machine::Machine;
use crate::options::Room;
use serde::Serialize;

/// What one side did.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) who: String,
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_us_each: f64,
}

/// Prints the lines, as a table or as JSON; ratios are to the first.
///
/// # Errors
/// When the lines cannot be written as JSON.
pub(crate) fn print(options: &Room, what: &str, lines: &[Line]) -> Result<()> {
    let machine = Machine::read();
    if options.json {
        println!("{}", serde_json::to_string_pretty(&serde_json::json!({"machine": machine, what: lines}))?);
        return Ok(());
    }
    println!(
        "{what}: {}, {} cores ({}), Linux {}; load before {}",
        machine.date, machine.cores_count, machine.processor, machine.kernel, machine.load
    );
    println!(
        "{:<44} {:>9} {:>10} {:>10} {:>11} {:>7}",
        "who", "count", "p50 us", "p99 us", "CPU us each", "x p50"
    );
    for line in lines {
        let ratio = lines.first().map_or(0.0, |first| line.p50_us / first.p50_us.max(f64::MIN_POSITIVE));
        println!(
            "{:<44} {:>9} {:>10.1} {:>10.1} {:>11.1} {:>7.1}",
            line.who, line.count, line.p50_us, line.p99_us, line.cpu_us_each, ratio
        );
    }
    Ok(())
}

/// CPU time of this process and of its children that it has waited for, in microseconds.
pub(crate) fn cpu_us() -> u64 {
    use nix::sys::resource::{UsageWho, getrusage};
    let of = |who| {
        getrusage(who).map_or(0, |usage| {
            let [user, system] = [usage.user_time(), usage.system_time()]
                .map(|time| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64);
            user + system
        })
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

/// CPU time of a task, from its scheduler statistics.
fn task_cpu_ns(task: &str) -> u64 {
    let text = std::fs::read_to_string(format!("{task}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// CPU time of this process's threads of that name.
fn threads_cpu_ns(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let named = tasks.filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    });
    named.map(|task| task_cpu_ns(&task.path().to_string_lossy())).sum()
}
