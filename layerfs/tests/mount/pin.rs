//! The one mount of an image that all its containers share, as other users of the machine meet it.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use celda_layerfs::mount::{Ladder, Rung, WritableLayer};
use celda_layerfs::sys::namespace::unshare_mounts;
use celda_layerfs::tree::{Kind, Tree};
use celda_layerfs::{Digest, Store, StoreOptions};
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags as Propagation, MoveMountFlags, UnmountFlags};

use crate::image::{Image, inode};
use crate::privileged;

const NOBODY: u32 = 65_534;

/// What `program` prints for a user without any rights; `None` if it cannot be run.
fn as_nobody(program: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).uid(NOBODY).gid(NOBODY).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// An image of nothing but `/id`, setuid root. It is linked against the host's libraries, and is run there.
fn setuid_id() -> Image {
    let mut image = Image::new(1);
    let mut id = image.plain(0, &fs::read("/usr/bin/id").unwrap());
    id.mode = 0o4755;
    image.add(Tree::ROOT, b"id", id);
    image.add(Tree::ROOT, b"null", inode(Kind::CharDevice { major: 1, minor: 3 }, 0o666));
    image
}

/// Runs `test` in a mount namespace of its own, in which nothing is a secret of the temporary directory's owner.
fn in_a_namespace(test: impl FnOnce(&Path) + Send) {
    std::thread::scope(|scope| {
        let run = || {
            unshare_mounts().unwrap();
            rustix::mount::mount_change("/", Propagation::PRIVATE | Propagation::REC).unwrap();
            let place = tempfile::tempdir().unwrap();
            fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
            test(place.path());
        };
        scope.spawn(run).join().unwrap();
    });
}

#[test]
fn privileged_a_setuid_program_of_a_pinned_image_serves_containers_and_no_user_of_the_host() {
    let Some(_turn) = privileged() else { return };
    in_a_namespace(|place| {
        let run = place.join("run");
        let ladder = Ladder::load(place, &run);
        if ladder.rung == Rung::Directory {
            return println!("skipped: this kernel mounts no index");
        }
        let files = setuid_id().write_index(place);
        let chain_id = Digest::of(b"chain");
        let lower = ladder.shared_image(&chain_id, &files.index, &files.tars).unwrap();
        let pin = run.join("mounts").join(chain_id.hex());
        assert!(pin.join("id").exists(), "it is pinned where it is looked for");
        assert_eq!(as_nobody(&pin.join("id"), &["-u"]), None, "another user reaches an image's program");

        // Whoever is let in by mistake still gains nothing.
        fs::set_permissions(run.join("mounts"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(as_nobody(&pin.join("id"), &["-u"]).unwrap(), NOBODY.to_string());
        assert!(fs::read(pin.join("null")).is_err(), "a device of an image works on the host");

        let layer = WritableLayer::create(&place.join("containers"), "one").unwrap();
        let root = ladder.overlay(lower.as_fd(), Some(layer.path())).unwrap();
        let alone = ladder.overlay(lower.as_fd(), None).unwrap();
        for (name, mount) in [("root", &root), ("alone", &alone)] {
            let point = place.join(name);
            fs::create_dir(&point).unwrap();
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(mount, "", CWD, &point, flags).unwrap();
            assert_eq!(as_nobody(&point.join("id"), &["-u"]).unwrap(), "0", "setuid does not work in {name}");
            assert_eq!(fs::read(point.join("null")).unwrap(), b"", "devices do not work in {name}");
            rustix::mount::unmount(&point, UnmountFlags::DETACH).unwrap();
        }
        drop((root, alone, lower));
        layer.remove().unwrap();
        assert_eq!(ladder.unpin_all().unwrap(), 1);
    });
}

#[test]
fn privileged_nothing_of_a_store_can_be_reached_by_another_user() {
    let Some(_turn) = privileged() else { return };
    in_a_namespace(|place| {
        // One that is there already, and open to all.
        fs::create_dir(place.join("trees")).unwrap();
        fs::set_permissions(place.join("trees"), fs::Permissions::from_mode(0o777)).unwrap();
        Store::open(place, StoreOptions::default()).unwrap();
        let mut seen = 0;
        for entry in fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            let reached = as_nobody(Path::new("/bin/ls"), &[path.to_str().unwrap()]);
            assert_eq!(reached, None, "{}", path.display());
            seen += 1;
        }
        assert!(seen >= 8, "{seen} directories");
    });
}
