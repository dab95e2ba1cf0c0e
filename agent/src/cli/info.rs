//! `celda info`: what this machine offers, what is missing, and why.

use std::process::ExitCode;

use celda_layerfs::io;
use celda_layerfs::mount::DiskLimits;
use serde_json::json;

use super::cell::Client;
use super::cell_args::CellArgs;
use super::context::Context;
use super::output;
use crate::sandbox::cgroup::Hierarchy;
use crate::{Error, Result};

pub(super) fn main(context: &Context) -> Result<ExitCode> {
    let (store, ladder) = context.store_and_ladder()?;
    let ladder = ladder.info();
    let ring = io::probe_ring();
    let disk = DiskLimits::probe(store.root());
    let path = |by_ring: bool| if by_ring && ring.is_available { "ring" } else { "threads" };
    let cell = cell(context);
    let value = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "root": store.root(),
        "run": context.global.run,
        "kernel": ladder.kernel,
        "architecture": std::env::consts::ARCH,
        "mount": ladder,
        "io": {
            "writes": path(store.options().io.writes_by_ring()),
            "verify_reads": path(store.options().io.reads_by_ring()),
            "why": (!ring.is_available).then_some(&ring.reason),
        },
        "disk_limits": {"way": disk.words(), "why": disk.why},
        "cgroup": cgroup(),
        "images_count": store.images()?.len(),
        "cell": cell,
    });
    if context.global.json {
        output::json(&value).map_err(Error::io("write to", "standard output"))?;
    } else {
        print(&value);
    }
    Ok(ExitCode::SUCCESS)
}

/// The cell of this run directory, if one is up: its network, and why it has none.
fn cell(context: &Context) -> Option<serde_json::Value> {
    let found = Client::connect_if_up(context, &CellArgs::default());
    let described = match found.and_then(|client| client.map(|client| client.describe()).transpose()) {
        Ok(described) => described?,
        Err(error) => return Some(json!({"network": {"why": error.to_string()}})),
    };
    let network = described.network.unwrap_or_default();
    Some(json!({
        "name": described.name,
        "version": described.version,
        "network": {
            "subnet": network.available.then_some(&network.subnet),
            "egress": network.egress,
            "name_servers": network.name_servers,
            "why": (!network.available).then(|| format!("the cell has no network: {}", network.why_not)),
            "warnings": network.warnings,
        },
    }))
}

/// Where limits are kept, by which controllers, and why the others are missing.
fn cgroup() -> serde_json::Value {
    let found = Hierarchy::find().and_then(|hierarchy| Ok((hierarchy.controllers()?, hierarchy)));
    let (controllers, hierarchy) = match found {
        Ok(found) => found,
        Err(error) => {
            return json!({"path": null, "controllers": [], "missing": [], "why": error.to_string()});
        }
    };
    let (present, missing): (Vec<_>, Vec<_>) =
        controllers.into_iter().partition(|controller| controller.missing.is_none());
    json!({
        "path": hierarchy.parent(),
        "controllers": present.iter().map(|controller| controller.name).collect::<Vec<_>>(),
        "missing": missing
            .iter()
            .map(|controller| json!({"name": controller.name, "why": controller.missing}))
            .collect::<Vec<_>>(),
    })
}

/// Two columns, and a line for each reason.
fn print(value: &serde_json::Value) {
    let text = |pointer: &str| match value.pointer(pointer) {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(serde_json::Value::Array(list)) => {
            list.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(" ")
        }
        None | Some(serde_json::Value::Null) => "none".into(),
        Some(other) => other.to_string(),
    };
    let rows = [
        ("version", "/version"),
        ("root", "/root"),
        ("run", "/run"),
        ("kernel", "/kernel"),
        ("architecture", "/architecture"),
        ("images", "/images_count"),
        ("mount", "/mount/rung"),
        ("  shared page cache", "/mount/inode_share"),
        ("layers written by", "/io/writes"),
        ("  verified by", "/io/verify_reads"),
        ("disk limits", "/disk_limits/way"),
        ("cgroup", "/cgroup/path"),
        ("  controllers", "/cgroup/controllers"),
        ("cell", "/cell/name"),
        ("  network", "/cell/network/subnet"),
        ("  name servers", "/cell/network/name_servers"),
    ];
    for (name, pointer) in rows {
        output::line(&format!("{name:<21}{}", text(pointer)));
    }
    for pointer in [
        "/mount/why",
        "/io/why",
        "/disk_limits/why",
        "/cgroup/why",
        "/cgroup/missing",
        "/cell/network/why",
        "/cell/network/warnings",
    ] {
        let reasons = match value.pointer(pointer) {
            Some(serde_json::Value::Array(list)) => list.clone(),
            Some(serde_json::Value::String(text)) => vec![text.clone().into()],
            _ => Vec::new(),
        };
        for reason in reasons {
            let words = match (reason.as_str(), reason["name"].as_str(), reason["why"].as_str()) {
                (Some(text), ..) => text.to_owned(),
                (_, Some(name), Some(why)) => format!("no {name} limits: {why}"),
                _ => continue,
            };
            output::line(&format!("! {words}"));
        }
    }
}
