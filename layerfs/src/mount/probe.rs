//! The probe: mounts a tiny index with one tar, both in the store's filesystem, by each rung until one works.
//!
//! The files have no name while they are mounted (created, opened, unlinked), so a kill leaves nothing behind.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::context::{Context, Refusal, Refused};
use super::image::{Options, mount_files, mount_loops, sector_reads};
use super::ladder::Rung;
use super::overlay::{OverlayAbilities, set_lower};
use crate::erofs::{self, Device};
use crate::tar::{FileData, Segment, Timestamp};
use crate::tree::{Inode, InodeId, Kind, Tree};
use crate::{Digest, Error};

/// Content of the one file of the tiny image.
const CONTENT: &[u8] = b"celda reads this through the mount";

/// Its name.
const FILE_NAME: &str = "probe";

/// Where it lies in the tiny tar: at the second block, so that an index which ignores offsets is found out.
const CONTENT_OFFSET: u64 = 512;

/// Bytes of the tiny tar.
const TAR_BYTES: u64 = 1024;

/// What was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) rung: Rung,
    pub(super) why: Vec<String>,
    pub(super) overlay: OverlayAbilities,
    /// It could be tried: it was not for want of room or permission that a lower rung was taken.
    pub(super) is_tried: bool,
}

/// The two files of the tiny image, without names.
struct Tiny {
    index: File,
    tar: File,
}

/// Goes down the ladder until a rung works. The lowest needs nothing.
pub(super) fn probe(root: &Path) -> Found {
    let mut why = Vec::new();
    let tiny = tiny_image(root);
    let is_tried = tiny.is_ok();
    let (rung, lower) = match tiny {
        Ok(tiny) => climb(&tiny, &mut why),
        Err(error) => {
            why.push(format!(
                "mounting an index could not be tried: writing to the store at {} failed ({error}); images are \
                 unpacked into directories. Run as root, or give a store that you can write with --root",
                root.display()
            ));
            (Rung::Directory, None)
        }
    };
    let overlay = probe_overlay(root, lower.as_ref().map(|lower| lower.as_fd()), &mut why);
    Found { rung, why, overlay, is_tried }
}

/// The best rung that mounts and reads the tiny image, and its mount.
fn climb(tiny: &Tiny, why: &mut Vec<String>) -> (Rung, Option<OwnedFd>) {
    match by_files(tiny, Options { direct: false, inode_share: false }) {
        Ok(mount) => {
            return (
                Rung::FileBacked { inode_share: can_share(tiny), directio: can_direct(tiny, why) },
                Some(mount),
            );
        }
        Err(reason) => why.push(format!("no file-backed mount: {reason}")),
    }
    match by_loops(tiny) {
        Ok(mount) => return (Rung::Loop, Some(mount)),
        Err(reason) => {
            why.push(format!("no mount over loop devices: {reason}; images are unpacked into directories"));
        }
    }
    (Rung::Directory, None)
}

/// Mounts from the files and reads the content back.
fn by_files(tiny: &Tiny, options: Options) -> Result<OwnedFd, String> {
    let mount =
        mount_files(&tiny.index_path(), &[tiny.tar_path()], options).map_err(|refusal| explain(&refusal))?;
    check_content(mount.as_fd())?;
    Ok(mount)
}

/// The same over loop devices.
fn by_loops(tiny: &Tiny) -> Result<OwnedFd, String> {
    let mount = mount_loops(&tiny.index_path(), &[tiny.tar_path()]).map_err(|error| match error {
        Error::Io { action, source, .. } => format!("{action}: {source}"),
        Error::Mount { source, .. } => source.to_string(),
        other => other.to_string(),
    })?;
    check_content(mount.as_fd())?;
    Ok(mount)
}

/// Whether `directio` works here; says why not only where something is lost that can be mended.
fn can_direct(tiny: &Tiny, why: &mut Vec<String>) -> bool {
    if !sector_reads(&tiny.tar_path()) {
        why.push(
            "tars are read through the page cache: the store's disk or filesystem has no direct I/O at 512-byte \
             offsets; a store on a disk with 512-byte logical blocks would save the memory of the second copy"
                .to_owned(),
        );
        return false;
    }
    match by_files(tiny, Options { direct: true, inode_share: false }) {
        Ok(_mount) => true,
        Err(reason) => {
            why.push(format!(
                "tars are read through the page cache: {reason}; Linux 6.15 can read them directly"
            ));
            false
        }
    }
}

/// Whether mounts can share one page cache. Its absence is no loss worth a word before Linux 7.0 is common.
fn can_share(tiny: &Tiny) -> bool {
    by_files(tiny, Options { direct: false, inode_share: true }).is_ok()
}

/// What an errno of the file-backed mount means, and what would mend it.
fn explain(refusal: &Refusal) -> String {
    let meaning = match refusal.errno {
        Errno::NOTBLK => {
            "the store's filesystem cannot back an EROFS mount (tmpfs cannot, and kernels before 6.12 take block \
             devices only); a store on ext4, xfs or btrfs and Linux 6.12 can"
        }
        Errno::NODEV => {
            "the kernel has no EROFS; CONFIG_EROFS_FS with CONFIG_EROFS_FS_BACKED_BY_FILE (module `erofs`) is needed"
        }
        Errno::PERM | Errno::ACCESS => {
            "not permitted; mounting images needs root in the initial user namespace"
        }
        Errno::INVAL => "this kernel's EROFS does not take such an image; Linux 6.12 does",
        Errno::NOSYS => "the kernel or a seccomp filter has no fsopen(2); Linux 5.2 has it",
        _ => "unexpected",
    };
    format!("{refusal}: {meaning}")
}

/// Reads the one file through the mount.
fn check_content(mount: BorrowedFd<'_>) -> Result<(), String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = rustix::fs::openat(mount, FILE_NAME, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut bytes = vec![0; CONTENT.len() + 1];
        let bytes_count = rustix::io::pread(file, &mut bytes, 0)?;
        bytes.truncate(bytes_count);
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes == CONTENT => Ok(()),
        Ok(_) => Err("the kernel mounts the index but reads other bytes than the tar has".to_owned()),
        Err(error) => Err(format!("the kernel mounts the index but cannot read it: {error}")),
    }
}

impl Tiny {
    fn index_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.index.as_raw_fd()))
    }

    fn tar_path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.tar.as_raw_fd()))
    }
}

/// Writes the tiny image into the store's filesystem.
fn tiny_image(root: &Path) -> std::io::Result<Tiny> {
    let mut tar = vec![0; TAR_BYTES as usize];
    tar[CONTENT_OFFSET as usize..][..CONTENT.len()].copy_from_slice(CONTENT);
    let device = Device { tar_bytes: TAR_BYTES, diff_id: Digest::of(&tar) };
    let index =
        erofs::write(&tiny_tree(), &[device], &mut |_, _, _| Ok(())).map_err(std::io::Error::other)?;
    Ok(Tiny { index: nameless(root, "index", &index)?, tar: nameless(root, "tar", &tar)? })
}

/// A file with these bytes in the filesystem of `root`, already unlinked.
fn nameless(root: &Path, what: &str, bytes: &[u8]) -> std::io::Result<File> {
    let path = root.join(format!(".probe-{what}-{}", std::process::id()));
    let _ = fs::remove_file(&path);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// A root directory with one file.
fn tiny_tree() -> Tree {
    let inode = |kind, mode, links| Inode {
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Vec::new(),
        links,
    };
    let length_bytes = CONTENT.len() as u64;
    let segments = vec![Segment { logical_offset: 0, tar_offset: CONTENT_OFFSET, length_bytes }];
    let file = Kind::File { layer: 0, data: FileData { size_bytes: length_bytes, segments } };
    let names = [(FILE_NAME.as_bytes().into(), InodeId(1))].into();
    Tree { inodes: vec![inode(Kind::Directory(names), 0o755, 2), inode(file, 0o644, 1)] }
}

/// Which way overlays can be mounted, tried for real over the tiny image (or over an empty directory).
fn probe_overlay(root: &Path, lower: Option<BorrowedFd<'_>>, why: &mut Vec<String>) -> OverlayAbilities {
    let user_xattrs = !in_initial_user_namespace();
    let mut found = OverlayAbilities { user_xattrs, ..OverlayAbilities::default() };
    let scratch = root.join(format!(".probe-overlay-{}", std::process::id()));
    let clear = || {
        let _ = crate::directory::remove_path(&scratch);
    };
    clear();
    let made = ["lower", "upper", "work"].iter().try_for_each(|name| fs::create_dir_all(scratch.join(name)));
    if let Err(error) = made {
        why.push(format!("overlays could not be tried: {error}"));
        clear();
        return found;
    }
    let plain = |by_fd: bool, lower: Option<BorrowedFd<'_>>| -> Refused<()> {
        let open = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(scratch.join(name), flags, Mode::empty()).map_err(Refusal::of)
        };
        let context = Context::open("overlay")?;
        // Kept open to the end: older kernels look paths up when the mount is made, not when they are given.
        let (own, upper, work) = (open("lower")?, open("upper")?, open("work")?);
        let set = |key: &str, fd: BorrowedFd<'_>| {
            if by_fd {
                context.fd(key, fd)
            } else {
                context.string(key, format!("/proc/self/fd/{}", fd.as_raw_fd()))
            }
        };
        set_lower(&context, by_fd, lower.unwrap_or(own.as_fd()))?;
        set("upperdir", upper.as_fd())?;
        set("workdir", work.as_fd())?;
        if user_xattrs {
            context.flag("userxattr")?;
        }
        context.mount(rustix::mount::MountAttrFlags::empty()).map(drop)
    };
    found.layers_by_fd = plain(true, None).is_ok();
    match plain(found.layers_by_fd, None) {
        Ok(()) => found.usable = true,
        Err(refusal) => why.push(format!(
            "no overlay: {refusal}; containers cannot have a writable root here. As root, or in a user namespace, on \
             a filesystem with extended attributes and d_type, Linux 5.11 has it"
        )),
    }
    let clone = super::image::clone_directory(&scratch.join("lower")).ok();
    let detached = lower.or(clone.as_ref().map(|clone| clone.as_fd()));
    found.detached_lower =
        found.usable && detached.is_some_and(|lower| plain(found.layers_by_fd, Some(lower)).is_ok());
    if found.usable && !found.detached_lower {
        why.push(
            "overlays need a private mount namespace for the image: Linux 6.15 takes detached mounts"
                .to_owned(),
        );
    }
    clear();
    found
}

/// Whether ids are not mapped: the initial user namespace has the one range of all ids.
pub(crate) fn in_initial_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
