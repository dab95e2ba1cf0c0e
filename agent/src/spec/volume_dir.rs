//! A volume's directory: made beside its place, filled there, and moved to it in one step.
//!
//! ```text
//! ROOT/volumes/.new-<random>   while it is filled; locked by flock(2), so one whose lock is free belongs to nobody
//!              │ rename
//!              v
//! ROOT/volumes/<name>          whole or not at all
//! ```
//! No volume's name begins with a dot. kill -9 leaves a directory without a lock, which [`sweep`] takes.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::prepare::Owner;
use super::{SpecError, copy_up};

/// What a volume that takes over nothing is made with (Docker's).
const MODE: u32 = 0o755;
/// The directory of all volumes: a program with the set-user-id bit that a container puts into one is not to be reached
/// by the host's other users.
const PRIVATE_MODE: u32 = 0o700;
/// How often a staging directory is made anew because a sweep took it between its creation and its lock.
const STAGE_ATTEMPTS_COUNT: u32 = 16;
/// Entries looked at by one sweep.
const SWEEP_COUNT_MAX: usize = 65_536;

/// A directory that becomes a volume; gone when dropped before that.
struct Staged {
    path: PathBuf,
    directory: OwnedFd,
    is_published: bool,
}

impl Staged {
    fn new(parent: &Path) -> io::Result<Self> {
        for _ in 0..STAGE_ATTEMPTS_COUNT {
            let mut random = [0_u8; 8];
            rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
            let path = parent.join(format!(".new-{:016x}", u64::from_ne_bytes(random)));
            DirBuilder::new().mode(PRIVATE_MODE).create(&path)?;
            if let Some(directory) = lock(&path)? {
                return Ok(Self { path, directory, is_published: false });
            }
        }
        Err(io::Error::other("another process keeps sweeping it away"))
    }

    /// Gives it its name, unless another container was faster: its content is the one that counts.
    fn publish(mut self, path: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => self.is_published = true,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.is_published {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The directory at `path`, locked; `None` when another process has it, or has removed it.
fn lock(path: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    }
    let ours = rustix::fs::fstat(&directory)?;
    let is_there =
        rustix::fs::lstat(path).is_ok_and(|there| (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino));
    Ok(is_there.then_some(directory))
}

/// Makes the volume at `path` if there is none, filled with what the image has at `content`: its root and a path in it.
/// Without content it is `owner`'s; what the image has keeps its owners.
///
/// # Errors
/// [`SpecError::Io`] with the path.
pub(super) fn make(
    path: &Path,
    content: Option<(BorrowedFd<'_>, &String)>,
    owner: Option<Owner>,
) -> Result<(), SpecError> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("/"));
    let made = DirBuilder::new().recursive(true).mode(PRIVATE_MODE).create(parent);
    made.map_err(SpecError::io("create directory", parent))?;
    let staged = Staged::new(parent).map_err(SpecError::io("make a directory for a volume in", parent))?;
    let filled = match content {
        Some((rootfs, image_path)) => fill(rootfs, image_path, &staged.directory),
        None => Ok(false),
    };
    let whole = filled.and_then(|is_filled| {
        if !is_filled {
            rustix::fs::fchmod(&staged.directory, Mode::from_raw_mode(MODE))?;
            owner.map_or(Ok(()), |owner| owner.take(&staged.directory))?;
        }
        Ok(())
    });
    whole.and_then(|()| staged.publish(path)).map_err(SpecError::io("fill the volume", path))
}

/// Whether the image had a directory there to take over.
fn fill(rootfs: BorrowedFd<'_>, image_path: &str, into: &OwnedFd) -> io::Result<bool> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat2(rootfs, image_path, flags, Mode::empty(), resolve) {
        Ok(source) => copy_up::directory(&source, into).map(|()| true),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes what processes left behind that died while they made a volume; how many there were.
///
/// # Errors
/// [`SpecError::Io`] where `volumes` cannot be listed or something in it not be removed.
pub fn sweep(volumes: &Path) -> Result<usize, SpecError> {
    let entries = match fs::read_dir(volumes) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(SpecError::io("list the volumes in", volumes)(error)),
    };
    let mut swept_count = 0;
    for entry in entries.take(SWEEP_COUNT_MAX).flatten() {
        let is_staged = entry.file_name().as_encoded_bytes().starts_with(b".")
            && entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        let failed = || SpecError::io("remove the abandoned volume", &path);
        if is_staged && let Some(_lock) = lock(&path).map_err(failed())? {
            fs::remove_dir_all(&path).map_err(failed())?;
            swept_count += 1;
        }
    }
    Ok(swept_count)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .expect("listed")
            .map(|entry| entry.expect("read").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_volume_takes_the_images_content_once() {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(root.path().join("data/below")).expect("made");
        fs::write(root.path().join("data/below/file"), "content").expect("written");
        let volumes = tempfile::tempdir().expect("a directory");
        let path = volumes.path().join("v".repeat(255));
        let rootfs = rustix::fs::open(root.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        let rootfs = rootfs.expect("opened");
        let content = Some((rootfs.as_fd(), &"/data".to_owned()));
        make(&path, content, None).expect("made");
        assert_eq!(fs::read_to_string(path.join("below/file")).expect("read"), "content");
        fs::remove_file(path.join("below/file")).expect("removed");
        make(&path, content, None).expect("there");
        assert!(!path.join("below/file").exists());
        assert_eq!(fs::read_dir(volumes.path()).expect("listed").count(), 1);
    }

    #[test]
    fn what_a_dead_process_left_is_swept_and_what_a_living_one_fills_is_not() {
        let volumes = tempfile::tempdir().expect("a directory");
        make(&volumes.path().join("kept"), None, None).expect("made");
        let living = Staged::new(volumes.path()).expect("made");
        let dead = Staged::new(volumes.path()).expect("made");
        fs::write(dead.path.join("half"), "a file").expect("written");
        let at = dead.path.clone();
        // As if killed: the lock goes, the directory stays.
        let mut dead = dead;
        dead.is_published = true;
        drop(dead);
        assert!(at.join("half").exists());
        assert_eq!(sweep(volumes.path()).expect("swept"), 1);
        assert!(!at.exists());
        living.publish(&volumes.path().join("filled")).expect("published");
        assert_eq!(names(volumes.path()), ["filled", "kept"]);
        assert_eq!(sweep(&volumes.path().join("none")).expect("nothing there"), 0);
    }

    #[test]
    fn of_two_that_make_one_volume_the_first_is_kept() {
        let volumes = tempfile::tempdir().expect("a directory");
        let path = volumes.path().join("v");
        let (first, second) = (Staged::new(volumes.path()), Staged::new(volumes.path()));
        let (first, second) = (first.expect("made"), second.expect("made by the same process"));
        let inode = rustix::fs::fstat(&first.directory).expect("looked at").st_ino;
        first.publish(&path).expect("published");
        second.publish(&path).expect("the other's counts");
        // An empty directory is no less a volume: a container may have it mounted.
        assert_eq!(rustix::fs::lstat(&path).expect("there").st_ino, inode);
        assert_eq!(names(volumes.path()), ["v"]);
    }
}
