//! What a writable layer holds, so that a second look tells whether anyone wrote to it meanwhile.
//!
//! A file made, removed, copied up or opaque shows as a name in its directory, and every change of an inode moves its
//! change time, which no program can set. Before Linux 6.13 that time stands still for up to a tick, so sizes,
//! modes, owners and the names of extended attributes are looked at as well.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, StatxFlags};
use rustix::io::Errno;

/// Entries of a layer that is worth comparing: what celda itself puts there is half a dozen.
const ENTRIES_COUNT_MAX: usize = 32;
/// Directories above an entry, the layer's own root included.
const DEPTH_COUNT_MAX: usize = 4;
/// Bytes of names read by one getdents64(2).
const NAMES_BYTES: usize = 4 << 10;
/// Bytes of the names of an inode's extended attributes.
const ATTRIBUTES_BYTES_MAX: usize = 1 << 10;

/// Everything below one directory, and the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// Name in its directory; the order of the list says in which.
    name: CString,
    depth: usize,
    inode: u64,
    mode: u16,
    owner: (u32, u32),
    links: u32,
    size_bytes: u64,
    modified: (i64, u32),
    changed: (i64, u32),
    attributes: Vec<u8>,
}

impl Fingerprint {
    /// Looks at `directory`. `None`: there is more in it than is worth comparing.
    ///
    /// # Errors
    /// What the kernel answers, `ENOENT` where something went away meanwhile.
    pub(super) fn of(directory: &OwnedFd) -> Result<Option<Self>, Errno> {
        let mut entries = vec![Entry::of(directory, c"", 0)?];
        let is_whole = add(directory, 1, &mut entries)?;
        Ok(is_whole.then_some(Self(entries)))
    }
}

/// Adds what is below `directory`, whose position is at its start; `false` when that is too much.
fn add(directory: &OwnedFd, depth: usize, entries: &mut Vec<Entry>) -> Result<bool, Errno> {
    if depth > DEPTH_COUNT_MAX {
        return Ok(false);
    }
    for name in names(directory)? {
        if entries.len() == ENTRIES_COUNT_MAX {
            return Ok(false);
        }
        let look = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        // Devices, pipes and links are not opened but are celda's own never: whoever made one has touched the layer.
        let facts = rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(facts.st_mode);
        if !matches!(kind, FileType::Directory | FileType::RegularFile) {
            return Ok(false);
        }
        let inode = rustix::fs::openat2(directory, &name, look, Mode::empty(), resolve)?;
        entries.push(Entry::of(&inode, &name, depth)?);
        if kind == FileType::Directory && !add(&inode, depth + 1, entries)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names in a directory, sorted.
fn names(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let mut space = [MaybeUninit::uninit(); NAMES_BYTES];
    let mut listing = RawDir::new(directory, &mut space);
    let mut names = Vec::new();
    while let Some(name) = listing.next() {
        let name = name?;
        if !matches!(name.file_name().to_bytes(), b"." | b"..") {
            names.push(name.file_name().to_owned());
        }
        if names.len() > ENTRIES_COUNT_MAX {
            break; // one more than are compared is enough to know
        }
    }
    names.sort_unstable();
    Ok(names)
}

impl Entry {
    fn of(inode: &OwnedFd, name: &CStr, depth: usize) -> Result<Self, Errno> {
        let facts = rustix::fs::statx(inode, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let mut attributes = vec![0; ATTRIBUTES_BYTES_MAX];
        let count = rustix::fs::flistxattr(inode, attributes.as_mut_slice())?;
        attributes.truncate(count);
        Ok(Self {
            name: name.to_owned(),
            depth,
            inode: facts.stx_ino,
            mode: facts.stx_mode,
            owner: (facts.stx_uid, facts.stx_gid),
            links: facts.stx_nlink,
            size_bytes: facts.stx_size,
            modified: (facts.stx_mtime.tv_sec, facts.stx_mtime.tv_nsec),
            changed: (facts.stx_ctime.tv_sec, facts.stx_ctime.tv_nsec),
            attributes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    fn look(path: &Path) -> Option<Fingerprint> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).expect("a directory");
        Fingerprint::of(&directory).expect("readable")
    }

    #[test]
    fn a_layer_that_nobody_touched_looks_the_same() {
        let layer = tempfile::tempdir().expect("a directory");
        fs::create_dir(layer.path().join("etc")).expect("made");
        fs::write(layer.path().join("etc/hosts"), "127.0.0.1").expect("written");
        let before = look(layer.path());
        assert!(before.is_some());
        assert_eq!(fs::read_to_string(layer.path().join("etc/hosts")).expect("read"), "127.0.0.1");
        assert_eq!(look(layer.path()), before);
    }

    #[test]
    fn each_kind_of_change_shows() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 7] = [
            ("a new file", |layer| fs::write(layer.join("etc/new"), "").expect("written")),
            ("a file that went", |layer| fs::remove_file(layer.join("etc/hosts")).expect("removed")),
            ("a new size", |layer| {
                fs::write(layer.join("etc/hosts"), "longer than it was").expect("written");
            }),
            ("a new mode", |layer| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(layer.join("etc/hosts"), mode).expect("set");
            }),
            ("a new directory", |layer| fs::create_dir(layer.join("etc/empty")).expect("made")),
            ("a second link", |layer| {
                fs::hard_link(layer.join("etc/hosts"), layer.join("etc/same")).expect("linked");
                fs::remove_file(layer.join("etc/hosts")).expect("removed");
            }),
            ("another file by the same name", |layer| {
                fs::write(layer.join("other"), "127.0.0.1").expect("written");
                fs::rename(layer.join("other"), layer.join("etc/hosts")).expect("renamed");
            }),
        ];
        for (what, change) in changes {
            let layer = tempfile::tempdir().expect("a directory");
            fs::create_dir(layer.path().join("etc")).expect("made");
            fs::write(layer.path().join("etc/hosts"), "127.0.0.1").expect("written");
            let before = look(layer.path());
            change(layer.path());
            assert_ne!(look(layer.path()), before, "{what}");
        }
    }

    #[test]
    fn much_or_deep_is_not_worth_comparing() {
        let layer = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(layer.path().join("a/b/c/d/e")).expect("made");
        assert_eq!(look(layer.path()), None);
        let layer = tempfile::tempdir().expect("a directory");
        for number in 0..ENTRIES_COUNT_MAX {
            fs::write(layer.path().join(number.to_string()), "").expect("written");
        }
        assert_eq!(look(layer.path()), None);
    }
}
