//! The lower mount: an image's index and tars (or its directory) as one detached, read-only mount.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::context::{Context, Refusal, Refused, VALUE_BYTES};
use super::ladder::{Ladder, Rung};
use crate::sys::loop_device::LoopDevice;
use crate::sys::mount_setattr::{MountAttributes, mount_setattr};
use crate::{Error, Result};

/// Bytes of a block of an index; a tar on a loop device must be a multiple of it.
const BLOCK_BYTES: u64 = 512;

const VERIFY_HINT: &str =
    "`celda verify` checks and mends the store, `celda info` shows how images are mounted";

/// How a mount reads the bytes of its tars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reads {
    /// Through the tars' page cache, which outlives the mount and is shared by all mounts of a layer: a page that
    /// is read lies in memory twice while the mount lives. For a mount per container.
    #[default]
    Buffered,
    /// Past the tars' page cache, so that a page lies in memory once, in the mount's own cache, and goes with it.
    /// For one long-lived mount beneath many containers. Where the kernel or the disk cannot, buffered.
    Direct,
}

impl Ladder {
    /// Mounts `index` with `tars` as its devices, in the order of the chain, detached and read-only.
    ///
    /// On [`Rung::Directory`] `index` is the unpacked `rootfs` and `tars` is not looked at.
    ///
    /// # Errors
    /// [`Error::Mount`] with the kernel's text: an index that is not one, a tar that is missing, no privilege.
    pub fn mount_image(&self, index: &Path, tars: &[PathBuf]) -> Result<OwnedFd> {
        self.mount_image_with(index, tars, Reads::default())
    }

    /// [`mount_image`](Self::mount_image) with a choice of how the tars are read.
    ///
    /// # Errors
    /// As `mount_image`.
    pub fn mount_image_with(&self, index: &Path, tars: &[PathBuf], reads: Reads) -> Result<OwnedFd> {
        match self.rung {
            Rung::FileBacked { directio, inode_share } => {
                let direct = directio && reads == Reads::Direct && tars.iter().all(|tar| sector_reads(tar));
                mount_files(index, tars, Options { direct, inode_share }).map_err(|refusal| {
                    missing(tars).unwrap_or_else(|| refusal.at("mount index", index, VERIFY_HINT))
                })
            }
            Rung::Loop => mount_loops(index, tars),
            Rung::Directory => clone_directory(index),
        }
    }
}

/// Options of a file-backed mount beyond its files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) direct: bool,
    pub(super) inode_share: bool,
}

/// EROFS straight from files.
pub(super) fn mount_files(index: &Path, tars: &[PathBuf], options: Options) -> Refused<OwnedFd> {
    let context = Context::open("erofs")?;
    // fsconfig takes values below 256 bytes; longer paths go through a descriptor that stays open until the mount
    // has files of its own.
    let mut kept = Vec::new();
    context.string("source", &*short_path(index, &mut kept)?)?;
    for tar in tars {
        context.string("device", &*short_path(tar, &mut kept)?)?;
    }
    if options.direct {
        context.flag("directio")?;
    }
    if options.inode_share {
        context.string("domain_id", "celda")?;
        context.flag("inode_share")?;
    }
    context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)
}

/// The error about the first tar that cannot be opened: the kernel does not say which one it was.
fn missing(tars: &[PathBuf]) -> Option<Error> {
    tars.iter().find_map(|tar| File::open(tar).err().map(Error::io("mount index with layer", tar)))
}

/// `path`, or a name of it in `/proc/self/fd` if it is too long for fsconfig(2).
fn short_path(path: &Path, kept: &mut Vec<OwnedFd>) -> Refused<PathBuf> {
    if path.as_os_str().as_bytes().len() < VALUE_BYTES {
        return Ok(path.to_path_buf());
    }
    let file = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Refusal { errno, kernel: format!("open {}", path.display()) })?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    kept.push(file);
    Ok(short)
}

/// Whether the file can be read past the page cache at 512-byte offsets: statx(2), `STATX_DIOALIGN`, Linux 6.1.
pub(super) fn sector_reads(path: &Path) -> bool {
    rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::DIOALIGN).is_ok_and(|answer| {
        answer.stx_mask & StatxFlags::DIOALIGN.bits() != 0
            && (1..=BLOCK_BYTES).contains(&u64::from(answer.stx_dio_offset_align))
    })
}

/// EROFS over loop devices, which the kernel detaches by itself when the mount goes.
pub(super) fn mount_loops(index: &Path, tars: &[PathBuf]) -> Result<OwnedFd> {
    let attach = |path: &Path| -> Result<LoopDevice> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let bytes = file.metadata().map_err(Error::io("stat", path))?.len();
        if bytes % BLOCK_BYTES != 0 {
            let odd =
                std::io::Error::other("its length is no multiple of 512, the loop device would lose its end");
            return Err(Error::io("attach to a loop device", path)(odd));
        }
        LoopDevice::attach(file.as_fd()).map_err(Error::io("attach to a loop device", path))
    };
    let source = attach(index)?;
    let devices = tars.iter().map(|tar| attach(tar)).collect::<Result<Vec<_>>>()?;
    let mount = || -> Refused<OwnedFd> {
        let context = Context::open("erofs")?;
        context.string("source", &source.path)?;
        for device in &devices {
            context.string("device", &device.path)?;
        }
        // Without it the kernel opens the devices for writing, which a read-only loop device answers with EACCES.
        context.flag("ro")?;
        context.mount(MountAttrFlags::MOUNT_ATTR_RDONLY)
    };
    mount().map_err(|refusal| refusal.at("mount index over loop devices", index, VERIFY_HINT))
}

/// A read-only bind mount of an unpacked root filesystem.
pub(super) fn clone_directory(rootfs: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = || {
        let mount = rustix::mount::open_tree(CWD, rootfs, flags)?;
        mount_setattr(mount.as_fd(), MountAttributes { read_only: true, ..MountAttributes::default() })?;
        Ok(mount)
    };
    clone().map_err(|errno| {
        let hint = match errno {
            Errno::PERM => "run as root, or in a user and mount namespace of your own",
            _ => VERIFY_HINT,
        };
        Refusal::of(errno).at("mount directory", rootfs, hint)
    })
}

/// `posix_fadvise(POSIX_FADV_DONTNEED)` on each tar: gives the memory back that buffered mounts and ingest left
/// behind. Clean pages only, best effort.
pub fn drop_cached_tars(tars: &[PathBuf]) {
    for tar in tars {
        if let Ok(file) = File::open(tar) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }
}
