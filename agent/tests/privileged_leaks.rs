//! What a container leaves on the machine: nothing.

mod common;

use std::fs;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Celda, Leftovers, privileged};

#[test]
fn privileged_nothing_is_left_behind() {
    let Some(celda) = Celda::with_image("nothing_left") else { return };
    let before = celda.leftovers();
    let image = celda.image();
    for _ in 0..20 {
        celda.shell(&[], "busybox sleep 1000 & exit 0");
        celda.fails(127, &["run", "--rm", &image, "missing"]);
        celda.shell(&[], "echo > /written");
    }
    celda.shell(&[], "true");
    // The image and, where roots are used again, one spare with its network, however many have been.
    let (mounts_count, spares_count) = if celda.takes_detached("a spare root") { (3, 1) } else { (1, 0) };
    let count = |directory: PathBuf| fs::read_dir(directory).expect("a directory").count();
    assert_eq!(count(celda.directory().join("run/mounts")), mounts_count);
    assert_eq!(count(celda.root().join("containers")), spares_count);
    celda.ok(&["run", &image, "/bin/sh", "-c", "true"]);
    assert_eq!(count(celda.directory().join("run/mounts")), 1, "a kept container has no pins");
    celda.ok(&["gc"]);
    before.assert_unchanged(celda.directory(), "sixty containers");
    assert_eq!(count(celda.root().join("containers")), 0);
}

#[test]
fn privileged_a_killed_celda_takes_its_container_with_it() {
    for flags in [&[][..], &["--userns", "map:0:100000:65536"]] {
        let Some(celda) = Celda::with_image("killed_celda") else { return };
        if !flags.is_empty() && !celda.takes_detached("a user namespace") {
            continue;
        }
        let before = celda.leftovers();
        let args = celda.shell_args(flags, "echo ready; while :; do busybox sleep 0.1; done");
        let mut command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
        let mut line = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
        out.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        let containers = celda.root().join("containers");
        let id = fs::read_dir(&containers).expect("listed").flatten().next().expect("one").file_name();
        child.kill().expect("sent");
        child.wait().expect("ended");
        celda.ok(&["gc"]);
        assert_eq!(fs::read_dir(&containers).expect("listed").count(), 0, "{flags:?}");
        let cgroup = std::path::Path::new("/sys/fs/cgroup/unified/celda").join(&id);
        assert!(!cgroup.exists() && !std::path::Path::new("/sys/fs/cgroup/celda").join(&id).exists());
        // Every process of the container held the pipe: its end says that all are gone.
        let deadline = Instant::now() + Duration::from_secs(10);
        line.clear();
        while out.read_line(&mut line).expect("read") > 0 {
            assert!(Instant::now() < deadline, "the container goes on");
        }
        let mounts = celda.directory().join("run/mounts");
        assert_eq!(fs::read_dir(&mounts).map_or(0, Iterator::count), 0, "gc takes the image's mount as well");
        before.assert_unchanged(celda.directory(), "a killed celda");
    }
}

#[test]
fn privileged_what_is_left_would_be_seen() {
    if !privileged("would_be_seen") {
        return;
    }
    let celda = Celda::new();
    let before = celda.leftovers();
    let sleeper = |at: &Path, root: &Path| {
        let mut command = Command::new("sleep");
        command.arg("1000").current_dir(at).env("CELDA_ROOT", root).spawn().expect("started")
    };
    for mut child in [sleeper(celda.directory(), Path::new("/")), sleeper(Path::new("/"), &celda.root())] {
        let left = celda.leftovers();
        child.kill().expect("sent");
        child.wait().expect("ended");
        assert_ne!(left.beyond(&before), Leftovers::default());
    }
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("tmpfs", celda.files(), "tmpfs", flags, None).expect("mounted");
    let left = celda.leftovers();
    rustix::mount::unmount(celda.files(), rustix::mount::UnmountFlags::DETACH).expect("unmounted");
    assert_ne!(left.beyond(&before), Leftovers::default());
    before.assert_unchanged(celda.directory(), "the test");
}
