//! The hierarchy: where groups are made, and which limits it can keep.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use celda_layerfs::Digest;
use oci_spec::runtime::LinuxResources;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::dir::{read_at, write_at};
use super::limits::{self, Setting};
use super::locate::{self, Location, OWN_LEAF};
use super::{CgroupDir, CgroupError, read};

/// The group of all containers but those of cells.
const PARENT: &str = "celda";
/// Digits of a cell's path's hash in the name of its parent.
const CELL_DIGITS_COUNT: usize = 12;
/// Controllers that limits of the runtime spec need, in version 2's names.
const CONTROLLERS: [&str; 7] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids", "rdma"];
/// The longest name that a directory has (NAME_MAX, linux/limits.h).
const ID_BYTES_MAX: usize = 255;
/// The tables that [`Hierarchy::find`] reads.
const MOUNTINFO: &str = "/proc/self/mountinfo";
const OWN: &str = "/proc/self/cgroup";

/// cgroup v2 on this machine.
#[derive(Debug)]
pub struct Hierarchy {
    location: Location,
    /// Where the parent is made: this process's own group where it was delegated or the process is not root's, else
    /// the mount.
    base: PathBuf,
    /// The group in it that containers' groups are made in.
    parent: String,
}

/// One controller, for those who ask what can be limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// As `memory`.
    pub name: &'static str,
    /// Why limits of it are refused; `None` when they are kept.
    pub missing: Option<String>,
}

impl Hierarchy {
    /// Looks where cgroup v2 is mounted: alone, or beside version 1.
    ///
    /// # Errors
    /// [`CgroupError::NotMounted`], [`CgroupError::Io`] when /proc can't be read.
    pub fn find() -> Result<Self, CgroupError> {
        let text =
            |path: &str| std::fs::read_to_string(path).map_err(|error| CgroupError::io("read", path, error));
        let location = locate::locate(&text(MOUNTINFO)?, &text(OWN)?)
            .ok_or_else(|| CgroupError::NotMounted { mountinfo: MOUNTINFO.into() })?;
        let is_own = !rustix::process::geteuid().is_root() || is_delegated(&location.own);
        let base = if is_own { &location.own } else { &location.mount };
        Ok(Self { base: base.clone(), location, parent: PARENT.to_owned() })
    }

    /// As [`find`](Self::find), with a parent of its own for the containers of the cell whose holder is in `directory`:
    /// `celda-cell-` and the beginning of the sha-256 of that path. Instances of two cells may have one id.
    ///
    /// # Errors
    /// As [`find`](Self::find), and [`CgroupError::Io`] when the directory is not there.
    pub fn of_cell(directory: &Path) -> Result<Self, CgroupError> {
        let path = std::fs::canonicalize(directory)
            .map_err(|error| CgroupError::io("find the path of", directory, error))?;
        let hex = Digest::of(path.as_os_str().as_encoded_bytes()).hex();
        Ok(Self { parent: format!("celda-cell-{}", &hex[..CELL_DIGITS_COUNT]), ..Self::find()? })
    }

    /// Removes the group that containers' groups are made in, if none is left there.
    pub fn remove_parent(&self) {
        let _ = rustix::fs::unlinkat(rustix::fs::CWD, self.parent(), AtFlags::REMOVEDIR);
    }

    #[cfg(test)]
    pub(super) fn at(location: Location) -> Self {
        Self { base: location.own.clone(), location, parent: PARENT.to_owned() }
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.location.mount
    }

    /// The group that containers' groups are made in.
    pub fn parent(&self) -> PathBuf {
        self.base.join(&self.parent)
    }

    /// Which limits can be kept here, and why not the others.
    ///
    /// # Errors
    /// [`CgroupError::Io`] when the hierarchy can't be read.
    pub fn controllers(&self) -> Result<Vec<Controller>, CgroupError> {
        let offered = read_at(&open(&self.base)?, &self.base, "cgroup.controllers")?;
        let controller = |name| {
            let missing = (!has_word(&offered, name)).then(|| self.why_missing(name));
            Controller { name, missing }
        };
        Ok(CONTROLLERS.into_iter().map(controller).collect())
    }

    /// The group of a container that is there.
    ///
    /// # Errors
    /// [`CgroupError::BadId`], and [`CgroupError::Io`] when there is none.
    pub fn group(&self, id: &str) -> Result<CgroupDir, CgroupError> {
        check_id(id)?;
        let parent_path = self.parent();
        let path = parent_path.join(id);
        let fd = open(&path)?;
        let limited = !read_at(&fd, &path, "cgroup.controllers")?.trim().is_empty();
        Ok(CgroupDir::new(fd, open(&parent_path)?, path, limited))
    }

    /// Ends what runs in the group that a container left behind, and removes it; false when there is none.
    ///
    /// # Errors
    /// [`CgroupError::BadId`], and [`CgroupError::Io`] when it does not go.
    pub fn remove_stale(&self, id: &str) -> Result<bool, CgroupError> {
        check_id(id)?;
        remove_group(&self.parent().join(id))
    }

    /// As [`remove_stale`](Self::remove_stale), of a group by its path: where it is depends on who made it.
    ///
    /// # Errors
    /// [`CgroupError::BadId`] for a path that no group of a container has here, and as [`remove_stale`](Self::remove_stale).
    pub fn remove_stale_at(&self, path: &Path) -> Result<bool, CgroupError> {
        check_path(&self.location.mount, path)?;
        remove_group(path)
    }

    /// Makes the group of one container and sets its limits.
    ///
    /// Without limits that is two mkdir and two open. A group of that name in which nothing runs is left of a crash
    /// and made anew.
    ///
    /// # Errors
    /// [`CgroupError::MissingController`] for a limit that can't be kept, [`CgroupError::Invalid`] for one without a
    /// meaning, [`CgroupError::BadId`], [`CgroupError::Exists`] when something runs in a group of that name,
    /// [`CgroupError::Occupied`] when processes keep the kernel from limiting the groups beside them, and
    /// [`CgroupError::Io`]. Nothing is left behind.
    pub fn create(&self, id: &str, resources: &LinuxResources) -> Result<CgroupDir, CgroupError> {
        check_id(id)?;
        let settings = limits::settings(resources)?;
        let parent_path = self.parent();
        // Refused before anything is made.
        let base = if settings.is_empty() { None } else { Some(self.offering(&settings)?) };
        let parent = match open(&parent_path) {
            Err(CgroupError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                make(rustix::fs::CWD, &parent_path, &parent_path)?;
                open(&parent_path)?
            }
            other => other?,
        };
        if let Some(base) = base {
            self.enable(&base, &parent, &settings)?;
        }
        let path = parent_path.join(id);
        if !make(&parent, Path::new(id), &path)? {
            let stale = rustix::fs::unlinkat(&parent, id, AtFlags::REMOVEDIR);
            if stale.is_err() || !make(&parent, Path::new(id), &path)? {
                return Err(CgroupError::Exists { path });
            }
        }
        let fd = open(&path)?;
        let group = CgroupDir::new(fd, parent, path, !settings.is_empty());
        for setting in &settings {
            if let Err(error) = group.write(&setting.file, &setting.value) {
                let _ = group.remove(); // the first error is the one to tell
                return Err(error);
            }
        }
        Ok(group)
    }

    /// The base group, open, if it offers the controllers that `settings` need.
    fn offering(&self, settings: &[Setting]) -> Result<OwnedFd, CgroupError> {
        let base = open(&self.base)?;
        let offered = read_at(&base, &self.base, "cgroup.controllers")?;
        match settings.iter().find(|setting| !has_word(&offered, setting.controller())) {
            None => Ok(base),
            Some(setting) => Err(CgroupError::MissingController {
                limit: setting.file.clone(),
                controller: setting.controller().to_string(),
                mount: self.base.display().to_string(),
                why: self.why_missing(setting.controller()),
            }),
        }
    }

    /// Turns the controllers on for the groups below `base` and below `parent`.
    fn enable(&self, base: &OwnedFd, parent: &OwnedFd, settings: &[Setting]) -> Result<(), CgroupError> {
        const FILE: &str = "cgroup.subtree_control";
        let parent_path = self.parent();
        let on = read_at(parent, &parent_path, FILE)?;
        let mut wanted: Vec<&str> = settings.iter().map(Setting::controller).collect();
        wanted.retain(|controller| !has_word(&on, controller));
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        let occupied = |path: &Path, controller: &str| CgroupError::Occupied {
            path: path.to_owned(),
            controller: controller.to_owned(),
        };
        // With processes in it, a group that hands on a threaded controller (cpu, cpuset, pids) makes groups below that can
        // hand on nothing; the kernel says so only there. The root of the hierarchy, which has no type, is exempt.
        if read_at(base, &self.base, "cgroup.type").is_ok() && !leave(base, &self.base)? {
            return Err(occupied(&self.base, wanted[0]));
        }
        let on_in_base = read_at(base, &self.base, FILE)?;
        for (group, path, on) in [(base, &self.base, &on_in_base), (parent, &parent_path, &on)] {
            for controller in wanted.iter().filter(|controller| !has_word(on, controller)) {
                write_at(group, path, FILE, &format!("+{controller}")).map_err(|error| {
                    // Somebody has moved in meanwhile.
                    if is_busy(&error) { occupied(path, controller) } else { error }
                })?;
            }
        }
        Ok(())
    }

    /// Who has a controller that the base group lacks, and what to do.
    fn why_missing(&self, controller: &str) -> String {
        if !CONTROLLERS.contains(&controller) && !["misc", "dmem"].contains(&controller) {
            return "there is no controller of that name; see cgroups(7)".into();
        }
        let name = locate::version_1_name(controller);
        if let Some((_, mount)) = self.location.version_1.iter().find(|(owned, _)| owned == name) {
            let place =
                mount.as_ref().map_or("outside of this container".into(), |at| at.display().to_string());
            return format!(
                "cgroup v1 has it ({place}); boot with cgroup_no_v1={name} or systemd.unified_cgroup_hierarchy=1, or \
                 run without this limit"
            );
        }
        let top = &self.location.mount;
        let offered = open(top).and_then(|dir| read_at(&dir, top, "cgroup.controllers"));
        if self.base != *top && offered.is_ok_and(|offered| has_word(&offered, controller)) {
            return format!(
                "{} has it but does not pass it on; run as root, or delegate it to this group (systemd: \
                 Delegate=yes)",
                top.display()
            );
        }
        format!(
            "this kernel does not have it or was booted with cgroup_disable={name} (see /proc/cgroups), or a \
             container's host keeps it; run without this limit"
        )
    }
}

/// Whether systemd has handed this group over, after which only its owner may make groups in it, and the owner only
/// there: Delegate= in systemd.resource-control(5) sets this attribute.
fn is_delegated(group: &Path) -> bool {
    let mut value = [0; 2];
    rustix::fs::getxattr(group, "trusted.delegate", &mut value) == Ok(1) && value[0] == b'1'
}

/// The kernel's "no internal processes" rule, Documentation/admin-guide/cgroup-v2.rst.
fn is_busy(error: &CgroupError) -> bool {
    let busy = Some(Errno::BUSY.raw_os_error());
    matches!(error, CgroupError::Io { source, .. } if source.raw_os_error() == busy)
}

/// Moves this process to a group of its own when it is alone in `group`, so that none is left; `false` when others are.
fn leave(group: &OwnedFd, path: &Path) -> Result<bool, CgroupError> {
    let own = std::process::id();
    match read::pids(&read_at(group, path, "cgroup.procs")?)[..] {
        [] => return Ok(true),
        [alone] if alone == own => {}
        _ => return Ok(false),
    }
    let leaf_path = path.join(OWN_LEAF);
    make(group, Path::new(OWN_LEAF), &leaf_path)?;
    write_at(&open(&leaf_path)?, &leaf_path, "cgroup.procs", &own.to_string())?;
    Ok(true)
}

/// `false` when it is there already.
fn make(at: impl std::os::fd::AsFd, name: &Path, path: &Path) -> Result<bool, CgroupError> {
    match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(CgroupError::io("make the cgroup", path, errno)),
    }
}

fn open(path: &Path) -> Result<OwnedFd, CgroupError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| CgroupError::io("open", path, errno))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_ascii_whitespace().any(|known| known == word)
}

/// Ends what runs in a group and removes it; false when there is none.
fn remove_group(path: &Path) -> Result<bool, CgroupError> {
    let not_there = |error: &CgroupError| matches!(error, CgroupError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound);
    let Some(parent) = path.parent() else { return Ok(false) };
    match open(parent).and_then(|parent| Ok((open(path)?, parent))) {
        Err(error) if not_there(&error) => Ok(false),
        opened => {
            let (fd, parent) = opened?;
            CgroupDir::new(fd, parent, path.to_owned(), false).remove().map(|()| true)
        }
    }
}

/// The path `MOUNT/.../celda/ID`, as [`Hierarchy::create`] makes it outside of cells: what else is there is not ours to end.
fn check_path(mount: &Path, path: &Path) -> Result<(), CgroupError> {
    let below = path.strip_prefix(mount).ok();
    let is_plain = |below: &Path| below.components().all(|part| matches!(part, Component::Normal(_)));
    let is_ours = path.parent().and_then(Path::file_name).is_some_and(|name| name == PARENT);
    match path.file_name().and_then(OsStr::to_str) {
        Some(id) if is_ours && below.is_some_and(is_plain) => check_id(id),
        _ => Err(CgroupError::BadId {
            id: path.display().to_string(),
            why: "a container's group is below the mount of cgroup v2, in one that is called celda",
        }),
    }
}

/// A name that is one directory, and no file that the kernel puts into every group.
fn check_id(id: &str) -> Result<(), CgroupError> {
    let bad = |why| Err(CgroupError::BadId { id: id.chars().take(64).collect(), why });
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.+".contains(&byte);
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return bad("it has between 1 and 255 bytes");
    }
    if !id.bytes().all(good) || !id.as_bytes()[0].is_ascii_alphanumeric() {
        return bad("it begins with a letter or digit and has letters, digits, and _-.+ only");
    }
    let prefix = id.split_once('.').map_or("", |(prefix, _)| prefix);
    if prefix == "cgroup" || CONTROLLERS.contains(&prefix) {
        return bad("names that begin so are the kernel's own in a cgroup");
    }
    Ok(())
}
