//! Images and specs that try to get out.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use celda::sandbox::{Exit, SandboxError, Stdio, TerminalSize, plan};
use serde_json::json;

use super::support::{Rootfs, alone, finish, request, run, spec, trace, try_run};

/// CVE-2025-52881 and its kin: mounts and sysctls through links of the image.
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

/// A directory bound on `/dev`, with the null device, and a file outside of the container.
struct BoundDev {
    host: tempfile::TempDir,
}

impl BoundDev {
    fn new() -> Self {
        let host = tempfile::tempdir().expect("a directory");
        fs::create_dir(host.path().join("dev")).expect("mkdir");
        fs::create_dir(host.path().join("dev/pts")).expect("mkdir");
        fs::write(host.path().join("victim"), "untouched").expect("write");
        Self { host }
    }

    fn null(&self) {
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let (path, device) = (self.host.path().join("dev/null"), rustix::fs::makedev(1, 3));
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, mode, device)
            .expect("mknod");
    }

    /// A link that leads to the file outside, on the host and in the container alike.
    fn link(&self, name: &str) {
        symlink(self.host.path().join("victim"), self.host.path().join("dev").join(name)).expect("symlink");
    }

    /// A spec with it on `/dev`, and the file outside where the link looks for it.
    fn spec(&self, rootfs: &Rootfs, arguments: &[&str]) -> serde_json::Value {
        let inside = rootfs.path().join(self.host.path().strip_prefix("/").expect("absolute"));
        fs::create_dir_all(&inside).expect("mkdir");
        fs::write(inside.join("victim"), "inside").expect("write");
        let mut spec = spec(arguments);
        let mounts = spec["mounts"].as_array_mut().expect("a list");
        mounts.retain(|mount| mount["destination"] != "/dev");
        mounts.insert(
            0,
            json!({"destination": "/dev", "source": self.host.path().join("dev"), "options": ["bind"]}),
        );
        spec
    }

    fn assert_untouched(&self) {
        let victim = self.host.path().join("victim");
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("proc");
        assert!(!mounts.contains(victim.to_str().expect("utf-8")), "mounted on: {mounts}");
        assert_eq!(fs::read_to_string(victim).expect("there"), "untouched");
    }
}

/// CVE-2025-31133: masks are copies of `/dev/null`, which another container may have made a link.
#[test]
fn privileged_a_link_for_the_null_device_masks_nothing() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    for link in [true, false] {
        let (dev, rootfs) = (BoundDev::new(), Rootfs::new());
        if link {
            dev.link("null");
        } else {
            fs::write(dev.host.path().join("dev/null"), "no device").expect("write");
        }
        let error =
            try_run(&rootfs, &dev.spec(&rootfs, &["/bin/cat", "/proc/keys"])).expect_err("no null device");
        assert!(error.to_string().starts_with("open /dev/null for masks"), "{error}");
        dev.assert_untouched();
    }
    let (dev, rootfs) = (BoundDev::new(), Rootfs::new());
    dev.null();
    let mut request = request(&rootfs, &dev.spec(&rootfs, &["/bin/cat", "/proc/keys", "/proc/timer_list"]));
    request.cgroup = Some(super::devices::group("null"));
    let answer = finish(plan(request).expect("a plan").start().expect("started"));
    assert_eq!(answer, (String::new(), Exit::Code(0)));
    assert_eq!(before, trace());
}

/// CVE-2025-52565: the terminal is mounted on `/dev/console`, which another container may have made a link.
#[test]
fn privileged_a_link_for_the_console_is_not_followed() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    {
        let (dev, rootfs) = (BoundDev::new(), Rootfs::new());
        dev.null();
        dev.link("console");
        let inside = format!("{}/victim", dev.host.path().display());
        let script = format!("test -f {inside} && cat {inside} && echo; readlink /proc/self/fd/0");
        let mut request = request(&rootfs, &dev.spec(&rootfs, &["/bin/sh", "-c", &script]));
        request.stdio = Stdio::Terminal(TerminalSize { rows: 10, columns: 20 });
        match plan(request).expect("a plan").start() {
            Ok(container) => {
                let text = super::lifecycle::read_terminal(container.terminal().expect("a terminal"));
                assert_eq!(container.wait().expect("wait"), Exit::Code(0), "{text}");
                assert_eq!(text, "inside\n/dev/pts/0\n", "nothing is mounted behind the link");
            }
            Err(error) => assert!(error.to_string().starts_with("open a terminal"), "{error}"),
        }
        dev.assert_untouched();
    }
    assert_eq!(before, trace());
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

/// An ELF of this machine whose loader's name lies at `offset`, beyond what is looked at before `execve`.
fn program_with_loader(name: &[u8], offset: usize) -> Vec<u8> {
    let machine = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
    file.extend([machine, 0, 1, 0, 0, 0]);
    // Entry, program headers, section headers, flags, six sizes and counts.
    file.extend([0x40_0000_u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 2, 0, 64, 0, 0, 0, 0, 0]);
    let length = name.len() as u64 + 1;
    for header in [
        [4 << 32 | 3, offset as u64, 0, 0, length, length, 1],
        [5 << 32 | 1, 0, 0x40_0000, 0, 4096, 4096, 4096],
    ] {
        file.extend(header.iter().flat_map(|word: &u64| word.to_le_bytes()));
    }
    file.resize(offset, 0);
    file.extend(name);
    file.push(0);
    file
}

/// CVE-2019-5736 where no look at the files can tell: a script that cannot be read, a loader's name far inside of a
/// program, files that lie where others can change them. What runs is then the sealed helper, which does nothing.
#[test]
fn privileged_what_cannot_be_seen_runs_apart_from_the_agent() {
    let Some(_alone) = alone() else { return };
    let nothing = 125;
    let volume = tempfile::tempdir().expect("a directory");
    let rootfs = Rootfs::new();
    let script = b"#!/proc/self/exe --list\n";
    rootfs.file("bin/secret", 0o711, script);
    std::os::unix::fs::chown(rootfs.path().join("bin/secret"), Some(1000), Some(1000)).expect("chown");
    rootfs.file("bin/far", 0o755, &program_with_loader(b"/proc/self/exe", 8192));
    rootfs.file("bin/near", 0o755, &program_with_loader(b"/proc/self/exe", 512));
    rootfs.file("bin/shared", 0o755, b"#!/v/script\n");
    fs::write(volume.path().join("script"), script).expect("write");
    fs::set_permissions(volume.path().join("script"), fs::Permissions::from_mode(0o755)).expect("chmod");
    let before = trace();
    for init in [false, true] {
        for program in ["/bin/secret", "/bin/far", "/v/script", "/bin/shared"] {
            let mut spec = spec(&[program]);
            spec["process"]["capabilities"] = json!({});
            let mount = json!({"destination": "/v", "source": volume.path(), "options": ["bind"]});
            spec["mounts"].as_array_mut().expect("a list").push(mount);
            let mut request = request(&rootfs, &spec);
            request.init = init;
            let answer = finish(plan(request).expect("a plan").start().expect(program));
            assert_eq!(answer, (String::new(), Exit::Code(nothing)), "{program}, init {init}");
        }
    }
    let error = try_run(&rootfs, &spec(&["/bin/near"])).expect_err("the runtime itself");
    assert!(error.to_string().contains("the runtime's own executable"), "{error}");
    assert_eq!(before, trace());
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
