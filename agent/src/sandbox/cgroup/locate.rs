//! Where cgroup v2 is, and who has the controllers that it lacks: parsers over /proc, without I/O.

use std::path::{Path, PathBuf};

/// The group that this program moves itself to when it is alone in a group whose children it limits.
pub(super) const OWN_LEAF: &str = "celda-agent";

/// What the two tables say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Location {
    /// Where cgroup2 is mounted.
    pub(super) mount: PathBuf,
    /// This process's group under it.
    pub(super) own: PathBuf,
    /// Version 1 controllers and where they are mounted, if they are.
    pub(super) version_1: Vec<(String, Option<PathBuf>)>,
}

/// From `/proc/self/mountinfo` and `/proc/self/cgroup` (proc(5), cgroups(7)); `None` without a cgroup2 mount.
pub(super) fn locate(mountinfo: &str, own: &str) -> Option<Location> {
    let mut found: Option<(PathBuf, PathBuf)> = None;
    let mut version_1: Vec<(String, Option<PathBuf>)> = Vec::new();
    for (root, mount, kind, options) in mountinfo.lines().filter_map(mount) {
        match kind {
            // A mount of the whole hierarchy is better than one of a part, and of two a later one may hide the other.
            "cgroup2" if found.is_none() || root == Path::new("/") => {
                found = Some((root, mount));
            }
            "cgroup" => {
                let controllers = options.split(',').filter(|option| !is_mount_option(option));
                version_1.extend(controllers.map(|name| (name.to_string(), Some(mount.clone()))));
            }
            _ => {}
        }
    }
    let (root, mount) = found?;
    let mut group = PathBuf::from("/");
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            group = PathBuf::from(path);
            continue;
        }
        for name in controllers.split(',').filter(|name| !name.starts_with("name=")) {
            if !version_1.iter().any(|(known, _)| known == name) {
                version_1.push((name.to_string(), None));
            }
        }
    }
    if group.ends_with(OWN_LEAF) {
        group.pop();
    }
    // A path with ".." is outside of this process's cgroup namespace, and of what it may use.
    let inside = group.strip_prefix(&root).unwrap_or(Path::new(""));
    let is_plain = inside.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    let own = if is_plain { mount.join(inside) } else { mount.clone() };
    Some(Location { mount, own, version_1 })
}

/// Root, mount point, file system and its options of one line.
fn mount(line: &str) -> Option<(PathBuf, PathBuf, &str, &str)> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(3);
    let (root, mount) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let (kind, options) = (right.next()?, right.nth(1).unwrap_or(""));
    Some((unescape(root), unescape(mount), kind, options))
}

fn is_mount_option(option: &str) -> bool {
    matches!(option, "rw" | "ro" | "xattr" | "clone_children" | "noprefix" | "cpuset_v2_mode" | "none")
        || option.contains('=')
}

/// Blanks are written as `\040` and so on.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

/// Version 1's name of a controller.
pub(super) fn version_1_name(controller: &str) -> &str {
    if controller == "io" { "blkio" } else { controller }
}
