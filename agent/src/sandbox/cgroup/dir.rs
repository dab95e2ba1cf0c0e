//! One container's cgroup: its directory, held open, and what is done to it and read from it.
//!
//! Everything goes through the directory's fd, so a path that changes meanwhile changes nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::super::exit::LimitOwner;
use super::CgroupError;
use super::read::{self, MemoryEvents, Pressure};

/// The longest that [`CgroupDir::remove`] waits for the kernel to reap what was killed.
pub const REMOVE_WAIT: Duration = Duration::from_secs(2);
/// How often it looks; the kernel has no event for "rmdir would work now".
const REMOVE_POLL: Duration = Duration::from_micros(200);
/// Files of the hierarchy that are read here are far below this (a long `cpu.stat` is a kilobyte).
const FILE_BYTES_MAX: usize = 16 << 10;

/// The cgroup of one container.
#[derive(Debug)]
pub struct CgroupDir {
    fd: OwnedFd,
    path: PathBuf,
    /// Where the parent's directory is, to remove this one by name.
    parent: OwnedFd,
    /// Controllers that are on in it.
    limited: bool,
}

/// Why tasks of a cgroup were killed for memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomKills {
    /// Kills of tasks in this cgroup and below, whoever's limit it was (`memory.events`, `oom_kill`).
    pub kills: u64,
    /// How often this cgroup's own limit was what ran out (`memory.events.local`, `oom`).
    pub own_limit: u64,
    /// The same with the limits of the groups below (`memory.events`, `oom`).
    pub limits: u64,
}

impl CgroupDir {
    pub(super) fn new(fd: OwnedFd, parent: OwnedFd, path: PathBuf, limited: bool) -> Self {
        Self { fd, path, parent, limited }
    }

    /// The directory, for CLONE_INTO_CGROUP.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directory of the group above.
    pub(in crate::sandbox) fn parent(&self) -> BorrowedFd<'_> {
        self.parent.as_fd()
    }

    /// Where it is on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether limits were set, so that a kill may be the kernel's for memory.
    pub fn is_limited(&self) -> bool {
        self.limited
    }

    /// Moves a process in.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Kills every process in it and below (`cgroup.kill`, since Linux 5.14).
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn kill(&self) -> Result<(), CgroupError> {
        self.write("cgroup.kill", "1")
    }

    /// Stops every process in it, or lets them go on; the kernel does it soon after, see [`CgroupDir::is_frozen`].
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn freeze(&self, frozen: bool) -> Result<(), CgroupError> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })
    }

    /// Whether every process in it is stopped by now.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn is_frozen(&self) -> Result<bool, CgroupError> {
        Ok(read::keyed(&self.read("cgroup.events")?, "frozen") == Some(1))
    }

    /// Whether a process is in it or below.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn is_populated(&self) -> Result<bool, CgroupError> {
        Ok(read::keyed(&self.read("cgroup.events")?, "populated") == Some(1))
    }

    /// The process ids in it, not those below.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        Ok(read::pids(&self.read("cgroup.procs")?))
    }

    /// Kills for memory so far; zeros where the memory controller is not on.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn oom_events(&self) -> Result<OomKills, CgroupError> {
        let Some(all) = self.read_optional("memory.events")? else { return Ok(OomKills::default()) };
        let all = MemoryEvents::parse(&all);
        // memory.events.local is younger (Linux 5.2) than memory.events.
        let own = self.read_optional("memory.events.local")?.map_or(all, |text| MemoryEvents::parse(&text));
        Ok(OomKills { kills: all.oom_kill, own_limit: own.oom, limits: all.oom })
    }

    /// Kills for memory so far and whose limit it was; `None` when there were none, or nobody counted them.
    ///
    /// Counters of groups above are older than this container: the nearest group whose limit ever ran out is named.
    pub fn out_of_memory(&self) -> Option<(u64, LimitOwner)> {
        let own = self.oom_events().ok().filter(|events| events.kills > 0)?;
        let owner = match own {
            OomKills { own_limit: 1.., .. } => LimitOwner::Container,
            OomKills { limits: 1.., .. } => LimitOwner::Inside,
            OomKills { .. } => self.limit_above().map_or(LimitOwner::Machine, LimitOwner::Above),
        };
        Some((own.kills, owner))
    }

    /// The nearest group above whose own memory limit has run out.
    fn limit_above(&self) -> Option<PathBuf> {
        let ran_out = |path: &Path| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let group = rustix::fs::open(path, flags, Mode::empty()).ok()?;
            let events = read_at(&group, path, "memory.events.local").ok()?;
            (MemoryEvents::parse(&events).oom > 0).then(|| path.to_owned())
        };
        self.path.ancestors().skip(1).find_map(ran_out)
    }

    /// Pressure stall information of `cpu`, `memory` or `io`; `None` where the kernel keeps none.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn pressure(&self, resource: &str) -> Result<Option<Pressure>, CgroupError> {
        let file = match resource {
            "cpu" => "cpu.pressure",
            "memory" => "memory.pressure",
            "io" => "io.pressure",
            _ => return Ok(None),
        };
        Ok(self.read_optional(file)?.map(|text| Pressure::parse(&text)))
    }

    /// Microseconds of CPU time used so far (`cpu.stat`, there without the controller too).
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn cpu_usage_us(&self) -> Result<Option<u64>, CgroupError> {
        Ok(self.read_optional("cpu.stat")?.and_then(|text| read::keyed(&text, "usage_usec")))
    }

    /// Bytes of memory in use now, where the memory controller is on.
    ///
    /// # Errors
    /// [`CgroupError::Io`].
    pub fn memory_bytes(&self) -> Result<Option<u64>, CgroupError> {
        Ok(self.read_optional("memory.current")?.and_then(|text| read::single(&text)))
    }

    /// Removes it and what the container made below it. Whatever still runs in it is killed first; the wait for
    /// the kernel is bounded by [`REMOVE_WAIT`].
    ///
    /// # Errors
    /// [`CgroupError::Busy`] when processes can't be killed in time, [`CgroupError::Io`] otherwise.
    pub fn remove(self) -> Result<(), CgroupError> {
        let name = self.path.file_name().unwrap_or_default().to_owned();
        let unlink = || rustix::fs::unlinkat(&self.parent, name.as_os_str(), AtFlags::REMOVEDIR);
        // The usual case: every process has been reaped, nothing is below.
        match unlink() {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::NOTEMPTY) => {}
            Err(errno) => return Err(CgroupError::io("remove", &self.path, errno)),
        }
        self.kill()?;
        let deadline = Instant::now() + REMOVE_WAIT;
        loop {
            remove_below(&self.fd, 0);
            match unlink() {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::BUSY | Errno::NOTEMPTY) if Instant::now() < deadline => {
                    std::thread::sleep(REMOVE_POLL);
                }
                Err(Errno::BUSY | Errno::NOTEMPTY) => {
                    return Err(CgroupError::Busy {
                        path: self.path,
                        waited_ms: REMOVE_WAIT.as_millis() as u64,
                    });
                }
                Err(errno) => return Err(CgroupError::io("remove", &self.path, errno)),
            }
        }
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), CgroupError> {
        write_at(&self.fd, &self.path, file, value)
    }

    fn read(&self, file: &str) -> Result<String, CgroupError> {
        read_at(&self.fd, &self.path, file)
    }

    fn read_optional(&self, file: &str) -> Result<Option<String>, CgroupError> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            // EOPNOTSUPP: pressure stall information is compiled in but off (psi=0).
            Err(CgroupError::Io { source, .. })
                if [Errno::NOENT, Errno::OPNOTSUPP]
                    .map(|errno| Some(errno.raw_os_error()))
                    .contains(&source.raw_os_error()) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Writes one value to one file of a cgroup, in one write(2) as the kernel wants it.
pub(super) fn write_at(dir: &OwnedFd, path: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let failed = |action| move |errno: Errno| CgroupError::io(action, path.join(file), errno);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = rustix::fs::openat(dir, file, flags, Mode::empty()).map_err(failed("open"))?;
    let written = rustix::io::retry_on_intr(|| rustix::io::write(&opened, value.as_bytes()));
    match written.map_err(failed("write"))? {
        count if count == value.len() => Ok(()),
        _ => Err(CgroupError::io("write all of", path.join(file), std::io::ErrorKind::WriteZero)),
    }
}

/// Reads one file of a cgroup, to a bound.
pub(super) fn read_at(dir: &OwnedFd, path: &Path, file: &str) -> Result<String, CgroupError> {
    let failed = |errno: Errno| CgroupError::io("read", path.join(file), errno);
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = rustix::fs::openat(dir, file, flags, Mode::empty()).map_err(failed)?;
    let mut bytes = vec![0; FILE_BYTES_MAX];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::retry_on_intr(|| rustix::io::read(&opened, &mut bytes[filled..])).map_err(failed)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Removes the groups below `dir` that a container made, as far as the kernel lets go of them.
fn remove_below(dir: &OwnedFd, depth: u32) {
    /// Deeper than any container nests; beyond it the directory stays and the caller says so.
    const DEPTH_MAX: u32 = 32;
    let Ok(entries) = rustix::fs::Dir::read_from(dir) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if entry.file_type() != rustix::fs::FileType::Directory
            || name.to_bytes().starts_with(b".") && name.to_bytes().len() < 3
        {
            continue;
        }
        if rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR).is_ok() || depth == DEPTH_MAX {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        if let Ok(below) = rustix::fs::openat(dir, name, flags, Mode::empty()) {
            remove_below(&below, depth + 1);
            let _ = rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR);
        }
    }
}
