//! Deletes a tree that an enemy made: of any depth, with any links and modes, in bounded memory and descriptors.
//!
//! ```text
//! open directories are a stack of at most DEPTH_COUNT; a directory that lies deeper is renamed up into the
//! top one and emptied from there later:    top/a/b/.../z/deep  ->  top/.celda-deep-0
//! ```
//!
//! Nothing is followed: every directory is opened beneath its parent's descriptor with `RESOLVE_NO_SYMLINKS` and
//! `RESOLVE_NO_XDEV`, so a mount point inside is not entered.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, IFlags, Mode, OFlags, RawDir, RenameFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories open at once.
const DEPTH_COUNT: usize = 24;

/// Bytes of names read by one getdents64(2).
const NAMES_BYTES: usize = 32 << 10;

/// How often one directory is read again because it was not empty at its end: names that a filesystem skipped
/// while others were deleted, or that came in meanwhile.
const PASSES_COUNT: u32 = 64;

/// Names tried for one directory that is moved up.
const NAMES_COUNT: u32 = 1 << 16;

/// One directory being emptied.
struct Level {
    directory: OwnedFd,
    /// Its name in the level above.
    name: CString,
    /// Subdirectories seen and not yet emptied: those of one read.
    pending: Vec<CString>,
    passes_count: u32,
}

impl Level {
    fn open(parent: BorrowedFd<'_>, name: CString) -> io::Result<Self> {
        Ok(Self { directory: open_beneath(parent, &name)?, name, pending: Vec::new(), passes_count: 0 })
    }
}

/// [`remove_tree`] of a path, whose parent is trusted.
///
/// # Errors
/// As `remove_tree`.
pub fn remove_path(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => remove_tree(parent.as_fd(), name),
        Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Deletes `name` beneath `parent`, whatever it is. One that is gone is fine.
///
/// # Errors
/// The first thing that could not be deleted: `EBUSY` on a mount point of this namespace, `EPERM` without
/// privilege over a file's owner, `EROFS`. What was deleted before stays deleted.
pub fn remove_tree(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let name = CString::new(name.as_bytes())?;
    match unlink(parent, &name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut removal = Removal { parent, stack: vec![Level::open(parent, name)?], moved_count: 0 };
    let mut names = vec![MaybeUninit::uninit(); NAMES_BYTES];
    while removal.step(&mut names)? {}
    Ok(())
}

struct Removal<'a> {
    /// What holds the top directory.
    parent: BorrowedFd<'a>,
    /// The directories from the top one to the one being emptied.
    stack: Vec<Level>,
    /// Directories renamed up so far: their names' number.
    moved_count: u64,
}

impl Removal<'_> {
    /// Goes into a subdirectory, or deletes some names, or leaves an empty directory. `false`: all is gone.
    fn step(&mut self, names: &mut [MaybeUninit<u8>]) -> io::Result<bool> {
        let Some(level) = self.stack.last_mut() else { return Ok(false) };
        if let Some(name) = level.pending.pop() {
            self.descend(name)?;
            return Ok(true);
        }
        if delete_some(level, names)? {
            return Ok(true);
        }
        let Some(Level { directory, name, passes_count, .. }) = self.stack.pop() else { return Ok(false) };
        drop(directory);
        let above = self.stack.last().map_or(self.parent, |level| level.directory.as_fd());
        match remove_directory(above, &name) {
            Ok(()) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if passes_count < PASSES_COUNT => {
                let mut again = Level::open(above, name)?;
                again.passes_count = passes_count + 1;
                self.stack.push(again);
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(true)
    }

    /// Takes on a subdirectory of the deepest level.
    fn descend(&mut self, name: CString) -> io::Result<()> {
        let (Some(top), Some(here)) = (self.stack.first(), self.stack.last()) else { return Ok(()) };
        let directory = here.directory.as_fd();
        if rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        if self.stack.len() >= DEPTH_COUNT {
            move_up(directory, &name, top.directory.as_fd(), &mut self.moved_count)?;
            // The top one has new names now: however often that happens, each is progress.
            if let Some(top) = self.stack.first_mut() {
                top.passes_count = 0;
            }
            return Ok(());
        }
        let level = Level::open(directory, name)?;
        self.stack.push(level);
        Ok(())
    }
}

/// Deletes what is no directory among the next names of `level`, and notes what is. `false`: no more names.
fn delete_some(level: &mut Level, names: &mut [MaybeUninit<u8>]) -> io::Result<bool> {
    let directory = level.directory.as_fd();
    let mut entries = RawDir::new(directory, names);
    let mut seen = false;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        seen = true;
        let is_directory = entry.file_type() == FileType::Directory
            || match unlink(directory, name) {
                Ok(()) | Err(Errno::NOENT) => false,
                Err(Errno::ISDIR) => true,
                Err(errno) => return Err(errno.into()),
            };
        if is_directory {
            level.pending.push(name.to_owned());
        }
        // The next read would take names into memory without an end.
        if entries.is_buffer_empty() {
            return Ok(true);
        }
    }
    Ok(seen)
}

/// Renames a directory that lies too deep into the top one, under a name that nobody has.
fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved_count: &mut u64) -> io::Result<()> {
    let _ = unlock(from, name);
    for _ in 0..NAMES_COUNT {
        let free = format!(".celda-deep-{moved_count}");
        *moved_count += 1;
        match rustix::fs::renameat_with(from, name, top, &*free, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            answer => return Ok(answer?),
        }
    }
    Err(Errno::EXIST.into())
}

/// `unlinkat(directory, name, 0)`, once more after clearing what chattr(1) set.
fn unlink(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::PERM | Errno::ACCESS) => {
            clear_flags(directory, name);
            let _ = rustix::fs::fchmod(directory, Mode::RWXU);
            rustix::fs::unlinkat(directory, name, AtFlags::empty())
        }
        answer => answer,
    }
}

/// `unlinkat(directory, name, AT_REMOVEDIR)` with the same care.
fn remove_directory(directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Err(Errno::PERM | Errno::ACCESS) => {
            clear_flags(directory, name);
            let _ = rustix::fs::fchmod(directory, Mode::RWXU);
            rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
        }
        Err(Errno::NOENT) => Ok(()),
        answer => answer,
    }
}

/// Opens a directory beneath `parent`; one whose mode keeps its owner out is opened up first.
fn open_beneath(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve()) {
        Err(Errno::ACCESS) => {
            unlock(parent, name)?;
            Ok(rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve())?)
        }
        answer => Ok(answer?),
    }
}

/// Gives the owner all rights to a directory: rootless, there is nobody who may ignore its mode.
fn unlock(parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let held = rustix::fs::openat2(
        parent,
        name,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        resolve(),
    )?;
    // A descriptor opened with O_PATH has no fchmod(2); its name in /proc leads to the very same directory.
    Ok(rustix::fs::chmod(format!("/proc/self/fd/{}", held.as_raw_fd()), Mode::RWXU)?)
}

/// Clears the immutable and append-only flags of `name` and of its directory. Best effort.
fn clear_flags(directory: BorrowedFd<'_>, name: &CStr) {
    let held = IFlags::IMMUTABLE | IFlags::APPEND;
    let clear = |file: BorrowedFd<'_>| {
        if let Ok(flags) = rustix::fs::ioctl_getflags(file)
            && flags.intersects(held)
        {
            let _ = rustix::fs::ioctl_setflags(file, flags - held);
        }
    };
    clear(directory);
    // O_NONBLOCK: a fifo must not hold us up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let regular = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|found| {
        matches!(FileType::from_raw_mode(found.st_mode), FileType::RegularFile | FileType::Directory)
    });
    if regular && let Ok(file) = rustix::fs::openat2(directory, name, flags, Mode::empty(), resolve()) {
        clear(file.as_fd());
    }
}

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
}
