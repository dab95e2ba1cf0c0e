//! What a profile says about one call, rule by rule, without any of the compiler's shapes.

use oci_spec::runtime::{Arch as OciArch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator};

use super::super::arch::{Abi, Arch, Table};
use super::interpreter::Call;

const ENOSYS: u32 = 0x0005_0026;

pub(super) fn decide(profile: &LinuxSeccomp, arch: Arch, table: &Table, call: &Call) -> u32 {
    let is_listed = |abi: Abi| {
        let listed = profile.architectures().iter().flatten();
        abi == arch.native()
            || listed.copied().any(|listed: OciArch| Abi::from_oci(listed, arch) == Some(abi))
    };
    let abi = match (call.arch, call.number >> 30) {
        (0xc000_003e, 0) => Abi::X86_64,
        (0xc000_003e, _) => Abi::X32,
        (0x4000_0003, _) => Abi::X86,
        (0xc000_00b7, _) => Abi::Aarch64,
        (0x4000_0028, _) => Abi::Arm,
        _ => return 0x8000_0000,
    };
    if abi == Abi::X32 && arch == Arch::X86_64 && !is_listed(abi) {
        return ENOSYS;
    }
    if !abi.runs_on(arch) || !is_listed(abi) {
        return 0x8000_0000;
    }
    let default = profile.default_action().as_u32(profile.default_errno_ret());
    let rules = profile.syscalls().iter().flatten();
    let mut first_match = None;
    let mut is_named = false;
    for rule in rules {
        let action = rule.action().as_u32(rule.errno_ret());
        let args = rule.args().as_deref().unwrap_or_default();
        for name in rule.names() {
            let direct = table.number(name, abi) == Some(call.number);
            let through =
                abi.multiplexed(name).is_some_and(|(by, _)| table.number(by, abi) == Some(call.number));
            if (direct || through && args.is_empty()) && action != default {
                is_named = true;
            }
            if action == default {
                continue;
            }
            if direct && args.is_empty() {
                return action;
            }
            let by_first =
                abi.multiplexed(name).is_some_and(|(_, first)| call.args[0] as u32 == first as u32);
            let holds = direct && args.iter().all(|arg| matches(arg, call, abi))
                || through && args.is_empty() && by_first;
            if holds && first_match.is_none() {
                first_match = Some(action);
            }
        }
    }
    let is_newer = call.number > table.newest(abi) && !is_named;
    let above = if default >> 16 == 5 && is_newer { ENOSYS } else { default };
    first_match.unwrap_or(above)
}

fn matches(arg: &LinuxSeccompArg, call: &Call, abi: Abi) -> bool {
    let width = if abi.is_narrow() { u64::from(u32::MAX) } else { u64::MAX };
    let (left, right) = (call.args[arg.index()] & width, arg.value() & width);
    match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => left != right,
        LinuxSeccompOperator::ScmpCmpLt => left < right,
        LinuxSeccompOperator::ScmpCmpLe => left <= right,
        LinuxSeccompOperator::ScmpCmpEq => left == right,
        LinuxSeccompOperator::ScmpCmpGe => left >= right,
        LinuxSeccompOperator::ScmpCmpGt => left > right,
        LinuxSeccompOperator::ScmpCmpMaskedEq => left & right == arg.value_two().unwrap_or(0) & right,
    }
}
