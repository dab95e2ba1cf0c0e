//! `celda run` as a user meets it: output, exit status, every flag, and nothing left behind.

mod common;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use common::{Celda, describe};

#[test]
fn privileged_output_and_status_are_the_containers() {
    let Some(celda) = Celda::with_image("output_and_status") else { return };
    let args = celda.shell_args(&[], "echo out; echo err >&2; exit 7");
    let output = celda.output(&args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(7), "{}", describe(&output));
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
}

#[test]
fn privileged_a_signal_is_128_and_its_number() {
    let Some(celda) = Celda::with_image("signal_status") else { return };
    let image = celda.image();
    celda.fails(128 + 9, &["run", "--rm", "--init", &image, "/bin/sh", "-c", "kill -9 $$"]);
}

#[test]
fn privileged_a_program_that_cannot_run_has_dockers_status() {
    let Some(celda) = Celda::with_image("cannot_run") else { return };
    let image = celda.image();
    let missing = celda.fails(127, &["run", "--rm", &image, "no-such-program"]);
    assert!(missing.contains("no-such-program"), "{missing}");
    let directory = celda.fails(126, &["run", "--rm", &image, "/bin"]);
    assert!(directory.contains("/bin"), "{directory}");
    let file = celda.files().join("script");
    fs::write(&file, "#!/no/such/interpreter\n").expect("written");
    let mount = format!("{}:/script:ro", file.display());
    celda.fails(126, &["run", "--rm", "-v", &mount, &image, "/script"]);
}

#[test]
fn privileged_terminal_escapes_are_not_passed_on() {
    let Some(celda) = Celda::with_image("escapes") else { return };
    let error = celda.fails(127, &["run", "--rm", &celda.image(), "no\u{1b}]0;title\u{7}\nsuch\u{9b}2J"]);
    assert!(error.contains("\\u{1b}]0;title"), "{error}");
    assert!(!error.trim_end().contains(char::is_control), "{error:?}");
}

#[test]
fn privileged_the_process_is_as_asked() {
    let Some(celda) = Celda::with_image("process_flags") else { return };
    assert_eq!(celda.shell(&["-e", "A=1", "-e", "B=x y"], "echo $A $B"), "1 x y\n");
    let env = celda.files().join("env");
    fs::write(&env, "# a comment\nC=from file\n").expect("written");
    assert_eq!(celda.shell(&["--env-file", env.to_str().expect("utf-8")], "echo $C"), "from file\n");
    assert_eq!(celda.shell(&["-w", "/made/here"], "pwd"), "/made/here\n");
    assert_eq!(celda.shell(&["-w", "/made/../there"], "pwd"), "/there\n");
    let relative = celda.fails(125, &["run", "--rm", "-w", "rel", &celda.image(), "/bin/sh"]);
    assert!(relative.contains("absolute"), "{relative}");
    assert_eq!(
        celda.shell(&["-u", "1234:4321", "--group-add", "77"], "busybox id -u; busybox id -g; busybox id -G"),
        "1234\n4321\n4321 77\n"
    );
    assert_eq!(celda.shell(&["--hostname", "box"], "busybox hostname; echo $HOSTNAME"), "box\nbox\n");
    assert_eq!(celda.shell(&["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn"), "100\n200\n");
    assert_eq!(celda.shell(&[], "echo $$"), "1\n");
    assert_eq!(celda.shell(&["--init"], "test $$ != 1 && echo other"), "other\n");
    let image = celda.image();
    assert_eq!(celda.ok(&["run", "--rm", "--entrypoint", "/bin/busybox", &image, "echo", "hi"]), "hi\n");
}

#[test]
fn privileged_files_are_as_asked() {
    let Some(celda) = Celda::with_image("file_flags") else { return };
    let shared = celda.files().join("shared");
    fs::create_dir(&shared).expect("made");
    fs::write(shared.join("in"), "from the host").expect("written");
    let (rw, ro) = (format!("{}:/data", shared.display()), format!("{}:/data:ro", shared.display()));
    assert_eq!(celda.shell(&["-v", &rw], "busybox cat /data/in; echo back > /data/out"), "from the host");
    assert_eq!(fs::read_to_string(shared.join("out")).expect("came back"), "back\n");
    assert_eq!(celda.shell(&["-v", &ro], "busybox touch /data/x 2>/dev/null || echo refused"), "refused\n");
    assert_eq!(celda.shell(&["--read-only"], "busybox touch /x 2>/dev/null || echo refused"), "refused\n");
    assert_eq!(
        celda.shell(&["--read-only", "--tmpfs", "/t:size=1m"], "echo yes > /t/x; busybox cat /t/x"),
        "yes\n"
    );
    assert_eq!(celda.shell(&[], "echo kept > /x; busybox cat /x"), "kept\n");
    assert_eq!(celda.shell(&[], "busybox cat /x 2>/dev/null || echo gone"), "gone\n");
    assert_eq!(celda.shell(&["-v", "vol:/v"], "echo 1 > /v/f"), "");
    assert_eq!(celda.shell(&["-v", "vol:/v"], "busybox cat /v/f"), "1\n");
}

/// A tmpfs of the host's, unmounted when dropped.
struct HostTmpfs(PathBuf);

impl HostTmpfs {
    fn mount(at: PathBuf) -> Self {
        fs::create_dir_all(&at).expect("made");
        rustix::mount::mount("tmpfs", &at, "tmpfs", rustix::mount::MountFlags::empty(), None)
            .expect("mounted");
        Self(at)
    }
}

impl Drop for HostTmpfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn privileged_new_volumes_belong_to_the_containers_root() {
    let Some(celda) = Celda::with_image("volumes_in_userns") else { return };
    if !celda.takes_detached("a user namespace") {
        return;
    }
    let userns = ["--userns", "map:0:100000:65536"];
    let made = celda.files().join("made/here");
    let bind = format!("{}:/v", made.display());
    for volume in ["named:/v", "uncopied:/v:nocopy", "/v", &bind, "filled:/bin"] {
        let place = if volume == "filled:/bin" { "/bin" } else { "/v" };
        let script = format!("echo 1 > {place}/f && busybox stat -c '%u %g' {place} {place}/f");
        assert_eq!(celda.shell(&[&userns[..], &["-v", volume]].concat(), &script), "0 0\n0 0\n", "{volume}");
    }
    for path in [made.clone(), made.parent().expect("made").into(), celda.root().join("volumes/named")] {
        let metadata = fs::metadata(&path).expect("there");
        assert_eq!((metadata.uid(), metadata.gid()), (100_000, 100_000), "{}", path.display());
    }
    assert_eq!(fs::metadata(celda.files()).expect("there").uid(), 0, "what was there is left alone");
    let all = fs::metadata(celda.root().join("volumes")).expect("there");
    assert_eq!(all.mode() & 0o7777, 0o700, "other users of the host stay out");
}

#[test]
fn privileged_gc_sweeps_volumes_that_were_never_finished() {
    let Some(celda) = Celda::with_image("unfinished_volumes") else { return };
    celda.shell(&["-v", "vol:/v"], "echo 1 > /v/f");
    let abandoned = celda.root().join("volumes/.new-0123456789abcdef");
    fs::create_dir(&abandoned).expect("made");
    fs::write(abandoned.join("half"), "a file").expect("written");
    celda.ok(&["gc"]);
    assert!(!abandoned.exists());
    assert_eq!(celda.shell(&["-v", "vol:/v"], "busybox cat /v/f"), "1\n");
}

#[test]
fn privileged_read_only_holds_for_what_is_mounted_below() {
    let Some(celda) = Celda::with_image("read_only_below") else { return };
    let shared = celda.files().join("shared");
    let below = HostTmpfs::mount(shared.join("below"));
    let script = "busybox touch /data/x || busybox touch /data/below/x || echo refused";
    let mount = format!("{}:/data:ro", shared.display());
    assert_eq!(celda.shell(&["-v", &mount], &format!("({script}) 2>/dev/null")), "refused\n");
    let mount = format!("{}:/data", shared.display());
    assert_eq!(celda.shell(&["-v", &mount], "busybox touch /data/below/y"), "");
    assert!(below.0.join("y").exists() && !below.0.join("x").exists());
}

#[test]
fn privileged_the_network_is_none_or_the_hosts() {
    let Some(celda) = Celda::with_image("network") else { return };
    let links = "busybox ls /sys/class/net";
    assert_eq!(celda.shell(&[], links), "lo\n");
    assert_eq!(
        celda.shell(&["--network", "none"], "busybox ip addr show lo | busybox grep -c 127.0.0.1"),
        "1\n"
    );
    let inside = celda.shell(&["--network", "host"], "busybox readlink /proc/self/ns/net");
    let here = fs::read_link("/proc/self/ns/net").expect("a namespace");
    assert_eq!(inside.trim(), here.to_str().expect("utf-8"));
}

#[test]
fn privileged_protection_is_on_unless_asked_off() {
    let Some(celda) = Celda::with_image("protection") else { return };
    let status = |flags: &[&str], field: &str| {
        let text = celda.shell(flags, &format!("busybox grep ^{field}: /proc/self/status"));
        text.split_whitespace().last().unwrap_or("").to_owned()
    };
    assert_eq!(status(&[], "CapEff"), "00000000a80425fb");
    assert_eq!(status(&["--cap-drop", "ALL"], "CapBnd"), "0000000000000000");
    assert_eq!(status(&["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"], "CapEff"), "0000000000001000");
    assert_eq!(status(&[], "Seccomp"), "2");
    assert_eq!(status(&["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    assert_eq!(status(&["--security-opt", "no-new-privileges"], "NoNewPrivs"), "1");
    assert_eq!(status(&["--privileged"], "Seccomp"), "0");
    assert_eq!(celda.shell(&[], "busybox mount -t tmpfs x /mnt 2>/dev/null || echo refused"), "refused\n");
    // A file of /proc has no size that `test -s` could see.
    let masked = "busybox grep -q CPU0 /proc/interrupts && echo shown || echo hidden";
    assert_eq!(celda.shell(&[], masked), "hidden\n");
    assert_eq!(celda.shell(&["--privileged"], masked), "shown\n");
    if !celda.takes_detached("a user namespace") {
        return;
    }
    assert_eq!(
        celda
            .shell(&["--userns", "map:0:100000:65536"], "busybox id -u; busybox cat /proc/self/uid_map")
            .split_whitespace()
            .collect::<Vec<_>>(),
        ["0", "0", "100000", "65536"]
    );
}

#[test]
fn privileged_standard_input_comes_with_i_only() {
    let Some(celda) = Celda::with_image("stdin") else { return };
    for (flags, expected) in [(&["-i"][..], "typed\n"), (&[][..], "")] {
        let args = celda.shell_args(flags, "busybox cat");
        let mut child = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("started");
        let _ = child.stdin.take().expect("piped").write_all(b"typed\n");
        let output = child.wait_with_output().expect("ended");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{flags:?}");
    }
}

#[test]
fn privileged_a_second_run_reads_no_layer() {
    let Some(celda) = Celda::with_image("second_run") else { return };
    celda.shell(&[], "true");
    let image = celda.image();
    let output = celda.output(&[
        "run",
        "--rm",
        "--timing",
        "--json",
        "--pull",
        "never",
        &image,
        "/bin/busybox",
        "true",
    ]);
    assert!(output.status.success(), "{}", describe(&output));
    let timing: serde_json::Value = serde_json::from_slice(&output.stderr).expect("timing in JSON");
    assert_eq!(timing["downloaded_bytes"], 0, "{timing}");
    assert_eq!(timing["layers_read"], 0, "{timing}");
    assert!(timing["stages_us"]["start"].as_u64().is_some(), "{timing}");
}

#[test]
fn privileged_a_pull_answers_in_json_when_asked() {
    let Some(celda) = Celda::with_image("pull_json") else { return };
    let image = celda.image();
    let answer: serde_json::Value =
        serde_json::from_str(&celda.ok(&["pull", "--json", "--quiet", &image])).expect("JSON");
    assert_eq!(answer.as_array().map(Vec::len), Some(1), "{answer}");
    assert_eq!(
        answer[0]["manifest"].as_str(),
        Some(celda.ok(&["pull", "--quiet", &image]).trim()),
        "{answer}"
    );
    assert_eq!(answer[0]["layers_count"], 1, "{answer}");
}

#[test]
fn privileged_a_limit_that_cannot_be_kept_is_refused() {
    let Some(celda) = Celda::with_image("limits_refused") else { return };
    let info: serde_json::Value = serde_json::from_str(&celda.ok(&["info", "--json"])).expect("JSON");
    let controllers = info["cgroup"]["controllers"].as_array().cloned().unwrap_or_default();
    let image = celda.image();
    for (controller, flags) in
        [("memory", ["--memory", "64m"]), ("cpu", ["--cpus", "0.5"]), ("pids", ["--pids-limit", "20"])]
    {
        let args = ["run", "--rm", flags[0], flags[1], &image, "/bin/busybox", "true"];
        if controllers.iter().any(|name| name == controller) {
            celda.ok(&args);
        } else {
            let error = celda.fails(125, &args);
            assert!(error.contains(controller), "{error}");
        }
    }
}

#[test]
fn privileged_signals_reach_the_container() {
    let Some(celda) = Celda::with_image("signals") else { return };
    let args = celda
        .shell_args(&[], "trap 'echo got; exit 3' TERM; echo ready; while :; do busybox sleep 0.05; done");
    let mut command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let mut child = command.stdout(Stdio::piped()).spawn().expect("started");
    let mut out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(3));
    line.clear();
    std::io::BufRead::read_line(&mut out, &mut line).expect("a line");
    assert_eq!(line, "got\n");
}

#[test]
fn privileged_volumes_work_below_a_relative_root() {
    let Some(celda) = Celda::with_image("relative_root") else { return };
    let image = celda.image();
    let line = ["--root", "root", "--run", "run", "run", "--rm", "-v", "vol:/v", "-v", "/anonymous", &image];
    let script = ["/bin/sh", "-c", "echo x > /v/f && echo y > /anonymous/f && busybox cat /v/f"];
    let mut command = celda.command(&[&line[..], &script].concat());
    let output = command.current_dir(celda.files().parent().expect("it has one")).output().expect("started");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x\n", "{}", describe(&output));
    assert!(celda.root().join("volumes/vol/f").exists());
}
