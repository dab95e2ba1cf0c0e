//! What must be there before a container starts: a list, and its execution.
//!
//! The root filesystem is hostile: every path in it is resolved inside it (`openat2` with `RESOLVE_IN_ROOT`), and
//! only regular files are opened for writing, as an image may have a device of the host's by any name.

use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::{SpecError, volume_dir};

/// What every container has something mounted on.
const MOUNT_POINTS: [&str; 3] = ["proc", "sys", "dev"];

/// One thing to lay out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A directory of the host and its parents, where there is nothing.
    HostDirectory {
        /// Where.
        path: PathBuf,
        /// Its permissions, if it is made.
        mode: u32,
        /// Whose it is, if it is made.
        owner: Option<Owner>,
    },
    /// A file of the root filesystem with these bytes, in place of what is there.
    ImageFile {
        /// Where: absolute, one directory deep.
        path: &'static str,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// A volume's directory, filled with what the image has at `image_path` if it is made now.
    Volume {
        /// Where.
        path: PathBuf,
        /// The mount point in the image.
        image_path: String,
        /// Whether to take over the image's content.
        copy_up: bool,
        /// Whose it is, if it is made and takes over nothing.
        owner: Option<Owner>,
    },
}

/// The container's root, by its ids on the host. With a user namespace it is not the one that celda runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Gives what is open as `file` to this owner.
    pub(super) fn take(self, file: impl AsFd) -> io::Result<()> {
        Ok(rustix::fs::fchown(file, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))?)
    }
}

/// Which system call filter was asked for. It is compiled apart from the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SeccompChoice {
    /// None.
    Unconfined,
    /// celda's own, which allows what Docker's allows.
    Builtin,
    /// That of a file.
    File(PathBuf),
}

/// A spec, and what it needs.
#[derive(Debug, Clone)]
pub struct Built {
    /// What the sandbox takes.
    pub spec: Spec,
    /// What must be there first, in order.
    pub steps: Vec<Step>,
    /// How the container is asked to stop: a signal number.
    pub stop_signal: i32,
    /// The filter that was asked for.
    pub seccomp: SeccompChoice,
}

impl Built {
    /// Lays out what the spec needs, in `rootfs` and on the host.
    ///
    /// # Errors
    /// [`SpecError::Io`] with the path.
    pub fn prepare(&self, rootfs: BorrowedFd<'_>) -> Result<(), SpecError> {
        for step in &self.steps {
            match step {
                Step::HostDirectory { path, mode, owner } => host_directory(path, *mode, *owner)
                    .map_err(SpecError::io("create the bind mount's source", path))?,
                Step::ImageFile { path, bytes } => {
                    image_file(rootfs, path, bytes).map_err(SpecError::io("write the container's", *path))?;
                }
                Step::Volume { path, image_path, copy_up, owner } => {
                    volume_dir::make(path, copy_up.then_some((rootfs, image_path)), *owner)?;
                }
            }
        }
        Self::mount_points(rootfs)
    }

    /// Makes the mount points that every container has and an image of one program lacks, so that the start itself
    /// changes nothing in the root. Others are made as they are mounted: they are this container's alone.
    fn mount_points(rootfs: BorrowedFd<'_>) -> Result<(), SpecError> {
        for name in MOUNT_POINTS {
            match rustix::fs::mkdirat(rootfs, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(SpecError::io("make the mount point", name)(errno.into())),
            }
        }
        Ok(())
    }
}

fn host_directory(path: &Path, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let missing: Vec<&Path> =
        path.ancestors().take_while(|directory| directory.symlink_metadata().is_err()).collect();
    for directory in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made?,
        }
        if let Some(owner) = owner {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            owner.take(rustix::fs::open(directory, flags, Mode::empty())?)?;
        }
    }
    Ok(())
}

/// A regular file that is there keeps its inode, and nothing else of it.
fn image_file(rootfs: BorrowedFd<'_>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let (directory, name) = path.trim_start_matches('/').split_once('/').unwrap_or(("", path));
    let parent = match open_directory(rootfs, directory) {
        Err(Errno::NOENT) => {
            rustix::fs::mkdirat(rootfs, directory, Mode::from_raw_mode(0o755))?;
            open_directory(rootfs, directory)?
        }
        other => other?,
    };
    let open = |flags| {
        let write = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&parent, name, write | flags, Mode::from_raw_mode(0o644))
    };
    let mut make = OFlags::CREATE | OFlags::EXCL;
    match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno.into()),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
            // Emptied first: its pages may be in a pipe or socket that the root's last container sent them to, unread, and
            // must not change there. A new file would do as well, but ext4 passes over inodes that were just removed. And
            // closed before it is written: file systems write one to the disk when it is closed after it was emptied.
            drop(open(OFlags::TRUNC)?);
            make = OFlags::empty();
        }
        Ok(_) => rustix::fs::unlinkat(&parent, name, AtFlags::empty())?,
    }
    fs::File::from(open(make)?).write_all(bytes)
}

fn open_directory(rootfs: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(
        rootfs,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootfs(directory: &Path) -> OwnedFd {
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("opened")
    }

    #[test]
    fn a_link_in_the_image_does_not_lead_out_of_it() {
        let host = tempfile::tempdir().expect("a directory");
        let root = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(host.path(), root.path().join("etc")).expect("linked");
        assert!(image_file(rootfs(root.path()).as_fd(), "/etc/hosts", b"x").is_err());
        assert_eq!(fs::read_dir(host.path()).expect("listed").count(), 0);

        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("etc")).expect("made");
        let victim = host.path().join("victim");
        fs::write(&victim, "untouched").expect("written");
        std::os::unix::fs::symlink(&victim, root.path().join("etc/hosts")).expect("linked");
        image_file(rootfs(root.path()).as_fd(), "/etc/hosts", b"mine").expect("written");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
        assert_eq!(fs::read_to_string(root.path().join("etc/hosts")).expect("read"), "mine");
    }
}
