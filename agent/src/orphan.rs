//! Containers whose `celda run` was killed. Most die with it (prctl(2), `PR_SET_PDEATHSIG`), but none in a user namespace of its
//! own, and none whose program asked the kernel not to.

use std::io;
use std::path::Path;

use crate::container::State;
use crate::sandbox::cgroup::Hierarchy;

/// Ends what runs in the container with this directory, which nobody else holds and the caller has locked.
///
/// # Errors
/// When it does not end in time; what the kernel answers.
pub(crate) fn end(directory: &Path) -> io::Result<()> {
    let Some(State { cgroup: Some(cgroup), .. }) = State::read(directory) else { return Ok(()) };
    // Without cgroups nothing was started.
    let Ok(hierarchy) = Hierarchy::find() else { return Ok(()) };
    hierarchy.remove_stale_at(&cgroup).map(drop).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use oci_spec::runtime::LinuxResources;

    use super::*;

    fn record(directory: &Path, cgroup: Option<&Path>) {
        let text = serde_json::json!({
            "id": "a", "image": "a", "manifest": "a", "labels": {}, "args": [], "stopSignal": 0, "createdS": 0,
            "cgroup": cgroup,
        });
        std::fs::write(directory.join("state.json"), text.to_string()).expect("written");
    }

    #[test]
    fn privileged_what_a_record_names_is_ended_and_nothing_else() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let (directory, hierarchy) =
            (tempfile::tempdir().expect("a directory"), Hierarchy::find().expect("cgroup v2"));
        let id = format!("test-orphan-{}", std::process::id());
        let group = hierarchy.create(&id, &LinuxResources::default()).expect("a group");
        let path = hierarchy.parent().join(&id);
        let mut left = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().expect("started");
        std::fs::write(path.join("cgroup.procs"), left.id().to_string()).expect("moved");
        let beside = hierarchy.mount().join(format!("{id}-beside"));
        std::fs::create_dir(&beside).expect("a group");
        end(directory.path()).expect("there is no record");
        record(directory.path(), None);
        end(directory.path()).expect("nothing was started");
        for wrong in [beside.clone(), path.join("../.."), path.join("below"), hierarchy.mount().to_owned()] {
            record(directory.path(), Some(&wrong));
            end(directory.path()).expect_err(&wrong.display().to_string());
        }
        assert!(left.try_wait().expect("asked").is_none() && beside.exists());
        record(directory.path(), Some(&path));
        end(directory.path()).expect("ended");
        assert!(left.wait().is_ok_and(|status| !status.success()) && !path.exists());
        end(directory.path()).expect("it is gone");
        std::fs::remove_dir(&beside).expect("removed");
        drop(group);
    }
}
