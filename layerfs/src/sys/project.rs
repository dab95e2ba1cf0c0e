//! Projects of a filesystem and their quotas: `FS_IOC_FSGETXATTR`, `FS_IOC_FSSETXATTR`, `quotactl_fd(2)`.
//!
//! ```text
//! directory --FSSETXATTR(project, PROJINHERIT)--> all that is made below it counts for the project
//! quotactl_fd(fd, Q_XSETQLIM, PRJQUOTA, project): hard limit in basic blocks of 512 bytes     ext4 and XFS alike
//! ```

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Bytes of a basic block, the unit of XFS's quota calls (linux/dqblk_xfs.h, `BBSHIFT`).
const BASIC_BLOCK_BYTES: u64 = 512;

// linux/fs.h
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

// linux/quota.h and linux/dqblk_xfs.h: QCMD(XQM_CMD(n), PRJQUOTA)
const PRJQUOTA: u32 = 2;
const Q_XGETQUOTA: u32 = quota_command(3);
const Q_XSETQLIM: u32 = quota_command(4);
const Q_XGETQSTATV: u32 = quota_command(8);
const FS_DQUOT_VERSION: i8 = 1;
const FS_PROJ_QUOTA: i8 = 2;
const FS_DQ_BSOFT: u16 = 1 << 2;
const FS_DQ_BHARD: u16 = 1 << 3;
const FS_QSTATV_VERSION1: i8 = 1;
/// Projects are counted, and limits of projects are kept.
const FS_QUOTA_PDQ_ACCT_AND_ENFD: u16 = 1 << 4 | 1 << 5;

const fn quota_command(number: u32) -> u32 {
    (((b'X' as u32) << 8) + number) << 8 | PRJQUOTA
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct FileAttributes {
    flags: u32,
    extent_size: u32,
    extents_count: u32,
    project: u32,
    cow_extent_size: u32,
    padding: [u8; 8],
}

/// `struct fs_disk_quota` of linux/dqblk_xfs.h.
#[repr(C)]
#[derive(Default)]
struct DiskQuota {
    version: i8,
    flags: i8,
    fields: u16,
    id: u32,
    blocks_hard: u64,
    blocks_soft: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    blocks_count: u64,
    inodes_count: u64,
    timers: [i32; 2],
    warnings: [u16; 2],
    timers_high: [i8; 4],
    realtime: [u64; 3],
    realtime_timer: i32,
    realtime_warnings: u16,
    padding: [u8; 10],
}

/// `struct fs_quota_statv` of linux/dqblk_xfs.h.
#[repr(C)]
#[derive(Default)]
struct QuotaState {
    version: i8,
    padding: u8,
    flags: u16,
    in_core: u32,
    files: [[u64; 3]; 3],
    times: [i32; 3],
    warnings: [u16; 4],
    more: u32,
    spare: [u64; 7],
}

const _: () = assert!(
    size_of::<FileAttributes>() == 28 && size_of::<DiskQuota>() == 112 && size_of::<QuotaState>() == 160
);

/// What a project holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectUse {
    /// Inodes, those included that have no name any more.
    pub inodes_count: u64,
    /// The hard limit in bytes; 0: none.
    pub limit_bytes: u64,
}

/// Whether the filesystem of `fd` counts projects and keeps their limits.
///
/// Manual: quotactl(2), `Q_XGETQSTATV`; quotactl_fd(2) since Linux 5.14.
///
/// # Errors
/// `ENOSYS` for a filesystem or a kernel without quotas, `EPERM`, `ENOTBLK`.
pub fn limits_projects(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut state = QuotaState { version: FS_QSTATV_VERSION1, ..QuotaState::default() };
    quotactl(fd, Q_XGETQSTATV, 0, (&raw mut state).cast())?;
    Ok(state.flags & FS_QUOTA_PDQ_ACCT_AND_ENFD == FS_QUOTA_PDQ_ACCT_AND_ENFD)
}

/// What a project of the filesystem of `fd` holds.
///
/// Manual: quotactl(2), `Q_XGETQUOTA`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ESRCH` where projects are not counted.
pub fn project_use(fd: BorrowedFd<'_>, project: u32) -> io::Result<ProjectUse> {
    let mut quota = DiskQuota { version: FS_DQUOT_VERSION, ..DiskQuota::default() };
    match quotactl(fd, Q_XGETQUOTA, project, (&raw mut quota).cast()) {
        // XFS has no record of a project that was never used.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
        answer => answer?,
    }
    let limit_bytes = quota.blocks_hard.saturating_mul(BASIC_BLOCK_BYTES);
    Ok(ProjectUse { inodes_count: quota.inodes_count, limit_bytes })
}

/// Limits what a project of the filesystem of `fd` may hold; 0: no limit.
///
/// Manual: quotactl(2), `Q_XSETQLIM`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ESRCH` where projects are not counted.
pub fn limit_project(fd: BorrowedFd<'_>, project: u32, limit_bytes: u64) -> io::Result<()> {
    let blocks = limit_bytes / BASIC_BLOCK_BYTES;
    let mut quota = DiskQuota {
        version: FS_DQUOT_VERSION,
        flags: FS_PROJ_QUOTA,
        fields: FS_DQ_BHARD | FS_DQ_BSOFT,
        id: project,
        blocks_hard: blocks,
        blocks_soft: blocks,
        ..DiskQuota::default()
    };
    quotactl(fd, Q_XSETQLIM, project, (&raw mut quota).cast())
}

/// The project of a file or directory; 0: none.
///
/// Manual: ioctl_xfs_fsgetxattr(2).
///
/// # Errors
/// `ENOTTY` for a filesystem that has none.
pub fn project_of(file: BorrowedFd<'_>) -> io::Result<u32> {
    attributes(file).map(|attributes| attributes.project)
}

/// Puts a directory into a project, with all that is made in it from now on.
///
/// Manual: ioctl_xfs_fsgetxattr(2), `FS_IOC_FSSETXATTR`.
///
/// # Errors
/// `ENOTTY`, `EOPNOTSUPP` for a filesystem without projects; `EINVAL` outside the initial user namespace.
pub fn set_project(directory: BorrowedFd<'_>, project: u32) -> io::Result<()> {
    let mut wanted = attributes(directory)?;
    wanted.project = project;
    wanted.flags |= FS_XFLAG_PROJINHERIT;
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel reads the 28 bytes of a `struct fsxattr`,
    // whose layout `wanted` has (asserted above), from memory that outlives the call.
    let answer = unsafe { libc::ioctl(directory.as_raw_fd(), FS_IOC_FSSETXATTR, &raw const wanted) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<FileAttributes> {
    let mut attributes = FileAttributes::default();
    // SAFETY: the descriptor is borrowed for the whole call, and the kernel writes the 28 bytes of a `struct fsxattr`,
    // whose layout `attributes` has (asserted above), into memory that outlives the call.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FSGETXATTR, &raw mut attributes) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(attributes) }
}

/// `quotactl_fd(fd, command, id, address)`, with `address` a structure that belongs to the command.
fn quotactl(fd: BorrowedFd<'_>, command: u32, id: u32, address: *mut libc::c_void) -> io::Result<()> {
    // SAFETY: the callers above give each command a `#[repr(C)]` structure of the size and layout that the kernel reads
    // or writes for it (asserted above), which they own for the whole call; the descriptor is borrowed as long.
    let answer = unsafe { libc::syscall(libc::SYS_quotactl_fd, fd.as_raw_fd(), command, id, address) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
