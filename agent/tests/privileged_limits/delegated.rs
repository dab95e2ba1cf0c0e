//! In a group that was handed over: to another user, as `systemd-run --user` does, and to root, as `Delegate=yes` does.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use celda::sandbox::cgroup::{CgroupError, Hierarchy};
use oci_spec::runtime::LinuxResources;
use serde_json::json;

use super::command::Celda;
use super::kept::wait_for;
use super::{id, with_controllers};

const NOBODY: u32 = 65_534;

/// A group beside celda's with some controllers; removed with what is in it.
struct Slice {
    path: PathBuf,
}

impl Slice {
    fn new(hierarchy: &Hierarchy, name: &str, controllers: &[&str]) -> Self {
        for controller in controllers {
            fs::write(hierarchy.mount().join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
        }
        let slice = Self { path: hierarchy.mount().join(id(name)) };
        fs::create_dir(&slice.path).unwrap();
        for controller in controllers {
            fs::write(slice.path.join("cgroup.subtree_control"), format!("+{controller}")).unwrap();
        }
        slice
    }

    /// A group below that a service would be started in.
    fn service(&self, owner: u32) -> PathBuf {
        let service = self.path.join("service");
        fs::create_dir(&service).unwrap();
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(service.join(file), Some(owner), Some(owner)).unwrap();
        }
        rustix::fs::setxattr(&service, "trusted.delegate", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        service
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        remove_groups(&self.path);
    }
}

fn remove_groups(path: &Path) {
    let below = fs::read_dir(path).into_iter().flatten().flatten();
    below.filter(|entry| entry.path().is_dir()).for_each(|entry| remove_groups(&entry.path()));
    let _ = fs::remove_dir(path);
}

/// Has `command` begin its life in that group.
fn inside(group: &Path, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(group);
    executing(shell, command)
}

/// A program that executes what its arguments end with, given `command` for that.
fn executing(mut program: Command, command: &Command) -> Command {
    program.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        program.env(name, value.unwrap_or_default());
    }
    program
}

#[test]
fn privileged_a_limit_above_that_runs_out_is_named() {
    let Some(hierarchy) = with_controllers("limit above", &["memory"]) else { return };
    let Some(celda) = Celda::with_image("limit above") else { return };
    let slice = Slice::new(&hierarchy, "above", &["memory"]);
    fs::write(slice.path.join("memory.max"), "64M").unwrap();
    if slice.path.join("memory.swap.max").exists() {
        fs::write(slice.path.join("memory.swap.max"), "0").unwrap();
    }
    let service = slice.service(0);
    let script = "exec busybox dd if=/dev/zero of=/dev/null bs=256M count=1";
    let args = celda.shell_args(&["--memory", "1g"], script);
    let command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let output = inside(&service, &command).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(137), "{error}");
    let named = format!("the limit of the cgroup {} above the container's ran out", slice.path.display());
    assert!(error.contains(&named), "{error}");
    // Root stays in what it was given too: the container's group was made there, not at the top.
    assert!(service.join("celda").is_dir() && service.join("celda-agent").is_dir());
}

/// What the test below runs as somebody else; by itself it has nothing to do.
#[test]
fn as_the_owner_of_a_group() {
    let Ok(expected) = std::env::var("CELDA_TEST_GROUP") else { return };
    let hierarchy = Hierarchy::find().unwrap();
    assert_eq!(hierarchy.parent(), Path::new(&expected).join("celda"));
    let limits: LinuxResources = serde_json::from_value(json!({"pids": {"limit": 20}})).unwrap();
    let group = hierarchy.create("one", &limits).unwrap();
    assert_eq!(fs::read_to_string(group.path().join("pids.max")).unwrap(), "20\n");
    let mut sleeper = Command::new("sleep").arg("1000").spawn().unwrap();
    group.add(sleeper.id()).unwrap();
    group.kill().unwrap();
    sleeper.wait().unwrap();
    group.remove().unwrap();
    // Not handed over, although the machine has it.
    let limits: LinuxResources = serde_json::from_value(json!({"memory": {"limit": 64 << 20}})).unwrap();
    let error = hierarchy.create("two", &limits).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CgroupError::MissingController { .. }), "{text}");
    assert!(text.contains("does not pass it on") && text.contains("Delegate=yes"), "{text}");
    println!("kept and refused as it should be");
}

#[test]
fn privileged_a_user_limits_in_the_group_that_was_handed_over_and_is_refused_the_rest() {
    let Some(hierarchy) = with_controllers("delegated", &["pids", "memory"]) else { return };
    let slice = Slice::new(&hierarchy, "user", &["pids"]);
    let service = slice.service(NOBODY);
    let mut own = Command::new(std::env::current_exe().unwrap());
    own.args(["--exact", "delegated::as_the_owner_of_a_group", "--nocapture"])
        .env("CELDA_TEST_GROUP", &service);
    // A process moves itself before it becomes the user, who may move only within what is the user's.
    let output = inside(&service, &with_ids(&own)).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("kept and refused"), "{text}");
}

/// The same command as nobody, by util-linux's setpriv.
fn with_ids(command: &Command) -> Command {
    let mut changed = Command::new("setpriv");
    let id = NOBODY.to_string();
    changed.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
    executing(changed, command)
}

#[test]
fn privileged_processes_in_the_group_itself_are_named_as_the_obstacle() {
    let Some(hierarchy) = with_controllers("occupied", &["pids"]) else { return };
    let Some(celda) = Celda::with_image("occupied") else { return };
    let slice = Slice::new(&hierarchy, "occupied", &["pids"]);
    let service = slice.service(0);
    let mut neighbour = inside(&service, Command::new("sleep").arg("1000")).spawn().unwrap();
    let members = service.join("cgroup.procs");
    wait_for("a process in the group", || !fs::read_to_string(&members).unwrap().is_empty());
    let args = celda.shell_args(&["--pids-limit", "20"], "true");
    let command = celda.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let output = inside(&service, &command).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    neighbour.kill().unwrap();
    neighbour.wait().unwrap();
    assert_eq!(output.status.code(), Some(125), "{error}");
    assert!(error.contains("processes are in that group itself"), "{error}");
}
