//! What one look costs: http and tcp checks of servers on loopback, whose own time is not counted.

use super::{Line, print};
use crate::Result;
use crate::options::Room;
use celda::cell::health::{Check, Checks, Health, Probe, Report, Startup, State, Watch};
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Instances that are watched at once; each is looked at ten times a second.
const INSTANCES_COUNT: usize = 300;
const SMOKE_INSTANCES_COUNT: usize = 3;
const INTERVAL: Duration = Duration::from_millis(100);
/// Connections that wait for the server, which stands for all instances: they may all be looked at in one moment. listen(2).
const BACKLOG: i32 = 1024;
/// The longest that instances may take to be up.
const UP_WAIT: Duration = Duration::from_secs(30);

/// Measures and prints.
///
/// # Errors
/// When an instance is not up in time, or fails.
pub(crate) fn run(options: &Room) -> Result<()> {
    let looks = Arc::new(AtomicU64::new(0));
    let port = server(Arc::clone(&looks))?;
    let http = Probe::Http { port, path: "/".to_owned(), statuses: 200..=200 };
    let lines = [
        measure("http check", options, &http, &looks)?,
        measure("tcp check", options, &Probe::Tcp { port }, &looks)?,
    ];
    print(options, "health", &lines)
}

/// Answers every connection on one thread; counts them.
fn server(looks: Arc<AtomicU64>) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    rustix::net::listen(&listener, BACKLOG)?;
    let port = listener.local_addr()?.port();
    std::thread::Builder::new().name("server".to_owned()).spawn(move || {
        let mut buffer = [0; 4096];
        for mut stream in listener.incoming().flatten() {
            looks.fetch_add(1, Relaxed);
            // A tcp check sends nothing and closes.
            if stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
        }
    })?;
    Ok(port)
}

fn measure(who: &str, options: &Room, probe: &Probe, looks: &AtomicU64) -> Result<Line> {
    let count = if options.smoke { SMOKE_INSTANCES_COUNT } else { INSTANCES_COUNT };
    let span = Duration::from_secs_f64(if options.smoke { 0.3 } else { options.seconds });
    let health = Health::start()?;
    let (told, states) = channel::<(Duration, Report)>();
    let began = Instant::now();
    for _ in 0..count {
        let told = told.clone();
        let check = Check { interval: INTERVAL, ..Check::of(probe.clone()) };
        let checks = Checks { startup: Startup::default(), liveness: Some(check), readiness: None };
        let tell = Box::new(move |report| drop(told.send((began.elapsed(), report))));
        health.watch(Watch { checks, network: None, known: None, tell })?;
    }
    let mut up_us = Vec::with_capacity(count);
    for _ in 0..count {
        let (after, report) = states.recv_timeout(UP_WAIT)?;
        if report.state != State::Ready {
            return Err(format!("{who}: {:?}", report.state).into());
        }
        up_us.push(after.as_secs_f64() * 1e6);
    }
    let (before, cpu_before) = (looks.load(Relaxed), engine_cpu_ns());
    std::thread::sleep(span);
    let (after, cpu_after) = (looks.load(Relaxed), engine_cpu_ns());
    if let Ok((_, report)) = states.try_recv() {
        return Err(format!("{who}: {:?}", report.state).into());
    }
    up_us.sort_unstable_by(f64::total_cmp);
    let at =
        |quantile: f64| up_us.get(((up_us.len() - 1) as f64 * quantile) as usize).copied().unwrap_or(0.0);
    let cpu_us_each = (cpu_after - cpu_before) as f64 / 1000.0 / (after - before).max(1) as f64;
    let who = format!("{who}, {count} instances; p50 and p99 of being up");
    Ok(Line { who, count: after - before, p50_us: at(0.5), p99_us: at(0.99), cpu_us_each })
}

fn engine_cpu_ns() -> u64 {
    super::threads_cpu_ns("celda-health")
}
