//! System call filters: profiles in, classic BPF out.
//!
//! ```text
//! built-in profile ─┐
//! Docker's JSON ────┼─> LinuxSeccomp ─> rules per architecture ─> range tree ─> BpfInstruction list
//! OCI linux.seccomp ┘      (names)          (numbers)            (symbolic)       (<= 4096, seccomp(2))
//! ```

mod error;

pub use error::SeccompError;

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
