//! What a celda left on the machine, told apart from what others do there meanwhile.
//!
//! Mounts, loop devices, open files and processes are looked for by the store's own directory: all that a celda has
//! leads there. Cgroups are named by ids that nobody knows beforehand, so those that were not there before are waited
//! for: another container's goes away with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use celda::sandbox::cgroup::Hierarchy;

/// How long another test's container may go on.
const OTHERS_TIME_MAX: Duration = Duration::from_secs(60);
/// Between two looks at cgroups.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Where celda may have its cgroups, but for those of cells.
const CGROUP_PARENTS: [&str; 3] =
    ["/sys/fs/cgroup/unified/celda", "/sys/fs/cgroup/celda", "/sys/fs/cgroup/celda.slice"];

/// What there is of one store's celda.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leftovers {
    /// Mount points at or below the directory, and those of its files.
    mounts: BTreeSet<String>,
    /// Loop devices over its files.
    loops: BTreeSet<PathBuf>,
    /// `PID: file` for each open file, working directory or root below it.
    files: BTreeSet<String>,
    /// Processes that were started with it: celda itself, and its threads' children until they are a container's.
    processes: BTreeSet<String>,
    cgroups: BTreeSet<PathBuf>,
}

impl Leftovers {
    /// What there is now of what belongs to `directory`.
    pub(crate) fn of(directory: &Path) -> Self {
        let text = directory.to_str().expect("a plain path");
        let mounted = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounted.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
        let loops = entries("/sys/block").map(|block| block.join("loop/backing_file"));
        let loops = loops.filter(|file| fs::read_to_string(file).is_ok_and(|backing| backing.contains(text)));
        let (mut files, mut processes) = (BTreeSet::new(), BTreeSet::new());
        for process in entries("/proc").filter(|path| is_number(path) && !is_own(path)) {
            let links = ["cwd", "root", "exe"].map(|name| process.join(name));
            for link in links.into_iter().chain(entries(process.join("fd"))) {
                if let Ok(target) = fs::read_link(&link)
                    && target.starts_with(directory)
                {
                    files.insert(format!("{}: {}", link.display(), target.display()));
                }
            }
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(&format!("CELDA_ROOT={text}")) {
                let words = fs::read(process.join("cmdline")).unwrap_or_default();
                processes.insert(format!("{}: {}", process.display(), String::from_utf8_lossy(&words)));
            }
        }
        let of_cell = Hierarchy::of_cell(&directory.join("run/cell")).ok().map(|of| of.parent());
        let parents = CGROUP_PARENTS.iter().map(PathBuf::from).chain(of_cell);
        let cgroups = parents.flat_map(entries).filter(|path| path.is_dir()).collect();
        Self { mounts, loops: loops.collect(), files, processes, cgroups }
    }

    /// Asserts that nothing of `directory` is there that was not, after `what`.
    pub(crate) fn assert_unchanged(&self, directory: &Path, what: &str) {
        let deadline = Instant::now() + OTHERS_TIME_MAX;
        let mut now = Self::of(directory);
        let new =
            |cgroups: &BTreeSet<PathBuf>| cgroups.difference(&self.cgroups).cloned().collect::<Vec<_>>();
        let ours = new(&now.cgroups);
        while ours.iter().any(|cgroup| cgroup.exists()) {
            assert!(Instant::now() < deadline, "{what}: of these cgroups one stays: {ours:?}");
            std::thread::sleep(LOOK_INTERVAL);
        }
        now.cgroups.clone_from(&self.cgroups);
        // `celda gc` frees what it removed behind its answer; that ends by itself. So it may be in `self` and gone now.
        while now.beyond(self) != Self::default() && Instant::now() < deadline {
            std::thread::sleep(LOOK_INTERVAL);
            now = Self { cgroups: self.cgroups.clone(), ..Self::of(directory) };
        }
        assert_eq!(now.beyond(self), Self::default(), "{what} left something behind");
    }

    /// What is here and was not there before.
    pub(crate) fn beyond(&self, before: &Self) -> Self {
        Self {
            mounts: &self.mounts - &before.mounts,
            loops: &self.loops - &before.loops,
            files: &self.files - &before.files,
            processes: &self.processes - &before.processes,
            cgroups: &self.cgroups - &before.cgroups,
        }
    }
}

fn entries(directory: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn is_number(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

fn is_own(process: &Path) -> bool {
    process.file_name().is_some_and(|name| name == std::process::id().to_string().as_str())
}
