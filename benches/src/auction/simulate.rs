//! Simulated worlds by the thousand, on all cores.

use super::AuctionOptions;
use super::report::{Report, Table, thousands};
use crate::Result;
use celda_auction::sim::{self, Setup, Summary, Violation};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds that a thread takes at once.
const SEEDS_AT_ONCE: u64 = 64;
/// Violations that are printed; the rest are counted.
const VIOLATIONS_MAX: usize = 10;
const SMOKE_SEEDS: u64 = 2_000;
const PROGRESS: Duration = Duration::from_secs(10);

const NOTES: &str = "\
Each seed is a world of its own: a dozen cells (hundreds in one of 256, thousands in one of 16,384) and auctioneers with the\n\
real ledgers and rounds, on a simulated network that delays, loses, doubles, reorders and parts, with crashes between any\n\
two steps, restarts with and without a disk, cells that lie, leave and join. After every event the ledgers are compared with\n\
accounts in plain arithmetic; at the end all that was wanted runs once or was refused, and nothing else is held. A refusal\n\
is certain if every cell answered; then none may have had room all through the round.";

/// Runs one seed with all that happens in it, or many.
///
/// # Errors
/// The first violations, a line for each.
pub(crate) fn run(options: &AuctionOptions) -> Result<()> {
    if let Some(seed) = options.seed {
        let show = &mut |now_us: u64, happening: &dyn std::fmt::Debug| println!("{now_us:>10} {happening:?}");
        let setup = Setup::of_seed(seed);
        println!("{setup:?}");
        let summary = sim::run_shown(seed, &setup, show)?;
        println!("{summary:?}");
        return Ok(());
    }
    let mut report = Report::new("auction-simulation", "The auction, simulated", NOTES);
    let seeds = if options.smoke { SMOKE_SEEDS } else { options.seeds };
    let begun = Instant::now();
    let (summary, violations) = run_seeds(options.first, seeds, options.threads());
    let took_s = begun.elapsed().as_secs_f64();
    for violation in violations.iter().take(VIOLATIONS_MAX) {
        eprintln!("{violation}");
    }
    if let Some(first) = violations.first() {
        return Err(
            format!("{} of {seeds} worlds break an invariant, first {first}", violations.len()).into()
        );
    }
    let first = options.first;
    let title = format!("Seeds {first} to {}: no invariant broken", first + seeds - 1);
    let mut table = Table::new(title, &["over all worlds", "count"]);
    for (name, count) in summary.fields() {
        table.rows.push(vec![name.to_owned(), thousands(count as f64)]);
    }
    table.rows.push(vec!["seeds a second".into(), thousands(seeds as f64 / took_s)]);
    report.add(table);
    report.finish(options)
}

/// Runs seeds on threads, and gives the sum and the violations, by seed.
fn run_seeds(first: u64, seeds: u64, threads: usize) -> (Summary, Vec<Violation>) {
    let next = AtomicU64::new(first);
    let end = first + seeds;
    let begun = Instant::now();
    let outcomes = std::thread::scope(|scope| {
        let worker = |number: usize| {
            let next = &next;
            move || {
                let (mut all, mut violations, mut reported) =
                    (Summary::default(), Vec::new(), Instant::now());
                loop {
                    // Relaxed: a number is all that is shared.
                    let from = next.fetch_add(SEEDS_AT_ONCE, Ordering::Relaxed);
                    if from >= end {
                        return (all, violations);
                    }
                    for seed in from..(from + SEEDS_AT_ONCE).min(end) {
                        match sim::run(seed) {
                            Ok(summary) => all.add(&summary),
                            Err(violation) => violations.push(violation),
                        }
                    }
                    if number == 0 && reported.elapsed() > PROGRESS {
                        reported = Instant::now();
                        let (done, seconds) = (from - first, begun.elapsed().as_secs());
                        eprintln!("{done} of {seeds} worlds in {seconds} s, {} broken", violations.len());
                    }
                }
            }
        };
        let handles: Vec<_> = (0..threads).map(|number| scope.spawn(worker(number))).collect();
        handles.into_iter().map(std::thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let (mut all, mut violations) = (Summary::default(), Vec::new());
    for outcome in outcomes {
        let (summary, broken) = outcome.expect("a world's panic ends the process in a release build");
        all.add(&summary);
        violations.extend(broken);
    }
    violations.sort_by_key(|violation| violation.seed);
    (all, violations)
}
