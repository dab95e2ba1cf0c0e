//! Limits, as the OCI runtime spec has them; whether they can be kept is the cgroup's to say.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use oci_spec::runtime::{
    LinuxBlockIo, LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
    LinuxResourcesBuilder, LinuxThrottleDevice, LinuxThrottleDeviceBuilder,
};

use super::flags::RunFlags;
use super::process::internal;
use super::size::{CPU_PERIOD_US, DeviceRate, MEMORY_MIN_BYTES, MemorySwap};
use super::{Host, SpecError};

/// `--cpu-shares`, cgroup v1's range, which is Docker's still.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// `--blkio-weight`, of the runtime spec.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// The limits that were asked for; `None` when there are none.
pub(super) fn resources(flags: &RunFlags, host: &Host) -> Result<Option<LinuxResources>, SpecError> {
    let mut builder = LinuxResourcesBuilder::default();
    let mut is_limited = false;
    if let Some(memory) = memory(flags, host)? {
        builder = builder.memory(memory);
        is_limited = true;
    }
    if flags.cpus.is_some()
        || flags.cpu_shares.is_some()
        || flags.cpuset_cpus.is_some()
        || flags.cpuset_mems.is_some()
    {
        builder = builder.cpu(cpu(flags)?);
        is_limited = true;
    }
    if let Some(limit) = flags.pids_limit.filter(|limit| *limit > 0) {
        let pids = LinuxPidsBuilder::default().limit(limit).build();
        builder = builder.pids(pids.map_err(|error| internal("linux.resources.pids", &error))?);
        is_limited = true;
    }
    if let Some(io) = block_io(flags)? {
        builder = builder.block_io(io);
        is_limited = true;
    }
    if !is_limited {
        return Ok(None);
    }
    builder.build().map(Some).map_err(|error| internal("linux.resources", &error))
}

fn memory(flags: &RunFlags, host: &Host) -> Result<Option<oci_spec::runtime::LinuxMemory>, SpecError> {
    if flags.memory.is_none() && flags.memory_swap.is_none() && flags.memory_reservation.is_none() {
        return Ok(None);
    }
    let conflict = |what: &str, why: String| Err(SpecError::Conflict { what: what.into(), why });
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let mut builder = LinuxMemoryBuilder::default();
    if let Some(memory) = flags.memory {
        if memory.0 < MEMORY_MIN_BYTES {
            return conflict(
                "--memory",
                format!("less than {MEMORY_MIN_BYTES} bytes, with which nothing starts"),
            );
        }
        builder = builder.limit(signed(memory.0));
    }
    // Docker's 0 is the same as nothing said.
    let memory_swap = flags.memory_swap.filter(|swap| *swap != MemorySwap::Total(0));
    match (memory_swap, flags.memory) {
        (None, None) => {}
        // Docker's rule: as much swap again as memory. Without it a container would swap without limit.
        (None, Some(memory)) if host.has_swap => builder = builder.swap(signed(memory.0.saturating_mul(2))),
        (None, Some(_)) => {}
        (Some(_), None) => {
            return conflict("--memory-swap", "it counts memory and swap; give --memory too".into());
        }
        (Some(MemorySwap::Unlimited), _) => builder = builder.swap(-1_i64),
        (Some(MemorySwap::Total(total)), Some(memory)) if total < memory.0 => {
            return conflict(
                "--memory-swap",
                "it counts memory and swap, so it cannot be below --memory".into(),
            );
        }
        (Some(MemorySwap::Total(total)), _) => builder = builder.swap(signed(total)),
    }
    if let Some(reservation) = flags.memory_reservation {
        if flags.memory.is_some_and(|memory| memory.0 < reservation.0) {
            return conflict("--memory-reservation", "it is above --memory".into());
        }
        builder = builder.reservation(signed(reservation.0));
    }
    builder.build().map(Some).map_err(|error| internal("linux.resources.memory", &error))
}

fn cpu(flags: &RunFlags) -> Result<oci_spec::runtime::LinuxCpu, SpecError> {
    let mut builder = LinuxCpuBuilder::default();
    if let Some(cpus) = flags.cpus {
        builder = builder.quota(i64::try_from(cpus.quota_us).unwrap_or(i64::MAX)).period(CPU_PERIOD_US);
    }
    if let Some(shares) = flags.cpu_shares {
        if !SHARES.contains(&shares) {
            let why = format!("{shares} is not within {} and {}", SHARES.start(), SHARES.end());
            return Err(SpecError::Conflict { what: "--cpu-shares".into(), why });
        }
        builder = builder.shares(shares);
    }
    if let Some(cpus) = &flags.cpuset_cpus {
        builder = builder.cpus(cpus.clone());
    }
    if let Some(mems) = &flags.cpuset_mems {
        builder = builder.mems(mems.clone());
    }
    builder.build().map_err(|error| internal("linux.resources.cpu", &error))
}

fn block_io(flags: &RunFlags) -> Result<Option<LinuxBlockIo>, SpecError> {
    let weight = flags.blkio_weight.filter(|weight| *weight != 0);
    let rates =
        [&flags.device_read_bps, &flags.device_write_bps, &flags.device_read_iops, &flags.device_write_iops];
    if weight.is_none() && rates.iter().all(|rates| rates.is_empty()) {
        return Ok(None);
    }
    let mut builder = LinuxBlockIoBuilder::default();
    if let Some(weight) = weight {
        if !WEIGHTS.contains(&weight) {
            let why = format!("{weight} is not within {} and {}", WEIGHTS.start(), WEIGHTS.end());
            return Err(SpecError::Conflict { what: "--blkio-weight".into(), why });
        }
        builder = builder.weight(weight);
    }
    builder = builder.throttle_read_bps_device(throttles("--device-read-bps", &flags.device_read_bps)?);
    builder = builder.throttle_write_bps_device(throttles("--device-write-bps", &flags.device_write_bps)?);
    builder = builder.throttle_read_iops_device(throttles("--device-read-iops", &flags.device_read_iops)?);
    builder = builder.throttle_write_iops_device(throttles("--device-write-iops", &flags.device_write_iops)?);
    builder.build().map(Some).map_err(|error| internal("linux.resources.blockIO", &error))
}

/// The rates by the devices' numbers, which the host knows.
fn throttles(flag: &str, rates: &[DeviceRate]) -> Result<Vec<LinuxThrottleDevice>, SpecError> {
    let conflict = |why: String| SpecError::Conflict { what: flag.into(), why };
    let number = |rate: &DeviceRate| {
        let path = rate.path.display();
        let meta =
            std::fs::metadata(&rate.path).map_err(|error| conflict(format!("read {path}: {error}")))?;
        if !meta.file_type().is_block_device() {
            return Err(conflict(format!("{path} is no block device; name a whole disk, such as /dev/vda")));
        }
        Ok((rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
    };
    rates
        .iter()
        .map(|rate| {
            let (major, minor) = number(rate)?;
            let builder = LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(rate.rate);
            builder.build().map_err(|error| internal("linux.resources.blockIO", &error))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::spec::size::Size;

    fn host(has_swap: bool) -> Host {
        Host { has_swap, ..Host::here(Path::new("/root"), Path::new("/container")) }
    }

    #[test]
    fn memory_alone_bounds_swap_too() {
        const MEMORY: u64 = 64 << 20;
        let swap = |memory_swap, has_swap| {
            let flags = RunFlags { memory: Some(Size(MEMORY)), memory_swap, ..RunFlags::default() };
            let resources = resources(&flags, &host(has_swap)).expect("right").expect("limited");
            resources.memory().expect("limited").swap()
        };
        assert_eq!(swap(None, true), Some(2 * MEMORY as i64));
        assert_eq!(swap(Some(MemorySwap::Total(0)), true), Some(2 * MEMORY as i64));
        assert_eq!(swap(None, false), None);
        assert_eq!(swap(Some(MemorySwap::Unlimited), true), Some(-1));
        assert_eq!(swap(Some(MemorySwap::Total(MEMORY)), true), Some(MEMORY as i64));
    }

    #[test]
    fn nothing_asked_is_nothing_limited() {
        assert!(resources(&RunFlags::default(), &host(true)).expect("right").is_none());
        let unlimited = RunFlags { pids_limit: Some(-1), ..RunFlags::default() };
        assert!(resources(&unlimited, &host(true)).expect("right").is_none());
    }

    #[test]
    fn contradictions_are_refused_by_flag() {
        let wrong = |flags: RunFlags| match resources(&flags, &host(true)) {
            Err(SpecError::Conflict { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        let memory = Some(Size(64 << 20));
        assert_eq!(wrong(RunFlags { memory: Some(Size(1)), ..RunFlags::default() }), "--memory");
        let memory_swap = Some(MemorySwap::Total(1 << 20));
        assert_eq!(wrong(RunFlags { memory_swap, ..RunFlags::default() }), "--memory-swap");
        assert_eq!(wrong(RunFlags { memory, memory_swap, ..RunFlags::default() }), "--memory-swap");
        assert_eq!(wrong(RunFlags { cpu_shares: Some(1), ..RunFlags::default() }), "--cpu-shares");
        assert_eq!(wrong(RunFlags { blkio_weight: Some(9), ..RunFlags::default() }), "--blkio-weight");
        let device_read_bps = vec![DeviceRate { path: "/dev/null".into(), rate: 1 }];
        assert_eq!(wrong(RunFlags { device_read_bps, ..RunFlags::default() }), "--device-read-bps");
        let device_write_iops = vec![DeviceRate { path: "/no/such/device".into(), rate: 1 }];
        assert_eq!(wrong(RunFlags { device_write_iops, ..RunFlags::default() }), "--device-write-iops");
    }
}
