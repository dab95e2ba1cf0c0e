//! Full, read-only and forbidden stores. Each test has a mount namespace and a tmpfs of its own.

use std::path::Path;

use crate::io::IoChoice;
use crate::store::testing::{PLATFORM, TestLayer, options, pull, staged};
use crate::store::{Sink, Store};
use crate::{Error, Result};

/// Bytes of the tmpfs.
const DISK: &str = "size=4m,mode=755";

/// Runs `test` on a thread with a mount namespace of its own, where `place` is a small tmpfs.
fn on_a_small_disk(test: impl FnOnce(&Path) + Send) {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CELDA_REQUIRE_PRIVILEGED").is_none(), "needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let place = tempfile::tempdir().expect("temporary directory");
    let path = place.path();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            crate::sys::namespace::unshare_mounts().expect("unshare");
            let private =
                rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).expect("make mounts private");
            let flags = rustix::mount::MountFlags::empty();
            let data = std::ffi::CString::new(DISK).expect("no NUL");
            rustix::mount::mount("tmpfs", path, "tmpfs", flags, data.as_c_str()).expect("mount tmpfs");
            test(path);
        });
        thread.join().expect("the test passes");
    });
    assert!(std::fs::read_dir(path).expect("listed").next().is_none(), "the mount was not ours alone");
}

fn pull_too_much(store: &Store) -> Result<crate::ImageRecord> {
    pull(store, "big:1", &[TestLayer::new(1, 1000), TestLayer::new(2, 12_000_000)])
}

#[test]
fn privileged_a_full_disk_is_named_and_nothing_is_left() {
    for io in [IoChoice::Threads, IoChoice::Ring] {
        on_a_small_disk(|root| {
            let store = Store::open(root, options(io, Sink::Index)).expect("store opens");
            let error = pull_too_much(&store).expect_err("it does not fit");
            let text = error.to_string();
            assert!(matches!(error, Error::NoSpace { .. }), "{text}");
            assert!(text.contains("celda gc") && text.contains(&root.display().to_string()), "{text}");
            assert!(staged(&store).is_empty());
            assert_eq!(store.image("big:1", PLATFORM).expect("read"), None);
            // What fits is taken, after gc has freed the layer that had arrived.
            assert_eq!(store.gc().expect("gc on a full disk").layers.len(), 1);
            pull(&store, "small:1", &[TestLayer::new(3, 1_000_000)]).expect("this one fits");
        });
    }
}

#[test]
fn privileged_a_read_only_store_can_be_read() {
    on_a_small_disk(|root| {
        let store = Store::open(root, options(IoChoice::Threads, Sink::Index)).expect("store opens");
        let image = pull(&store, "a:1", &[TestLayer::new(1, 1000)]).expect("pulled");
        let flags = rustix::mount::MountFlags::RDONLY;
        rustix::mount::mount_remount(root, flags, "").expect("remount read-only");
        let store = Store::open(root, options(IoChoice::Threads, Sink::Index)).expect("opens read-only");
        assert_eq!(store.image("a:1", PLATFORM).expect("read"), Some(image.clone()));
        drop(store.lease(&image).expect("leased"));
        for error in [
            store.begin_pull().map(drop).expect_err("no pull"),
            store.remove("a:1", false).map(drop).expect_err("no removal"),
            store.gc().map(drop).expect_err("no gc"),
        ] {
            assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
        }
        let below = root.join("new");
        let error = Store::open(&below, options(IoChoice::Threads, Sink::Index)).expect_err("cannot be made");
        assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
    });
}

#[test]
fn privileged_another_user_is_told_what_to_do() {
    on_a_small_disk(|root| {
        let root = root.join("of-root");
        // This thread alone becomes nobody; it ends with the test.
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("become nobody");
        let error = Store::open(&root, options(IoChoice::Threads, Sink::Index)).expect_err("forbidden");
        assert!(matches!(error, Error::NoPermission { .. }), "{error}");
        assert!(error.to_string().contains("--root DIR"), "{error}");
    });
}
