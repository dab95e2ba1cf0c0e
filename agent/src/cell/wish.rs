//! What a caller wants to run, checked: a message of the API as the types that the rest of the agent works with.

use celda_api::cell::v1;
use celda_auction::demand::AppId;
use celda_auction::{Demand, Resources};
use celda_layerfs::Digest;
use celda_layerfs::mount::check_disk_limit;
use celda_layerfs::pull::PullPolicy;
use celda_layerfs::reference::Reference;
use prost::Message as _;

use super::config::Defaults;
use super::instance::{CRASHES_COUNT_MAX, PERIOD_MS_MAX, Policy, Restart};
use super::network::{PortWish, Protocol, check_ports};
use super::wish_health;
use crate::sandbox::caps::{self, CapSet};
use crate::sandbox::idmap::Userns;
use crate::spec::size::{CPU_PERIOD_US, Cpus, MemorySwap, Size};
use crate::spec::{Network, RunFlags};

/// Bytes of an encoded spec.
pub const SPEC_BYTES_MAX: usize = 256 << 10;
/// Entries of one list of a spec.
const LIST_COUNT_MAX: usize = 1024;
/// Bytes of an id, or an app's name.
const NAME_BYTES_MAX: usize = 128;
/// Bytes of an id: with an attempt's number it names a cgroup and a directory, with its birth a log.
const ID_BYTES_MAX: usize = 48;
const HOUR_MS: u32 = 3_600_000;
/// What looks into other processes, see capabilities(7).
const TRACE: &str = "SYS_PTRACE";

/// A spec, as meant.
#[derive(Debug)]
pub struct Wish {
    /// sha-256 of the message, in hexadecimal.
    pub digest: String,
    /// As it came.
    pub message: v1::Spec,
    /// The message, encoded: what the digest is of.
    pub bytes: Vec<u8>,
    /// The image.
    pub image: Reference,
    /// Whether it may be fetched.
    pub pull: PullPolicy,
    /// What shapes the container; the id is not set.
    pub flags: RunFlags,
    /// Its network; none: the cell's where it has one.
    pub network: Option<Network>,
    /// Ports of the host that lead to it.
    pub ports: Vec<PortWish>,
    /// How it is kept running and ended; the stop signal is the image's unless the flags have one.
    pub policy: Policy,
    /// What it takes of the ledger.
    pub resources: Resources,
    /// What its writable layer may hold, if there is a limit.
    pub disk_bytes: Option<u64>,
    /// How its health is looked at.
    pub health: wish_health::Wanted,
    /// How long it is kept after its end, in milliseconds; none: as the cell keeps instances.
    pub result_ttl_ms: Option<u64>,
}

impl Wish {
    /// Checks a message.
    ///
    /// # Errors
    /// What is wrong with it, naming the field.
    pub fn read(message: v1::Spec, defaults: &Defaults) -> Result<Self, String> {
        let bytes = message.encode_to_vec();
        let wish = Self::of(message, bytes, defaults)?;
        wish.check_programs()?;
        Ok(wish)
    }

    /// A check by a program that can never be run would end its instance for ever. What was accepted before is kept as it
    /// is, without that check.
    fn check_programs(&self) -> Result<(), String> {
        let RunFlags { privileged, userns, cap_add, cap_drop, .. } = &self.flags;
        if !self.health.has_program() || *userns != Userns::Host {
            return Ok(());
        }
        let caps =
            caps::apply(CapSet::docker_default(), cap_add, cap_drop).map_err(|error| error.to_string())?;
        let may_trace = *privileged || caps::parse(TRACE).is_ok_and(|trace| caps.has(trace));
        if !may_trace {
            return Ok(());
        }
        Err("health: no program is run in an instance that has SYS_PTRACE over the host's users, as it could look into \
             the agent by it: check by http or tcp, take the capability away, or give it users of its own \
             (security.userns)"
            .into())
    }

    /// Checks a message that was kept. Its bytes are what they were: a version that encodes otherwise, or knows fewer
    /// fields, makes no other spec of it.
    ///
    /// # Errors
    /// As [`read`](Self::read), and for bytes that are no message.
    pub fn kept(bytes: Vec<u8>, defaults: &Defaults) -> Result<Self, String> {
        let message = v1::Spec::decode(bytes.as_slice()).map_err(|error| format!("a spec: {error}"))?;
        Self::of(message, bytes, defaults)
    }

    fn of(message: v1::Spec, bytes: Vec<u8>, defaults: &Defaults) -> Result<Self, String> {
        if bytes.len() > SPEC_BYTES_MAX {
            return Err(format!("a spec of {} bytes: at most {SPEC_BYTES_MAX} are possible", bytes.len()));
        }
        let image = message.image.parse().map_err(|error| format!("image {:?}: {error}", message.image))?;
        let pull = match message.pull() {
            v1::Pull::Never => PullPolicy::Never,
            v1::Pull::Missing | v1::Pull::Unspecified => PullPolicy::Missing,
        };
        let (ports, disk_bytes) = (ports(&message)?, disk_bytes(&message)?);
        let resources = resources(&message, ports.len(), disk_bytes)?;
        let flags = flags(&message)?;
        let network = network(&message, &flags, &ports)?;
        let result_ttl_ms = match (message.task, message.result_ttl_s) {
            (false, _) => None,
            (true, 0) => Some(defaults.task_result_ttl_s * 1000),
            (true, given) => Some((u64::from(given) * 1000).min(PERIOD_MS_MAX)),
        };
        Ok(Self {
            digest: Digest::of(&bytes).hex(),
            image,
            pull,
            flags,
            network,
            ports,
            policy: policy(&message, defaults)?,
            resources,
            disk_bytes,
            health: wish_health::read(message.health.as_ref())?,
            result_ttl_ms,
            message,
            bytes,
        })
    }

    /// Whether its containers have a standard input that somebody may attach to.
    pub fn is_interactive(&self) -> bool {
        self.message.process.as_ref().is_some_and(|process| process.interactive)
    }

    /// What it takes of a ledger, for an instance of `app`.
    pub fn demand(&self, app: &str) -> Demand {
        Demand { app: app_id(app), resources: self.resources, ..Demand::default() }
    }
}

/// The number that the auction knows an app by: the first bytes of its name's sha-256.
pub fn app_id(app: &str) -> AppId {
    let hex = Digest::of(app.as_bytes()).hex();
    AppId(u64::from_str_radix(&hex[..16], 16).unwrap_or_default())
}

/// Whether `id` can be an instance's.
///
/// # Errors
/// What would do.
pub fn check_id(id: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_good = (1..=ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(is_plain)
        && id.as_bytes()[0].is_ascii_alphanumeric();
    if is_good {
        return Ok(());
    }
    let shown: String = id.chars().take(ID_BYTES_MAX).collect();
    Err(format!(
        "id {shown:?}: use 1 to {ID_BYTES_MAX} of a-z A-Z 0-9 - _ . and begin with a letter or digit"
    ))
}

/// Whether `app` can be an app's name.
///
/// # Errors
/// What would do.
pub fn check_app(app: &str) -> Result<(), String> {
    if app.len() <= NAME_BYTES_MAX && !app.contains(char::is_control) {
        return Ok(());
    }
    Err(format!("an app's name has at most {NAME_BYTES_MAX} bytes and no control characters"))
}

/// The limit of the writable layer, if there is one.
fn disk_bytes(message: &v1::Spec) -> Result<Option<u64>, String> {
    let bytes = message.limits.as_ref().map_or(0, |limits| limits.disk_bytes);
    if bytes == 0 {
        return Ok(None);
    }
    check_disk_limit(bytes).map_err(|why| format!("limits.disk_bytes: {why}"))?;
    Ok(Some(bytes))
}

fn ports(message: &v1::Spec) -> Result<Vec<PortWish>, String> {
    let wish = |port: &v1::Port| {
        let number = |what: &str, number: u32| {
            u16::try_from(number).map_err(|_| format!("ports: {what} {number} is not within 65535"))
        };
        let (host_port, container_port) = (number("host_port", port.host_port)?, number("port", port.port)?);
        if container_port == 0 {
            return Err("ports: the port in the container is 1 to 65535".to_owned());
        }
        let protocol = match port.protocol() {
            v1::port::Protocol::Udp => Protocol::Udp,
            v1::port::Protocol::Tcp | v1::port::Protocol::Unspecified => Protocol::Tcp,
        };
        Ok(PortWish { protocol, host_port, container_port })
    };
    // Bounded before each is looked at, by the spec's bytes.
    let ports = message.ports.iter().map(wish).collect::<Result<Vec<_>, _>>()?;
    check_ports(&ports).map_err(|why| format!("ports: {why}"))?;
    Ok(ports)
}

fn network(message: &v1::Spec, flags: &RunFlags, ports: &[PortWish]) -> Result<Option<Network>, String> {
    let is_mapped = flags.userns != crate::sandbox::idmap::Userns::Host;
    let network = match message.network() {
        v1::Network::None => Some(Network::None),
        v1::Network::Host => Some(Network::Host),
        v1::Network::Cell => Some(Network::Cell),
        // A user namespace must own its network, which is made with it.
        v1::Network::Unspecified if is_mapped && ports.is_empty() => Some(Network::None),
        v1::Network::Unspecified => None,
    };
    match network {
        Some(Network::None | Network::Host) if !ports.is_empty() => {
            Err("ports: only on the cell's network are ports published".into())
        }
        None | Some(Network::Cell) if is_mapped => Err(
            "network: a container with a user namespace cannot be on the cell's network; use none or host"
                .into(),
        ),
        network => Ok(network),
    }
}

fn resources(message: &v1::Spec, ports_count: usize, disk_bytes: Option<u64>) -> Result<Resources, String> {
    let given = message.resources.unwrap_or_default();
    // What it may write is taken: the disk has to have it.
    let disk_mib = u32::try_from(disk_bytes.unwrap_or(0).div_ceil(1 << 20)).unwrap_or(u32::MAX);
    let resources = Resources {
        cpu_milli: given.cpu_milli,
        memory_mib: given.memory_mib,
        disk_mib: given.disk_mib.max(disk_mib),
        containers: given.containers.max(1),
        // Bounded by PORTS_COUNT_MAX.
        ports: given.ports.max(ports_count as u32),
    };
    let demand = Demand { resources, ..Demand::default() };
    demand.check().map_err(|error| format!("resources: {error}"))?;
    Ok(resources)
}

fn policy(message: &v1::Spec, defaults: &Defaults) -> Result<Policy, String> {
    let mut policy = defaults.policy();
    let restart = message.restart.unwrap_or_default();
    policy.restart = match restart.policy() {
        v1::restart::Policy::Always => Restart::Always,
        v1::restart::Policy::OnFailure => Restart::OnFailure,
        v1::restart::Policy::Never | v1::restart::Policy::Unspecified => Restart::Never,
    };
    if message.task && policy.restart != Restart::Never {
        return Err("restart: a task runs once; leave it out, or want an instance".into());
    }
    let set = |field: &mut u64, given: Option<u32>| {
        if let Some(given) = given {
            *field = u64::from(given);
        }
    };
    set(&mut policy.delay_first_ms, restart.delay_first_ms);
    set(&mut policy.delay_max_ms, restart.delay_max_ms);
    set(&mut policy.reset_after_ms, restart.reset_after_ms);
    policy.immediate_count = restart.immediate_count.unwrap_or(policy.immediate_count);
    if let Some(crashes_max) = restart.crashes_max {
        if !(1..=CRASHES_COUNT_MAX).contains(&crashes_max) {
            return Err(format!(
                "restart.crashes_max: {crashes_max} is not within 1 and {CRASHES_COUNT_MAX}"
            ));
        }
        policy.crashes_max = crashes_max;
    }
    if let Some(grace_ms) = message.stop.as_ref().and_then(|stop| stop.grace_ms) {
        check_grace(grace_ms)?;
        policy.grace_ms = u64::from(grace_ms);
    }
    Ok(policy)
}

/// Whether a grace is within an hour.
///
/// # Errors
/// When it is not.
pub fn check_grace(grace_ms: u32) -> Result<(), String> {
    if grace_ms <= HOUR_MS { Ok(()) } else { Err(format!("grace_ms: {grace_ms} is more than an hour")) }
}

fn flags(message: &v1::Spec) -> Result<RunFlags, String> {
    let v1::Spec { process, files, security, limits, .. } = message.clone();
    let (process, files) = (process.unwrap_or_default(), files.unwrap_or_default());
    let (security, limits) = (security.unwrap_or_default(), limits.unwrap_or_default());
    let lists = [
        ("process.command", &process.command),
        ("process.env", &process.env),
        ("process.groups", &process.groups),
        ("files.volumes", &files.volumes),
        ("files.tmpfs", &files.tmpfs),
        ("security.options", &security.options),
        ("security.sysctls", &security.sysctls),
        ("limits.ulimits", &limits.ulimits),
        ("hosts", &message.hosts),
    ];
    for (field, list) in lists {
        if list.len() > LIST_COUNT_MAX {
            return Err(format!("{field}: {} entries, at most {LIST_COUNT_MAX} are possible", list.len()));
        }
        if list.iter().any(|text| text.contains('\0')) {
            return Err(format!("{field}: an entry has a NUL byte"));
        }
    }
    let some = |text: String| (!text.is_empty()).then_some(text);
    let labels = message.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let size = |bytes: u64| (bytes > 0).then_some(Size(bytes.min(i64::MAX as u64)));
    let cpu_us = u64::from(limits.cpu_milli) * CPU_PERIOD_US / 1000;
    Ok(RunFlags {
        command: process.command,
        entrypoint: process.entrypoint,
        // A name without a value would be looked up in the agent's own environment.
        env: process.env.into_iter().filter(|entry| entry.contains('=')).collect(),
        user: some(process.user),
        groups: process.groups,
        workdir: some(process.workdir),
        hostname: some(message.hostname.clone()),
        labels,
        init: process.init,
        tty: process.terminal,
        volumes: all("files.volumes", &files.volumes)?,
        tmpfs: all("files.tmpfs", &files.tmpfs)?,
        shm_size: size(files.shm_bytes),
        read_only: files.read_only,
        privileged: security.privileged,
        cap_add: security.cap_add,
        cap_drop: security.cap_drop,
        security: all("security.options", &security.options)?,
        ulimits: all("limits.ulimits", &limits.ulimits)?,
        userns: security.userns.parse().map_err(|error| format!("security.userns: {error}"))?,
        memory: size(limits.memory_bytes),
        memory_swap: size(limits.memory_swap_bytes).map(|Size(bytes)| MemorySwap::Total(bytes)),
        memory_reservation: size(limits.memory_reservation_bytes),
        cpus: (cpu_us > 0).then_some(Cpus { quota_us: cpu_us }),
        cpu_shares: (limits.cpu_shares > 0).then_some(limits.cpu_shares),
        cpuset_cpus: some(limits.cpuset_cpus),
        cpuset_mems: some(limits.cpuset_mems),
        pids_limit: (limits.pids > 0).then_some(i64::from(limits.pids)),
        oom_score_adj: (limits.oom_score_adj != 0).then_some(limits.oom_score_adj),
        sysctls: security.sysctls,
        add_hosts: message.hosts.clone(),
        stop_signal: message.stop.clone().and_then(|stop| some(stop.signal)),
        ..RunFlags::default()
    })
}

fn all<T: std::str::FromStr<Err = E>, E: std::fmt::Display>(
    field: &str,
    list: &[String],
) -> Result<Vec<T>, String> {
    list.iter().map(|text| text.parse().map_err(|error| format!("{field}: {error}"))).collect()
}

#[cfg(test)]
mod tests;
