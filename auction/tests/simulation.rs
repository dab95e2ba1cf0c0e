//! Hundreds of simulated worlds, and proof that a simulated defect is found.

#![allow(clippy::unwrap_used)]

use celda_auction::sim::{self, Mutation, Setup, Size, Summary};

/// Seeds of small worlds that each test run tries. `benches auction --simulate` runs a million.
const SEEDS: u64 = 500;
/// Seeds within which a defect must be found.
const MUTATED_SEEDS: u64 = 500;

#[test]
fn no_invariant_breaks_in_hundreds_of_worlds() {
    let mut all = Summary::default();
    for seed in 0..SEEDS {
        match sim::run(seed) {
            Ok(summary) => all.add(&summary),
            Err(violation) => panic!("{violation}"),
        }
    }
    // That nothing broke says something only if there was something to break.
    for (name, count) in all.fields() {
        assert!(count > 0, "{name}: none in all worlds");
    }
}

#[test]
fn no_invariant_breaks_among_thousands_of_cells() {
    let seed = 16_383;
    assert_eq!(Size::of_seed(seed), Size::Large);
    let summary = sim::run(seed).unwrap_or_else(|violation| panic!("{violation}"));
    assert!(summary.cells >= 2_000 && summary.committed > 0, "{summary:?}");
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..20 {
        let setup = Setup::of_seed(seed);
        let record = || {
            let mut lines = Vec::new();
            let outcome = sim::run_shown(seed, &setup, &mut |now_us, happening| {
                lines.push(format!("{now_us} {happening:?}"));
            });
            (outcome, lines)
        };
        assert_eq!(record(), record(), "seed {seed}");
    }
}

#[test]
fn a_world_without_faults_refuses_only_with_every_answer_and_loses_nothing() {
    for seed in 0..SEEDS {
        let setup = Setup::of_seed(seed).without_faults();
        let summary =
            sim::run_shown(seed, &setup, &mut |_, _| {}).unwrap_or_else(|violation| panic!("{violation}"));
        assert_eq!((summary.refused_uncertain, summary.replaced), (0, 0), "seed {seed}: {summary:?}");
    }
}

#[test]
fn every_defect_is_found() {
    for mutation in Mutation::ALL {
        let found = (0..MUTATED_SEEDS).find_map(|seed| sim::run_mutated(seed, mutation).err());
        let violation =
            found.unwrap_or_else(|| panic!("{mutation:?} is not found in {MUTATED_SEEDS} worlds"));
        let line = violation.to_string();
        let again = format!("auction --simulate --seed {}", violation.seed);
        assert!(line.lines().count() == 1 && line.contains(&again), "{line}");
    }
}
