//! Ten thousand instances' networks, one after the other: how long each is waited for, and what is left at the end.

use super::{Line, cpu_us, print};
use crate::Result;
use crate::options::Room;
use celda::cell::network::{Network, NetworkOptions};
use nix::sched::{CloneFlags, unshare};
use std::time::{Duration, Instant};

/// Cycles of the full run and of the smoke run.
const CYCLES_COUNT: usize = 10_000;
const SMOKE_CYCLES_COUNT: usize = 20;
/// The longest that the kernel may take to remove what is not used any more.
const REMOVAL_WAIT: Duration = Duration::from_secs(60);

/// Measures and prints, in a network namespace of its own that stands for the host.
///
/// # Errors
/// When something is left, or the network cannot be had.
pub(crate) fn run(options: &Room) -> Result<()> {
    let options = options.clone();
    let thread = std::thread::spawn(move || measure(&options));
    thread.join().map_err(|_| "the bench's thread has panicked")?
}

/// What could grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    links: usize,
    files: usize,
}

fn left() -> Result<Left> {
    let links = std::fs::read_to_string("/proc/thread-self/net/dev")?.lines().count();
    Ok(Left { links, files: std::fs::read_dir("/proc/self/fd")?.count() })
}

fn resident_kib() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0))
}

fn measure(options: &Room) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let network = Network::start(NetworkOptions::default(), &[], &[])?;
    let ready_count = network.options().ready_count;
    wait_until(|| Ok(network.ready_count() == ready_count))?;
    let (before, kib_before) = (left()?, resident_kib()?);
    let count = if options.smoke { SMOKE_CYCLES_COUNT } else { CYCLES_COUNT };
    let (began, cpu_before) = (Instant::now(), cpu_us());
    let mut waits_us = Vec::with_capacity(count);
    for _ in 0..count {
        let from = Instant::now();
        let attachment = network.take()?;
        waits_us.push(from.elapsed().as_secs_f64() * 1e6);
        let address = attachment.address;
        drop(attachment);
        network.release(address);
    }
    let wall = began.elapsed();
    wait_until(|| Ok(network.ready_count() == ready_count && left()?.links == before.links))?;
    let (after, kib_after) = (left()?, resident_kib()?);
    if after != before {
        return Err(format!("{before:?} before, {after:?} after").into());
    }
    waits_us.sort_unstable_by(f64::total_cmp);
    let at = |quantile: f64| waits_us.get(((count - 1) as f64 * quantile) as usize).copied().unwrap_or(0.0);
    let cpu_us_each = (cpu_us() - cpu_before) as f64 / count as f64;
    let who = format!("take and release, {:.0} a second", count as f64 / wall.as_secs_f64());
    print(
        options,
        "network",
        &[Line { who, count: count as u64, p50_us: at(0.5), p99_us: at(0.99), cpu_us_each }],
    )?;
    if !options.json {
        println!("left: {after:?}, as before; resident memory {kib_before} KiB before, {kib_after} after");
    }
    Ok(())
}

fn wait_until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + REMOVAL_WAIT;
    while !is_so()? {
        if Instant::now() > deadline {
            return Err("the kernel has not removed what is not used any more".into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
