//! `celda run` in the foreground on the cell's network: a task of the cell, whose output is shown and whose end is waited
//! for. Addresses and ports are the agent's to give and to take back, so the container is the agent's too.
//!
//! ```text
//! start (a task) ──> logs, as they come ──> its end ──> exit status;  --rm: forgotten
//!   SIGINT, SIGTERM, SIGHUP ──> stop;  again ──> stop at once
//! ```

use std::io;
use std::process::ExitCode;

use celda_api::cell::v1;
use celda_api::cell::v1::end::Cause;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::cell::{Client, end_words};
use super::context::Context;
use super::detached::{ids, refused, spec_of};
use super::run_args::RunArgs;
use super::{EXIT_FAILED, logs, output};
use crate::cell::CellError;
use crate::{Error, Result};

/// Runs it, and gives its exit status.
pub(super) fn main(context: &Context, args: &RunArgs) -> ExitCode {
    super::ended(run(context, args))
}

fn run(context: &Context, args: &RunArgs) -> Result<u8> {
    if args.interactive || args.tty {
        let reason =
            "a container on the cell's network takes no input from here: add -d, then `celda attach`";
        return Err(Error::Argument { what: "-i, -t".into(), reason: reason.into() });
    }
    let spec = Some(spec_of(args)?);
    let ids = ids(args)?;
    let client = Client::connect(context, &args.detached.cell)?;
    stop_on_signals(Client::connect(context, &args.detached.cell)?, ids.clone())?;
    let group = v1::StartGroup { spec, ids: ids.clone(), ..v1::StartGroup::default() };
    let v1::StartResponse { outcomes, token } = client.start(v1::StartRequest { groups: vec![group] })?;
    if outcomes.iter().any(refused) {
        return Ok(EXIT_FAILED);
    }
    let follow = v1::LogsRequest { ids: ids.clone(), follow: true, ..v1::LogsRequest::default() };
    // One who takes no more of it does not end the container.
    client.logs(follow, |message| {
        message.lines.iter().all(|line| logs::show(line, false, false, context.global.json).is_ok())
    })?;
    let mut end = None;
    client.watch(v1::WatchRequest { token, app: String::new(), ids: ids.clone() }, |message| {
        let shown = message.events.into_iter().filter_map(|event| event.instance);
        end = shown.filter(|one| one.status() == v1::Status::Exited).find_map(|one| one.end);
        end.is_none()
    })?;
    if args.rm {
        client.remove(v1::RemoveRequest { ids, force: true })?;
    }
    let lost =
        || CellError::Call { what: "wait for the end of a task".into(), why: "the cell told of none".into() };
    Ok(status(&end.ok_or_else(lost)?))
}

/// As a shell has it; what is more than an exit is said.
fn status(end: &v1::End) -> u8 {
    if matches!(end.cause(), Cause::OutOfMemory | Cause::Failed) {
        output::complain(&format_args!("the container ended: {}", end_words(end)));
    }
    let code = u8::try_from(end.code).unwrap_or(EXIT_FAILED);
    if matches!(end.cause(), Cause::Signal | Cause::OutOfMemory) { code.saturating_add(128) } else { code }
}

/// From now on the first signal stops it, and each later one does so at once.
fn stop_on_signals(client: Client, ids: Vec<String>) -> Result<()> {
    let failed = || Error::io("handle signals of", "this process");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed())?;
    let signals = {
        let _entered = runtime.enter();
        let all = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        all.into_iter().collect::<io::Result<Vec<_>>>().map_err(failed())?
    };
    std::thread::spawn(move || {
        let mut signals = signals;
        let mut grace_ms = None;
        while runtime.block_on(any(&mut signals)) {
            let reason = "a signal to celda run".to_owned();
            if let Err(error) = client.stop(v1::StopRequest { ids: ids.clone(), grace_ms, reason }) {
                output::complain(&error);
            }
            grace_ms = Some(0);
        }
    });
    Ok(())
}

/// Waits for one of them; false when none can come any more.
async fn any(signals: &mut [Signal]) -> bool {
    let each = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures_util::future::select_all(each).await.0.is_some()
}
