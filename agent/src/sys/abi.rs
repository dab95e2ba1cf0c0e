//! Numbers and layouts of the mount interface that `libc` has no name for (linux/mount.h, linux/prctl.h).

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MountAttr {
    pub(super) attr_set: u64,
    pub(super) attr_clr: u64,
    pub(super) propagation: u64,
    pub(super) userns_fd: u64,
}

pub(super) const FSOPEN_CLOEXEC: usize = 1;
pub(super) const FSMOUNT_CLOEXEC: usize = 1;
pub(super) const FSCONFIG_SET_FLAG: usize = 0;
pub(super) const FSCONFIG_SET_STRING: usize = 1;
pub(super) const FSCONFIG_CMD_CREATE: usize = 6;
pub(super) const MOVE_MOUNT_F_EMPTY_PATH: usize = 0x4;
pub(super) const MOVE_MOUNT_T_EMPTY_PATH: usize = 0x40;
pub(super) const OPEN_TREE_CLONE: usize = 1;
pub(super) const OPEN_TREE_CLOEXEC: usize = libc::O_CLOEXEC as usize;
pub(super) const MOUNT_ATTR_RDONLY: u64 = 1;

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
pub(super) const DEVPTS_MAGIC: u64 = 0x1cd1;
/// `PIPEFS_MAGIC` of linux/magic.h.
pub(super) const PIPEFS_MAGIC: u64 = 0x5049_5045;

/// `struct __user_cap_header_struct` of capget(2), version 3.
#[repr(C)]
pub(super) struct CapabilityHeader {
    pub(super) version: u32,
    pub(super) pid: i32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words per set.
pub(super) const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

/// `struct __user_cap_data_struct` of capget(2).
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct CapabilityData {
    pub(super) effective: u32,
    pub(super) permitted: u32,
    pub(super) inheritable: u32,
}

/// The kernel's own `struct sigaction`, all zeros: `SIG_DFL`, no flags, empty mask. Large enough for both arches.
#[repr(C)]
pub(super) struct DefaultSignalAction(pub(super) [u64; 4]);

/// `struct ifreq` of netdevice(7), as far as flags go.
#[repr(C)]
pub(super) struct InterfaceFlags {
    pub(super) name: [u8; 16],
    pub(super) flags: i16,
    pub(super) rest: [u8; 22],
}

/// `struct winsize` of ioctl_tty(2).
#[repr(C)]
pub(super) struct TerminalWindow {
    pub(super) rows: u16,
    pub(super) columns: u16,
    pub(super) pixels: [u16; 2],
}

/// Room for one control message with one descriptor: 24 bytes on both arches.
pub(super) const MAX_CONTROL_BYTES: usize = 32;
