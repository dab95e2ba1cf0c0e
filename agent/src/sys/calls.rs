//! Raw syscalls for the child: an errno as a value, nothing allocated, nothing locked.
//!
//! Each takes prepared C strings and plain descriptors. `libc::syscall` stores the errno in the calling thread's
//! own storage, which the child shares with the one thread that is suspended while it runs.

use std::ffi::{CStr, c_long};

use super::abi::{self, MountAttr};

/// An errno.
pub(super) type Errno = i32;
/// What a raw syscall answers.
pub(super) type Answer<T = ()> = Result<T, Errno>;

/// `long syscall(long number, ...)`, see syscall(2).
///
/// # Errors
/// Whatever the syscall's own page lists.
///
/// # Safety
/// Every argument that the kernel takes for a pointer points to memory of the size that this syscall reads or
/// writes there.
pub(super) unsafe fn call<const N: usize>(number: c_long, arguments: [usize; N]) -> Answer<usize> {
    let mut padded = [0_usize; 6];
    for (to, from) in padded.iter_mut().zip(arguments) {
        *to = from;
    }
    let [a, b, c, d, e, f] = padded;
    // SAFETY: forwarded to the caller; surplus arguments are ignored by the kernel.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 {
        // SAFETY: the location is this thread's own and always valid.
        Err(unsafe { *libc::__errno_location() })
    } else {
        Ok(answer as usize)
    }
}

/// A raw syscall whose arguments are numbers only.
pub(super) fn call_plain<const N: usize>(number: c_long, arguments: [usize; N]) -> Answer<usize> {
    // SAFETY: callers in this room pass numbers and descriptors, never addresses.
    unsafe { call(number, arguments) }
}

fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value) as usize
}

fn text(string: &CStr) -> usize {
    string.as_ptr() as usize
}

/// How `openat2` resolves every path of the container: inside the root, over no magic link.
pub(super) const IN_ROOT: u64 = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;

/// `int openat2(int dirfd, const char *path, struct open_how *how, size_t size)`, see openat2(2).
///
/// # Errors
/// `ENOENT`, `ENOTDIR`, `ELOOP` (a magic link, or too many links), `EACCES`.
pub(super) fn openat2(directory: i32, path: &CStr, flags: i32, mode: u64, resolve: u64) -> Answer<i32> {
    // SAFETY: `open_how` is plain numbers, for which all zeros is valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.mode = mode;
    how.resolve = resolve;
    let arguments = [directory as usize, text(path), address(&how), size_of::<libc::open_how>()];
    // SAFETY: `path` is a C string and `how` a whole `open_how`; both outlive the call.
    unsafe { call(libc::SYS_openat2, arguments) }.map(|fd| fd as i32)
}

/// `int openat(int dirfd, const char *path, int flags)`, see open(2). For paths this side made itself.
///
/// # Errors
/// `ENOENT`, `EACCES`, `ELOOP`.
pub(super) fn openat(directory: i32, path: &CStr, flags: i32) -> Answer<i32> {
    // SAFETY: `path` is a C string that outlives the call.
    unsafe { call(libc::SYS_openat, [directory as usize, text(path), (flags | libc::O_CLOEXEC) as usize, 0]) }
        .map(|fd| fd as i32)
}

/// `int close(int fd)`, see close(2). Its error says nothing that could be acted upon here.
pub(super) fn close(fd: i32) {
    let _ = call_plain(libc::SYS_close, [fd as usize]);
}

/// `ssize_t write(int fd, const void *buffer, size_t count)`, see write(2); the whole or an error.
///
/// # Errors
/// The file's own; `EIO` for a short write.
pub(super) fn write_all(fd: i32, bytes: &[u8]) -> Answer {
    // SAFETY: `bytes` is readable for its length.
    let count = unsafe { call(libc::SYS_write, [fd as usize, bytes.as_ptr() as usize, bytes.len()]) }?;
    if count == bytes.len() { Ok(()) } else { Err(libc::EIO) }
}

/// `ssize_t read(int fd, void *buffer, size_t count)`, see read(2).
///
/// # Errors
/// The file's own.
pub(super) fn read(fd: i32, buffer: &mut [u8]) -> Answer<usize> {
    // SAFETY: `buffer` is writable for its length.
    unsafe { call(libc::SYS_read, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len()]) }
}

/// `int mkdirat(int dirfd, const char *path, mode_t mode)`, see mkdir(2).
///
/// # Errors
/// `EEXIST`, `EROFS`, `EACCES`.
pub(super) fn mkdirat(directory: i32, name: &CStr, mode: u32) -> Answer {
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { call(libc::SYS_mkdirat, [directory as usize, text(name), mode as usize]) }.map(drop)
}

/// `int mknodat(int dirfd, const char *path, mode_t mode, dev_t device)`, see mknod(2).
///
/// # Errors
/// `EEXIST`, `EROFS`, `EPERM` (in a user namespace).
pub(super) fn mknodat(directory: i32, name: &CStr, mode: u32, device: u64) -> Answer {
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { call(libc::SYS_mknodat, [directory as usize, text(name), mode as usize, device as usize]) }
        .map(drop)
}

/// `int symlinkat(const char *target, int dirfd, const char *path)`, see symlink(2).
///
/// # Errors
/// `EEXIST`, `EROFS`.
pub(super) fn symlinkat(target: &CStr, directory: i32, name: &CStr) -> Answer {
    // SAFETY: both are C strings that outlive the call.
    unsafe { call(libc::SYS_symlinkat, [text(target), directory as usize, text(name)]) }.map(drop)
}

/// `int fchownat(int dirfd, const char *path, uid_t owner, gid_t group, int flags)`, see chown(2).
///
/// # Errors
/// `EPERM`, `EROFS`, `EINVAL` (an id without a mapping).
pub(super) fn chown(directory: i32, name: &CStr, uid: u32, gid: u32, flags: i32) -> Answer {
    let arguments = [directory as usize, text(name), uid as usize, gid as usize, flags as usize];
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { call(libc::SYS_fchownat, arguments) }.map(drop)
}

/// `int fchmodat(int dirfd, const char *path, mode_t mode)`, see chmod(2).
///
/// # Errors
/// `EPERM`, `EROFS`.
pub(super) fn chmod(directory: i32, name: &CStr, mode: u32) -> Answer {
    // SAFETY: `name` is a C string that outlives the call.
    unsafe { call(libc::SYS_fchmodat, [directory as usize, text(name), mode as usize]) }.map(drop)
}

/// What `statx` is asked for here.
#[derive(Clone, Copy)]
pub(super) struct FileFacts {
    /// Type and permission bits.
    pub(super) mode: u32,
    /// Device number of a device node.
    pub(super) device: (u32, u32),
}

impl FileFacts {
    pub(super) fn is_kind(self, kind: u32) -> bool {
        self.mode & libc::S_IFMT == kind
    }
}

/// `int statx(int dirfd, const char *path, int flags, unsigned mask, struct statx *buffer)`, see statx(2).
///
/// # Errors
/// `ENOENT`, `EACCES`, `EBADF`.
pub(super) fn facts(directory: i32, path: &CStr, flags: i32) -> Answer<FileFacts> {
    // SAFETY: `statx` is plain numbers, for which all zeros is valid.
    let mut facts: libc::statx = unsafe { std::mem::zeroed() };
    let mask = (libc::STATX_TYPE | libc::STATX_MODE) as usize;
    let arguments = [directory as usize, text(path), flags as usize, mask, (&raw mut facts) as usize];
    // SAFETY: `path` is a C string and `facts` a whole, writable `statx`.
    unsafe { call(libc::SYS_statx, arguments) }?;
    Ok(FileFacts { mode: u32::from(facts.stx_mode), device: (facts.stx_rdev_major, facts.stx_rdev_minor) })
}

/// `int faccessat2(AT_FDCWD, const char *path, X_OK, AT_EACCESS)`, see access(2).
///
/// # Errors
/// `EACCES`, `ENOENT`; `ENOSYS` before Linux 5.8.
pub(super) fn may_execute(path: &CStr) -> Answer {
    let arguments = [libc::AT_FDCWD as usize, text(path), libc::X_OK as usize, libc::AT_EACCESS as usize];
    // SAFETY: `path` is a C string that outlives the call.
    unsafe { call(libc::SYS_faccessat2, arguments) }.map(drop)
}

/// As [`facts`], of an open descriptor.
///
/// # Errors
/// `EBADF`.
pub(super) fn facts_of(fd: i32) -> Answer<FileFacts> {
    facts(fd, c"", libc::AT_EMPTY_PATH)
}

/// True for a pipe that was never a file.
pub(super) fn is_anonymous_pipe(fd: i32) -> bool {
    filesystem_of(fd) == Ok(abi::PIPEFS_MAGIC)
}

/// `int fstatfs(int fd, struct statfs *buffer)`, see statfs(2): the kind of the file's filesystem.
///
/// # Errors
/// `EBADF`.
pub(super) fn filesystem_of(fd: i32) -> Answer<u64> {
    // SAFETY: `statfs` is plain numbers, for which all zeros is valid.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `facts` is a whole, writable `statfs`, as the kernel has it on 64-bit machines.
    unsafe { call(libc::SYS_fstatfs, [fd as usize, (&raw mut facts) as usize]) }?;
    Ok(facts.f_type as u64)
}

/// Device and inode number of an open file, by statx(2).
///
/// # Errors
/// `EBADF`.
pub(super) fn identity_of(fd: i32) -> Answer<(u32, u32, u64)> {
    // SAFETY: `statx` is plain numbers, for which all zeros is valid.
    let mut facts: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_EMPTY_PATH as usize, libc::STATX_INO as usize);
    // SAFETY: the path is a static C string and `facts` a whole, writable `statx`.
    unsafe { call(libc::SYS_statx, [fd as usize, text(c""), flags, mask, (&raw mut facts) as usize]) }?;
    Ok((facts.stx_dev_major, facts.stx_dev_minor, facts.stx_ino))
}

/// `int mount(NULL, path, NULL, flags, NULL)`, see mount(2): changes propagation only.
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub(super) fn propagate(path: &CStr, flags: u64) -> Answer {
    // SAFETY: `path` is a C string; null source, type and data are allowed for a propagation change.
    unsafe { call(libc::SYS_mount, [0, text(path), 0, flags as usize, 0]) }.map(drop)
}

/// `int move_mount(from, "", to, "", EMPTY_PATH flags)`, see move_mount(2).
///
/// # Errors
/// `ENOTDIR` (a directory on a file, or the reverse), `EINVAL` (not a detached mount), `EPERM`.
pub(super) fn move_mount(mount: i32, target: i32) -> Answer {
    let flags = abi::MOVE_MOUNT_F_EMPTY_PATH | abi::MOVE_MOUNT_T_EMPTY_PATH;
    // SAFETY: both paths are static, empty C strings.
    unsafe { call(libc::SYS_move_mount, [mount as usize, text(c""), target as usize, text(c""), flags]) }
        .map(drop)
}

/// `int open_tree(fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH [| AT_RECURSIVE])`, see open_tree(2).
///
/// # Errors
/// `EINVAL` (not a mount of this namespace), `EPERM`.
pub(super) fn clone_mount(of: i32, recursive: bool) -> Answer<i32> {
    let deep = if recursive { libc::AT_RECURSIVE as usize } else { 0 };
    let flags = abi::OPEN_TREE_CLONE | abi::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as usize | deep;
    // SAFETY: the path is a static, empty C string.
    unsafe { call(libc::SYS_open_tree, [of as usize, text(c""), flags]) }.map(|fd| fd as i32)
}

/// `int mount_setattr(fd, "", AT_EMPTY_PATH [| AT_RECURSIVE], attr, size)`, see mount_setattr(2).
///
/// # Errors
/// `EPERM` (a locked flag), `EINVAL`.
pub(super) fn mount_setattr(mount: i32, recursive: bool, attributes: &MountAttr) -> Answer {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let size = size_of::<MountAttr>();
    // SAFETY: `attributes` is a whole `mount_attr`; the path is a static, empty C string.
    unsafe {
        call(libc::SYS_mount_setattr, [mount as usize, text(c""), flags as usize, address(attributes), size])
    }
    .map(drop)
}

/// `int fsopen(const char *kind, unsigned flags)`, see fsopen(2).
///
/// # Errors
/// `ENODEV` (the kernel has no such filesystem), `EPERM`.
pub(super) fn fsopen(kind: &CStr) -> Answer<i32> {
    // SAFETY: `kind` is a C string that outlives the call.
    unsafe { call(libc::SYS_fsopen, [text(kind), abi::FSOPEN_CLOEXEC]) }.map(|fd| fd as i32)
}

/// `int fsconfig(int fd, unsigned command, const char *key, const void *value, int aux)`, see fsconfig(2).
///
/// # Errors
/// `EINVAL` (unknown key or value; the context's log says more), `EPERM`.
pub(super) fn fsconfig(fd: i32, key: &CStr, value: Option<&CStr>) -> Answer {
    let (command, value) = match value {
        Some(value) => (abi::FSCONFIG_SET_STRING, text(value)),
        None => (abi::FSCONFIG_SET_FLAG, 0),
    };
    // SAFETY: key and value are C strings (or null for a flag) that outlive the call.
    unsafe { call(libc::SYS_fsconfig, [fd as usize, command, text(key), value, 0]) }.map(drop)
}

/// `FSCONFIG_CMD_CREATE` and `int fsmount(int fd, unsigned flags, unsigned attributes)`, see fsmount(2).
///
/// # Errors
/// `EPERM` (not revealed in this user namespace), `EBUSY`, `EINVAL`.
pub(super) fn fscreate(fd: i32, attributes: u32) -> Answer<i32> {
    call_plain(libc::SYS_fsconfig, [fd as usize, abi::FSCONFIG_CMD_CREATE, 0, 0, 0])?;
    call_plain(libc::SYS_fsmount, [fd as usize, abi::FSMOUNT_CLOEXEC, attributes as usize])
        .map(|fd| fd as i32)
}

/// `int pivot_root(".", ".")` and `int umount2(".", MNT_DETACH)`, see pivot_root(2): the old root goes away.
///
/// # Errors
/// `EINVAL` (the root is shared, or not a mount), `EPERM`.
pub(super) fn pivot_here() -> Answer {
    let here = text(c".");
    // SAFETY: the paths are static C strings.
    unsafe { call(libc::SYS_pivot_root, [here, here]) }?;
    // SAFETY: as above.
    unsafe { call(libc::SYS_umount2, [here, libc::MNT_DETACH as usize]) }.map(drop)
}

/// `int ioctl(int fd, unsigned long request, void *argument)`, see ioctl(2).
///
/// # Errors
/// The request's own.
///
/// # Safety
/// `argument` is of the type that `request` takes.
pub(super) unsafe fn ioctl<T>(fd: i32, request: libc::Ioctl, argument: &mut T) -> Answer<usize> {
    // SAFETY: forwarded to the caller; `argument` is writable for its whole size.
    unsafe { call(libc::SYS_ioctl, [fd as usize, request as usize, std::ptr::from_mut(argument) as usize]) }
}

/// `int prctl(int option, ...)` with plain numbers, see prctl(2).
///
/// # Errors
/// `EINVAL`, `EPERM`.
pub(super) fn prctl(option: i32, arguments: [usize; 2]) -> Answer<usize> {
    let [a, b] = arguments;
    call_plain(libc::SYS_prctl, [option as usize, a, b, 0, 0])
}

/// `void _exit(int status)`, see _exit(2).
pub(super) fn exit(status: i32) -> ! {
    loop {
        let _ = call_plain(libc::SYS_exit_group, [status as usize]);
    }
}
