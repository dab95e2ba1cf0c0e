//! A limit by size: the layer's `upper` and `work` lie in a filesystem of their own, which is a file beside them.
//!
//! ```text
//! containers/<id>/space.ext4   sparse, of the limit's size
//!    --mkfs.ext4--> no journal: after a crash it is nobody's
//!    --loop device, autoclear--> fsopen("ext4"), discard --> detached mount { upper, work }
//! ```
//! The mount is held by a descriptor, then by the overlay over it. With the last of them it goes, the kernel detaches the
//! loop device, and the file is one like any other in the layer's directory: whatever is killed when, a sweep takes it.

use std::fs::OpenOptions;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountAttrFlags;

use super::context::{Context, Refused};
use crate::sys::loop_device::{BLOCK_BYTES, LoopDevice};
use crate::sys::shutdown::shut_down;
use crate::{Error, Result};

/// What this way is called.
pub(super) const WAY: &str = "sized filesystem";

/// The file, in the layer's directory.
const FILE_NAME: &str = "space.ext4";
/// The program that formats it, and where it is looked for besides `PATH`.
const FORMATTER: &str = "mkfs.ext4";
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];
/// No journal and no room for one's own growth; inode tables are zero already, as holes of the file are; nothing is kept
/// for root.
const FORMAT_ARGUMENTS: [&str; 10] = [
    "-q",
    "-F",
    "-b",
    "4096",
    "-m",
    "0",
    "-O",
    "^has_journal,^resize_inode",
    "-E",
    "lazy_itable_init=1,nodiscard",
];
/// Bytes of what the formatter says that are shown.
const WORDS_BYTES_MAX: usize = 512;
const HINT: &str = "a limit of the writable layer needs root, loop devices and ext4, or project quotas";

/// Why no such filesystem can be made here.
pub(super) fn why_not() -> Option<String> {
    if formatter().is_none() {
        return Some(format!("there is no {FORMATTER}; install e2fsprogs"));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices (/dev/loop-control); load the module `loop`".to_owned());
    }
    None
}

/// Makes a filesystem of so many bytes in the layer's directory `layer`; answers its detached mount.
pub(super) fn make(layer: &Path, bytes: u64) -> Result<OwnedFd> {
    let file_path = layer.join(FILE_NAME);
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&file_path);
    let file = file.map_err(Error::io("create", &file_path))?;
    file.set_len(bytes - bytes % u64::from(BLOCK_BYTES)).map_err(Error::io("size", &file_path))?;
    format(&file_path)?;
    let device = LoopDevice::attach_writable(file.as_fd());
    let device = device.map_err(Error::io("attach to a loop device", &file_path))?;
    mount(&device).map_err(|refusal| refusal.at("mount", &file_path, HINT))
}

/// Ends a filesystem that is to be deleted: half a gigabyte that a container has just written would be brought to the disk
/// by its unmount: a teardown took 2.2 s, and takes 0.5 s so (`celda run --timing`, 2026-11-27, 2 busy cores).
pub(super) fn end(mount: &OwnedFd) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", flags, Mode::empty()).map_err(std::io::Error::from);
    if let Err(error) = root.and_then(|root| shut_down(root.as_fd())) {
        tracing::debug!(%error, "a container's filesystem is written to the disk before it is deleted");
    }
}

/// The loop device is the mount's from here on, and goes with it.
fn mount(device: &LoopDevice) -> Refused<OwnedFd> {
    let context = Context::open("ext4")?;
    context.string("source", &device.path)?;
    context.flag("discard")?;
    context.flag("noinit_itable")?;
    // Where the disk beneath is full: the container's own root is read-only then, and nobody else's.
    context.string("errors", "remount-ro")?;
    context.mount(MountAttrFlags::MOUNT_ATTR_NOATIME)
}

fn format(file: &Path) -> Result<()> {
    let failed = |why: String| Error::io("format", file)(std::io::Error::other(why));
    let Some(program) = formatter() else {
        return Err(failed(format!("there is no {FORMATTER}: install e2fsprogs, or leave the limit out")));
    };
    let made = Command::new(&program)
        .args(FORMAT_ARGUMENTS)
        .arg(file)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("{}: {error}", program.display())))?;
    if made.status.success() {
        return Ok(());
    }
    let words = &made.stderr[..made.stderr.len().min(WORDS_BYTES_MAX)];
    let words = String::from_utf8_lossy(words).trim().replace('\n', "; ");
    Err(failed(format!("{} ended with {}: {words}", program.display(), made.status)))
}

fn formatter() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(SYSTEM_DIRECTORIES.iter().map(PathBuf::from));
    places.filter(|place| place.is_absolute()).map(|place| place.join(FORMATTER)).find(|path| path.is_file())
}
