//! `celda verify`: what is good, what was mended, what is broken; exit status 1 while something is.

use std::process::ExitCode;

use celda_layerfs::pull::{PullPolicy, Refetch};
use celda_layerfs::store::{Outcome, Part, VerifyItem};

use super::args::VerifyArgs;
use super::context::{self, Context};
use super::output;
use crate::{Error, Result};

pub(super) fn main(context: &Context, args: &VerifyArgs) -> Result<ExitCode> {
    let (store, ladder) = context.store_and_ladder()?;
    let report = if args.dry_run {
        store.check()?
    } else {
        let options = context::pull_options(&args.source, PullPolicy::Always)?;
        store.verify(&Refetch::new(options))?
    };
    // A mount that was made before shows the files as they were.
    if report.items.iter().any(|item| matches!(item.outcome, Outcome::Healed(_))) {
        ladder.unpin_all()?;
    }
    if context.global.json {
        let values: Vec<_> = report.items.iter().map(value).collect();
        output::json(&values).map_err(Error::io("write to", "standard output"))?;
    } else {
        let bytes = report.items.iter().map(|item| item.bytes).sum();
        for item in report.items.iter().filter(|item| item.outcome != Outcome::Good) {
            let (state, reason) = words(&item.outcome);
            output::line(&format!("{state}: {} {}: {reason}", part(item.part), item.path.display()));
        }
        let broken = report.items.iter().filter(|item| matches!(item.outcome, Outcome::Broken(_))).count();
        output::line(&format!("{} items, {}, {broken} broken", report.items.len(), output::bytes(bytes)));
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn value(item: &VerifyItem) -> serde_json::Value {
    let (state, reason) = words(&item.outcome);
    serde_json::json!({
        "part": part(item.part),
        "path": item.path,
        "images": item.images,
        "bytes": item.bytes,
        "outcome": state,
        "reason": reason,
    })
}

fn words(outcome: &Outcome) -> (&'static str, &str) {
    match outcome {
        Outcome::Good => ("good", ""),
        Outcome::Healed(reason) => ("healed", reason),
        Outcome::Broken(reason) => ("broken", reason),
    }
}

fn part(part: Part) -> &'static str {
    match part {
        Part::Layer => "layer",
        Part::Blob => "blob",
        Part::Index => "index",
        Part::Tree => "tree",
        Part::Record => "record",
    }
}
