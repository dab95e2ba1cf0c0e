//! What a caller wants to run, checked: a message of the API as the types that the rest of the agent works with.

use celda_api::cell::v1;
use celda_auction::demand::AppId;
use celda_auction::{Demand, Resources};
use celda_layerfs::Digest;
use celda_layerfs::pull::PullPolicy;
use celda_layerfs::reference::Reference;
use prost::Message as _;

use super::config::Defaults;
use super::instance::{CRASHES_COUNT_MAX, PERIOD_MS_MAX, Policy, Restart};
use super::network::{PortWish, Protocol, check_ports};
use super::wish_health;
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
        Self::of(message, bytes, defaults)
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
        let ports = ports(&message)?;
        let resources = resources(&message, ports.len())?;
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
            health: wish_health::read(message.health.as_ref())?,
            result_ttl_ms,
            message,
            bytes,
        })
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

fn resources(message: &v1::Spec, ports_count: usize) -> Result<Resources, String> {
    let given = message.resources.unwrap_or_default();
    let resources = Resources {
        cpu_milli: given.cpu_milli,
        memory_mib: given.memory_mib,
        disk_mib: given.disk_mib,
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
mod tests {
    use super::*;

    fn spec() -> v1::Spec {
        v1::Spec { image: "web:1".into(), ..v1::Spec::default() }
    }

    fn read(message: v1::Spec) -> Result<Wish, String> {
        Wish::read(message, &Defaults::default())
    }

    #[test]
    fn the_least_spec_is_an_image() {
        let wish = read(spec()).expect("a wish");
        assert_eq!(wish.resources.containers, 1);
        assert_eq!((wish.policy, wish.result_ttl_ms), (Policy::default(), None));
        let task = read(v1::Spec { task: true, ..spec() }).expect("a wish");
        assert_eq!(task.result_ttl_ms, Some(3_600_000));
    }

    #[test]
    fn a_spec_with_many_labels_is_the_same_spec_however_often_it_is_kept() {
        let labels = |names: &[&str]| names.iter().map(|name| ((*name).into(), "x".into())).collect();
        let message = v1::Spec { labels: labels(&["a", "b", "c", "d", "e"]), ..spec() };
        let first = read(message.clone()).expect("a wish");
        let other = v1::Spec { labels: labels(&["e", "c", "a", "d", "b"]), ..spec() };
        assert_eq!(read(other).expect("a wish").digest, first.digest);
        let kept = |wish: &Wish| Wish::kept(wish.bytes.clone(), &Defaults::default()).expect("a wish");
        let again = kept(&kept(&first));
        assert_eq!((&again.digest, &again.bytes, &again.message), (&first.digest, &first.bytes, &message));
    }

    #[test]
    fn the_bytes_that_were_kept_are_what_a_digest_is_of() {
        let mut bytes = read(spec()).expect("a wish").bytes;
        bytes.extend([0xfa, 0x3f, 1, b'x']); // field 1023, of a version to come
        let wish = Wish::kept(bytes.clone(), &Defaults::default()).expect("a wish");
        assert_eq!((wish.digest, wish.bytes), (Digest::of(&bytes).hex(), bytes));
        assert!(Wish::kept(vec![0xff], &Defaults::default()).is_err());
    }

    #[test]
    fn absurd_specs_are_refused_by_field() {
        let process = |process| v1::Spec { process: Some(process), ..spec() };
        let many = vec!["A=1".to_owned(); LIST_COUNT_MAX + 1];
        let restart = v1::Restart { crashes_max: Some(0), ..v1::Restart::default() };
        let always = v1::Restart { policy: v1::restart::Policy::Always.into(), ..v1::Restart::default() };
        let huge = celda_api::auction::v1::Resources { cpu_milli: u32::MAX, ..Default::default() };
        let stop = v1::Stop { grace_ms: Some(u32::MAX), ..v1::Stop::default() };
        let cases = [
            (v1::Spec::default(), "image"),
            (process(v1::Process { env: many, ..v1::Process::default() }), "process.env"),
            (process(v1::Process { command: vec!["a\0".into()], ..v1::Process::default() }), "NUL"),
            (process(v1::Process { user: "x".repeat(SPEC_BYTES_MAX), ..v1::Process::default() }), "bytes"),
            (v1::Spec { restart: Some(restart), ..spec() }, "restart.crashes_max"),
            (v1::Spec { task: true, restart: Some(always), ..spec() }, "a task runs once"),
            (v1::Spec { resources: Some(huge), ..spec() }, "resources"),
            (v1::Spec { stop: Some(stop), ..spec() }, "grace_ms"),
            (v1::Spec { ports: vec![port(65_536, 80)], ..spec() }, "host_port 65536"),
            (v1::Spec { ports: vec![port(80, 0)], ..spec() }, "1 to 65535"),
            (v1::Spec { ports: vec![port(0, 80); 10_000], ..spec() }, "10000 ports"),
            (v1::Spec { ports: vec![port(80, 80), port(80, 81)], ..spec() }, "twice"),
            (v1::Spec { ports: vec![port(80, 80)], network: v1::Network::Host.into(), ..spec() }, "ports"),
            (
                v1::Spec {
                    network: v1::Network::Cell.into(),
                    security: Some(v1::Security {
                        userns: "map:0:100000:65536".into(),
                        ..Default::default()
                    }),
                    ..spec()
                },
                "user namespace",
            ),
            (
                v1::Spec {
                    files: Some(v1::Files { volumes: vec![":".into()], ..v1::Files::default() }),
                    ..spec()
                },
                "files.volumes",
            ),
        ];
        for (message, named) in cases {
            let error = read(message).expect_err(named);
            assert!(error.contains(named), "{error}");
        }
    }

    fn port(host_port: u32, port: u32) -> v1::Port {
        v1::Port { host_port, port, ..v1::Port::default() }
    }

    #[test]
    fn published_ports_are_taken_of_the_ledger() {
        let wish = read(v1::Spec { ports: vec![port(0, 80), port(8080, 80)], ..spec() }).expect("a wish");
        assert_eq!((wish.ports.len(), wish.resources.ports, wish.network), (2, 2, None));
    }

    #[test]
    fn the_agents_environment_stays_its_own() {
        let process = v1::Process { env: vec!["PATH".into(), "A=1".into()], ..v1::Process::default() };
        let wish = read(v1::Spec { process: Some(process), ..spec() }).expect("a wish");
        assert_eq!(wish.flags.env, ["A=1"]);
    }

    #[test]
    fn ids_are_plain_names() {
        assert!(check_id("web-1.2_x").is_ok());
        for id in ["", "-a", "../a", "a/b", "a b", "ü", &"a".repeat(49)] {
            assert!(check_id(id).is_err(), "{id}");
        }
    }
}
