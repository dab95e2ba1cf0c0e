//! `celda stop` and `celda rm`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use celda_api::cell::v1;

use super::EXIT_FAILED;
use super::cell::{Client, report};
use super::cell_args::{RmArgs, StopArgs};
use super::context::Context;
use crate::Result;

/// Stops, and waits until they have ended.
pub(super) fn main(context: &Context, args: &StopArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let grace_ms = args.time.map(|seconds| seconds * 1000);
    let request = v1::StopRequest { ids: client.resolve(&args.ids)?, grace_ms, reason: String::new() };
    let v1::StopResponse { outcomes, token } = client.stop(request)?;
    wait(&client, &outcomes, token)?;
    Ok(exit(report(&outcomes)))
}

/// Removes, and waits until they are gone.
pub(super) fn remove(context: &Context, args: &RmArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let request = v1::RemoveRequest { ids: client.resolve(&args.ids)?, force: args.force };
    let v1::RemoveResponse { outcomes, token } = client.remove(request)?;
    wait(&client, &outcomes, token)?;
    Ok(exit(report(&outcomes)))
}

/// Until all that something was done to have ended.
fn wait(client: &Client, outcomes: &[v1::Outcome], token: String) -> Result<()> {
    let done = outcomes.iter().filter(|outcome| outcome.result() == v1::outcome::Result::Done);
    let ids: Vec<String> = done.map(|outcome| outcome.id.clone()).collect();
    let mut left: BTreeSet<String> = ids.iter().cloned().collect();
    if left.is_empty() {
        return Ok(());
    }
    let request = v1::WatchRequest { token, app: String::new(), ids };
    client.watch(request, |message| {
        for instance in message.events.into_iter().filter_map(|event| event.instance) {
            if matches!(instance.status(), v1::Status::Exited | v1::Status::Removed) {
                left.remove(&instance.id);
            }
        }
        !left.is_empty()
    })
}

fn exit(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) }
}
