//! Limits, as the OCI runtime spec has them; whether they can be kept is the cgroup's to say.

use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};

use super::SpecError;
use super::flags::RunFlags;
use super::process::internal;
use super::size::{CPU_PERIOD_US, MEMORY_MIN_BYTES, MemorySwap};

/// `--cpu-shares`, cgroup v1's range, which is Docker's still.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// The limits that were asked for; `None` when there are none.
pub(super) fn resources(flags: &RunFlags) -> Result<Option<LinuxResources>, SpecError> {
    let mut builder = LinuxResourcesBuilder::default();
    let mut is_limited = false;
    if let Some(memory) = memory(flags)? {
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
    if !is_limited {
        return Ok(None);
    }
    builder.build().map(Some).map_err(|error| internal("linux.resources", &error))
}

fn memory(flags: &RunFlags) -> Result<Option<oci_spec::runtime::LinuxMemory>, SpecError> {
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
    match (flags.memory_swap, flags.memory) {
        (None, _) => {}
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::size::Size;

    #[test]
    fn nothing_asked_is_nothing_limited() {
        assert!(resources(&RunFlags::default()).expect("right").is_none());
        let unlimited = RunFlags { pids_limit: Some(-1), ..RunFlags::default() };
        assert!(resources(&unlimited).expect("right").is_none());
    }

    #[test]
    fn contradictions_are_refused_by_flag() {
        let wrong = |flags: RunFlags| match resources(&flags) {
            Err(SpecError::Conflict { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        let memory = Some(Size(64 << 20));
        assert_eq!(wrong(RunFlags { memory: Some(Size(1)), ..RunFlags::default() }), "--memory");
        let memory_swap = Some(MemorySwap::Total(1 << 20));
        assert_eq!(wrong(RunFlags { memory_swap, ..RunFlags::default() }), "--memory-swap");
        assert_eq!(wrong(RunFlags { memory, memory_swap, ..RunFlags::default() }), "--memory-swap");
        assert_eq!(wrong(RunFlags { cpu_shares: Some(1), ..RunFlags::default() }), "--cpu-shares");
    }
}
