//! What the runtime executes inside of a container, from a sealed memory file, in two roles.
//!
//! ```text
//! celda-init PID                   process 1 of a container with `--init`: forwards signals, reaps orphans, ends as
//!                                  the program ended; every signal is blocked since before execve, so none is lost
//!   loop: reap all; the program's end is our end | wait for a signal; forward it
//!
//! celda-exec FD PATH ARGV...       executes PATH in its own place: /proc/self/exe is this file until then, and
//!   execve, or errno -> FD         not the runtime's
//! ```
//!
//! It stands alone: no standard library, no C library, a few syscalls.
#![no_std]
#![no_main]

use core::arch::{asm, naked_asm};

#[cfg(target_arch = "x86_64")]
mod number {
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const EXECVE: usize = 59;
    pub(crate) const EXIT_GROUP: usize = 231;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const KILL: usize = 62;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 128;
    pub(crate) const WAIT4: usize = 61;
    pub(crate) const WRITE: usize = 1;
}
#[cfg(target_arch = "aarch64")]
mod number {
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const EXECVE: usize = 221;
    pub(crate) const EXIT_GROUP: usize = 94;
    pub(crate) const FCNTL: usize = 25;
    pub(crate) const KILL: usize = 129;
    pub(crate) const RT_SIGTIMEDWAIT: usize = 137;
    pub(crate) const WAIT4: usize = 260;
    pub(crate) const WRITE: usize = 64;
}

const EINTR: isize = -4;
const SIGCHLD: isize = 17;
const WNOHANG: usize = 1;
/// Bytes of the kernel's signal set.
const SIGNAL_SET_BYTES: usize = 8;
/// `F_SETFD` and `FD_CLOEXEC` of fcntl(2).
const SET_FLAGS: usize = 2;
const CLOSE_AT_EXECVE: usize = 1;
/// The seventh letter of this program's name tells its role.
const ROLE_AT: usize = 6;
/// Words of argv before those of the program: name, descriptor, path.
const OWN_WORDS: usize = 3;
/// A status that nobody looks at: the errno says more.
const NOT_EXECUTED: usize = 127;
/// A status for what none of ours asks for: no argument, or no role.
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
    let count = unsafe { *stack };
    if count < 2 {
        exit(BROKEN);
    }
    // SAFETY: argc is at least 2, so argv[0] is a string; its letters are looked at up to its end.
    match unsafe { letter(*stack.add(1) as *const u8, ROLE_AT) } {
        b'i' => {}
        // SAFETY: argc is above 3, as the function wants it.
        b'e' if count > OWN_WORDS => unsafe { execute(stack, count) },
        // Executed by a file of the container that names `/proc/self/exe`.
        _ => exit(BROKEN),
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

/// The letter at a place, or 0 where the text is shorter.
///
/// # Safety
/// `text` ends with a zero byte.
unsafe fn letter(mut text: *const u8, place: usize) -> u8 {
    for _ in 0..place {
        // SAFETY: not past the zero byte.
        if unsafe { *text } == 0 {
            return 0;
        }
        // SAFETY: the byte just read was not the last one.
        text = unsafe { text.add(1) };
    }
    // SAFETY: at most at the zero byte.
    unsafe { *text }
}

/// `int execve(path, argv, envp)`, see execve(2); the errno goes to the descriptor, which closes by success.
///
/// # Safety
/// `stack` is the initial stack of a process with `count`, above 3, words in argv.
unsafe fn execute(stack: *const usize, count: usize) -> ! {
    // SAFETY: argv[1] is a string; argv begins at the second word, and after its null comes envp.
    let (fd, path, arguments, environment) = unsafe {
        let fd = decimal(*stack.add(2) as *const u8) as usize;
        (fd, *stack.add(3), stack.add(1 + OWN_WORDS), stack.add(1 + count + 1))
    };
    // SAFETY: fcntl and close take numbers only; path is a string and both arrays end with a null.
    let answer = unsafe {
        if call(number::FCNTL, fd, SET_FLAGS, CLOSE_AT_EXECVE, 0) < 0 {
            call(number::CLOSE, fd, 0, 0, 0); // a filter's word: rather no answer than a descriptor in the program
        }
        call(number::EXECVE, path, arguments as usize, environment as usize, 0)
    };
    let errno = -(answer as i32);
    // SAFETY: `errno` is readable for its four bytes.
    unsafe { call(number::WRITE, fd, (&raw const errno) as usize, size_of::<i32>(), 0) };
    exit(NOT_EXECUTED)
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
