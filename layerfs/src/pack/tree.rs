//! What a packed image will hold, by path.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::PackError;

/// Symbolic links followed on one path: the kernel's own limit (path_resolution(7)).
const LINKS_COUNT_MAX: usize = 40;

/// What lies at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Directory { mode: u32 },
    Symlink(PathBuf),
    File { mode: u32, content: Content },
}

/// A file's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Host(PathBuf),
    Text(&'static str),
}

/// Paths without a leading slash, sorted so that a directory comes before what is in it.
#[derive(Debug, Default)]
pub(super) struct PackTree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl PackTree {
    /// What every image has: the directories that runtimes mount on, and a user to be.
    pub(super) fn with_base() -> Self {
        let mut tree = Self::default();
        let directories = [
            ("dev", 0o755),
            ("etc", 0o755),
            ("proc", 0o555),
            ("root", 0o700),
            ("run", 0o755),
            ("sys", 0o555),
            ("tmp", 0o1777),
            ("var", 0o755),
            ("var/tmp", 0o1777),
        ];
        for (path, mode) in directories {
            tree.nodes.insert(path.into(), Node::Directory { mode });
        }
        let texts = [
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
            ),
            ("etc/group", "root:x:0:\nnogroup:x:65534:\n"),
            ("etc/hostname", ""),
            ("etc/hosts", ""),
            ("etc/resolv.conf", ""),
        ];
        for (path, text) in texts {
            tree.nodes.insert(path.into(), Node::File { mode: 0o644, content: Content::Text(text) });
        }
        tree
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_path(), node))
    }

    /// Puts the host's file `from` at `to`.
    pub(super) fn add_file(&mut self, from: &Path, to: &Path) -> Result<(), PackError> {
        let place = |why| PackError::Place(to.to_owned(), why);
        let mut clean = PathBuf::new();
        for component in to.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => clean.push(name),
                _ => return Err(place("it has a `..`")),
            }
        }
        if clean.as_os_str().is_empty() || to.as_os_str().as_bytes().ends_with(b"/") {
            return Err(place("it is a directory; name the file"));
        }
        if clean.as_os_str().as_bytes().contains(&0) {
            return Err(place("it has a NUL"));
        }
        let at = self.resolve(&clean)?;
        self.put_file(from, at)
    }

    /// Puts the host's file `path` at its own path, with every symbolic link that leads to it.
    pub(super) fn add_host(&mut self, path: &Path) -> Result<(), PackError> {
        let mut at = PathBuf::new();
        let mut rest: Vec<PathBuf> = parts(path);
        rest.reverse();
        let mut links_count = 0;
        while let Some(name) = rest.pop() {
            if name == Path::new("..") {
                at.pop();
                continue;
            }
            let next = at.join(&name);
            let host = Path::new("/").join(&next);
            let metadata = std::fs::symlink_metadata(&host).map_err(PackError::io("look at", &host))?;
            if !metadata.is_symlink() {
                at = next;
                continue;
            }
            links_count += 1;
            if links_count > LINKS_COUNT_MAX {
                return Err(PackError::Links(path.to_owned()));
            }
            let target = std::fs::read_link(&host).map_err(PackError::io("read the link", &host))?;
            self.make_directories(&at);
            self.nodes.entry(next).or_insert_with(|| Node::Symlink(target.clone()));
            if target.is_absolute() {
                at = PathBuf::new();
            }
            rest.extend(parts(&target).into_iter().rev());
        }
        let host = Path::new("/").join(&at);
        self.put_file(&host, at)
    }

    fn put_file(&mut self, from: &Path, at: PathBuf) -> Result<(), PackError> {
        let from = std::fs::canonicalize(from).map_err(PackError::io("find", from))?;
        let metadata = std::fs::metadata(&from).map_err(PackError::io("look at", &from))?;
        if !metadata.is_file() {
            return Err(PackError::NotAFile(from));
        }
        if let Some(parent) = at.parent() {
            self.make_directories(parent);
            if matches!(self.nodes.get(parent), Some(Node::File { .. })) {
                return Err(PackError::Place(at, "what should be its directory is a file"));
            }
        }
        let node = Node::File { mode: metadata.permissions().mode() & 0o7777, content: Content::Host(from) };
        match self.nodes.get(&at) {
            Some(Node::File { content: Content::Host(_), .. }) if self.nodes.get(&at) != Some(&node) => {
                Err(PackError::Twice(at))
            }
            Some(Node::Directory { .. }) => Err(PackError::Place(at, "it is a directory in the image")),
            _ => {
                self.nodes.insert(at, node);
                Ok(())
            }
        }
    }

    fn make_directories(&mut self, path: &Path) {
        let mut at = PathBuf::new();
        for component in path.components() {
            at.push(component);
            self.nodes.entry(at.clone()).or_insert(Node::Directory { mode: 0o755 });
        }
    }

    /// Follows the links that the tree has on the way to `path`, the last component excepted.
    fn resolve(&self, path: &Path) -> Result<PathBuf, PackError> {
        let mut at = PathBuf::new();
        let mut rest: Vec<PathBuf> = parts(path);
        rest.reverse();
        let mut links_count = 0;
        while let Some(name) = rest.pop() {
            if name == Path::new("..") {
                at.pop();
                continue;
            }
            let next = at.join(name);
            match self.nodes.get(&next) {
                Some(Node::Symlink(target)) if !rest.is_empty() => {
                    links_count += 1;
                    if links_count > LINKS_COUNT_MAX {
                        return Err(PackError::Links(path.to_owned()));
                    }
                    if target.is_absolute() {
                        at = PathBuf::new();
                    }
                    rest.extend(parts(target).into_iter().rev());
                }
                _ => at = next,
            }
        }
        Ok(at)
    }
}

/// The names of a path; `.` and the root are left out, `..` stays.
fn parts(path: &Path) -> Vec<PathBuf> {
    let named = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    named.map(|part| PathBuf::from(part.as_os_str())).collect()
}
