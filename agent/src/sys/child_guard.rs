//! Keeps a container from executing the runtime itself (CVE-2019-5736).
//!
//! Until `execve` this process's executable is the runtime's, a file of the host, and `/proc/self/exe` leads to it.
//! An image could name that link as its program, as a script's interpreter or as an ELF loader, and would then hold
//! a file of the host that root could overwrite. So each of these is opened and compared before `execve`.
//!
//! Whoever may not read a program cannot write to the runtime's file either, so an unreadable one needs no look.

use std::ffi::CStr;

use super::calls;

/// Scripts whose interpreters are scripts: the kernel follows five, linux/fs/exec.c.
const INTERPRETERS_COUNT_MAX: usize = 8;
/// Bytes of a file's head that are looked at; program headers lie at its beginning in all that linkers make.
const HEAD_BYTES: usize = 4096;
/// Bytes of an interpreter's path, `PATH_MAX` of limits.h.
const PATH_BYTES: usize = 4096;
/// `p_type` of the program header that names the loader (ELF specification).
const PT_INTERP: u32 = 3;
/// Program headers that are looked at: more do not fit the head.
const HEADERS_COUNT_MAX: usize = 64;

/// True when executing `path` would execute the file `agent` in some part.
pub(super) fn leads_to(path: &CStr, agent: (u32, u32, u64)) -> bool {
    let mut name = [0_u8; PATH_BYTES];
    if !set_path(&mut name, path.to_bytes()) {
        return false; // longer than PATH_MAX: execve answers ENAMETOOLONG
    }
    for _ in 0..INTERPRETERS_COUNT_MAX {
        let Ok(current) = CStr::from_bytes_until_nul(&name) else { return false };
        let Ok(file) =
            calls::openat(libc::AT_FDCWD, current, libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY)
        else {
            return false;
        };
        let mut head = [0_u8; HEAD_BYTES];
        let is_agent = calls::identity_of(file).is_ok_and(|identity| identity == agent);
        let count = calls::read(file, &mut head).unwrap_or(0);
        calls::close(file);
        if is_agent {
            return true;
        }
        let interpreter = interpreter(head.get(..count).unwrap_or_default());
        if interpreter.is_empty() || !set_path(&mut name, interpreter) {
            return false;
        }
    }
    false
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

/// The interpreter that a script or a dynamic ELF names, or nothing.
fn interpreter(head: &[u8]) -> &[u8] {
    if let Some(line) = head.strip_prefix(b"#!") {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let start = line.iter().position(|byte| !is_space(byte)).unwrap_or(line.len());
        let line = line.get(start..).unwrap_or_default();
        return line.split(|byte| is_space(byte) || *byte == 0).next().unwrap_or_default();
    }
    if head.starts_with(b"\x7fELF") { loader(head).unwrap_or_default() } else { &[] }
}

/// The path in the `PT_INTERP` header of a 64-bit, little-endian ELF, which is what both our machines execute.
fn loader(head: &[u8]) -> Option<&[u8]> {
    let start = usize::try_from(word(head, 32)?).ok()?;
    let size = usize::from(half(head, 54)?);
    let count = usize::from(half(head, 56)?).min(HEADERS_COUNT_MAX);
    for index in 0..count {
        let header = head.get(start.checked_add(index.checked_mul(size)?)?..)?;
        let kind = u32::from_le_bytes(header.get(..4)?.try_into().ok()?);
        if kind == PT_INTERP {
            let path = head.get(usize::try_from(word(header, 8)?).ok()?..)?;
            let length = usize::try_from(word(header, 32)?).ok()?;
            return path.get(..length)?.split(|byte| *byte == 0).next();
        }
    }
    None
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
        assert_eq!(interpreter(b"#! /bin/sh -e\nx"), b"/bin/sh");
        assert_eq!(interpreter(b"#!/proc/self/exe"), b"/proc/self/exe");
        assert_eq!(interpreter(b"#!\n"), b"");
        assert_eq!(interpreter(b"\x7fELF"), b"");
        let own = std::fs::read("/proc/self/exe").expect("an ELF");
        let loader = interpreter(own.get(..HEAD_BYTES).expect("a large file"));
        assert!(loader.is_empty() || loader.starts_with(b"/lib"), "{loader:?}");
        for end in 0..256 {
            let _ = interpreter(own.get(..end).expect("a large file"));
        }
    }

    #[test]
    fn a_link_to_oneself_is_seen() {
        let fd = calls::openat(libc::AT_FDCWD, c"/proc/self/exe", libc::O_RDONLY).expect("open");
        let agent = calls::identity_of(fd).expect("statx");
        calls::close(fd);
        assert!(leads_to(c"/proc/self/exe", agent));
        let directory = tempfile::tempdir().expect("a directory");
        let script = directory.path().join("x");
        std::fs::write(&script, "#!/proc/self/exe -x\n").expect("write");
        let script = std::ffi::CString::new(script.to_str().expect("utf-8")).expect("no zero");
        assert!(leads_to(&script, agent));
        assert!(!leads_to(c"/bin/sh", agent));
        assert!(!leads_to(c"/nowhere", agent));
    }
}
