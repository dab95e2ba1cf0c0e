//! `celda logs`: standard output to standard output, standard error to standard error.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use celda_api::cell::v1;
use celda_api::cell::v1::log_line::Stream;

use super::cell::Client;
use super::cell_args::LogsArgs;
use super::context::Context;
use super::output;
use crate::Result;

pub(super) fn main(context: &Context, args: &LogsArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64);
    let since_ms = args.since.map(|seconds| now_ms.saturating_sub(seconds.saturating_mul(1000)));
    let request = v1::LogsRequest {
        ids: client.resolve(&args.ids)?,
        app: args.app.clone(),
        follow: args.follow,
        tail: args.tail,
        since_ms,
    };
    let is_named = args.ids.len() != 1;
    client.logs(request, |message| {
        message.lines.iter().all(|line| show(line, is_named, args.timestamps, context.global.json).is_ok())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a line; `is_named` with its instance.
///
/// # Errors
/// When the reader went away.
pub(super) fn show(line: &v1::LogLine, is_named: bool, with_time: bool, json: bool) -> io::Result<()> {
    let text = String::from_utf8_lossy(&line.text);
    if json {
        let stream = line.stream().as_str_name().trim_start_matches("STREAM_").to_ascii_lowercase();
        let value = serde_json::json!({
            "id": line.id, "app": line.app, "index": line.index, "atNs": line.at_ns, "sequence": line.sequence,
            "stream": stream, "partial": line.partial, "missed": line.missed, "text": text,
        });
        return writeln!(io::stdout(), "{}", output::json_printable(&value.to_string()));
    }
    if line.missed > 0 {
        output::complain(&format_args!(
            "{}: {} lines were removed before this reader came",
            line.id, line.missed
        ));
    }
    let name = if is_named { format!("{} | ", line.id) } else { String::new() };
    let at = line.at_ns;
    let time =
        if with_time { format!("{}.{:09} ", at / 1_000_000_000, at % 1_000_000_000) } else { String::new() };
    let end = if line.partial { "" } else { "\n" };
    let head = output::printable(&name).into_owned() + &time;
    match line.stream() {
        Stream::Error => write!(io::stderr(), "{head}{text}{end}"),
        Stream::Notice => {
            output::complain(&format_args!("{}: {text}", line.id));
            Ok(())
        }
        Stream::Output | Stream::Unspecified => {
            let mut out = io::stdout().lock();
            out.write_all(head.as_bytes())?;
            out.write_all(&line.text)?;
            out.write_all(end.as_bytes())
        }
    }
}
