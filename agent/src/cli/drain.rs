//! `celda drain`.

use std::process::ExitCode;

use celda_api::cell::v1;

use super::cell::Client;
use super::cell_args::DrainArgs;
use super::context::Context;
use super::output;
use crate::Result;

pub(super) fn main(context: &Context, args: &DrainArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let request = v1::DrainRequest { grace_ms: args.time.map(|seconds| seconds * 1000), cancel: args.cancel };
    client.drain(request, |left| {
        let line = match (context.global.json, args.cancel) {
            (true, _) => serde_json::json!({"left": left}).to_string(),
            (false, true) => format!("the cell takes work again; {left} are left"),
            (false, false) => format!("{left} left"),
        };
        output::line(&line);
    })?;
    Ok(ExitCode::SUCCESS)
}
