//! `celda ps`.

use std::process::ExitCode;

use celda_api::cell::v1;

use super::cell::{Client, age, end_words, instance_value, port_words, status_name};
use super::cell_args::PsArgs;
use super::context::Context;
use super::output;
use crate::{Error, Result};

pub(super) fn main(context: &Context, args: &PsArgs) -> Result<ExitCode> {
    let client = Client::connect(context, &args.cell)?;
    let request = v1::ListRequest { app: args.app.clone(), ..v1::ListRequest::default() };
    let mut instances = client.list(request)?.instances;
    if !args.all {
        instances.retain(|instance| instance.status() != v1::Status::Exited);
    }
    if context.global.json {
        let values: Vec<_> = instances.iter().map(instance_value).collect();
        output::json(&values).map_err(Error::io("write to", "standard output"))?;
    } else if args.quiet {
        instances.iter().for_each(|instance| output::line(&instance.id));
    } else {
        let rows: Vec<_> = instances.iter().map(row).collect();
        let header = [
            "ID", "APP", "INDEX", "IMAGE", "STATUS", "SINCE", "ADDRESS", "PORTS", "PID", "CRASHES",
            "LAST END",
        ];
        output::line(output::table(&header, &rows).trim_end());
    }
    Ok(ExitCode::SUCCESS)
}

fn row(instance: &v1::Instance) -> Vec<String> {
    let dash = |text: String| if text.is_empty() || text == "0" { "-".to_owned() } else { text };
    vec![
        instance.id.clone(),
        dash(instance.app.clone()),
        instance.index.to_string(),
        instance.image.clone(),
        status_name(instance.status()),
        age(instance.changed_ms),
        dash(instance.address.clone()),
        dash(instance.ports.iter().map(port_words).collect::<Vec<_>>().join(" ")),
        dash(instance.pid.to_string()),
        instance.crashes.to_string(),
        dash(instance.end.as_ref().map(end_words).unwrap_or_default()),
    ]
}
