//! `celda events`: a line for each, until Ctrl-C.

use std::io::Write as _;
use std::process::ExitCode;

use celda_api::cell::v1;

use super::cell::{Client, end_words, instance_value, status_name};
use super::cell_args::EventsArgs;
use super::context::Context;
use super::output;
use crate::Result;

pub(super) fn main(context: &Context, args: &EventsArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let request = v1::WatchRequest { token: args.since.clone(), app: args.app.clone(), ids: Vec::new() };
    client.watch(request, |message| {
        let v1::WatchResponse { events, token } = message;
        events.iter().all(|event| {
            let Some(instance) = &event.instance else { return image_gone(context, event, &token) };
            let line = if context.global.json {
                let value =
                    serde_json::json!({"atMs": event.at_ms, "token": token, "instance": instance_value(instance)});
                output::json_printable(&value.to_string())
            } else {
                output::printable(&words(event.at_ms, instance)).into_owned()
            };
            // A reader that went away wants no more.
            writeln!(std::io::stdout(), "{line}").is_ok()
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Shows an image that the cell removed; whether there is still a reader.
fn image_gone(context: &Context, event: &v1::Event, token: &str) -> bool {
    let Some(v1::ImageGone { manifest, names, last_use_s, used_percent }) = &event.image_gone else {
        return true;
    };
    let line = if context.global.json {
        let image = serde_json::json!({
            "manifest": manifest, "names": names, "lastUseS": last_use_s, "usedPercent": used_percent,
        });
        let value = serde_json::json!({"atMs": event.at_ms, "token": token, "imageGone": image});
        output::json_printable(&value.to_string())
    } else {
        let (seconds, ms) = (event.at_ms / 1000, event.at_ms % 1000);
        let words = names.join(" ");
        output::printable(&format!(
            "{seconds}.{ms:03} image {manifest} removed: the disk is {used_percent} % full; {words}"
        ))
        .into_owned()
    };
    writeln!(std::io::stdout(), "{line}").is_ok()
}

fn words(at_ms: u64, instance: &v1::Instance) -> String {
    let (seconds, ms) = (at_ms / 1000, at_ms % 1000);
    let status = status_name(instance.status());
    let app = if instance.app.is_empty() { String::new() } else { format!(" app={}", instance.app) };
    let end = match (&instance.end, instance.status()) {
        (Some(end), v1::Status::Exited | v1::Status::Waiting | v1::Status::Preparing) => {
            format!(" ({})", end_words(end))
        }
        _ => String::new(),
    };
    let notice = if instance.notice.is_empty() { String::new() } else { format!(": {}", instance.notice) };
    format!("{seconds}.{ms:03} {} {status}{app} attempt={}{end}{notice}", instance.id, instance.attempt)
}
