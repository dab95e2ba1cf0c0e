//! What the tests of the `celda` command share: a store of their own, a small image, a look for leaks.
#![allow(dead_code, reason = "each test binary uses its part")]

mod leftovers;
mod small_disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

pub(crate) use leftovers::Leftovers;
pub(crate) use small_disk::SmallDisk;

/// Whether privileged tests can run here; says so when not, and panics when they must.
pub(crate) fn privileged(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none(),
        "{test} needs root and must not be skipped"
    );
    println!("{test} skipped: needs root");
    false
}

/// The path of a static busybox; panics when tests must not be skipped and there is none.
pub(crate) fn busybox(test: &str) -> Option<PathBuf> {
    let found = ["/bin/busybox", "/usr/bin/busybox"].iter().map(PathBuf::from).find(|path| path.exists());
    assert!(
        found.is_some() || std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none(),
        "{test} needs busybox (Debian: apt-get install busybox-static)"
    );
    if found.is_none() {
        println!("{test} skipped: needs busybox (Debian: apt-get install busybox-static)");
    }
    found
}

/// Copies a program that is executed next. Another process writes it: what another thread of this one forks meanwhile would
/// have the copy open for writing until its own execve(2), and a program that is open for writing is not executed (`ETXTBSY`).
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "cp {} {}: {status}", from.display(), to.display());
}

/// The files below `directory`, by their paths in `top`.
fn read_below(top: &Path, directory: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(directory).expect("listed").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_below(top, &path, files);
        } else {
            let name = path.strip_prefix(top).expect("it is below").to_owned();
            files.push((name, fs::read(&path).expect("read")));
        }
    }
}

/// The `celda` command with a store of its own.
pub(crate) struct Celda {
    /// What its store is on, if that is a filesystem of its own. Goes before the directory.
    disk: Option<SmallDisk>,
    directory: TempDir,
}

impl Celda {
    pub(crate) fn new() -> Self {
        let celda = Self { disk: None, directory: tempfile::tempdir().expect("a temporary directory") };
        fs::create_dir(celda.directory.path().join("files")).expect("a directory for the test's files");
        celda
    }

    /// A store that has the image `image()`, from a layout beside it; `None` where the test is to be skipped.
    pub(crate) fn with_image(test: &str) -> Option<Self> {
        privileged(test).then(Self::new)?.filled(test)
    }

    /// The same on a disk of its own, of so many MiB, which can be filled.
    pub(crate) fn with_image_on(test: &str, disk_mib: u64) -> Option<Self> {
        let mut celda = privileged(test).then(Self::new)?;
        fs::create_dir(celda.root()).expect("a directory for the store");
        celda.disk = Some(SmallDisk::mount(test, celda.directory(), &celda.root(), disk_mib)?);
        celda.filled(test)
    }

    /// The same on a disk that keeps limits of projects.
    pub(crate) fn with_image_on_projects(test: &str, disk_mib: u64) -> Option<Self> {
        let mut celda = privileged(test).then(Self::new)?;
        fs::create_dir(celda.root()).expect("a directory for the store");
        let disk = SmallDisk::mount_with_projects(test, celda.directory(), &celda.root(), disk_mib)?;
        celda.disk = Some(disk);
        celda.filled(test)
    }

    fn filled(self, test: &str) -> Option<Self> {
        let celda = self;
        let busybox = busybox(test)?;
        let layout = celda.directory().join("layout");
        // Packed once for all tests of a program: to compress it is slow where the machine is emulated.
        static PACKED: OnceLock<Vec<(PathBuf, Vec<u8>)>> = OnceLock::new();
        let packed = PACKED.get_or_init(|| {
            let busybox = busybox.to_str().expect("a plain path");
            let files = [format!("{busybox}:/bin/busybox"), format!("{busybox}:/bin/sh")];
            celda.ok(&["pack", &celda.image(), &files[0], &files[1], "--cmd", "/bin/sh"]);
            let mut packed = Vec::new();
            read_below(&layout, &layout, &mut packed);
            packed
        });
        for (path, bytes) in packed {
            let path = layout.join(path);
            fs::create_dir_all(path.parent().expect("it is in the layout"))
                .expect("a directory of the layout");
            fs::write(path, bytes).expect("a file of the layout");
        }
        celda.ok(&["pull", "--quiet", &celda.image()]);
        Some(celda)
    }

    /// Whether overlays take an image that is attached nowhere here (Linux 6.15): without it there are neither spare roots
    /// nor mapped ids. Says so when not.
    pub(crate) fn takes_detached(&self, test: &str) -> bool {
        let info: serde_json::Value = serde_json::from_str(&self.ok(&["info", "--json"])).expect("JSON");
        let takes = info["mount"]["overlay"]["detached_lower"] == true;
        if !takes {
            println!(
                "skipped: {test} needs overlays over detached mounts (Linux 6.15), and this is {}",
                info["kernel"]
            );
        }
        takes
    }

    pub(crate) fn image(&self) -> String {
        format!("oci:{}:1", self.directory.path().join("layout").display())
    }

    /// Where all is that belongs to this test.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What there is on the machine of this store's celda.
    pub(crate) fn leftovers(&self) -> Leftovers {
        Leftovers::of(self.directory())
    }

    pub(crate) fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_celda")), args)
    }

    /// As [`command`](Self::command), of another celda.
    pub(crate) fn command_of(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env("CELDA_ROOT", self.root()).env("CELDA_RUN", self.directory.path().join("run"));
        command.args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("celda starts")
    }

    /// Standard output of a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "celda {args:?}: {}", describe(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Standard output of `script` in busybox's shell with these flags of `run`.
    pub(crate) fn shell(&self, flags: &[&str], script: &str) -> String {
        self.ok(&self.shell_args(flags, script).iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn shell_args(&self, flags: &[&str], script: &str) -> Vec<String> {
        let mut args = vec!["run".to_owned(), "--rm".to_owned()];
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        args.extend([self.image(), "/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]);
        args
    }

    /// Standard error of a command that must fail with `status`.
    pub(crate) fn fails(&self, status: i32, args: &[&str]) -> String {
        let output = self.output(args);
        assert_eq!(output.status.code(), Some(status), "celda {args:?}: {}", describe(&output));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Celda {
    /// An image's mount below the run directory would keep the directory from being removed.
    fn drop(&mut self) {
        let _ = self.output(&["gc"]);
    }
}

/// Changes the config of a layout's first image, and makes manifest and index name the changed one.
pub(crate) fn change_config(layout: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let blob = |digest: &serde_json::Value| {
        layout.join("blobs").join(digest.as_str().expect("a digest").replace(':', "/"))
    };
    let read = |path: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(path).expect("read")).expect("JSON")
    };
    let put = |document: &serde_json::Value| {
        let bytes = serde_json::to_vec(document).expect("JSON");
        let digest = celda_layerfs::Digest::of(&bytes);
        fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).expect("written");
        (digest.to_string(), bytes.len())
    };
    let path = layout.join("index.json");
    let mut index = read(&path);
    let mut manifest = read(&blob(&index["manifests"][0]["digest"]));
    let mut config = read(&blob(&manifest["config"]["digest"]));
    change(&mut config);
    let (digest, size) = put(&config);
    (manifest["config"]["digest"], manifest["config"]["size"]) = (digest.into(), size.into());
    let (digest, size) = put(&manifest);
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = (digest.into(), size.into());
    fs::write(&path, serde_json::to_vec(&index).expect("JSON")).expect("written");
}

/// Waits until something is so that nobody tells of, with a deadline.
pub(crate) fn wait_until(mut is_so: impl FnMut() -> bool, what: &str) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "waited for long: {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

pub(crate) fn describe(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\nstdout: {}\nstderr: {}", output.status, text(&output.stdout), text(&output.stderr))
}
