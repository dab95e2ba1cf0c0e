//! System call filters: profiles in, classic BPF out.
//!
//! ```text
//! default.profile ──┐
//! Docker's JSON ────┼─> Policy ─> rules per architecture ─> ranges of numbers ─> BpfInstruction list
//! OCI linux.seccomp ┘   names      numbers                   one leaf each        (<= 4096, seccomp(2))
//!
//! load arch ─ x86_64? ── load nr ─ binary search over the ranges ─┬─ return ACTION
//!           ├ i386? ──── the same over its own numbers            └─ load argument, compare, ... return ACTION
//!           └ else: kill the process
//! ```
//! What a profile leaves open is decided here:
//! - A call of an architecture that the profile does not list kills the process: no rule speaks about it, and
//!   numbers mean other calls there. An x32 call (bit 30 of the number, the x86_64 architecture) fails with ENOSYS
//!   unless x32 is listed, as on a kernel that was built without it.
//! - A number above the newest call that is known here fails with ENOSYS where the profile's default is
//!   `SCMP_ACT_ERRNO`, so that C libraries fall back instead of giving up on EPERM.
//! - Of the rules for one call, the first without arguments decides alone; else the first that matches, in the
//!   profile's order; else the default. Rules whose action is the default's say nothing, as in runc.
//! - Names that no architecture here has are skipped, for profiles list calls of all machines; but when the default
//!   lets calls through, such a rule was meant to hold one back and is refused.

mod arch;
mod assembler;
mod builtin;
mod error;
mod file;
mod policy;
mod ranges;
#[cfg(test)]
mod tests;

use oci_spec::runtime::LinuxSeccomp;

pub use arch::Arch;
pub use error::SeccompError;
pub use file::{Kernel, PROFILE_BYTES_MAX, profile_from_file};

use super::caps::CapSet;
use policy::Policy;

/// The longest filter that the kernel loads (BPF_MAXINSNS, linux/bpf_common.h).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// One instruction of classic BPF (`struct sock_filter`, linux/filter.h), in the layout the kernel takes.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BpfInstruction {
    /// Class, operation and mode.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

/// The filter of a container that says nothing about system calls, for the capabilities in its bounding set.
///
/// # Errors
/// [`SeccompError`]; none is known for the built-in profile.
pub fn default_program(arch: Arch, caps: CapSet) -> Result<Vec<BpfInstruction>, SeccompError> {
    assembler::program(&builtin::policy(arch, caps), arch)
}

/// The built-in profile as the runtime spec writes it, for this machine.
pub fn default_profile(caps: CapSet) -> LinuxSeccomp {
    builtin::profile(Arch::host(), caps)
}

/// The filter that a profile asks for.
///
/// # Errors
/// [`SeccompError`] says what is wrong and in which rule; `SCMP_ACT_NOTIFY` and the flag
/// `SECCOMP_FILTER_FLAG_LOG` are refused.
pub fn compile(profile: &LinuxSeccomp, arch: Arch) -> Result<Vec<BpfInstruction>, SeccompError> {
    assembler::program(&Policy::from_oci(profile)?, arch)
}
