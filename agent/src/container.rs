//! What celda keeps of one container: its id, its name while it runs, and a record of what it is.
//!
//! ```text
//! ROOT/containers/<id>/state.json   what `celda inspect` shows; goes with the container's directory
//! RUN/names/<name>                  held by flock while the container runs, so a kill -9 frees the name
//! ```

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Bytes that a container's record may have: labels and environment are the user's own.
const STATE_BYTES_MAX: u64 = 4 << 20;
/// How often a name's file is opened anew because its last holder removed it meanwhile.
const CLAIM_ATTEMPTS_COUNT: u32 = 16;
/// Characters of a container's name; a file is named by it.
const NAME_LENGTH_MAX: usize = 128;

/// What is known of a container, as `celda inspect` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The name that the user gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image as the user wrote it.
    pub image: String,
    /// The digest of its manifest.
    pub manifest: String,
    /// Labels in order of their names: the image's, then the user's.
    pub labels: std::collections::BTreeMap<String, String>,
    /// What was run.
    pub args: Vec<String>,
    /// How it asks to be stopped: a signal number.
    pub stop_signal: i32,
    /// Seconds since 1970.
    pub created_s: u64,
    /// The directory of its cgroup, before there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<PathBuf>,
    /// Process id on the host, once started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Exit status, once ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
}

impl State {
    /// Writes the record into the container's directory, not synced: a crash of the machine ends the container too.
    /// It is written over the one before: ext4 writes a file that was emptied first to the disk when it is closed.
    ///
    /// # Errors
    /// What the kernel answers, with the path.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join("state.json");
        let text = serde_json::to_vec(self).map_err(|e| Error::io("encode", &path)(e.into()))?;
        overwrite(&path, &text).map_err(Error::io("write", &path))
    }

    /// Makes the record in `directory` nobody's, by its first byte: the directory is kept for another container.
    ///
    /// # Errors
    /// What the kernel answers, with the path.
    pub fn strike(directory: &Path) -> Result<()> {
        let path = directory.join("state.json");
        let struck = File::options().write(true).open(&path).and_then(|mut file| file.write_all(b"-"));
        struck.map_err(Error::io("strike out", &path))
    }

    /// The record in `directory`, if it has one that can be read.
    pub fn read(directory: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(directory.join("state.json")).ok()?.take(STATE_BYTES_MAX).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// The record of the container with this name or with an id that starts so.
    pub fn find(root: &Path, name_or_id: &str) -> Option<Self> {
        let directories = fs::read_dir(root.join("containers")).ok()?;
        let states = directories.flatten().filter_map(|entry| Self::read(&entry.path()));
        let mut matching = states.filter(|state| {
            state.name.as_deref() == Some(name_or_id)
                || (!name_or_id.is_empty() && state.id.starts_with(name_or_id))
        });
        matching.next()
    }
}

fn overwrite(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.write_all(bytes)?;
    file.set_len(bytes.len() as u64)
}

/// A new id: 64 hexadecimal digits of the kernel's randomness.
///
/// # Errors
/// When the kernel has no randomness to give.
pub fn new_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::io("read randomness from", "getrandom(2)")(errno.into()))?;
    Ok(celda_layerfs::Digest::from_bytes(bytes).hex())
}

/// A container's name, held until dropped; another container cannot take it meanwhile.
#[derive(Debug)]
pub struct NameClaim {
    path: PathBuf,
    _lock: OwnedFd,
}

impl NameClaim {
    /// Takes `name` under `run`.
    ///
    /// # Errors
    /// [`Error::Name`] when the name is malformed or a running container has it.
    pub fn take(run: &Path, name: &str) -> Result<Self> {
        check_name(name)?;
        let directory = run.join("names");
        fs::create_dir_all(&directory).map_err(Error::io("create directory", &directory))?;
        let path = directory.join(name);
        for _ in 0..CLAIM_ATTEMPTS_COUNT {
            if let Some(claim) = Self::lock(&path, open_claim(&path)?, name)? {
                return Ok(claim);
            }
        }
        let reason = "other containers take it and let it go all the time; try again".into();
        Err(Error::Name { name: name.into(), reason })
    }

    /// Locks what was opened at `path`; `None` when it is no longer what lies there. Its container may have ended, and
    /// removed it, between the open and the lock: then the lock would hold a file that no one else will open.
    fn lock(path: &Path, opened: OwnedFd, name: &str) -> Result<Option<Self>> {
        match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let reason = "a running container has it; choose another name or end that container".into();
                return Err(Error::Name { name: name.into(), reason });
            }
            Err(errno) => return Err(Error::io("lock", path)(errno.into())),
        }
        let ours = rustix::fs::fstat(&opened).map_err(|errno| Error::io("look at", path)(errno.into()))?;
        let there = match rustix::fs::lstat(path) {
            Ok(there) => there,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(Error::io("look at", path)(errno.into())),
        };
        let is_still_there = (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino);
        Ok(is_still_there.then(|| Self { path: path.to_owned(), _lock: opened }))
    }
}

fn open_claim(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map_err(|errno| Error::io("open", path)(errno.into()))
}

impl Drop for NameClaim {
    fn drop(&mut self) {
        // Before the lock goes. Who has the file open already finds out in `lock`.
        let _ = fs::remove_file(&self.path);
    }
}

fn check_name(name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let bytes = name.as_bytes();
    let good = (2..=NAME_LENGTH_MAX).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().copied().all(legal);
    if good {
        return Ok(());
    }
    let reason = format!("use 2 to {NAME_LENGTH_MAX} of a-z A-Z 0-9 _ . - and start with a letter or digit");
    Err(Error::Name { name: name.chars().take(NAME_LENGTH_MAX).collect(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_until_its_container_ends() {
        let run = tempfile::tempdir().expect("a directory");
        let claim = NameClaim::take(run.path(), "web-1").expect("free");
        assert!(matches!(NameClaim::take(run.path(), "web-1"), Err(Error::Name { .. })));
        drop(claim);
        NameClaim::take(run.path(), "web-1").expect("free again");
    }

    #[test]
    fn a_name_whose_file_went_between_open_and_lock_is_not_held() {
        let run = tempfile::tempdir().expect("a directory");
        let first = NameClaim::take(run.path(), "web-1").expect("free");
        let path = run.path().join("names/web-1");
        let opened = || open_claim(&path).expect("opened");
        let (early, later) = (opened(), opened());
        drop(first);
        assert!(NameClaim::lock(&path, early, "web-1").expect("looked at").is_none(), "nothing is there");
        let second = NameClaim::take(run.path(), "web-1").expect("free again");
        assert!(
            NameClaim::lock(&path, later, "web-1").expect("looked at").is_none(),
            "another file is there"
        );
        drop(second);
    }

    #[test]
    fn a_name_never_has_two_holders() {
        use std::sync::atomic::{AtomicU32, Ordering};
        let run = tempfile::tempdir().expect("a directory");
        let (holders_count, taken_count) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let Ok(claim) = NameClaim::take(run.path(), "web-1") else { continue };
                        assert_eq!(holders_count.fetch_add(1, Ordering::SeqCst), 0, "two hold one name");
                        taken_count.fetch_add(1, Ordering::SeqCst);
                        holders_count.fetch_sub(1, Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
        assert!(taken_count.into_inner() > 0);
    }

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        let run = tempfile::tempdir().expect("a directory");
        for name in ["", "a", "../x", "a/b", ".hidden", "-x", "a\0b", &"n".repeat(129)] {
            assert!(matches!(NameClaim::take(run.path(), name), Err(Error::Name { .. })), "{name:?}");
        }
    }
}
