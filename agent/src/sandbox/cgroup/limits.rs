//! From `linux.resources` of the runtime spec to what is written into a new cgroup.
//!
//! Values that mean "no limit" need no file and no controller: a new group starts without limits. What version 2 has
//! no file for is refused. `devices` is not of this room: version 2 keeps no list, a program decides, which
//! `sandbox::devices` attaches.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxRdma, LinuxResources, LinuxThrottleDevice,
};

use super::CgroupError;

/// The longest value that is passed on as it is.
const VALUE_BYTES_MAX: usize = 4096;

/// One value for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) file: String,
    pub(super) value: String,
}

impl Setting {
    /// The controller that the file belongs to: what is before its first dot.
    pub(super) fn controller(&self) -> &str {
        self.file.split_once('.').map_or(&self.file, |(controller, _)| controller)
    }
}

type Settings = Result<Vec<Setting>, CgroupError>;

fn set(file: &str, value: &dyn std::fmt::Display) -> Setting {
    Setting { file: file.into(), value: value.to_string() }
}

fn invalid<T>(limit: &str, why: impl Into<String>) -> Result<T, CgroupError> {
    Err(CgroupError::Invalid { limit: limit.into(), why: why.into() })
}

fn no_file<T>(limit: &str) -> Result<T, CgroupError> {
    invalid(limit, "cgroup v2 has nothing like it; remove the limit")
}

/// What to write, in order.
pub(super) fn settings(resources: &LinuxResources) -> Settings {
    let mut all = Vec::new();
    if let Some(cpu) = resources.cpu() {
        all.extend(of_cpu(cpu)?);
    }
    if let Some(memory) = resources.memory() {
        all.extend(of_memory(memory)?);
    }
    if let Some(pids) = resources.pids() {
        match pids.limit() {
            -1 | 0 => {}
            limit @ 1.. => all.push(set("pids.max", &limit)),
            limit => return invalid("pids.limit", format!("{limit} is neither positive nor -1")),
        }
    }
    if let Some(io) = resources.block_io() {
        all.extend(of_io(io)?);
    }
    for pages in resources.hugepage_limits().iter().flatten() {
        all.extend(of_hugepages(pages)?);
    }
    let mut rdma: Vec<(&String, &LinuxRdma)> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(device, _)| *device);
    for (device, limits) in rdma {
        all.extend(of_rdma(device, limits)?);
    }
    if let Some(network) = resources.network()
        && (network.class_id().is_some()
            || network.priorities().as_ref().is_some_and(|list| !list.is_empty()))
    {
        return no_file("network");
    }
    let mut unified: Vec<(&String, &String)> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        all.push(of_unified(file, value)?);
    }
    Ok(all)
}

fn of_cpu(cpu: &LinuxCpu) -> Settings {
    /// Bounds of the kernel's bandwidth control, in microseconds (Documentation/scheduler/sched-bwc.rst).
    const PERIOD_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;
    const PERIOD_DEFAULT_US: u64 = 100_000;
    const QUOTA_MIN_US: i64 = 1_000;
    let mut all = Vec::new();
    if cpu.realtime_runtime().is_some_and(|us| us != 0) || cpu.realtime_period().is_some_and(|us| us != 0) {
        return no_file("cpu.realtimeRuntime");
    }
    match cpu.idle() {
        None | Some(0) => {}
        Some(1) => all.push(set("cpu.idle", &1)),
        Some(other) => return invalid("cpu.idle", format!("{other} is neither 0 nor 1")),
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        all.push(set("cpu.weight", &weight_of_shares(shares)?));
    }
    let period = cpu.period().filter(|period| *period != 0).unwrap_or(PERIOD_DEFAULT_US);
    if !PERIOD_US.contains(&period) {
        return invalid("cpu.period", format!("{period} us is not in 1000..=1000000"));
    }
    match cpu.quota() {
        None | Some(0 | -1) => {}
        Some(quota @ QUOTA_MIN_US..) => {
            all.push(set("cpu.max", &format!("{quota} {period}")));
        }
        Some(quota) => {
            return invalid("cpu.quota", format!("{quota} us is neither -1 nor at least {QUOTA_MIN_US}"));
        }
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        all.push(set("cpu.max.burst", &burst));
    }
    let lists = [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())];
    for (file, list) in lists {
        if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
            check_list(file, list)?;
            all.push(set(file, &list));
        }
    }
    Ok(all)
}

/// Version 1's shares as version 2's weight: 2 is 1, 1024 is 100, 262144 is 10000, and a curve through the three
/// (the conversion that crun and runc have since 2025).
fn weight_of_shares(shares: u64) -> Result<u64, CgroupError> {
    const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
    if !SHARES.contains(&shares) {
        return invalid("cpu.shares", format!("{shares} is not in 2..=262144"));
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The slack keeps 100.0000000001 from becoming 101.
    Ok((10f64.powf(exponent) - 1e-6).ceil().clamp(1.0, 10_000.0) as u64)
}

/// `0-3,5`: what the kernel reads as a list of numbers.
fn check_list(file: &str, list: &str) -> Result<(), CgroupError> {
    let number = |text: &str| text.parse::<u32>().ok();
    let good = |part: &str| match part.split_once('-') {
        None => number(part).is_some(),
        Some((low, high)) => matches!((number(low), number(high)), (Some(low), Some(high)) if low <= high),
    };
    if list.len() <= VALUE_BYTES_MAX && list.split(',').all(good) {
        return Ok(());
    }
    invalid(file, format!("{:?} is no list as 0-3,5", list.chars().take(64).collect::<String>()))
}

fn of_memory(memory: &LinuxMemory) -> Settings {
    let mut all = Vec::new();
    if memory.swappiness().is_some() {
        return no_file("memory.swappiness");
    }
    if memory.disable_oom_killer() == Some(true) {
        return no_file("memory.disableOOMKiller");
    }
    if memory.kernel_tcp().is_some_and(|bytes| bytes > 0) {
        return no_file("memory.kernelTCP");
    }
    let limit = bytes("memory.limit", memory.limit())?;
    if let Some(limit) = limit {
        all.push(set("memory.max", &limit));
    }
    if let Some(low) = bytes("memory.reservation", memory.reservation())? {
        if limit.is_some_and(|limit| low > limit) {
            return invalid("memory.reservation", format!("{low} is above memory.limit"));
        }
        all.push(set("memory.low", &low));
    }
    // The spec's number is memory and swap together.
    if let Some(both) = bytes("memory.swap", memory.swap())? {
        let Some(limit) = limit else {
            return invalid("memory.swap", "it counts memory and swap together and needs memory.limit");
        };
        let Some(swap) = both.checked_sub(limit) else {
            return invalid("memory.swap", format!("{both} is below memory.limit, which it includes"));
        };
        all.push(set("memory.swap.max", &swap));
    }
    Ok(all)
}

/// A number of bytes; `None` for no limit.
fn bytes(limit: &str, value: Option<i64>) -> Result<Option<u64>, CgroupError> {
    match value {
        None | Some(-1 | 0) => Ok(None),
        Some(value) => match u64::try_from(value) {
            Ok(value) => Ok(Some(value)),
            Err(_) => invalid(limit, format!("{value} is neither positive nor -1")),
        },
    }
}

fn of_io(io: &LinuxBlockIo) -> Settings {
    let mut all = Vec::new();
    let devices = io.weight_device().as_deref().unwrap_or_default();
    if io.leaf_weight().is_some_and(|weight| weight != 0)
        || devices.iter().any(|device| device.leaf_weight().is_some_and(|weight| weight != 0))
    {
        return no_file("blockIO.leafWeight");
    }
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        all.push(set("io.weight", &format!("default {}", io_weight(weight)?)));
    }
    for device in devices {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let number = device_number("blockIO.weightDevice", device.major(), device.minor())?;
            all.push(set("io.weight", &format!("{number} {}", io_weight(weight)?)));
        }
    }
    let throttles: [(&str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.iter().flatten().filter(|device| device.rate() != 0) {
            let number = device_number("blockIO.throttle", device.major(), device.minor())?;
            all.push(set("io.max", &format!("{number} {key}={}", device.rate())));
        }
    }
    Ok(all)
}

/// Version 1's 10 to 1000 as version 2's 1 to 10000, in proportion.
fn io_weight(weight: u16) -> Result<u32, CgroupError> {
    match weight {
        10..=1000 => Ok(1 + (u32::from(weight) - 10) * 9999 / 990),
        _ => invalid("blockIO.weight", format!("{weight} is not in 10..=1000")),
    }
}

fn device_number(limit: &str, major: i64, minor: i64) -> Result<String, CgroupError> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => invalid(limit, format!("{major}:{minor} is no device number")),
    }
}

fn of_hugepages(pages: &LinuxHugepageLimit) -> Settings {
    let size = pages.page_size();
    let digits = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit)).unwrap_or_default();
    let is_size = (1..=4).contains(&digits.len())
        && digits.bytes().all(|digit| digit.is_ascii_digit())
        && !digits.starts_with('0');
    if !is_size {
        let shown: String = size.chars().take(32).collect();
        return invalid("hugepageLimits", format!("page size {shown:?} is not of the form 2MB"));
    }
    // Here zero is a limit: no huge page at all.
    match pages.limit() {
        -1 => Ok(Vec::new()),
        limit @ 0.. => Ok(vec![set(&format!("hugetlb.{size}.max"), &limit)]),
        limit => invalid("hugepageLimits", format!("{limit} is neither a number of bytes nor -1")),
    }
}

fn of_rdma(device: &str, limits: &LinuxRdma) -> Settings {
    if !is_word(device) {
        let shown: String = device.chars().take(32).collect();
        return invalid("rdma", format!("{shown:?} is no device's name"));
    }
    let part =
        |key: &str, value: Option<u32>| value.map(|value| format!(" {key}={value}")).unwrap_or_default();
    let handles = part("hca_handle", limits.hca_handles());
    let value = format!("{device}{handles}{}", part("hca_object", limits.hca_objects()));
    Ok(if value == device { Vec::new() } else { vec![set("rdma.max", &value)] })
}

fn is_word(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(good)
}

/// A file by its own name. Its controller must be one; the group's own files (`cgroup.*`) are not limits.
fn of_unified(file: &str, value: &str) -> Result<Setting, CgroupError> {
    let shown = || format!("unified {:?}", file.chars().take(64).collect::<String>());
    let parts = file.split_once('.');
    if !is_word(file) || parts.is_none_or(|(controller, rest)| controller.is_empty() || rest.is_empty()) {
        return invalid(&shown(), "not of the form CONTROLLER.FILE");
    }
    if file.starts_with("cgroup.") {
        return invalid(&shown(), "files of the group itself are not limits");
    }
    if value.len() > VALUE_BYTES_MAX || value.contains('\0') {
        return invalid(&shown(), format!("its value is no text of at most {VALUE_BYTES_MAX} bytes"));
    }
    Ok(set(file, &value))
}
