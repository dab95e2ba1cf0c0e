//! The built-in profile, read from its text.

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};

use super::arch::Arch;
use super::policy::{Action, Compare, Condition, Policy, Rule};
use crate::sandbox::caps::CapSet;

/// One rule per line; its head says how they are written.
const TEXT: &str = include_str!("default.profile");
/// Why nothing can be wrong with it.
const WELL_FORMED: &str = "a line of the built-in profile is well-formed: a test reads each";

/// The profile for a container whose bounding set is `caps`.
pub(super) fn policy(arch: Arch, caps: CapSet) -> Policy<'static> {
    // Without x32, which Docker lists: hardly any kernel has it on, and it doubles what can go wrong.
    let architectures = match arch {
        Arch::X86_64 => vec![OciArch::ScmpArchX86_64, OciArch::ScmpArchX86],
        Arch::Aarch64 => vec![OciArch::ScmpArchAarch64, OciArch::ScmpArchArm],
    };
    let lines = TEXT.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let rules = lines.filter_map(|line| rule(line, caps)).collect();
    Policy { default: Action::EPERM, architectures, rules }
}

/// One line; `None` when it does not apply to `caps`.
fn rule(line: &'static str, caps: CapSet) -> Option<Rule<'static>> {
    let mut words = line.split(' ');
    let verb = words.next().expect(WELL_FORMED);
    let (with, without, when, action) = match verb {
        "allow" => (false, false, false, Action::ALLOW),
        "allow-with" => (true, false, false, Action::ALLOW),
        "allow-when" => (false, false, true, Action::ALLOW),
        "allow-when-without" => (false, true, true, Action::ALLOW),
        "enosys" => (false, false, false, Action::ENOSYS),
        "enosys-without" => (false, true, false, Action::ENOSYS),
        _ => panic!("{WELL_FORMED}"),
    };
    if with || without {
        let capability = words.next().expect(WELL_FORMED);
        if caps.has_name(capability) != with {
            return None;
        }
    }
    let mut conditions = Vec::new();
    if when {
        conditions.push(words.next().and_then(condition).expect(WELL_FORMED));
    }
    Some(Rule { names: words.collect(), conditions, action })
}

/// `INDEX==VALUE`, `INDEX<VALUE` or `INDEX&MASK==VALUE`.
fn condition(text: &str) -> Option<Condition> {
    let (index, rest) = text.split_at_checked(1)?;
    let index = index.parse().ok()?;
    let (compare, value) = if let Some(value) = rest.strip_prefix("==") {
        (Compare::Equal, number(value)?)
    } else if let Some(value) = rest.strip_prefix('<') {
        (Compare::Less, number(value)?)
    } else {
        let (mask, value) = rest.strip_prefix('&')?.split_once("==")?;
        (Compare::Masked(number(mask)?), number(value)?)
    };
    Some(Condition { index, compare, value, is_wide: true })
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The same in the runtime spec's form.
pub(super) fn profile(arch: Arch, caps: CapSet) -> LinuxSeccomp {
    /// EPERM.
    const DEFAULT_ERRNO: u32 = 1;
    let policy = policy(arch, caps);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .default_errno_ret(DEFAULT_ERRNO)
        .architectures(policy.architectures)
        .syscalls(policy.rules.into_iter().map(syscall).collect::<Vec<_>>())
        .build()
        .expect("default_action, the one field without a default, is set")
}

fn syscall(rule: Rule<'_>) -> LinuxSyscall {
    /// The one error number that the profile's text has a word for.
    const ENOSYS: u32 = 38;
    let names: Vec<String> = rule.names.into_iter().map(str::to_owned).collect();
    let mut builder = LinuxSyscallBuilder::default().names(names);
    builder = if rule.action == Action::ENOSYS {
        builder.action(LinuxSeccompAction::ScmpActErrno).errno_ret(ENOSYS)
    } else {
        builder.action(LinuxSeccompAction::ScmpActAllow)
    };
    if !rule.conditions.is_empty() {
        builder = builder.args(rule.conditions.into_iter().map(argument).collect::<Vec<_>>());
    }
    builder.build().expect("every field of the builder has a default")
}

fn argument(condition: Condition) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(condition.index as usize);
    let builder = match condition.compare {
        Compare::Masked(mask) => {
            builder.op(LinuxSeccompOperator::ScmpCmpMaskedEq).value(mask).value_two(condition.value)
        }
        Compare::Less => builder.op(LinuxSeccompOperator::ScmpCmpLt).value(condition.value),
        // The text has no other comparison.
        _ => builder.op(LinuxSeccompOperator::ScmpCmpEq).value(condition.value),
    };
    builder.build().expect("every field of the builder has a default")
}
