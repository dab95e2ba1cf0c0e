//! Process 1 of a container with `--init`: forwards signals to the program, reaps orphans, ends as the program ended.
//!
//! ```text
//! celda-init PID       every signal is blocked since before execve, so none is lost
//!   loop: reap all; the program's end is our end | wait for a signal; forward it
//! ```
//!
//! It stands alone: no standard library, no C library, four syscalls. The sandbox runs it from a sealed memory file.
#![no_std]
#![no_main]

use core::arch::{asm, naked_asm};

#[cfg(target_arch = "x86_64")]
mod number {
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const KILL: usize = 62;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 128;
    pub(crate) const WAIT4: usize = 61;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const KILL: usize = 129;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
    pub(crate) const WAIT4: usize = 260;
}

const EINTR: isize = -4;
const SIGCHLD: isize = 17;
const WNOHANG: usize = 1;
/// Bytes of the kernel's signal set.
const SIGNAL_SET_BYTES: usize = 8;
/// A status for what cannot happen: no argument, or a program that is not our child.
const BROKEN: usize = 125;

/// `long syscall(number, ...)`.
///
/// # Safety
/// Arguments that the kernel takes for pointers point to memory of the size it reads or writes there.
unsafe fn call(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let answer: isize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise; the kernel changes rax, rcx and r11 only.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => answer, in("rdi") a, in("rsi") b, in("rdx") c,
             in("r10") d, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller's promise; the kernel changes x0 only.
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a as isize => answer, in("x1") b, in("x2") c, in("x3") d,
             options(nostack));
    }
    answer
}

/// The kernel's entry: the stack pointer points at argc, then argv.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("mov rdi, rsp", "xor ebp, ebp", "and rsp, -16", "call {main}", "ud2", main = sym main);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x0, sp", "mov x29, xzr", "mov x30, xzr", "bl {main}", "brk #1", main = sym main);
}

/// # Safety
/// `stack` is the initial stack of a process: argc, the pointers of argv, a null.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: argc is the first word.
    if unsafe { *stack } < 2 {
        exit(BROKEN);
    }
    // SAFETY: argc is at least 2, so argv[1], the third word, is a string that ends with a zero byte.
    let program = unsafe { decimal(*stack.add(2) as *const u8) };
    loop {
        reap(program);
        let signal = next_signal();
        if signal > 0 && signal != SIGCHLD {
            // SAFETY: kill takes numbers only.
            unsafe { call(number::KILL, program as usize, signal as usize, 0, 0) };
        }
    }
}

/// # Safety
/// `text` ends with a zero byte.
unsafe fn decimal(mut text: *const u8) -> isize {
    let mut value = 0_isize;
    // SAFETY: reading stops at the zero byte.
    while let digit @ b'0'..=b'9' = unsafe { *text } {
        value = value.wrapping_mul(10).wrapping_add(isize::from(digit - b'0'));
        // SAFETY: the byte just read was not the last one.
        text = unsafe { text.add(1) };
    }
    value
}

/// `pid_t wait4(-1, &status, WNOHANG, NULL)`, see wait4(2), until nobody is left to reap.
fn reap(program: isize) {
    loop {
        let mut status = 0_i32;
        // SAFETY: `status` is a writable int; a null rusage is allowed.
        let pid = unsafe { call(number::WAIT4, usize::MAX, (&raw mut status) as usize, WNOHANG, 0) };
        match pid {
            EINTR => {}
            pid if pid == program => exit(shell_status(status)),
            pid if pid <= 0 => return,
            _ => {}
        }
    }
}

/// The status a shell would report: 128 + N for a signal.
fn shell_status(status: i32) -> usize {
    let signal = status & 0x7f;
    (if signal == 0 { status >> 8 & 0xff } else { 128 + signal }) as usize
}

/// `int rt_sigtimedwait(all, NULL, NULL, size)`, see sigwaitinfo(2).
fn next_signal() -> isize {
    let all = u64::MAX;
    // SAFETY: `all` is the kernel's 8-byte set; null info and timeout are allowed.
    unsafe { call(number::RT_SIGTIMEDWAIT, (&raw const all) as usize, 0, 0, SIGNAL_SET_BYTES) }
}

fn exit(status: usize) -> ! {
    loop {
        // SAFETY: exit_group takes a number only.
        unsafe { call(number::EXIT_GROUP, status, 0, 0, 0) };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(BROKEN)
}
