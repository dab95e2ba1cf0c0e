//! Keeps a container from executing the runtime itself (CVE-2019-5736).
//!
//! ```text
//! program, each interpreter:  openat2, on the root's own mount, over no magic link?  read whole, and well known?
//!     all of it:   execve, directly                                   nobody else can change that mount meanwhile
//!     otherwise:   execveat of the sealed helper, which executes the program: /proc/self/exe is the helper then
//! ```
//! Until `execve` this process's executable is the runtime's, a file of the host, and `/proc/self/exe` leads to it.
//! An image could name that link as its program, as a script's interpreter or as an ELF loader, and would then hold
//! a file of the host that root could overwrite. Looking is not enough where a file cannot be read, is of a kind that
//! only the kernel knows, or lies on a volume that others write to; there, the kernel must find the link harmless.
//! (A handler of binfmt_misc that the host has for native programs, or by a file's ending, is the host's own word.)

use std::ffi::CStr;

use super::calls;

/// Scripts whose interpreters are scripts: the kernel follows five, linux/fs/exec.c.
const INTERPRETERS_COUNT_MAX: usize = 8;
/// Bytes of a file's head that are looked at; program headers lie at its beginning in all that linkers make.
const HEAD_BYTES: usize = 4096;
/// Bytes of a script's first line that the kernel reads, `BINPRM_BUF_SIZE` of linux/binfmts.h.
const LINE_BYTES: usize = 256;
/// Bytes of an interpreter's path, `PATH_MAX` of limits.h.
const PATH_BYTES: usize = 4096;
/// `p_type` of the program header that names the loader (ELF specification).
const PT_INTERP: u32 = 3;
/// Bytes of a 64-bit program header, the only size the kernel takes.
const HEADER_BYTES: usize = 56;
/// The identification of a 64-bit, little-endian ELF, and the machine of this one (ELF specification).
const NATIVE: &[u8] = b"\x7fELF\x02\x01";
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;
/// No way over a mount point or a magic link.
const ON_ROOT: u64 = libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS;

/// What executing a path would lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// There is no such file.
    Nowhere,
    /// Only files of the container's own root, all of them known.
    Own,
    /// Something that must not be executed from this process's memory.
    Apart,
    /// The runtime's own executable.
    Agent,
}

/// What a file executes beside itself.
#[derive(Debug, PartialEq, Eq)]
enum Next<'a> {
    Nothing,
    /// A script's interpreter, which may be a script again.
    Interpreter(&'a [u8]),
    /// An ELF's loader, whose own loader does not count.
    Loader(&'a [u8]),
    Unknown,
}

/// Where executing `path` would lead, by what is there now.
pub(super) fn way(path: &CStr, agent: (u32, u32, u64)) -> Way {
    let mut name = [0_u8; PATH_BYTES];
    if !set_path(&mut name, path.to_bytes()) {
        return Way::Apart; // longer than PATH_MAX: execve answers ENAMETOOLONG
    }
    let mut is_loader = false;
    for turn in 0..INTERPRETERS_COUNT_MAX {
        let Ok(current) = CStr::from_bytes_until_nul(&name) else { return Way::Apart };
        let file = match open(current, agent) {
            Ok(file) => file,
            // A missing interpreter is the kernel's to tell.
            Err(Way::Nowhere) if turn > 0 => return Way::Own,
            Err(way) => return way,
        };
        let mut head = [0_u8; HEAD_BYTES];
        let is_agent = calls::identity_of(file).is_ok_and(|identity| identity == agent);
        let count = if is_loader { Ok(0) } else { calls::read(file, &mut head) };
        calls::close(file);
        let Ok(count) = count else { return Way::Apart };
        if is_agent {
            return Way::Agent;
        }
        if is_loader {
            return Way::Own;
        }
        let next = match next(head.get(..count).unwrap_or_default()) {
            Next::Nothing => return Way::Own,
            Next::Unknown => return Way::Apart,
            Next::Interpreter(next) => next,
            Next::Loader(next) => {
                is_loader = true;
                next
            }
        };
        if !set_path(&mut name, next) {
            return Way::Apart;
        }
    }
    Way::Apart
}

/// Opens a file of the root's own mount.
fn open(path: &CStr, agent: (u32, u32, u64)) -> Result<i32, Way> {
    let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
    // A relative path may begin on another mount.
    let is_absolute = path.to_bytes().first() == Some(&b'/');
    match calls::openat2(libc::AT_FDCWD, path, flags, 0, ON_ROOT) {
        Ok(file) if is_absolute => Ok(file),
        Err(libc::ENOENT | libc::ENOTDIR) => Err(Way::Nowhere),
        other => {
            if let Ok(file) = other {
                calls::close(file);
            }
            let Ok(file) = calls::openat(libc::AT_FDCWD, path, libc::O_PATH) else { return Err(Way::Apart) };
            let is_agent = calls::identity_of(file).is_ok_and(|identity| identity == agent);
            calls::close(file);
            Err(if is_agent { Way::Agent } else { Way::Apart })
        }
    }
}

fn set_path(name: &mut [u8; PATH_BYTES], path: &[u8]) -> bool {
    let Some((place, rest)) = name.split_at_mut_checked(path.len()) else { return false };
    let Some(end) = rest.first_mut() else { return false };
    *end = 0;
    for (to, from) in place.iter_mut().zip(path) {
        *to = *from;
    }
    true
}

/// The interpreter that a script or a dynamic ELF names.
fn next(head: &[u8]) -> Next<'_> {
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.get(..LINE_BYTES - 2).unwrap_or(line);
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let start = line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len());
        let line = line.get(start..).unwrap_or_default();
        let path = line.split(|byte| is_space(byte) || *byte == 0).next().unwrap_or_default();
        return if path.is_empty() { Next::Unknown } else { Next::Interpreter(path) };
    }
    if head.starts_with(NATIVE) && half(head, 18) == Some(MACHINE) {
        return loader(head).unwrap_or(Next::Unknown);
    }
    Next::Unknown
}

/// What the first `PT_INTERP` header of a native ELF names; `None` when a part of it lies beyond the head.
fn loader(head: &[u8]) -> Option<Next<'_>> {
    let start = usize::try_from(word(head, 32)?).ok()?;
    if usize::from(half(head, 54)?) != HEADER_BYTES {
        return None;
    }
    let bytes = usize::from(half(head, 56)?).checked_mul(HEADER_BYTES)?;
    for header in head.get(start..)?.get(..bytes)?.chunks_exact(HEADER_BYTES) {
        if u32::from_le_bytes(header.get(..4)?.try_into().ok()?) == PT_INTERP {
            let path = head.get(usize::try_from(word(header, 8)?).ok()?..)?;
            let path = path.get(..usize::try_from(word(header, 32)?).ok()?)?;
            return Some(Next::Loader(path.split(|byte| *byte == 0).next()?));
        }
    }
    Some(Next::Nothing)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.get(..8)?.try_into().ok().map(u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.get(..2)?.try_into().ok().map(u16::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_found() {
        assert_eq!(next(b"#! /bin/sh -e\nx"), Next::Interpreter(b"/bin/sh"));
        assert_eq!(next(b"#!/proc/self/exe"), Next::Interpreter(b"/proc/self/exe"));
        assert_eq!(next(b"#!/a\0b"), Next::Interpreter(b"/a"));
        for unknown in [&b"#!\n"[..], b"#! \t", b"\x7fELF", b"", b"echo", b"MZ"] {
            assert_eq!(next(unknown), Next::Unknown);
        }
        let long = [b"#!".as_slice(), &[b'/'; LINE_BYTES]].concat();
        assert_eq!(next(&long), Next::Interpreter(&[b'/'; LINE_BYTES - 2]));
        let own = std::fs::read("/proc/self/exe").expect("an ELF");
        let head = own.get(..HEAD_BYTES).expect("a large file");
        assert!(
            matches!(next(head), Next::Loader(path) if path.starts_with(b"/lib"))
                || next(head) == Next::Nothing
        );
        for end in 0..HEAD_BYTES {
            let cut = next(head.get(..end).expect("a large file"));
            assert!(cut == Next::Unknown || cut == next(head), "cut at {end}: {cut:?}");
        }
    }

    #[test]
    fn headers_beyond_the_head_and_foreign_programs_are_not_judged() {
        let own = std::fs::read("/proc/self/exe").expect("an ELF");
        let head = own.get(..HEAD_BYTES).expect("a large file");
        for (at, value) in [(4, 1), (5, 2), (18, 3), (33, 0x20), (54, 32), (57, 0xff)] {
            let mut changed = head.to_vec();
            changed[at] = value;
            assert_eq!(next(&changed), Next::Unknown, "byte {at}");
        }
    }

    #[test]
    fn a_link_to_oneself_is_seen() {
        let fd = calls::openat(libc::AT_FDCWD, c"/proc/self/exe", libc::O_RDONLY).expect("open");
        let agent = calls::identity_of(fd).expect("statx");
        calls::close(fd);
        assert_eq!(way(c"/proc/self/exe", agent), Way::Agent);
        let directory = tempfile::tempdir().expect("a directory");
        let script = directory.path().join("x");
        std::fs::write(&script, "#!/proc/self/exe -x\n").expect("write");
        let script = std::ffi::CString::new(script.to_str().expect("utf-8")).expect("no zero");
        assert!(
            [Way::Agent, Way::Apart].contains(&way(&script, agent)),
            "a /tmp of its own is another mount"
        );
        assert_ne!(way(c"/bin/sh", agent), Way::Agent);
        assert_eq!(way(c"/nowhere", agent), Way::Nowhere);
        assert_eq!(way(c"usr/../nowhere", agent), Way::Nowhere);
    }
}
