//! Removing directory trees whose content a container wrote: no recursion, few descriptors, no link followed.
//!
//! A container may nest directories ten thousand deep. So a directory's subdirectories are first moved up beside it
//! under numbers, and the flat row is emptied one after the other.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Bytes on the disk of one file, 0 if it is not there.
pub(crate) fn bytes_of(path: &Path) -> u64 {
    // st_blocks counts 512-byte units whatever the filesystem's block size is (stat(2)).
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

/// Bytes on the disk of all files below a directory; what cannot be looked at counts nothing.
pub(crate) fn bytes_of_tree(path: &Path) -> u64 {
    let mut bytes = 0;
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        let Ok(items) = std::fs::read_dir(&directory) else { continue };
        for item in items.flatten() {
            let Ok(metadata) = item.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                pending.push(item.path());
            }
        }
    }
    bytes
}

/// Removes `path` and all below it.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match rustix::fs::open(path, OPEN, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    empty(top.as_fd())?;
    drop(top);
    std::fs::remove_dir(path)
}

/// Empties the directory `top`.
fn empty(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut moved_count = 0_u64;
    loop {
        let mut directories = Vec::new();
        clear_files(top, &mut directories)?;
        if directories.is_empty() {
            return Ok(());
        }
        for name in directories {
            let inner = open_directory(top, &name)?;
            let mut below = Vec::new();
            clear_files(inner.as_fd(), &mut below)?;
            for child in below {
                move_up(top, inner.as_fd(), &child, &mut moved_count)?;
            }
            rustix::fs::unlinkat(top, &name, AtFlags::REMOVEDIR)?;
        }
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CString) -> io::Result<OwnedFd> {
    match rustix::fs::openat(parent, name, OPEN, Mode::empty()) {
        // A directory its owner cannot read, removed by someone who is not root.
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
            Ok(rustix::fs::openat(parent, name, OPEN, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Unlinks everything but the directories, whose names are added to `directories`.
fn clear_files(directory: BorrowedFd<'_>, directories: &mut Vec<CString>) -> io::Result<()> {
    for item in Dir::read_from(directory)? {
        let item = item?;
        let name = item.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if item.file_type() == FileType::Directory {
            directories.push(name.to_owned());
            continue;
        }
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            // Filesystems that do not tell the type in readdir.
            Err(Errno::ISDIR | Errno::PERM) => directories.push(name.to_owned()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Moves `from/child` to a free number in `top`.
fn move_up(top: BorrowedFd<'_>, from: BorrowedFd<'_>, child: &CString, count: &mut u64) -> io::Result<()> {
    loop {
        *count += 1;
        let number = format!(".celda-{count}");
        match rustix::fs::renameat_with(from, child, top, &number, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_wide_trees_go_and_links_are_not_followed() {
        let place = tempfile::tempdir().expect("temporary directory");
        let outside = place.path().join("outside");
        std::fs::create_dir(&outside).expect("mkdir");
        std::fs::write(outside.join("kept"), b"x").expect("write");
        let doomed = place.path().join("doomed");
        std::fs::create_dir(&doomed).expect("mkdir");
        // Deeper than PATH_MAX and than the descriptor limit, as only relative calls can make it.
        let mut here = rustix::fs::open(&doomed, OPEN, Mode::empty()).expect("open");
        for depth in 0..3000 {
            rustix::fs::symlinkat(&outside, &here, "link").expect("symlink");
            if depth % 100 == 0 {
                rustix::fs::mkdirat(&here, format!(".celda-{depth}"), Mode::RWXU).expect("mkdir");
            }
            rustix::fs::mkdirat(&here, "directory", Mode::RWXU).expect("mkdir");
            here = rustix::fs::openat(&here, "directory", OPEN, Mode::empty()).expect("open");
        }
        drop(here);
        remove_tree(&doomed).expect("removed");
        assert!(!doomed.exists());
        assert!(outside.join("kept").exists());
        remove_tree(&doomed).expect("removing nothing is fine");
    }
}
