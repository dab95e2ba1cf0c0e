//! The step that opens a terminal of the container's own devpts and hands its master to the parent.

use super::abi::{MAX_CONTROL_BYTES, TerminalWindow};
use super::calls::{self, Answer, call};
use super::child::Slots;
use crate::sandbox::step::Step;

/// Mode of the file that `/dev/console` is mounted on.
const CONSOLE_MODE: u32 = 0o620;

pub(super) fn take(slots: &mut Slots<'_>, step: &Step) -> Answer {
    let Step::Console { pts, devices, into, channel, rows, columns, owner } = step else {
        return Err(libc::ENOSYS);
    };
    let master = calls::openat(slots.get(*pts)?, c"ptmx", libc::O_RDWR | libc::O_NOCTTY | libc::O_NOFOLLOW)?;
    let mut unlock = 0_i32;
    // SAFETY: TIOCSPTLCK takes an int.
    unsafe { calls::ioctl(master, libc::TIOCSPTLCK, &mut unlock) }?;
    let flags = (libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC) as usize;
    let terminal =
        calls::call_plain(libc::SYS_ioctl, [master as usize, libc::TIOCGPTPEER as usize, flags])? as i32;
    let mut window = TerminalWindow { rows: *rows, columns: *columns, pixels: [0; 2] };
    // SAFETY: TIOCSWINSZ takes a winsize, which `TerminalWindow` is.
    unsafe { calls::ioctl(master, libc::TIOCSWINSZ, &mut window) }?;
    if *owner != 0 {
        calls::chown(terminal, c"", *owner, u32::MAX, libc::AT_EMPTY_PATH)?;
    }
    if let Some(devices) = devices {
        place_console(slots.get(*devices)?, terminal)?;
    }
    send(slots.get(*channel)?, master)?;
    calls::close(master);
    slots.set(*into, terminal)
}

/// Mounts the terminal on `/dev/console`, by descriptors on both sides.
fn place_console(devices: i32, terminal: i32) -> Answer {
    match calls::mknodat(devices, c"console", libc::S_IFREG | CONSOLE_MODE, 0) {
        Err(libc::EEXIST) => {}
        answer => answer?,
    }
    let target = calls::openat(devices, c"console", libc::O_PATH | libc::O_NOFOLLOW)?;
    let mount = calls::clone_mount(terminal, false)?;
    let answer = calls::move_mount(mount, target);
    calls::close(mount);
    calls::close(target);
    answer
}

/// `ssize_t sendmsg(int socket, const struct msghdr *message, int flags)` with `SCM_RIGHTS`, see unix(7).
fn send(channel: i32, fd: i32) -> Answer {
    let mut byte = [0_u8; 1];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: byte.len() };
    let mut control = [0_u64; MAX_CONTROL_BYTES / 8];
    // SAFETY: `msghdr` is plain numbers and pointers, for which all zeros is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE is arithmetic only.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<i32>() as u32) } as usize;
    // SAFETY: msg_control points to `control`, aligned and larger than one header with one descriptor.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<i32>() as u32) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
    }
    // SAFETY: `message` and all that it points to live in this frame.
    unsafe { call(libc::SYS_sendmsg, [channel as usize, (&raw const message) as usize, 0]) }.map(drop)
}
