//! Architectures, and the numbers that calls have there.

use oci_spec::runtime::Arch as OciArch;

/// Names and numbers, one call per line.
const TABLE: &str = include_str!("syscalls.tbl");
/// Columns of numbers in it.
const COLUMNS: usize = 5;
/// Set in the number of every call of the x32 ABI (`__X32_SYSCALL_BIT`, asm/unistd.h).
pub(super) const X32_BIT: u32 = 0x4000_0000;
/// Where the private calls of arm begin (`__ARM_NR_BASE`, asm/unistd.h): outside the counting of the others.
const ARM_PRIVATE: u32 = 0x000f_0000;

/// A machine that filters are built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    /// x86-64; its kernels also run i386 and x32 programs.
    X86_64,
    /// 64-bit ARM; its kernels may also run 32-bit ones.
    Aarch64,
}

impl Arch {
    /// The machine that this program was built for.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 }
    }

    /// The name that Docker's profiles use (Go's `GOARCH`).
    pub(super) const fn go_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    pub(super) const fn native(self) -> Abi {
        match self {
            Self::X86_64 => Abi::X86_64,
            Self::Aarch64 => Abi::Aarch64,
        }
    }
}

/// One numbering of calls; the discriminant is its column in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Abi {
    X86_64 = 0,
    X86 = 1,
    X32 = 2,
    Aarch64 = 3,
    Arm = 4,
}

impl Abi {
    /// `None`: a kernel of neither [`Arch`] has it.
    pub(super) fn from_oci(arch: OciArch, host: Arch) -> Option<Self> {
        match arch {
            OciArch::ScmpArchNative => Some(host.native()),
            OciArch::ScmpArchX86_64 => Some(Self::X86_64),
            OciArch::ScmpArchX86 => Some(Self::X86),
            OciArch::ScmpArchX32 => Some(Self::X32),
            OciArch::ScmpArchAarch64 => Some(Self::Aarch64),
            OciArch::ScmpArchArm => Some(Self::Arm),
            _ => None,
        }
    }

    /// Whether a kernel of `host` runs programs of it.
    pub(super) fn runs_on(self, host: Arch) -> bool {
        match self {
            Self::X86_64 | Self::X86 | Self::X32 => host == Arch::X86_64,
            Self::Aarch64 | Self::Arm => host == Arch::Aarch64,
        }
    }

    /// What `seccomp_data.arch` holds (`AUDIT_ARCH_*`, linux/audit.h).
    pub(super) const fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Whether arguments are 32 bits wide.
    pub(super) const fn is_narrow(self) -> bool {
        matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }

    /// The one call of old i386 programs that `name` is also reached by, and its first argument then
    /// (linux/net.h `SYS_*`, linux/ipc.h).
    pub(super) fn multiplexed(self, name: &str) -> Option<(&'static str, u64)> {
        if self != Self::X86 {
            return None;
        }
        let at = MULTIPLEXED.binary_search_by(|(known, _, _)| (*known).cmp(name)).ok()?;
        let (_, by, call) = MULTIPLEXED[at];
        Some((by, call))
    }
}

/// Sorted by name: the call, the one that it is reached by on i386, and that one's first argument.
const MULTIPLEXED: [(&str, &str, u64); 32] = [
    ("accept", "socketcall", 5),
    ("accept4", "socketcall", 18),
    ("bind", "socketcall", 2),
    ("connect", "socketcall", 3),
    ("getpeername", "socketcall", 7),
    ("getsockname", "socketcall", 6),
    ("getsockopt", "socketcall", 15),
    ("listen", "socketcall", 4),
    ("msgctl", "ipc", 14),
    ("msgget", "ipc", 13),
    ("msgrcv", "ipc", 12),
    ("msgsnd", "ipc", 11),
    ("recv", "socketcall", 10),
    ("recvfrom", "socketcall", 12),
    ("recvmmsg", "socketcall", 19),
    ("recvmsg", "socketcall", 17),
    ("semctl", "ipc", 3),
    ("semget", "ipc", 2),
    ("semop", "ipc", 1),
    ("semtimedop", "ipc", 4),
    ("send", "socketcall", 9),
    ("sendmmsg", "socketcall", 20),
    ("sendmsg", "socketcall", 16),
    ("sendto", "socketcall", 11),
    ("setsockopt", "socketcall", 14),
    ("shmat", "ipc", 21),
    ("shmctl", "ipc", 24),
    ("shmdt", "ipc", 22),
    ("shmget", "ipc", 23),
    ("shutdown", "socketcall", 13),
    ("socket", "socketcall", 1),
    ("socketpair", "socketcall", 8),
];

/// The table, read.
pub(super) struct Table {
    rows: Vec<(&'static str, [u32; COLUMNS])>,
    /// Open hashing by name: one more than a row's place, or zero.
    slots: Vec<u16>,
}

/// Twice the rows and a power of two, so that a free slot ends every search.
const SLOTS: usize = 1024;

/// FNV-1a's 32 bits, folded to a slot.
fn slot(name: &str) -> usize {
    let hash =
        name.bytes().fold(0x811c_9dc5, |hash: u32, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ hash >> 16) as usize % SLOTS
}

/// Stands for "-".
const ABSENT: u32 = u32::MAX;

impl Table {
    /// Reads the built-in text; by bytes, since every start of a container waits for it.
    pub(super) fn read() -> Self {
        let mut rows = Vec::with_capacity(SLOTS / 2);
        let mut slots = vec![0; SLOTS];
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
            let mut numbers = [ABSENT; COLUMNS];
            let mut column = 0;
            for byte in rest.bytes() {
                match byte {
                    b' ' => column += 1,
                    b'0'..=b'9' if numbers[column] == ABSENT => numbers[column] = u32::from(byte - b'0'),
                    b'0'..=b'9' => numbers[column] = numbers[column] * 10 + u32::from(byte - b'0'),
                    _ => {}
                }
            }
            rows.push((name, numbers));
            let mut at = slot(name);
            while slots[at] != 0 {
                at = (at + 1) % SLOTS;
            }
            slots[at] = rows.len() as u16;
        }
        Self { rows, slots }
    }

    /// The numbers of a call, if any of the five numberings has it.
    pub(super) fn row(&self, name: &str) -> Option<&[u32; COLUMNS]> {
        let mut at = slot(name);
        loop {
            let (known, numbers) = &self.rows[usize::from(self.slots[at]).checked_sub(1)?];
            if *known == name {
                return Some(numbers);
            }
            at = (at + 1) % SLOTS;
        }
    }

    /// What a program puts in its register for the call.
    pub(super) fn number(&self, name: &str, abi: Abi) -> Option<u32> {
        Self::number_in(self.row(name)?, abi)
    }

    /// The same in a row.
    pub(super) fn number_in(row: &[u32; COLUMNS], abi: Abi) -> Option<u32> {
        let number = row[abi as usize];
        let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
        (number != ABSENT).then_some(number | bit)
    }

    /// The newest call's number; private ones aside.
    pub(super) fn newest(&self, abi: Abi) -> u32 {
        let bit = if abi == Abi::X32 { X32_BIT } else { 0 };
        let numbers = self.rows.iter().map(|(_, numbers)| numbers[abi as usize]);
        numbers.filter(|number| *number < ARM_PRIVATE).max().unwrap_or(0) | bit
    }

    /// Every name, in the text's order.
    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.rows.iter().map(|(name, _)| *name)
    }
}
