//! Limits that the kernel keeps, seen by what they do to a container, not by what was written into a file.
//!
//! ```text
//! kept       memory, cpu, pids, io, cpuset; pressure, freezing, killing
//! delegated  in a group that was handed over, as systemd does it; refused where a controller was not
//! ```
//! They need cgroup v2 with its controllers, which machines that keep them on version 1 do not have; there they say so and
//! pass, unless CELDA_REQUIRE_CONTROLLERS=1, as in the guests that vm/ makes.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod command;
#[path = "../privileged_sandbox/support.rs"]
mod support;

mod delegated;
mod kept;

use std::path::PathBuf;

use celda::sandbox::cgroup::Hierarchy;

/// The hierarchy, when it can keep limits of all of `controllers`.
fn with_controllers(test: &str, controllers: &[&str]) -> Option<Hierarchy> {
    if !command::privileged(test) {
        return None;
    }
    let found = Hierarchy::find();
    let missing: Vec<String> = match &found {
        Ok(hierarchy) => hierarchy
            .controllers()
            .unwrap()
            .into_iter()
            .filter(|one| one.missing.is_some() && controllers.contains(&one.name))
            .map(|one| one.name.to_owned())
            .collect(),
        Err(error) => vec![error.to_string()],
    };
    if missing.is_empty() {
        return found.ok();
    }
    let what = format!("{test} needs cgroup v2 with {}", missing.join(", "));
    assert!(std::env::var("CELDA_REQUIRE_CONTROLLERS").as_deref() != Ok("1"), "{what}");
    println!("skipped: {what}");
    None
}

/// A name that no other test has.
fn id(what: &str) -> String {
    format!("limits-{}-{what}", std::process::id())
}

/// The whole disk that the directory's filesystem is on; `None` for filesystems without one.
fn disk_of(directory: &std::path::Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let device = std::fs::metadata(directory).unwrap().dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let known = std::fs::canonicalize(format!("/sys/dev/block/{number}")).ok()?;
    // A partition's directory is below its disk's.
    let disk = if known.join("partition").exists() { known.parent()?.to_owned() } else { known };
    Some(PathBuf::from("/dev").join(disk.file_name()?)).filter(|path| path.exists())
}
