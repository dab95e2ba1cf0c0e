//! Staging and publishing: a file gets its name only when it is whole.
//!
//! ```text
//! create staging/<random> + flock  ->  write  ->  fsync  ->  rename to its name  ->  fsync the directory
//!        swept by the next pull unless the flock is held         (directories once per image, see `pull`)
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::directory::remove_path;
use crate::store::crash::{self, Step};
use crate::store::fault::fault;
use crate::store::layout::Layout;
use crate::store::{lock, size};
use crate::{Error, Result};

/// How often a staging file is made anew because its name was taken, or a sweeper took it between open and lock.
const STAGE_ATTEMPTS: u32 = 16;

/// A file (or directory) in staging, locked by this process; gone when dropped unless published.
#[derive(Debug)]
pub(crate) struct Staged {
    path: PathBuf,
    file: File,
    published: bool,
}

/// A staging name nobody else uses. Random, as process ids are not: containers that share a store have each their 1.
fn unique(layout: &Layout, kind: &str) -> Result<PathBuf> {
    let mut random = [0; size_of::<u128>()];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::io("name a file in", layout.staging())(errno.into()))?;
    Ok(layout.staging().join(format!("{kind}-{:032x}", u128::from_ne_bytes(random))))
}

impl Staged {
    /// A new empty file.
    pub(crate) fn file(layout: &Layout, kind: &str) -> Result<Self> {
        Self::attempt(|| {
            let path = unique(layout, kind)?;
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|error| fault("create", &path, error))?;
            Ok((path, file))
        })
    }

    /// A new empty directory, locked by its own descriptor.
    pub(crate) fn directory(layout: &Layout, kind: &str) -> Result<Self> {
        Self::attempt(|| {
            let path = unique(layout, kind)?;
            fs::create_dir(&path).map_err(|error| fault("create directory", &path, error))?;
            let file = File::open(&path).map_err(|error| fault("open", &path, error))?;
            Ok((path, file))
        })
    }

    fn attempt(mut make: impl FnMut() -> Result<(PathBuf, File)>) -> Result<Self> {
        let mut last = PathBuf::new();
        for _ in 0..STAGE_ATTEMPTS {
            let (path, file) = match make() {
                Err(Error::Io { source, .. })
                    if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists) =>
                {
                    continue;
                }
                other => other?,
            };
            let locked = lock::try_lock(&file, lock::Mode::Exclusive).map_err(Error::io("lock", &path))?;
            if locked && lock::is_still_at(&file, &path) {
                return Ok(Self { path, file, published: false });
            }
            last = path;
        }
        Err(Error::Busy {
            what: "a staging file".into(),
            path: last,
            waited_s: 0,
            hint: "another process keeps sweeping it: try again",
        })
    }

    /// A file of the store, moved to staging: it goes when dropped, unless it is given a name again.
    pub(crate) fn aside(layout: &Layout, kind: &str, from: &Path) -> Result<Self> {
        let file = open_to_lock(from).map_err(|error| fault("open", from, error))?;
        lock::try_lock(&file, lock::Mode::Exclusive).map_err(Error::io("lock", from))?;
        let path = unique(layout, kind)?;
        fs::rename(from, &path).map_err(|error| fault("put aside", from, error))?;
        Ok(Self { path, file, published: false })
    }

    /// A file under a given staging name that this process has already locked.
    pub(crate) fn adopt(path: PathBuf, file: File) -> Self {
        Self { path, file, published: false }
    }

    pub(crate) fn as_file(&self) -> &File {
        &self.file
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives it its name. Durability is the caller's: fsync before, the directory after.
    pub(crate) fn rename_to(mut self, target: &Path) -> Result<File> {
        fs::rename(&self.path, target).map_err(|error| fault("rename into place", target, error))?;
        self.published = true;
        self.file.try_clone().map_err(Error::io("duplicate the descriptor of", target))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.published {
            return;
        }
        let removed = match self.file.metadata() {
            Ok(metadata) if metadata.is_dir() => remove_path(&self.path),
            _ => fs::remove_file(&self.path),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a staging file; the next pull sweeps it");
        }
    }
}

/// Whether a small file must survive a power cut by itself, or is checked by its digest whenever it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// fsync before the rename.
    Synced,
    /// A torn file would be noticed by its digest or its form, and made again.
    Checked,
}

/// Stages, writes and publishes one small file.
pub(crate) fn publish(
    layout: &Layout,
    target: &Path,
    bytes: &[u8],
    durability: Durability,
    steps: (Step, Step),
) -> Result<()> {
    let staged = Staged::file(layout, "file")?;
    staged.as_file().write_all(bytes).map_err(|error| fault("write", staged.path(), error))?;
    if durability == Durability::Synced {
        staged.as_file().sync_all().map_err(|error| fault("fsync", staged.path(), error))?;
    }
    crash::reached(steps.0);
    staged.rename_to(target)?;
    crash::reached(steps.1);
    Ok(())
}

/// `fsync` of a directory: the renames in it survive a power cut.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let directory = File::open(path).map_err(|error| fault("open", path, error))?;
    directory.sync_all().map_err(|error| fault("fsync", path, error))
}

/// Removes what dead processes left in staging. What a living process holds by flock stays.
pub(crate) fn sweep(layout: &Layout) -> Result<u64> {
    let staging = layout.staging();
    let mut swept_bytes = 0;
    for item in fs::read_dir(&staging).map_err(|error| fault("list", &staging, error))? {
        let path = item.map_err(Error::io("list", &staging))?.path();
        let Ok(file) = open_to_lock(&path) else { continue };
        if !lock::try_lock(&file, lock::Mode::Exclusive).unwrap_or(false) || !lock::is_still_at(&file, &path)
        {
            continue;
        }
        let is_directory = file.metadata().is_ok_and(|metadata| metadata.is_dir());
        swept_bytes += if is_directory { size::bytes_of_tree(&path) } else { size::bytes_of(&path) };
        let removed = if is_directory { remove_path(&path) } else { fs::remove_file(&path) };
        removed.map_err(|error| fault("remove", &path, error))?;
    }
    Ok(swept_bytes)
}

/// Opens a file or directory of the store to lock it; never follows a symbolic link, never blocks on a fifo.
pub(crate) fn open_to_lock(path: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}
