//! Profiles in files: Docker's JSON, of which the runtime spec's is the plain case.
//!
//! Docker's form adds `archMap` (architectures by machine) and, to each rule, `includes` and `excludes`: a rule
//! stands when all of `includes` is true and nothing of `excludes` is. podman adds names to error numbers. A key that
//! no form has is an error, for
//! a rule whose misspelt `args` went unseen would let through what it was to filter.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{
    Arch as OciArch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompBuilder, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall, LinuxSyscallBuilder,
};
use serde::Deserialize;

use super::arch::{Abi, Arch};
use super::policy::Policy;
use super::{CapSet, SeccompError};

/// The largest file that is read; Docker's own profile has 17 kB.
pub const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// A kernel's version, as far as profiles ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kernel {
    /// 6 of 6.18.
    pub major: u32,
    /// 18 of 6.18.
    pub minor: u32,
}

impl Kernel {
    /// The one that runs, from uname(2).
    pub fn running() -> Self {
        let uname = rustix::system::uname();
        // A release that does not begin with a version is taken for the oldest: rules that ask for more do not stand.
        Self::parse(&uname.release().to_string_lossy()).unwrap_or(Self { major: 0, minor: 0 })
    }

    /// From `6.18` or a release that begins so, as `6.18.5-generic`.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: LinuxSeccompAction,
    default_errno_ret: Option<u32>,
    /// podman's: the number's name.
    default_errno: Option<String>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<Family>>,
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Syscall>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Family {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Syscall {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<Argument>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: LinuxSeccompOperator,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// What `includes` and `excludes` are compared with.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) arch: Arch,
    pub(super) caps: CapSet,
    pub(super) kernel: Kernel,
}

/// The profile in a file, for this machine, a container whose bounding set is `caps`, and a kernel.
///
/// The result compiles: what [`compile`](super::compile) would refuse is refused here.
///
/// # Errors
/// [`SeccompError`] says where: the line and column for what is no profile, the rule for what has no meaning.
pub fn profile_from_file(path: &Path, caps: CapSet, kernel: Kernel) -> Result<LinuxSeccomp, SeccompError> {
    let failed = |source| SeccompError::Read { path: path.to_path_buf(), source };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        return Err(failed(source));
    }
    file.take(PROFILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > PROFILE_BYTES_MAX {
        return Err(SeccompError::TooLarge { path: path.to_path_buf(), bytes_max: PROFILE_BYTES_MAX });
    }
    let profile = serde_json::from_slice(&text)
        .map_err(|source| SeccompError::Json { path: path.to_path_buf(), source })?;
    resolve(profile, Facts { arch: Arch::host(), caps, kernel })
}

#[cfg(test)]
pub(super) fn profile_from_text(text: &str, facts: Facts) -> Result<LinuxSeccomp, SeccompError> {
    let profile = serde_json::from_str(text)
        .map_err(|source| SeccompError::Json { path: "profile.json".into(), source })?;
    resolve(profile, facts)
}

/// Docker's form to the runtime spec's.
fn resolve(profile: Profile, facts: Facts) -> Result<LinuxSeccomp, SeccompError> {
    let invalid = |what: String, why: &str| SeccompError::Invalid { what, why: why.into() };
    let names = match (profile.architectures.unwrap_or_default(), profile.arch_map.unwrap_or_default()) {
        (listed, map) if map.is_empty() => listed,
        (listed, map) if listed.is_empty() => of_family(map, facts.arch),
        _ => return Err(invalid("archMap".into(), "give either \"architectures\" or \"archMap\"")),
    };
    // A name that is none of ours is another machine's: its programs do not run here.
    let architectures: Vec<OciArch> = names.iter().filter_map(|name| name.parse().ok()).collect();
    const BY_NUMBER: &str = "give the error's number too, as \"errnoRet\" or \"defaultErrnoRet\"";
    if profile.default_errno.is_some() && profile.default_errno_ret.is_none() {
        return Err(invalid("defaultErrno".into(), BY_NUMBER));
    }
    let mut syscalls = Vec::new();
    for (at, rule) in profile.syscalls.unwrap_or_default().into_iter().enumerate() {
        let what = || format!("syscalls[{at}]");
        let stands = stands(&rule, facts).map_err(|why| SeccompError::Invalid { what: what(), why })?;
        if rule.errno.is_some() && rule.errno_ret.is_none() {
            return Err(invalid(format!("{}, errno", what()), BY_NUMBER));
        }
        let names = match (rule.name, rule.names.unwrap_or_default()) {
            (None, names) => names,
            (Some(name), names) if names.is_empty() => vec![name],
            _ => return Err(invalid(what(), "give either \"name\" or \"names\"")),
        };
        if stands {
            syscalls.push(syscall(names, rule.action, rule.errno_ret, rule.args));
        }
    }
    let mut builder = LinuxSeccompBuilder::default()
        .default_action(profile.default_action)
        .architectures(architectures)
        .syscalls(syscalls);
    if let Some(number) = profile.default_errno_ret {
        builder = builder.default_errno_ret(number);
    }
    if let Some(flags) = profile.flags.filter(|flags| !flags.is_empty()) {
        builder = builder.flags(flags);
    }
    if let Some(path) = profile.listener_path.filter(|path| !path.is_empty()) {
        builder = builder.listener_path(path);
    }
    if let Some(metadata) = profile.listener_metadata.filter(|metadata| !metadata.is_empty()) {
        builder = builder.listener_metadata(metadata);
    }
    let profile = builder.build().expect("default_action, the one field without a default, is set");
    Policy::from_oci(&profile)?;
    Ok(profile)
}

fn of_family(map: Vec<Family>, arch: Arch) -> Vec<String> {
    let own = |family: &Family| {
        let listed = family.architecture.parse().ok().and_then(|listed| Abi::from_oci(listed, arch));
        listed == Some(arch.native())
    };
    let family = map.into_iter().find(own);
    family.map_or_else(Vec::new, |family| {
        std::iter::once(family.architecture).chain(family.sub_architectures.unwrap_or_default()).collect()
    })
}

/// Whether a rule's conditions on the container and the machine are met.
fn stands(rule: &Syscall, facts: Facts) -> Result<bool, String> {
    let none = Filter::default();
    let includes = rule.includes.as_ref().unwrap_or(&none);
    let excludes = rule.excludes.as_ref().unwrap_or(&none);
    // An unknown capability is one that no container has.
    let has = |name: &String| facts.caps.has_name(name);
    let own = |name: &String| name == facts.arch.go_name();
    let is_newer = |filter: &Filter| match &filter.min_kernel {
        None => Ok(None),
        Some(text) => match Kernel::parse(text) {
            Some(wanted) => Ok(Some(facts.kernel >= wanted)),
            None => Err(format!("minKernel {text:?} is not of the form MAJOR.MINOR")),
        },
    };
    let arches = includes.arches.as_deref().unwrap_or_default();
    let included = includes.caps.iter().flatten().all(has)
        && (arches.is_empty() || arches.iter().any(own))
        && is_newer(includes)?.unwrap_or(true);
    let excluded = excludes.caps.iter().flatten().any(has)
        || excludes.arches.iter().flatten().any(own)
        || is_newer(excludes)?.unwrap_or(false);
    Ok(included && !excluded)
}

fn syscall(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
) -> LinuxSyscall {
    const DEFAULTED: &str = "every field of the builder has a default";
    let argument = |arg: Argument| -> LinuxSeccompArg {
        let builder = LinuxSeccompArgBuilder::default().index(arg.index).value(arg.value).op(arg.op);
        let builder = match arg.value_two {
            Some(value) => builder.value_two(value),
            None => builder,
        };
        builder.build().expect(DEFAULTED)
    };
    let mut builder = LinuxSyscallBuilder::default().names(names).action(action);
    if let Some(number) = errno_ret {
        builder = builder.errno_ret(number);
    }
    if let Some(args) = args.filter(|args| !args.is_empty()) {
        builder = builder.args(args.into_iter().map(argument).collect::<Vec<_>>());
    }
    builder.build().expect(DEFAULTED)
}
