//! The draft of a plan while it is being written: steps, slots, and what the parent opens into them.

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use crate::sandbox::devices::Rules;
use crate::sandbox::error::{Result, SandboxError};
use crate::sandbox::step::{Slot, Step, Target};
use crate::sys::MountAttributes;

/// Components that a path of the container may have.
const COMPONENTS_COUNT_MAX: usize = 128;

/// A clone of a directory or file of the host.
#[derive(Debug)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    /// With all that is mounted below.
    pub(crate) recursive: bool,
    /// For the mount itself.
    pub(crate) top: MountAttributes,
    /// For it and all below.
    pub(crate) below: MountAttributes,
    /// Ids of the files as the container sees them: `uid_map` and `gid_map`, for the mount or for all below too.
    pub(crate) ids: Option<([String; 2], bool)>,
}

/// What the parent opens, or is given, before the child is born.
#[derive(Debug)]
pub(crate) enum Open {
    /// The detached mount of the root filesystem, and whether its device nodes may be used.
    Rootfs { nodes: bool },
    /// Standard input, output or error: 0, 1 or 2.
    Standard(u8),
    /// The network namespace made beforehand.
    Network,
    /// The first process of a running container, by the caller's descriptor.
    Container,
    /// A directory of the host.
    Directory(PathBuf),
    /// A namespace to be joined.
    Namespace(PathBuf),
    /// A clone of a directory or file of the host.
    Bind(Bind),
    /// A clone of a device node of the host, which must be this device.
    Device { path: PathBuf, device: u64 },
    /// The helper's executable.
    Helper,
    /// The pipe on which the helper tells what came of an execve.
    Verdict,
    /// Where the child sends the terminal's master.
    Channel,
    /// The pipe on which the child says that its user namespace is there.
    Ready,
    /// The pipe on which it hears that the maps are written.
    Go,
    /// The parent's end of that pipe, which the child closes: it must hear when the parent is gone.
    GoWriter,
    /// A pipe that ends when the parent does; reading it does not wait.
    Alive,
    /// The parent's end of that pipe, which the child closes.
    AliveWriter,
}

/// Steps and what they need.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) steps: Vec<Step>,
    pub(crate) opens: Vec<(Slot, Open)>,
    pub(crate) slots_count: u16,
    /// `CLONE_NEW*` for `clone3`.
    pub(crate) namespaces: u64,
    /// A process namespace to be joined before the clone.
    pub(crate) join_pid: Option<Slot>,
    /// `uid_map` and `gid_map` of a new user namespace, as the kernel reads them.
    pub(crate) id_maps: Option<[String; 2]>,
    /// The devices that it may use.
    pub(crate) devices: Rules,
}

impl Draft {
    pub(crate) fn slot(&mut self) -> Slot {
        let slot = Slot(self.slots_count);
        self.slots_count += 1;
        slot
    }

    pub(crate) fn open(&mut self, open: Open) -> Slot {
        let slot = self.slot();
        self.opens.push((slot, open));
        slot
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.steps.push(step);
    }
}

/// A C string out of the spec.
pub(crate) fn text(what: &str, value: impl Into<Vec<u8>>) -> Result<CString> {
    CString::new(value).map_err(|_| SandboxError::invalid(what, "contains a zero byte"))
}

/// Cuts an absolute path of the container into components; `..` is refused, since a spec has no need of it.
pub(crate) fn target(what: &str, path: &Path) -> Result<Target> {
    use std::os::unix::ffi::OsStrExt as _;
    let refuse = |why: &str| Err(SandboxError::invalid(what, format!("{}: {why}", path.display())));
    if !path.is_absolute() {
        return refuse("not an absolute path");
    }
    let mut target = Target { prefixes: Vec::new(), names: Vec::new() };
    let mut prefix = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                prefix.push(name);
                target.prefixes.push(text(what, prefix.as_os_str().as_bytes())?);
                target.names.push(text(what, name.as_bytes())?);
            }
            Component::ParentDir | Component::Prefix(_) => return refuse("has a `..` component"),
        }
    }
    if target.names.len() > COMPONENTS_COUNT_MAX {
        return refuse("has too many components");
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut_into_prefixes() {
        let cut = target("x", Path::new("/a//b/./c")).expect("a valid path");
        assert_eq!(cut.prefixes, [c"a".to_owned(), c"a/b".to_owned(), c"a/b/c".to_owned()]);
        assert_eq!(cut.to_string(), "/a/b/c");
        assert!(target("x", Path::new("a/b")).is_err());
        assert!(target("x", Path::new("/a/../b")).is_err());
        assert!(target("x", Path::new(&"/a".repeat(200))).is_err());
    }
}
