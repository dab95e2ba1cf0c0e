//! A new volume's first content: a copy of the image's directory, with owners, modes, times, symbolic links, and the
//! extended attributes of files and directories. A file with two names (hard links) becomes two files.
//!
//! The source is walked by descriptors with no symbolic link followed. Device nodes, FIFOs and sockets are not copied: a
//! volume lies where the host could open them.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

/// Entries that are copied into one volume.
const ENTRIES_COUNT_MAX: usize = 1 << 20;
/// Directories below one another.
const DEPTH_MAX: usize = 256;

/// Copies what `source` holds into the directory `into`, which gets the source's owner and mode.
pub(super) fn directory(source: &OwnedFd, into: &OwnedFd) -> io::Result<()> {
    let mut budget = ENTRIES_COUNT_MAX;
    copy(source, into, 0, &mut budget)
}

fn copy(source: &OwnedFd, target: &OwnedFd, depth: usize, budget: &mut usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("more than {DEPTH_MAX} directories below one another")));
    }
    for entry in Dir::read_from(source)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *budget = budget
            .checked_sub(1)
            .ok_or_else(|| io::Error::other(format!("more than {ENTRIES_COUNT_MAX} entries")))?;
        let stat = rustix::fs::statat(source, name, AtFlags::SYMLINK_NOFOLLOW)?;
        one(source, target, name, &stat, depth, budget)?;
    }
    let stat = rustix::fs::fstat(source)?;
    rustix::fs::fchown(target, owner(&stat).0, owner(&stat).1)?;
    rustix::fs::fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    copy_xattrs(source, target)?;
    rustix::fs::futimens(target, &times(&stat))?;
    Ok(())
}

fn one(
    source: &OwnedFd,
    target: &OwnedFd,
    name: &CStr,
    stat: &Stat,
    depth: usize,
    budget: &mut usize,
) -> io::Result<()> {
    let read = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(target, name, Mode::RWXU)?;
            let below = rustix::fs::openat(source, name, read | OFlags::DIRECTORY, Mode::empty())?;
            let made = rustix::fs::openat(target, name, read | OFlags::DIRECTORY, Mode::empty())?;
            copy(&below, &made, depth + 1, budget)
        }
        FileType::RegularFile => {
            let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let mut from = File::from(rustix::fs::openat(source, name, read, Mode::empty())?);
            let mut to = File::from(rustix::fs::openat(target, name, create, Mode::RUSR | Mode::WUSR)?);
            io::copy(&mut from, &mut to)?;
            rustix::fs::fchown(&to, owner(stat).0, owner(stat).1)?;
            rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
            copy_xattrs(&from, &to)?;
            Ok(rustix::fs::futimens(to.as_fd(), &times(stat))?)
        }
        FileType::Symlink => {
            let link: CString = rustix::fs::readlinkat(source, name, Vec::new())?;
            rustix::fs::symlinkat(&link, target, name)?;
            let (uid, gid) = owner(stat);
            Ok(rustix::fs::chownat(target, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
        }
        _ => Ok(()),
    }
}

fn copy_xattrs(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let mut names = vec![0_u8; 64 << 10];
    let count = rustix::fs::flistxattr(&from, &mut names[..]).unwrap_or(0);
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 64 << 10];
        let length = rustix::fs::fgetxattr(&from, name, &mut value[..])?;
        rustix::fs::fsetxattr(&to, name, &value[..length], rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::Path;

    use super::*;

    #[test]
    fn a_copy_is_what_the_head_says() {
        let (from, to) =
            (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let (source, copy) = (from.path(), to.path());
        fs::create_dir(source.join("below")).expect("made");
        fs::set_permissions(source.join("below"), fs::Permissions::from_mode(0o1751)).expect("set");
        fs::write(source.join("below/file"), "content").expect("written");
        fs::hard_link(source.join("below/file"), source.join("linked")).expect("linked");
        symlink("/etc/passwd", source.join("symbolic")).expect("linked");
        rustix::fs::mkfifoat(rustix::fs::CWD, source.join("fifo"), Mode::RWXU).expect("made");
        // A filesystem without user attributes (an old tmpfs) leaves that part of the test out.
        let has_attributes = ["below", "below/file"].into_iter().all(|name| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(source.join(name), "user.kept", b"yes", flags).is_ok()
        });
        let open =
            |path| rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("opened");
        directory(&open(source), &open(copy)).expect("copied");
        assert_eq!(fs::read_to_string(copy.join("below/file")).expect("read"), "content");
        assert_eq!(fs::read_to_string(copy.join("linked")).expect("read"), "content");
        assert_eq!(fs::metadata(copy.join("linked")).expect("there").nlink(), 1);
        assert_eq!(fs::metadata(copy.join("below")).expect("there").mode() & 0o7777, 0o1751);
        assert_eq!(fs::read_link(copy.join("symbolic")).expect("a link"), Path::new("/etc/passwd"));
        assert!(!copy.join("fifo").exists());
        let time = |path: &Path| fs::metadata(path).expect("there").modified().expect("a time");
        assert_eq!(time(&copy.join("below/file")), time(&source.join("below/file")));
        for name in ["below", "below/file"].iter().filter(|_| has_attributes) {
            let mut value = [0_u8; 8];
            let length = rustix::fs::getxattr(copy.join(name), "user.kept", &mut value[..]).expect("kept");
            assert_eq!(&value[..length], b"yes", "{name}");
        }
    }
}
