//! What a child would inherit from the calling thread, as the kernel tells it.

use std::sync::OnceLock;

use super::calls;

/// Signals that are not real-time ones, bit N - 1 for signal N.
pub(crate) const STANDARD_SIGNALS: u64 = (1 << 31) - 1;
/// The real-time signals of the kernel, `SIGRTMIN` and `SIGRTMAX` of asm-generic/signal.h.
const REALTIME: std::ops::RangeInclusive<usize> = 32..=64;
/// Bytes of the kernel's signal set.
const SIGNAL_SET_BYTES: usize = 8;
/// `IOPRIO_WHO_PROCESS` and the place of the class, linux/ioprio.h.
const IOPRIO_PROCESS: usize = 1;
const IOPRIO_CLASS_SHIFT: usize = 13;
/// `personality(2)` only asks for this value.
const PERSONALITY_ASK: usize = 0xffff_ffff;

/// True when the scheduler's policy is not `SCHED_OTHER`: `int sched_getscheduler(0)`, see sched_setscheduler(2).
pub(crate) fn has_scheduler() -> bool {
    calls::call_plain(libc::SYS_sched_getscheduler, [0]).is_ok_and(|policy| policy != 0)
}

/// True when there is a class of I/O priority: `int ioprio_get(IOPRIO_WHO_PROCESS, 0)`, see ioprio_set(2).
pub(crate) fn has_io_priority() -> bool {
    calls::call_plain(libc::SYS_ioprio_get, [IOPRIO_PROCESS, 0])
        .is_ok_and(|priority| priority >> IOPRIO_CLASS_SHIFT != 0)
}

/// True for another execution domain than plain Linux: `int personality(0xffffffff)`, see personality(2).
pub(crate) fn has_personality() -> bool {
    calls::call_plain(libc::SYS_personality, [PERSONALITY_ASK]).is_ok_and(|kind| kind != 0)
}

/// Real-time signals that this process was started with ignored, bit N - 1 for signal N: `int rt_sigaction(...)`,
/// see sigaction(2). They are looked at once: nothing ignores one later, as the C library keeps what it needs of them
/// to itself.
pub(crate) fn ignored_realtime_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED.get_or_init(|| {
        let mut ignored = 0;
        for signal in REALTIME {
            let mut action = [0_usize; 4];
            let arguments = [signal, 0, (&raw mut action) as usize, SIGNAL_SET_BYTES];
            // SAFETY: `action` is as large as the kernel's sigaction on x86_64 (32 bytes) and larger than aarch64's.
            let asked = unsafe { calls::call(libc::SYS_rt_sigaction, arguments) };
            if asked.is_ok() && action.first() == Some(&libc::SIG_IGN) {
                ignored |= 1 << (signal - 1);
            }
        }
        ignored
    })
}
