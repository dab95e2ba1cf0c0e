//! Which other files a program needs to start: its interpreter and its libraries.
//!
//! The program itself is never run. Its header says which interpreter it wants (`PT_INTERP`), and the interpreter's
//! `--list` says what it would load (ld.so(8)). A program without an interpreter is static and needs nothing.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::PackError;

/// Program headers that are looked at; real programs have about a dozen.
const HEADERS_COUNT_MAX: u16 = 512;
/// Bytes of an interpreter's path: PATH_MAX.
const INTERPRETER_BYTES_MAX: u64 = 4096;
/// Bytes of a loader's list.
const LIST_BYTES_MAX: u64 = 1 << 20;
/// How long a loader may take.
const LIST_TIME_MAX: Duration = Duration::from_secs(10);
/// How often a running loader is looked at.
const LIST_LOOK_EVERY: Duration = Duration::from_millis(2);
/// `PT_INTERP` (elf(5)).
const PT_INTERP: u32 = 3;
/// Where a loader looks without a cache, besides their multiarch subdirectories.
const DEFAULT_DIRECTORIES: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

/// The files that `program` needs, by their paths here; none for a static program or something else.
pub(super) fn needed(program: &Path) -> Result<Vec<PathBuf>, PackError> {
    let file = File::open(program).map_err(PackError::io("open", program))?;
    if !file.metadata().map_err(PackError::io("look at", program))?.is_file() {
        return Err(PackError::NotAFile(program.to_owned()));
    }
    let Some(interpreter) = interpreter(program, &file)? else { return Ok(Vec::new()) };
    let failed = |why| PackError::Loader { path: program.to_owned(), interpreter: interpreter.clone(), why };
    let listed = list(&interpreter, program).map_err(failed)?;
    let mut needed = libraries(&listed).map_err(failed)?;
    let is_default = |library: &PathBuf| {
        let directory = library.parent().unwrap_or(Path::new("/"));
        let is_one = |path: &Path| DEFAULT_DIRECTORIES.iter().any(|default| path == Path::new(default));
        let is_multiarch = directory.file_name().is_some_and(|name| name.as_bytes().ends_with(b"-linux-gnu"));
        is_one(directory) || (is_multiarch && directory.parent().is_some_and(is_one))
    };
    let cache = Path::new("/etc/ld.so.cache");
    if !needed.iter().all(is_default) && cache.exists() {
        needed.push(cache.to_owned());
    }
    needed.insert(0, interpreter);
    Ok(needed)
}

/// The path in `PT_INTERP`, if the file is a program of this machine that has one.
fn interpreter(path: &Path, file: &File) -> Result<Option<PathBuf>, PackError> {
    let mut header = [0; 64];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    let bad = |why| PackError::Elf(path.to_owned(), why);
    if header[4..6] != [2, 1] {
        return Err(bad("only 64-bit little-endian programs are packed"));
    }
    let (machine, host) = (u16::from_le_bytes([header[18], header[19]]), std::env::consts::ARCH);
    let own = match host {
        "x86_64" => 62,
        "aarch64" => 183,
        "riscv64" => 243,
        _ => machine,
    };
    if machine != own {
        return Err(PackError::OtherMachine { path: path.to_owned(), machine, host });
    }
    let at = |offset: usize| u64::from_le_bytes(header[offset..offset + 8].try_into().unwrap_or_default());
    let (table, size) = (at(32), u16::from_le_bytes([header[54], header[55]]));
    let count = u16::from_le_bytes([header[56], header[57]]);
    if count > HEADERS_COUNT_MAX || (count > 0 && size < 56) {
        return Err(bad("its program headers make no sense"));
    }
    for number in 0..count {
        let mut entry = [0; 56];
        let offset = u64::from(number) * u64::from(size);
        let offset = table.checked_add(offset).ok_or_else(|| bad("its program headers lie nowhere"))?;
        file.read_exact_at(&mut entry, offset).map_err(|_| bad("its program headers are cut off"))?;
        if u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]) != PT_INTERP {
            continue;
        }
        let at = |offset: usize| u64::from_le_bytes(entry[offset..offset + 8].try_into().unwrap_or_default());
        let (offset, bytes) = (at(8), at(32));
        if !(2..=INTERPRETER_BYTES_MAX).contains(&bytes) {
            return Err(bad("the path of its interpreter has no sensible length"));
        }
        let mut name = vec![0; usize::try_from(bytes).unwrap_or_default()];
        file.read_exact_at(&mut name, offset).map_err(|_| bad("the path of its interpreter is cut off"))?;
        name.truncate(name.iter().position(|b| *b == 0).unwrap_or(name.len()));
        let name = PathBuf::from(std::ffi::OsString::from_vec(name));
        return if name.is_absolute() {
            Ok(Some(name))
        } else {
            Err(bad("the path of its interpreter is not absolute"))
        };
    }
    Ok(None)
}

/// What `INTERPRETER --list PROGRAM` prints.
fn list(interpreter: &Path, program: &Path) -> Result<Vec<u8>, String> {
    let program = std::fs::canonicalize(program).map_err(|error| error.to_string())?;
    let mut child = Command::new(interpreter)
        .arg("--list")
        .arg(&program)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let read = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let done = pipe.map(|pipe| pipe.take(LIST_BYTES_MAX).read_to_end(&mut text));
            done.transpose().map(|_| text)
        })
    };
    let output = read(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>));
    let errors = read(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn std::io::Read + Send>));
    let until = Instant::now() + LIST_TIME_MAX;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() < until => std::thread::sleep(LIST_LOOK_EVERY),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {LIST_TIME_MAX:?}"));
            }
        }
    };
    let text = |thread: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().map_err(|_| "its output".to_owned())?.map_err(|error| error.to_string())
    };
    let (output, errors) = (text(output)?, text(errors)?);
    if status.success() {
        return Ok(output);
    }
    Err(String::from_utf8_lossy(&errors).trim().chars().take(300).collect())
}

/// The absolute paths of a loader's list: `name => /path (0x...)`, `/path (0x...)`; the vDSO has none.
fn libraries(listed: &[u8]) -> Result<Vec<PathBuf>, String> {
    let mut paths = Vec::new();
    for line in String::from_utf8_lossy(listed).lines() {
        let line = line.trim();
        let (name, place) = line.split_once(" => ").unwrap_or((line, line));
        if place.trim() == "not found" {
            return Err(format!("{name} is not found; install the package that has it"));
        }
        let path = place.rsplit_once(" (").map_or(place, |(path, _)| path).trim();
        if path.starts_with('/') && !paths.contains(&PathBuf::from(path)) {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaders_list_is_read() {
        let text =
            b"\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n";
        let paths = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(libraries(text).unwrap(), paths);
        assert!(libraries(b"\tlibx.so.1 => not found\n").is_err_and(|why| why.contains("libx.so.1")));
    }

    #[test]
    fn rubbish_after_the_magic_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        for fill in [0, 0x41, 0xff] {
            let mut bytes = vec![fill; 200];
            bytes[..4].copy_from_slice(b"\x7fELF");
            std::fs::write(&path, &bytes).unwrap();
            assert!(needed(&path).is_err());
        }
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        assert_eq!(needed(&path).unwrap(), Vec::<PathBuf>::new());
        assert!(needed(directory.path()).is_err());
    }
}
