//! Images and specs that try to get out.

use std::fs;
use std::os::unix::fs::symlink;

use celda::sandbox::{Exit, SandboxError};
use serde_json::json;

use super::support::{Rootfs, alone, run, spec, trace, try_run};

/// CVE-2025-31133, CVE-2025-52565, CVE-2025-52881: mounts, masks and sysctls through links of the image.
#[test]
fn privileged_symlinked_dev_and_proc_stay_inside() {
    let Some(_alone) = alone() else { return };
    let host = tempfile::tempdir().expect("a directory");
    let outside = host.path().join("outside");
    fs::create_dir(&outside).expect("mkdir");
    for (name, to) in [("dev", outside.clone()), ("proc", "../../../../../../../../tmp".into())] {
        let rootfs = Rootfs::new();
        fs::remove_dir(rootfs.path().join(name)).expect("rmdir");
        symlink(&to, rootfs.path().join(name)).expect("symlink");
        fs::create_dir_all(rootfs.path().join(outside.strip_prefix("/").expect("absolute"))).expect("mkdir");
        let mut spec = spec(&["/bin/sh", "-c", "cat /proc/keys | wc -c; echo x > /dev/null && echo ok"]);
        spec["linux"]["sysctl"] = json!({"kernel.msgmax": "9000"});
        let (text, exit) = run(&rootfs, &spec);
        assert_eq!((text.as_str(), exit), ("0\nok\n", Exit::Code(0)), "{name}");
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 0, "{name} reached the host");
    }
}

/// CVE-2024-21626: a working directory through a descriptor of the runtime.
#[test]
fn privileged_the_working_directory_cannot_be_a_descriptor_of_the_host() {
    let Some(_alone) = alone() else { return };
    let _host = fs::File::open("/").expect("open /");
    for number in 3..20 {
        let mut spec = spec(&["/bin/sh", "-c", "ls"]);
        spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
        let error = try_run(&Rootfs::new(), &spec).expect_err("a magic link");
        assert!(error.to_string().contains("working directory"), "{error}");
        assert_eq!(error.status(), 125);
    }
}

#[test]
fn privileged_a_bind_target_behind_a_link_is_made_inside() {
    let Some(_alone) = alone() else { return };
    let host = tempfile::tempdir().expect("a directory");
    fs::write(host.path().join("resolv"), "nameserver").expect("write");
    let rootfs = Rootfs::new();
    let escape = format!("../../../../../../../..{}/made", host.path().display());
    fs::create_dir_all(rootfs.path().join(host.path().strip_prefix("/").expect("absolute"))).expect("mkdir");
    symlink(escape, rootfs.path().join("etc/resolv.conf")).expect("symlink");
    let mut spec = spec(&["/bin/cat", "/etc/resolv.conf"]);
    let mount =
        json!({"destination": "/etc/resolv.conf", "source": host.path().join("resolv"), "options": ["bind"]});
    spec["mounts"].as_array_mut().expect("a list").push(mount);
    assert_eq!(run(&rootfs, &spec).0, "nameserver");
    assert!(!host.path().join("made").exists());
}

/// CVE-2019-5736: what runs in the container is never a file of the host.
#[test]
fn privileged_the_agent_cannot_be_executed() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    rootfs.file("bin/script", 0o755, b"#!/proc/self/exe --list\n");
    symlink("../proc/self/exe", rootfs.path().join("bin/link")).expect("symlink");
    for program in ["/proc/self/exe", "/proc/thread-self/exe", "/bin/script", "link"] {
        let error = try_run(&rootfs, &spec(&[program])).expect_err("the runtime itself");
        assert_eq!(error.status(), 126, "{program}: {error}");
        assert!(error.to_string().contains("the runtime's own executable"), "{program}: {error}");
    }
}

#[test]
fn privileged_a_volume_whose_source_vanished_is_named() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    let mut spec = spec(&["/bin/true"]);
    let mount = json!({"destination": "/v", "source": "/nowhere/at/all", "options": ["rbind"]});
    spec["mounts"].as_array_mut().expect("a list").push(mount);
    let error = try_run(&Rootfs::new(), &spec).expect_err("no source");
    assert!(matches!(error, SandboxError::Host { .. }), "{error:?}");
    assert!(error.to_string().contains("/nowhere/at/all: No such file"), "{error}");
    assert_eq!(before, trace());
}
