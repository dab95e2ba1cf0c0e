//! User namespaces: their id maps, written while the child waits; and one without a process, for id-mapped mounts.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::PipeFlags;

use super::error::{Result, SandboxError};
use super::failure;
use super::open::Sync;
use super::plan::id_map;
use super::step::{Slot, Step};
use crate::sys::{self, Job, Report};

/// `CLONE_NEWUSER` of linux/sched.h.
const NEW_USER: u64 = 0x1000_0000;

/// Makes a user namespace with these ranges that no process is in, for id-mapped mounts (`MOUNT_ATTR_IDMAP`): the
/// root filesystem of a container whose spec has the same ranges.
///
/// # Errors
/// [`SandboxError::Invalid`] for ranges that are empty or run past the last id, [`SandboxError::Host`] when the kernel
/// refuses them (they overlap), [`SandboxError::Parent`] otherwise.
pub fn user_namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let maps = [id_map("uid ranges", uids)?, id_map("gid ranges", gids)?];
    user_namespace_of(&maps)
}

/// As [`user_namespace`], of maps as the kernel reads them.
pub(super) fn user_namespace_of(maps: &[String; 2]) -> Result<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let pipe = || {
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC)
            .map_err(|errno| SandboxError::parent("make a pipe")(errno.into()))
    };
    let ((ready, ready_writer), (go_reader, go)) = (pipe()?, pipe()?);
    // The child's only step: told to stop instead of to go on, it ends.
    let steps = [Step::AwaitIdMap { ready: Slot(0), go: Slot(1), writer: Slot(2) }];
    let mut slots = [ready_writer.as_raw_fd(), go_reader.as_raw_fd(), go.as_raw_fd()];
    let (report, pid) = (Report::new(), AtomicI32::new(0));
    let mut job = Job {
        steps: &steps,
        slots: &mut slots,
        report: &report,
        namespaces: NEW_USER,
        cgroup: None,
        pid: &pid,
    };
    let sync = Sync { ready, go };
    std::thread::scope(|scope| {
        let spawner = scope.spawn(move || sys::spawn(&mut job));
        let mut namespace = None;
        let mut open = |pid: i32| {
            let path = format!("/proc/{pid}/ns/user");
            let opened = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            namespace = Some(
                opened.map_err(|errno| SandboxError::host("open the user namespace", &path)(errno.into()))?,
            );
            Ok(false)
        };
        let mapped = write_maps(maps, &sync, &pid, &|| spawner.is_finished(), &mut open);
        let failed = SandboxError::parent("make a user namespace");
        match spawner.join() {
            Ok(Ok(spawned)) => failure::discard(&spawned),
            Ok(Err(error)) => return Err(failed(error)),
            Err(_) => return Err(failed(std::io::Error::other("the thread that clones has panicked"))),
        }
        mapped?;
        namespace.ok_or_else(|| failed(std::io::Error::other("its process has ended early")))
    })
}

/// How often the wait for the child looks whether the clone has failed.
const SYNC_POLL_MS: i64 = 20;

/// Waits until the child has its user namespace, writes the maps, and lets it go on if `then`, given its process id,
/// answers true.
pub(super) fn write_maps(
    maps: &[String; 2],
    sync: &Sync,
    pid: &AtomicI32,
    clone_is_over: &dyn Fn() -> bool,
    then: &mut dyn FnMut(i32) -> Result<bool>,
) -> Result<()> {
    let failed =
        |action: &'static str| move |errno: rustix::io::Errno| SandboxError::parent(action)(errno.into());
    let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: SYNC_POLL_MS * 1_000_000 };
    loop {
        let mut fds = [rustix::event::PollFd::new(&sync.ready, rustix::event::PollFlags::IN)];
        let count = rustix::event::poll(&mut fds, Some(&wait));
        match count {
            Ok(0) | Err(rustix::io::Errno::INTR) if clone_is_over() => return Ok(()), // the clone's error tells
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => break,
            Err(errno) => return Err(failed("wait for the user namespace")(errno)),
        }
    }
    let mut byte = [0];
    let _ = std::fs::File::from(sync.ready.try_clone().map_err(SandboxError::parent("copy a pipe"))?)
        .read(&mut byte);
    let pid = pid.load(Relaxed);
    let written = write_map_files(maps, pid).and_then(|()| then(pid));
    let go = [u8::from(matches!(written, Ok(true)))];
    let told = rustix::io::write(&sync.go, &go).map(drop).map_err(failed("let the child go on"));
    written.and(told)
}

fn write_map_files(maps: &[String; 2], pid: i32) -> Result<()> {
    let [uid, gid] = maps;
    let file = |name: &str| format!("/proc/{pid}/{name}");
    if !rustix::process::geteuid().is_root() {
        // Without privilege the kernel takes a gid_map only from who gives up setgroups, user_namespaces(7).
        let path = file("setgroups");
        std::fs::write(&path, "deny").map_err(SandboxError::host("deny setgroups in", &path))?;
    }
    for (name, map) in [("uid_map", uid), ("gid_map", gid)] {
        let path = file(name);
        std::fs::write(&path, map).map_err(SandboxError::host("write the id map", &path))?;
    }
    Ok(())
}
