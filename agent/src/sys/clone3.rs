//! `clone3(2)` onto a stack of the child's own.
//!
//! This is the one place with assembly: a child that shares its parent's memory comes back from the syscall on a
//! new stack, where no return address waits, so no C or Rust function can make the call.

use std::ffi::c_void;
use std::io;

/// What the child runs; it must not return.
pub(super) type Entry = unsafe extern "C" fn(*mut c_void) -> !;

/// `long clone3(struct clone_args *args, size_t size)`, where the child calls `entry(argument)` on `args.stack`.
///
/// # Safety
/// `args` is a valid `clone_args` of `size` bytes whose stack, if memory is shared, is mapped, unused, aligned to
/// 16 bytes and outlives the child's use of it; `entry` never returns or unwinds.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn clone3_raw(
    args: *const libc::clone_args,
    size: usize,
    entry: Entry,
    argument: *mut c_void,
) -> isize {
    // The kernel keeps every register but rax, rcx and r11; r8 and r9 carry entry and argument into the child.
    core::arch::naked_asm!(
        "mov r8, rdx",
        "mov r9, rcx",
        "mov eax, {number}",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call r8",
        "ud2",
        "2:",
        "ret",
        number = const libc::SYS_clone3,
    )
}

/// `long clone3(struct clone_args *args, size_t size)`, where the child calls `entry(argument)` on `args.stack`.
///
/// # Safety
/// As on x86_64.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn clone3_raw(
    args: *const libc::clone_args,
    size: usize,
    entry: Entry,
    argument: *mut c_void,
) -> isize {
    // The kernel keeps every register but x0; x10 and x11 carry entry and argument into the child.
    core::arch::naked_asm!(
        "mov x10, x2",
        "mov x11, x3",
        "mov x8, #{number}",
        "svc #0",
        "cbnz x0, 2f",
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, x11",
        "blr x10",
        "brk #1",
        "2:",
        "ret",
        number = const libc::SYS_clone3,
    )
}

/// `long clone3(struct clone_args *args, size_t size)`, see clone(2); answers the child's pid.
///
/// # Errors
/// `EPERM` (a namespace needs privilege), `EAGAIN` (pids limit), `ENOSPC` (namespace limit), `EBUSY`, `EINVAL`.
///
/// # Safety
/// As `clone3_raw`: the stack named in `args` must be the child's alone, and what `argument` points to must stay
/// valid until the child has executed or exited.
pub(super) unsafe fn clone3(
    args: &libc::clone_args,
    entry: Entry,
    argument: *mut c_void,
) -> Result<i32, i32> {
    // SAFETY: forwarded to the caller; `args` is a reference to a whole `clone_args`.
    let answer = unsafe { clone3_raw(args, size_of::<libc::clone_args>(), entry, argument) };
    if answer < 0 { Err(-(answer as i32)) } else { Ok(answer as i32) }
}

/// `long clone(unsigned long flags, void *stack, ...)`, where the child calls `entry(argument)` on the stack that
/// ends at `stack_end`.
///
/// # Safety
/// As `clone3_raw`, with no flag that reads the other three arguments of the syscall.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn clone_raw(flags: u64, stack_end: u64, entry: Entry, argument: *mut c_void) -> isize {
    core::arch::naked_asm!(
        "mov r9, rdx",
        "mov r8, rcx",
        "xor edx, edx",
        "xor r10d, r10d",
        "mov eax, {number}",
        "syscall",
        "test rax, rax",
        "jnz 2f",
        "xor ebp, ebp",
        "mov rdi, r8",
        "call r9",
        "ud2",
        "2:",
        "ret",
        number = const libc::SYS_clone,
    )
}

/// `long clone(unsigned long flags, void *stack, ...)`, where the child calls `entry(argument)` on the stack that
/// ends at `stack_end`.
///
/// # Safety
/// As on x86_64.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn clone_raw(flags: u64, stack_end: u64, entry: Entry, argument: *mut c_void) -> isize {
    core::arch::naked_asm!(
        "mov x10, x2",
        "mov x11, x3",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, #{number}",
        "svc #0",
        "cbnz x0, 2f",
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, x11",
        "blr x10",
        "brk #1",
        "2:",
        "ret",
        number = const libc::SYS_clone,
    )
}

/// `vfork(2)` onto a stack of the child's own; answers the child's pid once it has executed or exited. It is the
/// older clone(2) because filters that look at its flags must refuse clone3(2), whose flags they cannot see.
///
/// # Errors
/// `EAGAIN` (pids limit), `ENOMEM`; what a filter answers.
///
/// # Safety
/// As `clone3`, for the stack of `size` bytes at `start`.
pub(super) unsafe fn vfork(
    (start, size): (u64, u64),
    entry: Entry,
    argument: *mut c_void,
) -> Result<i32, i32> {
    let flags = (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as u64;
    // SAFETY: forwarded to the caller; none of the flags reads a further argument.
    let answer = unsafe { clone_raw(flags, start + size, entry, argument) };
    if answer < 0 { Err(-(answer as i32)) } else { Ok(answer as i32) }
}

/// Bytes of one child's stack: the deepest walk uses about 12 KiB in a debug build.
const STACK_BYTES: usize = 128 * 1024;
/// Bytes of the hole beneath each stack; touching it ends the process instead of corrupting memory.
const GUARD_BYTES: usize = 64 * 1024;
/// One for the child, one for the program under a reaper.
const STACKS_COUNT: usize = 2;

/// Stacks in a mapping of their own, each above an inaccessible hole.
#[derive(Debug)]
pub(super) struct Stacks {
    base: *mut c_void,
}

impl Stacks {
    const TOTAL_BYTES: usize = STACKS_COUNT * (STACK_BYTES + GUARD_BYTES);

    /// `void *mmap(...)` and `int mprotect(...)`, see mmap(2).
    ///
    /// # Errors
    /// `ENOMEM`.
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base =
            unsafe { libc::mmap(std::ptr::null_mut(), Self::TOTAL_BYTES, libc::PROT_NONE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stacks = Self { base };
        for index in 0..STACKS_COUNT {
            let start = stacks.start(index);
            // SAFETY: the range lies within the mapping just made, which nobody else knows.
            if unsafe { libc::mprotect(start.cast(), STACK_BYTES, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(stacks)
    }

    fn start(&self, index: usize) -> *mut u8 {
        self.base.cast::<u8>().wrapping_add(index * (STACK_BYTES + GUARD_BYTES) + GUARD_BYTES)
    }

    /// Lowest address and size of stack `index` (0 or 1), as `clone_args` takes them.
    pub(super) fn range(&self, index: usize) -> (u64, u64) {
        (self.start(index % STACKS_COUNT) as u64, STACK_BYTES as u64)
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no child runs on it any more: spawn returns after execve or exit only.
        unsafe { libc::munmap(self.base, Self::TOTAL_BYTES) };
    }
}
