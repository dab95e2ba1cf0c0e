//! The mount ladder on the real kernel: each rung over one image, its refusals, and what it leaves behind.
#![allow(clippy::unwrap_used)]

mod image;
mod pin;
mod snapshot;

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use celda_layerfs::Error;
use celda_layerfs::mount::{Ladder, Reads, Rung, WritableLayer, remove_container, sweep_containers};
use image::{Files, one_of_each};
use snapshot::{held, tree_at, tree_of};

const BEST: Rung = Rung::FileBacked { inode_share: false, directio: false };

/// The tests count this process's descriptors, so they take turns. `None`: skipped.
fn privileged() -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if rustix::process::geteuid().is_root() {
        return Some(turn);
    }
    assert!(std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none_or(|value| value != "1"), "needs root");
    println!("skipped: needs root");
    None
}

/// The path that a rung mounts.
fn source(rung: Rung, files: &Files) -> &Path {
    if rung == Rung::Directory { &files.rootfs } else { &files.index }
}

/// The rungs that this kernel has, whatever the best is.
fn rungs(ladder: &Ladder) -> Vec<Rung> {
    let mut rungs = vec![Rung::Directory];
    if ladder.rung != Rung::Directory {
        rungs.push(Rung::Loop);
    }
    if let Rung::FileBacked { directio, .. } = ladder.rung {
        rungs.push(BEST);
        rungs.push(Rung::FileBacked { inode_share: false, directio });
    }
    rungs
}

#[test]
fn privileged_every_rung_shows_the_same_tree() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let ladder = Ladder::probe(store.path());
    let files = one_of_each().for_directory(store.path()).write(store.path());
    let before = held(store.path());
    let expected = tree_at(&files.rootfs);
    assert!(expected.len() > 100);
    for rung in rungs(&ladder) {
        let ladder = ladder.clone().with_rung(rung);
        let mount = ladder.mount_image_with(source(rung, &files), &files.tars, Reads::Direct).unwrap();
        let shown = tree_of(mount.as_fd());
        assert_eq!(shown.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{rung:?}");
        for (path, shows) in &shown {
            assert_eq!(Some(shows), expected.get(path), "{rung:?} {}", path.display());
        }
        let write = rustix::fs::openat(&mount, "new", rustix::fs::OFlags::CREATE, rustix::fs::Mode::RWXU);
        assert_eq!(write.err(), Some(rustix::io::Errno::ROFS), "{rung:?}");
    }
    settle(|| held(store.path()) == before);
}

#[test]
fn privileged_an_overlay_takes_writes_and_whiteouts_and_shows_the_images_root() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let ladder = Ladder::probe(store.path());
    let mut image = one_of_each().for_directory(store.path());
    (image.tree.inodes[0].mode, image.tree.inodes[0].uid) = (0o751, 12);
    let files = image.write(store.path());
    let before = held(store.path());
    for rung in rungs(&ladder) {
        let ladder = ladder.clone().with_rung(rung);
        let lower = ladder.mount_image(source(rung, &files), &files.tars).unwrap();
        let beneath = tree_of(lower.as_fd());
        let containers = store.path().join("containers");
        let layer = WritableLayer::create(&containers, "one").unwrap();
        let root = ladder.overlay(lower.as_fd(), Some(layer.path())).unwrap();
        let at = |name: &str| format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&root));
        assert_eq!(tree_of(root.as_fd()).keys().collect::<Vec<_>>(), beneath.keys().collect::<Vec<_>>());
        let meta = fs::metadata(at(".")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.mtime()), (0o751, 12, 1_500_000_000), "{rung:?}");
        fs::write(at("etc/passwd"), "changed").unwrap();
        fs::remove_file(at("big")).unwrap();
        fs::remove_dir_all(at("deep")).unwrap();
        assert_eq!(fs::read_to_string(at("etc/passwd")).unwrap(), "changed");
        assert!(!Path::new(&at("big")).exists());
        assert_eq!(tree_of(lower.as_fd()), beneath, "{rung:?}: a write reached the image");
        let again = ladder.overlay(lower.as_fd(), None).unwrap();
        assert_eq!(tree_of(again.as_fd()), beneath, "{rung:?}");
        assert!(matches!(remove_container(&containers, "one"), Err(Error::LayerInUse { .. })));
        ladder.release(lower.as_fd());
        drop((root, again, lower));
        layer.remove().unwrap();
        assert_eq!(fs::read_dir(&containers).unwrap().count(), 0);
        fs::remove_dir(&containers).unwrap();
    }
    settle(|| held(store.path()) == before);
}

#[test]
fn privileged_without_detached_lower_mounts_images_are_attached_where_nobody_sees_them() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let run = store.path().join("run");
    let mut ladder = Ladder::load(store.path(), &run);
    if ladder.rung == Rung::Directory {
        return println!("skipped: this kernel mounts no index");
    }
    ladder.overlay.detached_lower = false;
    ladder.overlay.layers_by_fd = false;
    assert!(ladder.needs_private_namespace());
    let files = one_of_each().for_directory(store.path()).write(store.path());
    let before = held(store.path());
    let (ladder, files, containers) = (&ladder, &files, &store.path().join("containers"));
    let seen = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for _ in 0..2 {
        // Of one mount all overlays, at once and one after another, whoever makes them.
        let lower = &ladder.mount_image(source(ladder.rung, files), &files.tars).unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                scope.spawn(move || {
                    let layer = WritableLayer::create(containers, &format!("layer-{number}")).unwrap();
                    let root = ladder.overlay(lower.as_fd(), Some(layer.path())).unwrap();
                    assert!(tree_of(root.as_fd()).len() > 100);
                    drop(root);
                    layer.remove().unwrap();
                });
            }
        });
        let layer = WritableLayer::create(containers, "last").unwrap();
        let root = ladder.overlay(lower.as_fd(), Some(layer.path())).unwrap();
        ladder.release(lower.as_fd());
        assert!(tree_of(root.as_fd()).len() > 100, "what there is of it goes on");
        drop(root);
        layer.remove().unwrap();
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), seen);
    settle(|| held(store.path()) == before);
}

#[test]
fn privileged_a_store_on_tmpfs_goes_down_a_rung_and_says_why() {
    let Some(_turn) = privileged() else { return };
    let run = || {
        celda_layerfs::sys::namespace::unshare_mounts().unwrap();
        use rustix::mount::{MountFlags, MountPropagationFlags as Propagation};
        rustix::mount::mount_change("/", Propagation::PRIVATE | Propagation::REC).unwrap();
        let store = tempfile::tempdir().unwrap();
        rustix::mount::mount("none", store.path(), "tmpfs", MountFlags::empty(), None).unwrap();
        let ladder = Ladder::probe(store.path());
        assert!(!matches!(ladder.rung, Rung::FileBacked { .. }), "{ladder:?}");
        assert!(ladder.why.iter().any(|why| why.contains("no file-backed mount")), "{:?}", ladder.why);
        let image = one_of_each().for_directory(store.path());
        let files = image.write_index(store.path());
        let rootfs = store.path().join("rootfs");
        celda_layerfs::directory::unpack(&image.tree, &files.tars, &rootfs, &Default::default()).unwrap();
        let path = if ladder.rung == Rung::Directory { &rootfs } else { &files.index };
        let mount = ladder.mount_image(path, &files.tars).unwrap();
        assert_eq!(tree_of(mount.as_fd()), tree_at(&rootfs));
        drop(mount);
        assert!(
            fs::read_dir(store.path()).unwrap().all(|entry| !entry.unwrap().path().starts_with(".probe"))
        );
        rustix::mount::unmount(store.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    };
    std::thread::spawn(run).join().unwrap();
}

#[test]
fn privileged_paths_longer_than_fsconfig_takes_are_mounted_all_the_same() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let ladder = Ladder::probe(store.path());
    let far = store.path().join("x".repeat(200)).join("y".repeat(200));
    fs::create_dir_all(&far).unwrap();
    let files = one_of_each().for_directory(&far).write(&far);
    let before = held(store.path());
    for rung in rungs(&ladder) {
        let ladder = ladder.clone().with_rung(rung);
        let lower = ladder.mount_image(source(rung, &files), &files.tars).unwrap();
        let layer = WritableLayer::create(&far.join("containers"), "one").unwrap();
        let root = ladder.overlay(lower.as_fd(), Some(layer.path())).unwrap();
        assert!(tree_of(root.as_fd()).len() > 100);
        ladder.release(lower.as_fd());
        drop(root);
        layer.remove().unwrap();
    }
    settle(|| held(store.path()) == before);
}

#[test]
fn privileged_bad_files_are_refused_with_what_was_done_and_nothing_is_held() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let ladder = Ladder::probe(store.path());
    let files = one_of_each().write_index(store.path());
    let rubbish = store.path().join("rubbish");
    fs::write(&rubbish, vec![0xa5; 8192]).unwrap();
    let missing = store.path().join("missing.tar");
    let before = held(store.path());
    for rung in rungs(&ladder) {
        let ladder = ladder.clone().with_rung(rung);
        let mut refused = vec![ladder.mount_image(&store.path().join("missing"), &files.tars)];
        if rung != Rung::Directory {
            refused.push(ladder.mount_image(&rubbish, &files.tars));
            refused.push(ladder.mount_image(&files.index, &[missing.clone(), missing.clone()]));
            refused.push(ladder.mount_image(&files.index, &files.tars[..1]));
        }
        for answer in refused {
            let text = answer.map(drop).expect_err(&format!("{rung:?}")).to_string();
            assert!(text.contains(&*store.path().to_string_lossy()), "{text}");
            println!("{text}");
        }
    }
    settle(|| held(store.path()) == before);
}

#[test]
fn the_cache_is_used_and_rubbish_in_it_is_not() {
    let store = tempfile::tempdir().unwrap();
    let _turn = privileged();
    let run = store.path().join("run");
    let probed = Ladder::load(store.path(), &run);
    let cache = run.join("ladder.json");
    let text = fs::read_to_string(&cache).unwrap();
    let marked = text.replacen("\"why\":[", "\"why\":[\"marked\",", 1).replace("\"marked\",]", "\"marked\"]");
    fs::write(&cache, &marked).unwrap();
    assert!(Ladder::load(store.path(), &run).why.contains(&"marked".to_owned()), "{marked}");
    let other_boot = marked.replacen("\"boot_id\":\"", "\"boot_id\":\"0", 1);
    for rubbish in [other_boot.as_str(), "", "{", "null", &"[".repeat(200_000)] {
        fs::write(&cache, rubbish).unwrap();
        assert_eq!(Ladder::load(store.path(), &run), probed);
        assert_eq!(fs::read_to_string(&cache).unwrap(), text);
    }
}

#[test]
fn privileged_layers_of_the_dead_are_swept_and_those_of_the_living_are_not() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let live = WritableLayer::create(store.path(), "live").unwrap();
    let dead = WritableLayer::create(store.path(), "dead").unwrap();
    fs::write(dead.path().join("upper/file"), "x").unwrap();
    drop(dead);
    for id in ["", ".", "..", "a/b", "../live"] {
        assert!(WritableLayer::create(store.path(), id).is_err(), "{id}");
        assert!(remove_container(store.path(), id).is_err(), "{id}");
    }
    assert!(WritableLayer::create(store.path(), "live").is_err());
    assert_eq!(sweep_containers(store.path()).unwrap(), 1);
    assert!(live.path().join("upper").exists());
    assert_eq!(fs::read_dir(store.path()).unwrap().count(), 1);
}

/// What the two tests below run as somebody else; by itself it has no store, and nothing to do.
#[test]
fn as_somebody_else() {
    let Ok(store) = std::env::var("CELDA_TEST_STORE") else { return };
    let ladder = Ladder::probe(Path::new(&store));
    println!("{}", serde_json::to_string_pretty(&ladder.info()).unwrap());
    assert_eq!(ladder.rung, Rung::Directory);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 0);
    let nobody = rustix::process::geteuid().as_raw() != 0;
    assert!(ladder.why.iter().any(|why| why.contains("root")), "{:?}", ladder.why);
    let image = one_of_each().for_directory(Path::new(&store));
    let files = image.write_index(Path::new(&store));
    let unpacked =
        celda_layerfs::directory::unpack(&image.tree, &files.tars, &files.rootfs, &Default::default())
            .unwrap();
    assert!(unpacked.omitted_count > 0);
    let mount = ladder.mount_image(&files.rootfs, &[]);
    if nobody {
        assert!(mount.unwrap_err().to_string().contains("run as root"));
        assert!(!ladder.overlay.usable);
        return;
    }
    assert!(ladder.overlay.usable && ladder.overlay.user_xattrs, "{ladder:?}");
    let layer = WritableLayer::create(&Path::new(&store).join("containers"), "one").unwrap();
    let root = ladder.overlay(mount.unwrap().as_fd(), Some(layer.path())).unwrap();
    fs::write(format!("/proc/self/fd/{}/new", std::os::fd::AsRawFd::as_raw_fd(&root)), "x").unwrap();
    drop(root);
    layer.remove().unwrap();
}

#[test]
fn privileged_nobody_gets_directories_and_words() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(store.path(), Some(65_534), Some(65_534)).unwrap();
    use std::os::unix::process::CommandExt as _;
    let mut command = Command::new("/proc/self/exe");
    run_as(command.uid(65_534).gid(65_534), store.path());
}

#[test]
fn privileged_root_of_a_user_namespace_gets_directories_and_overlays() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    let own = std::env::current_exe().unwrap();
    run_as(command.args(["--user", "--map-root-user", "--mount", "--"]).arg(own), store.path());
}

fn run_as(command: &mut Command, store: &Path) {
    command.args(["--exact", "as_somebody_else", "--nocapture"]).env("CELDA_TEST_STORE", store);
    let output = command.output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    println!("{text}");
}

/// A loop device is detached shortly after its last user: waits for that, with a deadline.
#[track_caller]
fn settle(done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !done() {
        assert!(std::time::Instant::now() < deadline, "something was left behind");
        std::thread::yield_now();
    }
}

#[test]
fn privileged_a_user_namespaces_overlay_shows_mapped_ids() {
    let Some(_turn) = privileged() else { return };
    let store = tempfile::tempdir().unwrap();
    let ladder = Ladder::probe(store.path());
    if !ladder.overlay.detached_lower {
        return println!("skipped: overlays take no detached mounts here");
    }
    let files = one_of_each().for_directory(store.path()).write(store.path());
    let before = held(store.path());
    let mut holder = Command::new("unshare")
        .args(["--user", "sh", "-c", "echo; read line"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", holder.id()), "0 100000 65536\n").unwrap();
    }
    let namespace = fs::File::open(format!("/proc/{}/ns/user", holder.id())).unwrap();
    for rung in rungs(&ladder) {
        let ladder = ladder.clone().with_rung(rung);
        let lower = ladder.mount_image(source(rung, &files), &files.tars).unwrap();
        let layer = WritableLayer::create(&store.path().join("containers"), "one").unwrap();
        let root = ladder.overlay_mapped(lower.as_fd(), Some(layer.path()), Some(namespace.as_fd())).unwrap();
        let at = |name: &str| format!("/proc/self/fd/{}/{name}", std::os::fd::AsRawFd::as_raw_fd(&root));
        for name in [".", "etc", "etc/passwd"] {
            assert_eq!(fs::metadata(at(name)).unwrap().uid(), 100_000, "{rung:?} {name}");
        }
        std::os::unix::fs::chown(at("etc/passwd"), Some(100_005), Some(100_006)).unwrap();
        let stored = fs::metadata(layer.path().join("upper/etc/passwd")).unwrap();
        assert_eq!((stored.uid(), stored.gid()), (100_005, 100_006), "{rung:?}");
        drop((root, lower));
        layer.remove().unwrap();
    }
    drop((namespace, holder.stdin.take(), holder.stdout.take()));
    holder.wait().unwrap();
    fs::remove_dir(store.path().join("containers")).unwrap();
    settle(|| held(store.path()) == before);
}
