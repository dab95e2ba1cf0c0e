//! `celda drain`.

use std::process::ExitCode;

use celda_api::cell::v1;

use super::cell::Client;
use super::cell_args::DrainArgs;
use super::context::Context;
use super::output;
use crate::Result;
use crate::cell::CellError;

pub(super) fn main(context: &Context, args: &DrainArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let request = v1::DrainRequest { grace_ms: args.time.map(|seconds| seconds * 1000), cancel: args.cancel };
    let mut last = None;
    client.drain(request, |left| {
        last = Some(left);
        let line = match (context.global.json, args.cancel) {
            (true, _) => serde_json::json!({"left": left}).to_string(),
            (false, true) => format!("the cell takes work again; {left} are left"),
            (false, false) => format!("{left} left"),
        };
        output::line(&line);
    })?;
    if args.cancel {
        return Ok(ExitCode::SUCCESS);
    }
    is_done(last)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether none are left when the stream has ended, whatever it ended for.
fn is_done(last: Option<u32>) -> Result<()> {
    let left = match last {
        Some(0) => return Ok(()),
        Some(left) => format!("{left} are left"),
        None => "nobody knows how many are left".into(),
    };
    let why = format!("its words ended while {left}: see `celda ps`, and drain again");
    Err(CellError::Call { what: "drain the cell".into(), why }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_was_cut_off_is_none() {
        is_done(Some(0)).expect("none are left");
        let said = is_done(Some(3)).expect_err("three are left").to_string();
        assert!(said.contains("3 are left") && said.contains("drain again"), "{said}");
        assert!(is_done(None).is_err());
    }
}
