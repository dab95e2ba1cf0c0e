//! What a container would inherit from whoever starts it, looked at before the clone: only what differs from a
//! container's own defaults becomes a step.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use oci_spec::runtime::PosixRlimitType;
use rustix::fs::{Mode, OFlags};
use rustix::process::Resource;

use super::rlimit::UNLIMITED;
use crate::sys;

/// Bytes of `/proc/self/oom_score_adj`: a number between -1000 and 1000 and the line's end.
const SCORE_BYTES_MAX: usize = 8;

const MIB: u64 = 1 << 20;
/// What a container's limits are when nobody says otherwise, soft and hard: the kernel's own of `init`
/// (asm-generic/resource.h), with the files and locked memory of systemd's services, as Docker's containers have them,
/// and any number of processes, which the cgroup counts. Pending signals stay as inherited: the kernel derives them
/// from the machine's memory.
pub(super) const LIMITS: [(PosixRlimitType, Resource, u64, u64); 15] = [
    (PosixRlimitType::RlimitCpu, Resource::Cpu, UNLIMITED, UNLIMITED),
    (PosixRlimitType::RlimitFsize, Resource::Fsize, UNLIMITED, UNLIMITED),
    (PosixRlimitType::RlimitData, Resource::Data, UNLIMITED, UNLIMITED),
    (PosixRlimitType::RlimitStack, Resource::Stack, 8 * MIB, UNLIMITED),
    (PosixRlimitType::RlimitCore, Resource::Core, 0, UNLIMITED),
    (PosixRlimitType::RlimitRss, Resource::Rss, UNLIMITED, UNLIMITED),
    (PosixRlimitType::RlimitNproc, Resource::Nproc, UNLIMITED, UNLIMITED),
    (PosixRlimitType::RlimitNofile, Resource::Nofile, 1024, 524_288),
    (PosixRlimitType::RlimitMemlock, Resource::Memlock, 8 * MIB, 8 * MIB),
    (PosixRlimitType::RlimitAs, Resource::As, UNLIMITED, UNLIMITED),
    (PosixRlimitType::RlimitLocks, Resource::Locks, UNLIMITED, UNLIMITED),
    (PosixRlimitType::RlimitMsgqueue, Resource::Msgqueue, 819_200, 819_200),
    (PosixRlimitType::RlimitNice, Resource::Nice, 0, 0),
    (PosixRlimitType::RlimitRtprio, Resource::Rtprio, 0, 0),
    (PosixRlimitType::RlimitRttime, Resource::Rttime, UNLIMITED, UNLIMITED),
];

/// State of the calling thread and process that a clone and `execve` keep. The default is that of a container.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    /// The nice value.
    pub(crate) nice: i32,
    /// A scheduling policy of its own.
    pub(crate) scheduler: bool,
    /// A class of I/O priority.
    pub(crate) io_priority: bool,
    /// An execution domain, as setarch(8) sets one.
    pub(crate) personality: bool,
    /// `oom_score_adj`.
    pub(crate) oom_score: i32,
    /// Real-time signals that are ignored, bit N - 1 for signal N.
    pub(crate) ignored_signals: u64,
    /// Limits that are not [`LIMITS`]: which, and soft and hard as they should be.
    pub(crate) limits: Vec<(PosixRlimitType, u64, u64)>,
}

impl Inherited {
    /// What the calling thread hands on. `keeps_rights` is false when the child will be in a user namespace of its
    /// own, in which it can raise no hard limit.
    pub(crate) fn here(keeps_rights: bool) -> Self {
        Self {
            nice: rustix::process::getpriority_process(None).unwrap_or(0),
            scheduler: sys::has_scheduler(),
            io_priority: sys::has_io_priority(),
            personality: sys::has_personality(),
            oom_score: oom_score().unwrap_or(0),
            ignored_signals: sys::ignored_realtime_signals(),
            limits: limits(keeps_rights),
        }
    }
}

fn limits(keeps_rights: bool) -> Vec<(PosixRlimitType, u64, u64)> {
    let mut changed = Vec::new();
    let mut may_raise = None;
    for (kind, resource, soft, hard) in LIMITS {
        let now = rustix::process::getrlimit(resource);
        let now = (now.current.unwrap_or(UNLIMITED), now.maximum.unwrap_or(UNLIMITED));
        if now == (soft, hard) {
            continue;
        }
        let raises = hard > now.1 && !*may_raise.get_or_insert_with(|| keeps_rights && may_raise_limits());
        let hard = if raises { now.1 } else { hard };
        if now != (soft.min(hard), hard) {
            changed.push((kind, soft.min(hard), hard));
        }
    }
    changed
}

fn may_raise_limits() -> bool {
    let sets = rustix::thread::capabilities(None);
    sets.is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE))
}

/// `/proc/self/oom_score_adj`, opened once: to read it again takes one system call.
fn oom_score() -> Option<i32> {
    static FILE: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let open = || {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/oom_score_adj", flags, Mode::empty()).ok()
    };
    let mut text = [0; SCORE_BYTES_MAX];
    let count = rustix::io::pread(FILE.get_or_init(open).as_ref()?, &mut text, 0).ok()?;
    std::str::from_utf8(text.get(..count)?).ok()?.trim_end().parse().ok()
}
