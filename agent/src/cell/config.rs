//! The cell's configuration: a TOML file, every field optional, none unknown.
//!
//! `docs/agent.toml` has each field with its default; a test keeps it so. A number's unit is the end of its name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use celda_auction::Resources;
use serde::Deserialize;

use super::door::Listen;
use super::error::{CellError, Result};
use super::forward::Forward;
use super::instance::{CRASHES_COUNT_MAX, PERIOD_MS_MAX, Policy};
use super::logs;
use super::metrics::http::MetricsConfig;
use super::network::{NetworkOptions, Subnet};
use super::tell::LogConfig;

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 1 << 20;
const MIB: u64 = 1 << 20;
/// Name servers that a C library asks (MAXNS of resolv.h).
const NAME_SERVERS_COUNT_MAX: usize = 3;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the cell is called, and where it is.
    pub cell: Cell,
    /// What it has to give.
    pub capacity: Capacity,
    /// Who may talk to it.
    pub socket: Socket,
    /// Who may talk to it from other machines.
    pub listen: Listen,
    /// Where its metrics are.
    pub metrics: MetricsConfig,
    /// What it says of itself.
    pub log: LogConfig,
    /// What instances reach, and how they are reached.
    pub network: Network,
    /// How much it keeps and does at once.
    pub limits: Limits,
    /// What is kept of what instances write.
    pub logs: LogsConfig,
    /// What holds for instances that say nothing else.
    pub defaults: Defaults,
    /// When images go that nobody uses.
    pub images: ImagesConfig,
}

/// `[images]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImagesConfig {
    /// Percent of ROOT's filesystem in use from which images are removed, 1 to 100; 100: never.
    pub gc_high_percent: u32,
    /// Percent that it is brought below, 0 to `gc_high_percent`.
    pub gc_low_percent: u32,
    /// Seconds between two looks, 1 to a day.
    pub gc_every_s: u64,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self { gc_high_percent: 85, gc_low_percent: 75, gc_every_s: 60 }
    }
}

/// `[logs]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// Bytes of one of an instance's files, 1 MiB to 1 GiB.
    pub segment_bytes: u64,
    /// Files of an instance, 2 to 1000; the oldest is removed when another is begun.
    pub segments_count: usize,
    /// Bytes a second that an app may write, over all its instances here; 0: no limit. What is above it is dropped, and
    /// a notice in the log counts it.
    pub rate_bytes_per_s: u64,
    /// Bytes that may come at once after silence, 64 KiB to 1 GiB.
    pub burst_bytes: u64,
    /// Where it is sent on to.
    pub forward: Forward,
}

impl Default for LogsConfig {
    fn default() -> Self {
        let logs::Limits { segment_bytes, segments_count } = logs::Limits::default();
        Self {
            segment_bytes,
            segments_count,
            rate_bytes_per_s: 0,
            burst_bytes: MIB,
            forward: Forward::default(),
        }
    }
}

impl LogsConfig {
    /// How much is kept of an instance.
    pub fn limits(&self) -> logs::Limits {
        logs::Limits { segment_bytes: self.segment_bytes, segments_count: self.segments_count }
    }

    /// How much an app may write, if there is a limit.
    pub fn rate(&self) -> Option<logs::Rate> {
        let rate = logs::Rate { bytes_per_s: self.rate_bytes_per_s, burst_bytes: self.burst_bytes };
        (self.rate_bytes_per_s > 0).then_some(rate)
    }
}

/// `[cell]`: what auctioneers know of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cell {
    /// Unique among the cells of an auction. Default: the host's name.
    pub name: String,
    /// Where it fails together with others. Default: none.
    pub zone: String,
    /// Root filesystems that demands may ask for.
    pub stacks: Vec<String>,
    /// Tags that demands may ask for.
    pub tags: Vec<String>,
    /// Tags that demands must ask for, so that nothing else runs here.
    pub reserved_for: Vec<String>,
}

/// `[capacity]`: what the ledger begins with. 0: what the machine has.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// MiB of memory.
    pub memory_mib: u32,
    /// MiB of disk for writable layers and logs.
    pub disk_mib: u32,
    /// Containers, 1 to 65535: a container costs the agent and the holder about eight descriptors.
    pub containers: u32,
    /// Ports of the host that may be published, at most 65535.
    pub ports: u32,
}

/// `[socket]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Socket {
    /// Where the unix socket is, mode 0660. Default: RUN/agent.sock.
    pub path: Option<PathBuf>,
    /// User ids whose processes are let in, besides the agent's own. Whoever is let in can be root here.
    pub users: Vec<u32>,
    /// Connections at once, 1 to 65535; more are closed as they come.
    pub connections_max: u32,
}

/// `[network]`: the cell's own, which instances are on unless they want another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Whether there is one. Without nftables there is none either, and the cell says so.
    pub enabled: bool,
    /// Addresses of instances, IPv4, with 8 to 29 bits; the first is the host's. No two cells of a machine share one.
    pub subnet: String,
    /// Instances reach what is beyond this machine.
    pub egress: bool,
    /// Who resolves names for instances, at most 3. None: the host's, less those on its loopback.
    pub name_servers: Vec<IpAddr>,
    /// Ports of the host that are given to who wants any, 1 to 65535.
    pub ports_first: u16,
    /// The last of them. The default range is Garden's: above what the kernel uses for connections from the host.
    pub ports_last: u16,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            enabled: true,
            subnet: "10.254.0.0/16".into(),
            egress: true,
            name_servers: Vec::new(),
            ports_first: 61_001,
            ports_last: 65_535,
        }
    }
}

impl Network {
    /// As the network takes it, with so many namespaces ready.
    ///
    /// # Errors
    /// What is wrong with the subnet.
    pub fn options(&self, ready_count: u32) -> std::result::Result<NetworkOptions, String> {
        let Subnet { network, prefix_bits } = self.subnet.parse()?;
        Ok(NetworkOptions { network, prefix_bits, egress: self.egress, ready_count: ready_count as usize })
    }

    fn check(&self) -> std::result::Result<(), String> {
        self.options(1).map_err(|why| format!("network.subnet = {why}"))?;
        if !(1..=self.ports_last).contains(&self.ports_first) {
            let Self { ports_first, ports_last, .. } = self;
            return Err(format!("network.ports_first = {ports_first}: it is 1 to ports_last, {ports_last}"));
        }
        let is_useless = |server: &&IpAddr| server.is_loopback() || server.is_unspecified();
        if let Some(server) = self.name_servers.iter().find(is_useless) {
            return Err(format!("network.name_servers: {server} is the instance's own inside"));
        }
        if self.name_servers.len() > NAME_SERVERS_COUNT_MAX {
            return Err(format!("network.name_servers: at most {NAME_SERVERS_COUNT_MAX} are asked"));
        }
        Ok(())
    }
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Instances and tasks that are kept, ended ones included, 1 to 65535.
    pub instances_max: u32,
    /// Containers prepared, started or cleared away at once, 1 to 256. A start mostly waits for the kernel.
    pub workers_count: u32,
    /// Network namespaces kept ready, 1 to 1024.
    pub networks_ready_count: u32,
    /// Roots that containers of an image left untouched, kept for its next ones, at most 4096.
    pub roots_spare_max: u32,
    /// Images pulled at once, 1 to 32.
    pub pulls_count: u32,
    /// Streams (Watch, Logs, Exec, Attach, Drain) at once, 1 to 65535.
    pub streams_max: u32,
    /// Bytes after which the journal is compacted, 64 KiB to 256 MiB.
    pub journal_bytes: u64,
    /// Seconds that an instance which ended for good stays listed, at most a week.
    pub ended_ttl_s: u64,
}

/// `[defaults]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Defaults {
    /// Crashes in a row that are answered by a start at once. Diego's number.
    pub restart_immediate_count: u32,
    /// Seconds before the next start after that, doubled each time. Diego's.
    pub restart_delay_first_s: u64,
    /// Seconds that the delay does not go beyond. Diego's.
    pub restart_delay_max_s: u64,
    /// Seconds of a run that begin the count anew. Diego's.
    pub restart_reset_after_s: u64,
    /// Crashes in a row after which an instance stays ended. Diego's.
    pub restart_crashes_max: u32,
    /// Milliseconds from the stop signal to the kill. Docker's ten seconds.
    pub stop_grace_ms: u64,
    /// Seconds that a task's result is kept.
    pub task_result_ttl_s: u64,
}

impl Default for Cell {
    fn default() -> Self {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let none = Vec::new;
        Self { name, zone: String::new(), stacks: none(), tags: none(), reserved_for: none() }
    }
}

impl Default for Capacity {
    fn default() -> Self {
        Self { cpu_milli: 0, memory_mib: 0, disk_mib: 0, containers: 1024, ports: 4096 }
    }
}

impl Default for Socket {
    fn default() -> Self {
        Self { path: None, users: Vec::new(), connections_max: 256 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances_max: 4096,
            workers_count: 8,
            networks_ready_count: 64,
            roots_spare_max: 512,
            pulls_count: 3,
            streams_max: 256,
            journal_bytes: 4 * MIB,
            ended_ttl_s: 3600,
        }
    }
}

impl Default for Defaults {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            restart_immediate_count: policy.immediate_count,
            restart_delay_first_s: policy.delay_first_ms / 1000,
            restart_delay_max_s: policy.delay_max_ms / 1000,
            restart_reset_after_s: policy.reset_after_ms / 1000,
            restart_crashes_max: policy.crashes_max,
            stop_grace_ms: policy.grace_ms,
            task_result_ttl_s: 3600,
        }
    }
}

impl Config {
    /// Reads a file, or gives the defaults without one.
    ///
    /// # Errors
    /// [`CellError::Config`] naming the field, [`CellError::Io`].
    pub fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let length = std::fs::metadata(path).map_err(CellError::io("look at", path))?.len();
        let wrong = |why: String| CellError::Config { path: path.to_owned(), why };
        if length > FILE_BYTES_MAX {
            return Err(wrong(format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(CellError::io("read", path))?;
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> std::result::Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let Self { capacity, socket, limits, logs, defaults, images, .. } = self;
        let week_s = PERIOD_MS_MAX / 1000;
        let slots = u64::from(u16::MAX);
        let ranges: &[(&str, u64, u64, u64)] = &[
            ("capacity.containers", capacity.containers.into(), 1, slots),
            ("capacity.ports", capacity.ports.into(), 0, slots),
            ("socket.connections_max", socket.connections_max.into(), 1, slots),
            ("limits.instances_max", limits.instances_max.into(), 1, slots),
            ("limits.workers_count", limits.workers_count.into(), 1, 256),
            ("limits.networks_ready_count", limits.networks_ready_count.into(), 1, 1024),
            ("limits.roots_spare_max", limits.roots_spare_max.into(), 0, 4096),
            ("limits.pulls_count", limits.pulls_count.into(), 1, 32),
            ("limits.streams_max", limits.streams_max.into(), 1, slots),
            ("limits.journal_bytes", limits.journal_bytes, 64 << 10, 256 * MIB),
            ("limits.ended_ttl_s", limits.ended_ttl_s, 0, week_s),
            ("logs.segment_bytes", logs.segment_bytes, MIB, 1 << 30),
            ("logs.segments_count", logs.segments_count as u64, 2, 1000),
            ("logs.burst_bytes", logs.burst_bytes, 64 << 10, 1 << 30),
            ("defaults.restart_delay_first_s", defaults.restart_delay_first_s, 0, week_s),
            ("defaults.restart_delay_max_s", defaults.restart_delay_max_s, 0, week_s),
            ("defaults.restart_reset_after_s", defaults.restart_reset_after_s, 0, week_s),
            (
                "defaults.restart_crashes_max",
                defaults.restart_crashes_max.into(),
                1,
                CRASHES_COUNT_MAX.into(),
            ),
            ("defaults.stop_grace_ms", defaults.stop_grace_ms, 0, 3_600_000),
            ("defaults.task_result_ttl_s", defaults.task_result_ttl_s, 0, week_s),
            ("images.gc_high_percent", images.gc_high_percent.into(), 1, 100),
            ("images.gc_low_percent", images.gc_low_percent.into(), 0, images.gc_high_percent.into()),
            ("images.gc_every_s", images.gc_every_s, 1, 86_400),
        ];
        for (field, value, min, max) in ranges.iter().copied() {
            if !(min..=max).contains(&value) {
                return Err(format!("{field} = {value}: it is {min} to {max}"));
            }
        }
        self.network.check()?;
        self.logs.forward.check()?;
        self.listen.check()
    }
}

impl Defaults {
    /// The policy of an instance that says nothing else.
    pub fn policy(&self) -> Policy {
        Policy {
            immediate_count: self.restart_immediate_count,
            delay_first_ms: self.restart_delay_first_s * 1000,
            delay_max_ms: self.restart_delay_max_s * 1000,
            reset_after_ms: self.restart_reset_after_s * 1000,
            crashes_max: self.restart_crashes_max,
            grace_ms: self.stop_grace_ms,
            ..Policy::default()
        }
    }
}

impl Capacity {
    /// What the cell has: what is said here, and of the rest what the machine has that `root` is on.
    pub fn resources(&self, root: &Path) -> Resources {
        let or = |said: u32, has: u64| {
            let has = u32::try_from(has).unwrap_or(u32::MAX).clamp(1, celda_auction::demand::AMOUNT_MAX);
            if said == 0 { has } else { said }
        };
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        let info = rustix::system::sysinfo();
        let memory_bytes = info.totalram * u64::from(info.mem_unit);
        let disk = rustix::fs::statvfs(root).map_or(0, |facts| facts.f_bavail * facts.f_frsize);
        Resources {
            cpu_milli: or(self.cpu_milli, cores * 1000),
            memory_mib: or(self.memory_mib, memory_bytes / MIB),
            disk_mib: or(self.disk_mib, disk / MIB),
            containers: self.containers,
            ports: self.ports,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_is_the_default() {
        let text = include_str!("../../../docs/agent.toml");
        let mut documented = Config::parse(text).expect("it is a configuration");
        documented.cell.name = Cell::default().name;
        assert_eq!(documented, Config::default());
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_named() {
        for (text, named) in [
            ("[limits]\nworker_count = 3", "worker_count"),
            ("[limits]\nworkers_count = 0", "limits.workers_count = 0: it is 1 to 256"),
            ("[defaults]\nrestart_delay_max_s = 9999999", "restart_delay_max_s"),
            ("[images]\ngc_low_percent = 90", "images.gc_low_percent = 90: it is 0 to 85"),
            ("[socket]\nusers = [\"root\"]", "users"),
            ("limits", "limits"),
            ("[network]\nsubnet = \"10.0.0.1/24\"", "network.subnet"),
            ("[network]\nports_first = 70000", "ports_first"),
            ("[network]\nports_first = 9\nports_last = 8", "network.ports_first = 9"),
            ("[network]\nname_servers = [\"127.0.0.53\"]", "network.name_servers"),
        ] {
            let error = Config::parse(text).expect_err(text);
            assert!(error.contains(named), "{error}");
        }
    }
}
