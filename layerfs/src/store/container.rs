//! Directories of containers: their writable layers, and the lock that says they live.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::store::fault::fault;
use crate::store::lock::{self, Mode};
use crate::store::{Store, trash};
use crate::{Error, Result};

/// A directory without a lock file is left alone this long: its maker may be about to lock it.
const GRACE: Duration = Duration::from_secs(60);

/// Bytes of a container's id: what a host name may have.
pub const CONTAINER_ID_MAX_BYTES: usize = 64;

/// `containers/<id>` with its lock held. Dropping it lets the lock go and keeps the files; gc takes them.
#[derive(Debug)]
pub struct ContainerDirectory {
    path: PathBuf,
    lock: File,
}

impl ContainerDirectory {
    /// The directory; `upper` and `work` lie in it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor whose flock says that the container lives; a process that inherits it keeps it alive.
    pub fn lock(&self) -> &File {
        &self.lock
    }

    /// Removes the directory with all that the container wrote (`--rm`).
    pub fn remove(self) -> Result<()> {
        trash::remove_tree(&self.path).map_err(|error| fault("remove", &self.path, error))
    }
}

impl Store {
    /// Makes the directory of a new container, with `upper` and `work`, and locks it.
    ///
    /// # Errors
    /// [`Error::ContainerExists`] if the id is taken.
    pub fn create_container(&self, id: &str) -> Result<ContainerDirectory> {
        let is_valid = !id.is_empty()
            && id.len() <= CONTAINER_ID_MAX_BYTES
            && !id.starts_with('.')
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        let path = self.layout().container(id);
        if !is_valid {
            let source = io::Error::new(
                io::ErrorKind::InvalidInput,
                "an id has 1 to 64 letters, digits, `_`, `.` and `-`, and does not begin with `.`",
            );
            return Err(Error::Io { action: "create container", path, source });
        }
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::ContainerExists(id.into()));
            }
            other => other.map_err(|error| fault("create directory", &path, error))?,
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&lock_path)
            .map_err(|error| fault("create", &lock_path, error))?;
        if !lock::try_lock(&lock, Mode::Exclusive).map_err(Error::io("lock", &lock_path))? {
            return Err(Error::ContainerExists(id.into()));
        }
        for name in ["upper", "work"] {
            let part = path.join(name);
            fs::create_dir(&part).map_err(|error| fault("create directory", &part, error))?;
        }
        Ok(ContainerDirectory { path, lock })
    }

    /// Removes the directories of containers that no process holds; gives their ids and bytes.
    pub(crate) fn sweep_containers(&self) -> Result<(Vec<String>, u64)> {
        let mut removed = Vec::new();
        let mut bytes = 0;
        for (id, path) in self.files_in("containers")? {
            let lock = match File::open(path.join("lock")) {
                Ok(lock) => Some(lock),
                Err(_) if is_young(&path) => continue,
                Err(_) => None,
            };
            if let Some(lock) = &lock
                && !lock::try_lock(lock, Mode::Exclusive).unwrap_or(false)
            {
                continue;
            }
            bytes += trash::bytes_of_tree(&path);
            trash::remove_tree(&path).map_err(|error| fault("remove", &path, error))?;
            removed.push(id);
        }
        Ok((removed, bytes))
    }
}

fn is_young(path: &Path) -> bool {
    let made = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    made.is_ok_and(|made| SystemTime::now().duration_since(made).unwrap_or_default() < GRACE)
}
