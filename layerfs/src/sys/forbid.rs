//! Forbidding io_uring to one thread, so that tests see what a locked-down host answers.

use std::io;

/// `prctl(PR_SET_NO_NEW_PRIVS, 1)`, then `prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, filter)`: from now on
/// `io_uring_setup` answers `errno` on this thread and on those it starts.
///
/// Manual: seccomp(2).
///
/// # Errors
/// `EINVAL` on kernels without seccomp filters.
pub(crate) fn forbid_io_uring(errno: i32) -> io::Result<()> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let number = u32::try_from(libc::SYS_io_uring_setup).map_err(io::Error::other)?;
    let answer = libc::SECCOMP_RET_ERRNO | (errno.unsigned_abs() & libc::SECCOMP_RET_DATA);
    let mut program = [
        // Offset 0 of struct seccomp_data is the number of the syscall.
        libc::sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: 1, k: number },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: answer },
        libc::sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW },
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: takes no pointers; it only keeps later execs of this thread from gaining privileges.
    let is_set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if is_set != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `filter` points to `program`, which has `len` instructions and outlives the call; the kernel copies
    // and checks both.
    let is_set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if is_set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
