//! Thousands of instances on the cell's network, each started and removed, and what there is of everything before and
//! after: nothing of it may grow with them.
//!
//! ```text
//! warm up ── count ── CYCLES x (start, run, remove), AT_ONCE at a time ── wait for the kernel ── count again
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::agent::Agent;
use super::client::{Client, DEADLINE};
use super::curve::{many, row};
use super::{CellOptions, SOAK_SMOKE_CYCLES_COUNT};
use crate::Result;
use crate::machine::Machine;
use crate::samples::Row;

/// Instances at a time.
const AT_ONCE: usize = 8;
/// Cycles before the first count, so that pools and threads are there.
const WARM_CYCLES_COUNT: usize = 64;
/// What pools may keep more of at one time than at another. A leak of one for each cycle is more, in the smoke run too.
const SLACK: usize = 64;
/// The table of the default configuration's network.
const TABLE: &str = "celda-10.254.0.0-16";

/// What could grow.
struct Counted {
    rows: Vec<(&'static str, usize)>,
    agent_kib: usize,
    holder_kib: usize,
}

/// Measures and prints.
///
/// # Errors
/// When something grew, or the cell does not do as it is told.
pub(super) async fn run(options: &CellOptions, agent: &Agent, client: &Client, cycles: usize) -> Result<()> {
    let cycles = if options.smoke { SOAK_SMOKE_CYCLES_COUNT } else { cycles };
    many(AT_ONCE, WARM_CYCLES_COUNT, || client.instance()).await?;
    let before = settled(agent, None)?;
    let began = Instant::now();
    let done = row("soak", AT_ONCE, many(AT_ONCE, cycles, || client.instance()).await?)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = settled(agent, Some(&before))?;
    let machine = Machine::read();
    println!(
        "{}, {} cores ({}), Linux {}; load after {}",
        machine.date, machine.cores_count, machine.processor, machine.kernel, machine.load
    );
    let Row { samples_count, p50_us, p99_us, .. } = done;
    let (p50_ms, p99_ms) = (p50_us as f64 / 1e3, p99_us as f64 / 1e3);
    println!(
        "{samples_count} starts and removals in {seconds:.0} s, {AT_ONCE} at once; start to running p50 {p50_ms:.2} ms, \
         p99 {p99_ms:.2} ms\n"
    );
    println!("| what | before | after |\n|---|--:|--:|");
    for ((what, before), (_, after)) in before.rows.iter().zip(&after.rows) {
        println!("| {what} | {before} | {after} |");
    }
    println!("| memory of the agent, KiB | {} | {} |", before.agent_kib, after.agent_kib);
    println!("| memory of the holder, KiB | {} | {} |", before.holder_kib, after.holder_kib);
    match grown(&before, &after) {
        None => Ok(()),
        Some(what) => Err(format!("{what} grew").into()),
    }
}

fn grown(before: &Counted, after: &Counted) -> Option<&'static str> {
    let pairs = before.rows.iter().zip(&after.rows);
    pairs.filter(|((_, before), (_, after))| *after > before + SLACK).map(|((what, _), _)| *what).next()
}

/// Counts when the kernel has removed what is not used any more: as few as before, or as few as there will be.
fn settled(agent: &Agent, before: Option<&Counted>) -> Result<Counted> {
    let deadline = Instant::now() + DEADLINE;
    let mut last = count(agent)?;
    loop {
        std::thread::sleep(std::time::Duration::from_millis(500));
        let now = count(agent)?;
        let is_still = now.rows == last.rows;
        let is_back = before.is_none_or(|before| grown(before, &now).is_none());
        if (is_still && is_back) || Instant::now() > deadline {
            return Ok(now);
        }
        last = now;
    }
}

fn count(agent: &Agent) -> Result<Counted> {
    let [own, holder] = agent.processes().map(|pid| PathBuf::from(format!("/proc/{pid}")));
    let files = |process: &Path| -> Result<Vec<PathBuf>> {
        Ok(fs::read_dir(process.join("fd"))?
            .flatten()
            .filter_map(|fd| fs::read_link(fd.path()).ok())
            .collect())
    };
    let (of_agent, of_holder) = (files(&own)?, files(&holder)?);
    let namespaces: BTreeSet<_> =
        of_agent.iter().chain(&of_holder).filter(|target| is_network(target)).collect();
    let cgroups = celda::sandbox::cgroup::Hierarchy::of_cell(&agent.run.join("cell"))?.parent();
    let network = fs::File::open(own.join("ns/net"))?;
    let inside = std::thread::spawn(move || -> Result<(usize, usize)> {
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(network.as_fd(), kind)?;
        let links = fs::read_to_string("/proc/thread-self/net/dev")?
            .lines()
            .filter(|line| line.contains(':'))
            .count();
        let listed = Command::new("nft").args(["list", "map", "inet", TABLE, "published-tcp"]).output()?;
        // Of each element `PORT : ADDRESS . PORT`, and of the map's type.
        let elements = String::from_utf8_lossy(&listed.stdout).matches(" . ").count().saturating_sub(1);
        Ok((links, elements))
    });
    let (links, elements) = inside.join().map_err(|_| "the thread that counts links panicked")??;
    let rows = vec![
        ("open files of the agent", of_agent.len()),
        ("open files of the holder", of_holder.len()),
        ("network namespaces that they hold", namespaces.len()),
        ("links of the host", links),
        ("elements of nftables", elements),
        ("mounts", fs::read_to_string(own.join("mountinfo"))?.lines().count()),
        (
            "cgroups of instances",
            fs::read_dir(&cgroups)?.flatten().filter(|entry| entry.path().is_dir()).count(),
        ),
        ("writable layers", fs::read_dir(agent.root.join("cell/layers"))?.count()),
        ("logs", fs::read_dir(agent.root.join("cell/logs"))?.count()),
    ];
    Ok(Counted { rows, agent_kib: resident_kib(&own)?, holder_kib: resident_kib(&holder)? })
}

fn is_network(target: &Path) -> bool {
    target.to_string_lossy().starts_with("net:[")
}

fn resident_kib(process: &Path) -> Result<usize> {
    let status = fs::read_to_string(process.join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    Ok(line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0))
}
