//! Programs that cannot be executed, and specs that cannot be kept: each by its name and Docker's status.

use std::fs;

use celda::sandbox::Exit;
use serde_json::{Value, json};

use super::support::{Rootfs, alone, run, spec, trace, try_run};

fn refused(rootfs: &Rootfs, spec: &Value, status: u8, words: &str) {
    let before = trace();
    let error = try_run(rootfs, spec).expect_err(words);
    assert_eq!(error.status(), status, "{error}");
    assert!(error.to_string().contains(words), "`{words}` in `{error}`");
    assert_eq!(before, trace(), "{words}");
}

#[test]
fn privileged_programs_that_cannot_run_are_told_apart() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let mut foreign = fs::read("/proc/self/exe").expect("an ELF");
    foreign.truncate(4096);
    foreign[18] = if foreign[18] == 62 { 183 } else { 62 };
    rootfs.file("bin/foreign", 0o755, &foreign);
    rootfs.file("bin/plain", 0o644, b"#!/bin/sh\n");
    rootfs.file("bin/orphan", 0o755, b"#!/no/such/shell -e\n");
    rootfs.file("bin/text", 0o755, b"echo without a first line\n");
    let cases = [
        ("nothing", 127, "not found in PATH"),
        ("/bin/nothing", 127, "no such file"),
        ("/bin/plain", 126, "permission denied"),
        ("plain", 126, "permission denied"),
        ("/bin", 126, "is a directory"),
        ("/bin/orphan", 126, "`/no/such/shell -e` is not in the image"),
        ("orphan", 126, "`/no/such/shell -e` is not in the image"),
        ("/bin/foreign", 126, "exec format error: a program for"),
        ("/bin/text", 126, "exec format error: neither"),
        ("/bin/sh/x", 127, "no such file"),
    ];
    // The same files where the runtime lets the helper execute them: on another mount than the root.
    let of_volume = [
        ("/v/bin/plain", 126, "permission denied"),
        ("/v/bin", 126, "is a directory"),
        ("/v/bin/orphan", 126, "`/no/such/shell -e` is not in the image"),
        ("/v/bin/foreign", 126, "exec format error: a program for"),
        ("/v/bin/text", 126, "exec format error: neither"),
        ("/v/bin/nothing", 127, "no such file"),
    ];
    let before = trace();
    for init in [false, true] {
        for (program, status, words) in cases.into_iter().chain(of_volume) {
            let mut spec = spec(&[program]);
            let mount = json!({"destination": "/v", "source": rootfs.path(), "options": ["bind"]});
            spec["mounts"].as_array_mut().expect("a list").push(mount);
            let mut request = super::support::request(&rootfs, &spec);
            request.init = init;
            let error = celda::sandbox::plan(request).expect("a plan").start().expect_err(words);
            assert_eq!(error.status(), status, "{program}: {error}");
            assert!(error.to_string().contains(words), "{program}: {error}");
        }
    }
    assert_eq!(before, trace());
    let mut spec = spec(&["/v/bin/busybox", "sh", "-c", "echo $0; readlink /proc/self/exe", "a b"]);
    let mount = json!({"destination": "/v", "source": rootfs.path(), "options": ["bind"]});
    spec["mounts"].as_array_mut().expect("a list").push(mount);
    assert_eq!(run(&rootfs, &spec), ("a b\n/v/bin/busybox\n".to_owned(), Exit::Code(0)));
}

#[test]
fn privileged_steps_that_fail_are_named() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut spec = spec(&["/bin/true"]);
        change(&mut spec);
        spec
    };
    let mount =
        |value: Value| with(&|spec| spec["mounts"].as_array_mut().expect("a list").push(value.clone()));
    let tmpfs = json!({"destination": "/t", "type": "tmpfs", "options": ["size=many"]});
    refused(&rootfs, &mount(tmpfs), 125, "tmpfs: Bad value for 'size'");
    let unknown = json!({"destination": "/t", "type": "nosuchfs"});
    refused(&rootfs, &mount(unknown), 125, "this kernel has no such filesystem");
    let clash = json!({"destination": "/bin/sh", "type": "tmpfs"});
    refused(&rootfs, &mount(clash), 125, "is one side a directory");
    let file = json!({"destination": "/etc", "source": "/etc/hostname", "options": ["bind"]});
    refused(&rootfs, &mount(file), 125, "mount /etc/hostname on /etc");
    let cwd = with(&|spec| spec["process"]["cwd"] = json!("/bin/sh"));
    refused(&rootfs, &cwd, 125, "it is not a directory");
}

#[test]
fn privileged_an_exit_status_and_a_signal_are_the_programs() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    assert_eq!(run(&rootfs, &spec(&["/bin/sh", "-c", "exit 7"])).1, Exit::Code(7));
    // Process 1 is spared its own signals, so a child's fate is taken over by the shell.
    let (_, exit) = run(&rootfs, &spec(&["/bin/sh", "-c", "sh -c 'kill -TERM $$'; exit $?"]));
    assert_eq!(exit.status(), 143);
}
