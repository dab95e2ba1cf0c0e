//! `celda run -d`: containers handed to a cell, as instances or tasks.

use std::collections::BTreeMap;
use std::process::ExitCode;

use celda_api::cell::v1;

use super::cell::{Client, end_words, status_name};
use super::context::Context;
use super::run_args::{Given, Pull, RestartWhen, RunArgs};
use super::{EXIT_FAILED, output};
use crate::cell::network::{PortWish, Protocol};
use crate::spec::Network;
use crate::spec::size::{CPU_PERIOD_US, MemorySwap};
use crate::{Error, Result, container, spec};

/// Digits of an id that the cell was given none for.
const ID_DIGITS: usize = 16;
/// Transports whose images are paths of this machine, which the cell's working directory is nothing to.
const LOCAL: [&str; 3] = ["oci:", "oci-archive:", "docker-archive:"];

/// Hands them over, waits until each runs or has failed, and prints the ids of those that run or ran.
pub(super) fn main(context: &Context, args: &RunArgs) -> ExitCode {
    super::ended(run(context, args))
}

fn run(context: &Context, args: &RunArgs) -> Result<u8> {
    let spec = Some(spec_of(args)?);
    let ids = ids(args)?;
    let client = Client::connect(context, &args.detached.cell)?;
    let app = args.detached.app.clone();
    let group = v1::StartGroup { spec, app, ids, ..v1::StartGroup::default() };
    let v1::StartResponse { outcomes, token } = client.start(v1::StartRequest { groups: vec![group] })?;
    let mut status = 0;
    let mut waiting: BTreeMap<String, ()> = BTreeMap::new();
    for outcome in &outcomes {
        if refused(outcome) {
            status = EXIT_FAILED;
        } else {
            waiting.insert(outcome.id.clone(), ());
        }
    }
    if waiting.is_empty() {
        return Ok(status);
    }
    let ids = waiting.keys().cloned().collect();
    client.watch(v1::WatchRequest { token, app: String::new(), ids }, |message| {
        for instance in message.events.into_iter().filter_map(|event| event.instance) {
            if let Some(failed) = settled(&instance)
                && waiting.remove(&instance.id).is_some()
            {
                status = if failed == 0 { status } else { failed };
            }
        }
        !waiting.is_empty()
    })?;
    Ok(status)
}

/// Whether a start was not taken; says why.
pub(super) fn refused(outcome: &v1::Outcome) -> bool {
    let is_refused = outcome.result() != v1::outcome::Result::Done;
    if is_refused {
        let words = if outcome.detail.is_empty() { "it is there already" } else { &outcome.detail };
        output::complain(&format_args!("{}: {words}", outcome.id));
    }
    is_refused
}

/// Prints an instance that runs or has failed; its status for the caller, or nothing while it is on its way.
fn settled(instance: &v1::Instance) -> Option<u8> {
    let end = instance.end.as_ref();
    let failed = end.filter(|end| end.cause() == v1::end::Cause::Failed);
    match (instance.status(), failed) {
        (v1::Status::Running, _) => {
            output::line(&instance.id);
            Some(0)
        }
        (v1::Status::Exited | v1::Status::Waiting | v1::Status::Preparing, Some(end)) => {
            output::complain(&format_args!("{}: {}", instance.id, end_words(end)));
            Some(u8::try_from(end.code).unwrap_or(EXIT_FAILED))
        }
        (v1::Status::Exited | v1::Status::Stopping | v1::Status::Removed, None) => {
            let status = status_name(instance.status());
            output::complain(&format_args!("{}: {status} before it ran", instance.id));
            Some(EXIT_FAILED)
        }
        _ => None,
    }
}

pub(super) fn ids(args: &RunArgs) -> Result<Vec<String>> {
    let count = args.detached.count;
    match &args.name {
        Some(name) if count == 1 => Ok(vec![name.clone()]),
        Some(name) => Ok((0..count).map(|index| format!("{name}-{index}")).collect()),
        None => (0..count).map(|_| Ok(container::new_id()?[..ID_DIGITS].to_owned())).collect(),
    }
}

/// The flags as a message. In the foreground it is a task.
pub(super) fn spec_of(args: &RunArgs) -> Result<v1::Spec> {
    refuse(args)?;
    let restart = match args.detached.restart {
        RestartWhen::No => v1::restart::Policy::Never,
        RestartWhen::OnFailure => v1::restart::Policy::OnFailure,
        RestartWhen::Always => v1::restart::Policy::Always,
    };
    let grace_ms = args.detached.stop_timeout.map(|seconds| seconds * 1000);
    let network = match args.network {
        None => v1::Network::Unspecified,
        Some(Network::None) => v1::Network::None,
        Some(Network::Host) => v1::Network::Host,
        Some(Network::Cell) => v1::Network::Cell,
    };
    let label = |label: &String| {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        (name.to_owned(), value.to_owned())
    };
    Ok(v1::Spec {
        image: absolute(args.image())?,
        pull: if args.pull == Pull::Never { v1::Pull::Never.into() } else { v1::Pull::Missing.into() },
        resources: None,
        process: Some(process(args)?),
        files: Some(v1::Files {
            volumes: texts(&args.volume),
            tmpfs: texts(&args.tmpfs),
            read_only: args.read_only,
            shm_bytes: args.shm_size.map_or(0, |size| size.0),
        }),
        security: Some(v1::Security {
            cap_add: args.cap_add.clone(),
            cap_drop: args.cap_drop.clone(),
            options: texts(&args.security_opt),
            userns: args.userns.text.clone(),
            sysctls: args.sysctl.clone(),
            privileged: args.privileged,
        }),
        limits: Some(limits(args)),
        network: network.into(),
        hostname: args.hostname.clone().unwrap_or_default(),
        hosts: args.add_host.clone(),
        ports: args.publish.iter().map(port).collect(),
        labels: args.label.iter().map(label).collect(),
        restart: Some(v1::Restart { policy: restart.into(), ..v1::Restart::default() }),
        stop: Some(v1::Stop { signal: args.stop_signal.clone().unwrap_or_default(), grace_ms }),
        task: args.detached.task || !args.detached.detach,
        result_ttl_s: 0,
        health: args.health.message()?,
    })
}

fn port(wish: &PortWish) -> v1::Port {
    let protocol = match wish.protocol {
        Protocol::Tcp => v1::port::Protocol::Tcp,
        Protocol::Udp => v1::port::Protocol::Udp,
    };
    v1::Port { host_port: wish.host_port.into(), port: wish.container_port.into(), protocol: protocol.into() }
}

/// What a container of a cell cannot have.
fn refuse(args: &RunArgs) -> Result<()> {
    let refused =
        |what: &str, reason: &str| Err(Error::Argument { what: what.into(), reason: reason.into() });
    if args.rm && args.detached.detach {
        return refused(
            "--rm",
            "a cell forgets what ended by itself (limits.ended_ttl_s): leave it out with -d",
        );
    }
    if args.pull == Pull::Always {
        return refused("--pull always", "pull it first: `celda pull`");
    }
    if args.memory_swap == Some(MemorySwap::Unlimited) {
        return refused(
            "--memory-swap -1",
            "a cell's container has a limit of swap: leave it out, or give one",
        );
    }
    Ok(())
}

fn process(args: &RunArgs) -> Result<v1::Process> {
    let mut env = Vec::new();
    for file in &args.env_file {
        env.extend(spec::read_env_file(file)?);
    }
    env.extend(args.env.iter().cloned());
    // A name alone is this shell's variable; one that is not set is left out, as Docker does.
    let inherited = |entry: String| match entry.contains('=') {
        true => Some(entry),
        false => std::env::var(&entry).ok().map(|value| format!("{entry}={value}")),
    };
    Ok(v1::Process {
        command: args.command().to_vec(),
        entrypoint: args.entrypoint.clone(),
        env: env.into_iter().filter_map(inherited).collect(),
        workdir: args.workdir.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        groups: args.group_add.clone(),
        init: args.init,
        terminal: args.tty,
        interactive: args.interactive,
    })
}

fn limits(args: &RunArgs) -> v1::Limits {
    let bytes = |size: Option<crate::spec::size::Size>| size.map_or(0, |size| size.0);
    let swap = match args.memory_swap {
        Some(MemorySwap::Total(bytes)) => bytes,
        Some(MemorySwap::Unlimited) | None => 0,
    };
    let milli = args.cpus.map_or(0, |cpus| cpus.quota_us * 1000 / CPU_PERIOD_US);
    v1::Limits {
        memory_bytes: bytes(args.memory),
        memory_swap_bytes: swap,
        memory_reservation_bytes: bytes(args.memory_reservation),
        cpu_milli: u32::try_from(milli).unwrap_or(u32::MAX),
        cpu_shares: args.cpu_shares.unwrap_or(0),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: args.cpuset_mems.clone().unwrap_or_default(),
        pids: args.pids_limit.and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        ulimits: texts(&args.ulimit),
        oom_score_adj: args.oom_score_adj.unwrap_or(0),
        disk_bytes: args.disk_bytes().unwrap_or(0),
    }
}

fn texts<T>(given: &[Given<T>]) -> Vec<String> {
    given.iter().map(|one| one.text.clone()).collect()
}

/// An image's name whose path, if it is one, is absolute.
fn absolute(image: &str) -> Result<String> {
    let Some(transport) = LOCAL.iter().find(|transport| image.starts_with(**transport)) else {
        return Ok(image.to_owned());
    };
    let path = &image[transport.len()..];
    if path.starts_with('/') {
        return Ok(image.to_owned());
    }
    let here = std::env::current_dir().map_err(Error::io("find the absolute path of", path))?;
    Ok(format!("{transport}{}", here.join(path).display()))
}
