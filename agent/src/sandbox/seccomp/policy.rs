//! A profile as meant: checked, with actions as the kernel's words, and names still.

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use super::SeccompError;

/// What a filter returns (`SECCOMP_RET_*`, linux/seccomp.h), with its sixteen bits of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Action(pub(super) u32);

impl Action {
    pub(super) const KILL_PROCESS: Self = Self(0x8000_0000);
    const KILL_THREAD: Self = Self(0);
    const TRAP: Self = Self(0x0003_0000);
    const ERRNO: u32 = 0x0005_0000;
    const TRACE: u32 = 0x7ff0_0000;
    pub(super) const LOG: Self = Self(0x7ffc_0000);
    pub(super) const ALLOW: Self = Self(0x7fff_0000);
    pub(super) const EPERM: Self = Self(Self::ERRNO | 1);
    pub(super) const ENOSYS: Self = Self(Self::ERRNO | 38);

    /// Whether the call fails with an error number.
    pub(super) const fn is_errno(self) -> bool {
        self.0 & 0xffff_0000 == Self::ERRNO
    }

    /// Whether the call is made.
    pub(super) fn lets_through(self) -> bool {
        self == Self::ALLOW || self == Self::LOG
    }
}

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    /// The bits of this mask equal the value's.
    Masked(u64),
}

/// One argument's condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// Which of the six.
    pub(super) index: u32,
    pub(super) compare: Compare,
    pub(super) value: u64,
    /// Whether all 64 bits count, or the low 32: programs of narrow architectures may leave anything above them.
    pub(super) is_wide: bool,
}

/// Calls, and what becomes of them when all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule<'a> {
    pub(super) names: Vec<&'a str>,
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
}

/// A checked profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Policy<'a> {
    pub(super) default: Action,
    /// Listed ones; the machine's own is meant too.
    pub(super) architectures: Vec<OciArch>,
    pub(super) rules: Vec<Rule<'a>>,
}

impl<'a> Policy<'a> {
    pub(super) fn from_oci(profile: &'a LinuxSeccomp) -> Result<Self, SeccompError> {
        let flags = profile.flags().as_deref().unwrap_or_default();
        // The others change nothing for a filter that one thread loads for itself without a listener.
        if flags.contains(&LinuxSeccompFilterFlag::SeccompFilterFlagLog) {
            let why = "SECCOMP_FILTER_FLAG_LOG is not supported; use the action SCMP_ACT_LOG".into();
            return Err(SeccompError::Invalid { what: "flags".into(), why });
        }
        let default =
            action(profile.default_action(), profile.default_errno_ret(), || "defaultAction".into())?;
        let mut rules = Vec::new();
        for (at, rule) in profile.syscalls().iter().flatten().enumerate() {
            rules.push(Rule::from_oci(rule, at)?);
        }
        Ok(Self { default, architectures: profile.architectures().clone().unwrap_or_default(), rules })
    }
}

impl<'a> Rule<'a> {
    fn from_oci(rule: &'a LinuxSyscall, at: usize) -> Result<Self, SeccompError> {
        /// As much of a name as a message shows.
        const SHOWN_CHARS: usize = 40;
        let what = || {
            let first = rule.names().first().map_or("no name", String::as_str);
            let first: String = first.chars().take(SHOWN_CHARS).collect();
            format!("syscalls[{at}] ({first})")
        };
        if rule.names().is_empty() {
            return Err(SeccompError::Invalid { what: what(), why: "\"names\" is empty".into() });
        }
        let mut conditions: Vec<Condition> = Vec::new();
        for arg in rule.args().iter().flatten() {
            let condition = Condition::from_oci(arg)
                .map_err(|why| SeccompError::Invalid { what: format!("{}, args", what()), why })?;
            if conditions.iter().any(|other| other.index == condition.index) {
                let why = format!(
                    "two conditions on argument {}, which runtimes read differently; write one rule for each \
                     alternative, or one range that covers both",
                    condition.index
                );
                return Err(SeccompError::Invalid { what: what(), why });
            }
            conditions.push(condition);
        }
        let action = action(rule.action(), rule.errno_ret(), what)?;
        Ok(Self { names: rule.names().iter().map(String::as_str).collect(), conditions, action })
    }
}

impl Condition {
    fn from_oci(arg: &LinuxSeccompArg) -> Result<Self, String> {
        /// System calls have six arguments.
        const INDEX_MAX: usize = 5;
        if arg.index() > INDEX_MAX {
            return Err(format!("index {} is above {INDEX_MAX}", arg.index()));
        }
        let (compare, value) = match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => (Compare::NotEqual, arg.value()),
            LinuxSeccompOperator::ScmpCmpLt => (Compare::Less, arg.value()),
            LinuxSeccompOperator::ScmpCmpLe => (Compare::LessOrEqual, arg.value()),
            LinuxSeccompOperator::ScmpCmpEq => (Compare::Equal, arg.value()),
            LinuxSeccompOperator::ScmpCmpGe => (Compare::GreaterOrEqual, arg.value()),
            LinuxSeccompOperator::ScmpCmpGt => (Compare::Greater, arg.value()),
            // The spec: value is the mask, valueTwo what the masked argument equals.
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                (Compare::Masked(arg.value()), arg.value_two().unwrap_or(0) & arg.value())
            }
        };
        Ok(Self { index: arg.index() as u32, compare, value, is_wide: true })
    }

    /// The same for arguments of 32 bits.
    pub(super) fn narrowed(self) -> Self {
        const LOW: u64 = u32::MAX as u64;
        let compare = match self.compare {
            Compare::Masked(mask) => Compare::Masked(mask & LOW),
            other => other,
        };
        Self { compare, value: self.value & LOW, is_wide: false, ..self }
    }
}

/// The kernel's word for an action and its number.
fn action(
    action: LinuxSeccompAction,
    number: Option<u32>,
    what: impl Fn() -> String,
) -> Result<Action, SeccompError> {
    /// The kernel answers no larger error number (`MAX_ERRNO`, linux/err.h).
    const ERRNO_MAX: u32 = 4095;
    /// `SECCOMP_RET_DATA`.
    const DATA_MAX: u32 = 0xffff;
    /// EPERM, what every runtime takes when nothing is said.
    const UNSAID: u32 = 1;
    let invalid = |why: String| Err(SeccompError::Invalid { what: what(), why });
    let plain = match action {
        LinuxSeccompAction::ScmpActErrno => {
            return match number.unwrap_or(UNSAID) {
                number @ 0..=ERRNO_MAX => Ok(Action(Action::ERRNO | number)),
                number => invalid(format!("error number {number} is above {ERRNO_MAX}")),
            };
        }
        LinuxSeccompAction::ScmpActTrace => {
            return match number.unwrap_or(UNSAID) {
                number @ 0..=DATA_MAX => Ok(Action(Action::TRACE | number)),
                number => invalid(format!("trace number {number} is above {DATA_MAX}")),
            };
        }
        LinuxSeccompAction::ScmpActNotify => return Err(SeccompError::Notify { what: what() }),
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => Action::KILL_THREAD,
        LinuxSeccompAction::ScmpActKillProcess => Action::KILL_PROCESS,
        LinuxSeccompAction::ScmpActTrap => Action::TRAP,
        LinuxSeccompAction::ScmpActLog => Action::LOG,
        LinuxSeccompAction::ScmpActAllow => Action::ALLOW,
    };
    match number {
        None => Ok(plain),
        Some(number) => invalid(format!(
            "errnoRet {number} with {action}: only SCMP_ACT_ERRNO and SCMP_ACT_TRACE carry a number"
        )),
    }
}
