//! Which devices a container may use, whatever device nodes it finds or makes.
//!
//! ```text
//! linux.resources.devices ─┐
//! linux.devices ───────────┼─> rules, the last that fits decides ─> compile ─> eBPF ─> guard: a cgroup's filter
//! the default list ────────┘
//! ```
//! A container's root may make device nodes (CAP_MKNOD is in Docker's default set) and an image may bring some along;
//! the filter, which the kernel asks at every open and mknod, is what keeps the host's disks out of reach.

mod compile;
mod guard;
#[cfg(test)]
mod tests;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, Spec};

use super::error::{Result, SandboxError};
pub(crate) use compile::EbpfInstruction;
pub(super) use guard::guard;

/// Rules that a container may have: what the kernel's verifier walks in reasonable time.
pub(crate) const RULES_COUNT_MAX: usize = 1024;

/// `BPF_DEVCG_ACC_*` of linux/bpf.h.
const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const EVERYTHING: u32 = MKNOD | READ | WRITE;
/// `BPF_DEVCG_DEV_*` of linux/bpf.h.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// One rule; a part that is `None` fits every device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    /// Bits of `BPF_DEVCG_ACC_*`.
    access: u32,
}

/// Rules in order: of those that fit a device, the last decides, for each kind of access by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    /// What holds where no rule fits.
    allow: bool,
    list: Vec<Rule>,
}

/// What every container may use, as runc and Docker have it: nodes may be made, and the devices of a container's own
/// `/dev` and its terminals opened (numbers by the kernel's devices.txt).
const DEFAULTS: [Rule; 10] = [
    allowed(CHARACTER, None, None, MKNOD),
    allowed(BLOCK, None, None, MKNOD),
    allowed(CHARACTER, Some(1), Some(3), EVERYTHING),
    allowed(CHARACTER, Some(1), Some(5), EVERYTHING),
    allowed(CHARACTER, Some(1), Some(7), EVERYTHING),
    allowed(CHARACTER, Some(1), Some(8), EVERYTHING),
    allowed(CHARACTER, Some(1), Some(9), EVERYTHING),
    allowed(CHARACTER, Some(5), Some(0), EVERYTHING),
    allowed(CHARACTER, Some(5), Some(2), EVERYTHING),
    allowed(CHARACTER, Some(136), None, EVERYTHING),
];

const fn allowed(kind: u32, major: Option<u32>, minor: Option<u32>, access: u32) -> Rule {
    Rule { allow: true, kind: Some(kind), major, minor, access }
}

impl Rules {
    /// What a container gets whose spec says nothing.
    pub(crate) fn defaults() -> Self {
        Self { allow: false, list: DEFAULTS.to_vec() }
    }

    /// What a spec asks for. As in runc, the default list is allowed on top of it.
    ///
    /// # Errors
    /// [`SandboxError::Invalid`] for a rule without a meaning, or too many of them.
    pub(crate) fn of(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let asked = linux.and_then(|linux| linux.resources().as_ref());
        let asked = asked.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        let nodes = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
        if asked.is_empty() && nodes.is_empty() {
            return Ok(Self::defaults());
        }
        let mut rules = Self::default();
        for rule in asked {
            rules.add(Rule::of(rule)?);
        }
        for node in nodes {
            rules.list.extend(Rule::of_node(node));
        }
        rules.list.extend(DEFAULTS);
        if rules.allow && rules.list.iter().all(|rule| rule.allow) {
            rules.list.clear();
        }
        if rules.list.len() > RULES_COUNT_MAX {
            let why = format!("more than {RULES_COUNT_MAX} rules; allow a whole major number instead");
            return Err(SandboxError::invalid("linux.resources.devices", why));
        }
        Ok(rules)
    }

    /// True when nothing is kept from the container.
    pub(crate) fn is_open(&self) -> bool {
        self.allow && self.list.is_empty()
    }

    /// A rule for everything takes the place of all before it.
    fn add(&mut self, rule: Rule) {
        let fits_all = rule.kind.is_none() && rule.major.is_none() && rule.minor.is_none();
        if fits_all && rule.access == EVERYTHING {
            self.allow = rule.allow;
            self.list.clear();
        } else {
            self.list.push(rule);
        }
    }
}

impl Rule {
    fn of(rule: &LinuxDeviceCgroup) -> Result<Self> {
        let wrong = |why: String| SandboxError::invalid("linux.resources.devices", why);
        let kind = match rule.typ() {
            None | Some(LinuxDeviceType::A) => None,
            Some(LinuxDeviceType::B) => Some(BLOCK),
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(CHARACTER),
            Some(LinuxDeviceType::P) => {
                return Err(wrong("`p` is not a type that a rule can have".to_owned()));
            }
        };
        let mut access = 0;
        for letter in rule.access().as_deref().unwrap_or("rwm").chars() {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                other => return Err(wrong(format!("access {other:?} is none of r, w and m"))),
            };
        }
        let number = |what: &str, value: Option<i64>| {
            let Some(value) = value.filter(|value| *value != -1) else { return Ok(None) };
            u32::try_from(value).map(Some).map_err(|_| wrong(format!("{what} {value} is out of range")))
        };
        let (major, minor) = (number("major", rule.major())?, number("minor", rule.minor())?);
        Ok(Self { allow: rule.allow(), kind, major, minor, access })
    }

    /// A device that the spec puts into `/dev` may be used; a named pipe needs no rule.
    fn of_node(device: &LinuxDevice) -> Option<Self> {
        let kind = match device.typ() {
            LinuxDeviceType::B => BLOCK,
            LinuxDeviceType::C | LinuxDeviceType::U => CHARACTER,
            LinuxDeviceType::P | LinuxDeviceType::A => return None,
        };
        // A number out of range is refused where the node is planned.
        let number = |value: i64| u32::try_from(value).ok();
        Some(allowed(kind, Some(number(device.major())?), Some(number(device.minor())?), EVERYTHING))
    }
}
