//! Where the store is.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::command::{Celda, copy_program, describe, privileged};
use crate::common::{Image, tar};
use crate::server::Server;

/// A tmpfs on the store's place, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, flags: MountFlags, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, Some(options.as_c_str())).unwrap();
        Self(at.to_owned())
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Pull and run of `image`, each of which must fail with these words and leave nothing but the store's own directories.
fn both_fail(celda: &Celda, image: &str, words: &[&str]) {
    for args in [&["pull", "--quiet", image][..], &["run", "--rm", image, "/x"]] {
        let before = celda.leftovers();
        let error = celda.fails(125, args);
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not all in: {error}");
        before.assert_unchanged(celda.directory(), &format!("{args:?}"));
        for kept in ["layers/sha256", "index/sha256", "names", "staging", "containers"] {
            let count = fs::read_dir(celda.root().join(kept)).map_or(0, Iterator::count);
            assert_eq!(count, 0, "{kept} is not empty after: {error}");
        }
    }
}

#[test]
fn privileged_a_full_disk_is_named_and_swept() {
    if !privileged("full_disk") {
        return;
    }
    let (celda, server) = (Celda::new(), Server::good(Image::of(&[tar("one", 5 << 20)])));
    let _disk = Tmpfs::mount(&celda.root(), MountFlags::empty(), "size=2m");
    both_fail(&celda, &server.name(), &["no space left on its filesystem", "celda gc", "layer sha256:"]);
}

#[test]
fn privileged_a_read_only_root_is_named() {
    if !privileged("read_only_root") {
        return;
    }
    let (celda, server) = (Celda::new(), Server::good(Image::of(&[tar("one", 1000)])));
    let _disk = Tmpfs::mount(&celda.root(), MountFlags::RDONLY, "size=2m");
    both_fail(&celda, &server.name(), &["read-only", "--root"]);
}

/// celda as another user, with a root directory that is not its own.
fn as_nobody(celda: &Celda, args: &[&str]) -> Output {
    let folder = celda.files();
    let binary = folder.join("celda");
    if !binary.exists() {
        copy_program(env!("CARGO_BIN_EXE_celda").as_ref(), &binary);
        for path in [&binary, &folder, celda.directory()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    let root = celda.directory().join("not-mine");
    fs::create_dir_all(&root).unwrap();
    let mut command = Command::new(&binary);
    command.uid(65_534).gid(65_534).env_clear().current_dir("/").env("CELDA_ROOT", root);
    command.args(args).output().unwrap()
}

#[test]
fn privileged_without_permission_it_says_what_to_do() {
    if !privileged("no_permission") {
        return;
    }
    let (celda, server) = (Celda::new(), Server::good(Image::of(&[tar("one", 1000)])));
    let name = server.name();
    let before = celda.leftovers();
    for args in [&["images"][..], &["pull", &name], &["run", "--rm", &name, "/x"], &["gc"]] {
        let output = as_nobody(&celda, args);
        assert_eq!(output.status.code(), Some(125), "{args:?}: {}", describe(&output));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("run celda as root") && error.contains("not-mine"), "{args:?}: {error}");
    }
    assert_eq!(server.count(|_| true), 0, "nothing is fetched that cannot be kept");
    assert_eq!(fs::read_dir(celda.directory().join("not-mine")).unwrap().count(), 0);
    before.assert_unchanged(celda.directory(), "no permission");
}
