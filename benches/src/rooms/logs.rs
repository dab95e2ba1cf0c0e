//! A thousand instances at a hundred lines a second each: what the thread that keeps their logs takes of a core, and
//! what a `cat >/dev/null` for each takes for the same lines. Then one instance that writes as fast as it can.

use crate::Result;
use crate::machine::Machine;
use crate::options::Room;
use celda::cell::logs::{Limits, Log, Logs, LogsOptions, Source};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Instances of the full run and of the smoke run.
const INSTANCES_COUNT: usize = 1000;
const SMOKE_INSTANCES_COUNT: usize = 20;
/// Lines of each in a second.
const LINES_PER_S: u32 = 100;
/// Bytes of a line, its end among them.
const LINE_BYTES: usize = 100;
/// Bytes of the flood, full and smoke.
const FLOOD_BYTES: u64 = 1 << 30;
const SMOKE_FLOOD_BYTES: u64 = 8 << 20;
/// Descriptors besides the pipes.
const FILES_BESIDES: u64 = 256;

/// What one side took.
struct Taken {
    lines: u64,
    wall: Duration,
    cpu_ns: u64,
}

/// Measures and prints.
///
/// # Errors
/// When a line is missing, or the machine gives no descriptors for that many pipes.
pub(crate) fn run(options: &Room) -> Result<()> {
    let count = if options.smoke { SMOKE_INSTANCES_COUNT } else { INSTANCES_COUNT };
    let span = Duration::from_secs_f64(if options.smoke { 0.2 } else { options.seconds });
    allow_files(count as u64 * 4 + FILES_BESIDES)?;
    let work = tempfile::tempdir()?;
    let cats = with_cats(count, span)?;
    let celda = with_celda(work.path(), count, span)?;
    let flood = flood(work.path(), if options.smoke { SMOKE_FLOOD_BYTES } else { FLOOD_BYTES })?;
    let of_core = |taken: &Taken| taken.cpu_ns as f64 / taken.wall.as_nanos() as f64 * 100.0;
    let per_line_us = |taken: &Taken| taken.cpu_ns as f64 / taken.lines.max(1) as f64 / 1000.0;
    let megabytes_per_s = flood.lines as f64 * LINE_BYTES as f64 / 1e6 / flood.wall.as_secs_f64();
    if options.json {
        let of = |taken: &Taken| serde_json::json!({"lines": taken.lines, "core_percent": of_core(taken), "cpu_us_per_line": per_line_us(taken)});
        let all = serde_json::json!({"machine": Machine::read(), "instances": count, "celda": of(&celda), "cat": of(&cats),
            "flood_megabytes_per_s": megabytes_per_s, "flood": of(&flood)});
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    let machine = Machine::read();
    println!(
        "logs: {} instances, {LINES_PER_S} lines a second each, lines of {LINE_BYTES} bytes; {}, {} cores ({}), Linux {}; load before {}",
        count, machine.date, machine.cores_count, machine.processor, machine.kernel, machine.load
    );
    for (who, taken) in [("celda-logs, one thread", &celda), ("cat >/dev/null for each", &cats)] {
        println!(
            "{who:<28} {:>9} lines {:>9.0} a second {:>6.1} % of a core {:>6.2} us of CPU a line",
            taken.lines,
            taken.lines as f64 / taken.wall.as_secs_f64(),
            of_core(taken),
            per_line_us(taken)
        );
    }
    println!("one instance's flood: {megabytes_per_s:.0} MB/s, {:.2} us of CPU a line", per_line_us(&flood));
    Ok(())
}

fn allow_files(count: u64) -> Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count.min(hard), hard)?;
    }
    Ok(())
}

fn pipe() -> Result<(OwnedFd, File)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((read, write.into()))
}

/// Writes a line to each, again and again; answers how many in all.
fn write_lines(ends: &mut [File], span: Duration) -> Result<u64> {
    let mut line = [b'x'; LINE_BYTES];
    line[LINE_BYTES - 1] = b'\n';
    let (began, turn) = (Instant::now(), Duration::from_secs(1) / LINES_PER_S);
    let mut turns = 0;
    while began.elapsed() < span {
        for end in ends.iter_mut() {
            end.write_all(&line)?;
        }
        turns += 1;
        std::thread::sleep((turn * turns).saturating_sub(began.elapsed()));
    }
    Ok(u64::from(turns) * ends.len() as u64)
}

fn with_cats(count: usize, span: Duration) -> Result<Taken> {
    let (mut cats, mut ends): (Vec<Child>, Vec<File>) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let (read, write) = pipe()?;
        cats.push(Command::new("cat").stdin(Stdio::from(read)).stdout(Stdio::null()).spawn()?);
        ends.push(write);
    }
    let cpu_ns = |cats: &[Child]| {
        cats.iter().map(|cat| super::task_cpu_ns(&format!("/proc/{}", cat.id()))).sum::<u64>()
    };
    let (before, began) = (cpu_ns(&cats), Instant::now());
    let lines = write_lines(&mut ends, span)?;
    let taken = Taken { lines, wall: began.elapsed(), cpu_ns: cpu_ns(&cats) - before };
    drop(ends);
    for mut cat in cats {
        cat.wait()?;
    }
    Ok(taken)
}

fn attach(logs: &Logs, name: String, output: OwnedFd) -> Result<Log> {
    let source = Source {
        app: name.clone(),
        name,
        rate: None,
        limits: Limits::default(),
        is_prompt: false,
        output: Some(output),
        error: None,
    };
    Ok(logs.attach(source)?)
}

fn with_celda(work: &Path, count: usize, span: Duration) -> Result<Taken> {
    let logs = Logs::start(LogsOptions { root: work.join("many"), run: work.join("many-run") })?;
    let (mut all, mut ends) = (Vec::new(), Vec::new());
    for index in 0..count {
        let (read, write) = pipe()?;
        all.push(attach(&logs, format!("i{index}"), read)?);
        ends.push(write);
    }
    let (before, began) = (logs_cpu_ns(), Instant::now());
    let lines = write_lines(&mut ends, span)?;
    drop(ends);
    ended(&all)?;
    let taken = Taken { lines, wall: began.elapsed(), cpu_ns: logs_cpu_ns() - before };
    // A line that a busy machine wrote in two parts may be two records.
    let kept = all.iter().map(|log| log.tally().bytes).sum::<u64>() / LINE_BYTES as u64;
    if kept == lines { Ok(taken) } else { Err(format!("{lines} lines were written and {kept} kept").into()) }
}

fn flood(work: &Path, bytes: u64) -> Result<Taken> {
    let logs = Logs::start(LogsOptions { root: work.join("flood"), run: work.join("flood-run") })?;
    let (read, mut write) = pipe()?;
    let log = attach(&logs, "flood".to_owned(), read)?;
    let mut block = [b'x'; LINE_BYTES * 100];
    block.chunks_mut(LINE_BYTES).for_each(|line| line[LINE_BYTES - 1] = b'\n');
    let (before, began) = (logs_cpu_ns(), Instant::now());
    let blocks = bytes / block.len() as u64;
    for _ in 0..blocks {
        write.write_all(&block)?;
    }
    drop(write);
    ended(std::slice::from_ref(&log))?;
    let (wall, cpu_ns, lines) =
        (began.elapsed(), logs_cpu_ns() - before, log.tally().bytes / LINE_BYTES as u64);
    if lines == blocks * 100 {
        Ok(Taken { lines, wall, cpu_ns })
    } else {
        Err(format!("{lines} lines of the flood were kept").into())
    }
}

fn ended(all: &[Log]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        for log in all {
            log.ended().await;
        }
    });
    Ok(())
}

fn logs_cpu_ns() -> u64 {
    super::threads_cpu_ns("celda-logs")
}
