//! What the parent opens before the clone: bind sources, namespaces, devices, standard files, pipes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;

use super::error::{Result, SandboxError};
use super::init;
use super::plan::NODEV;
use super::plan::builder::{Bind, Draft, Open};
use super::request::Stdio;
use super::step::Slot;
use super::userns::user_namespace_of;
use crate::sys::{MountAttributes, map_ids, set_attributes};

/// What the caller has opened already.
pub(super) struct Given {
    pub(super) rootfs: Option<OwnedFd>,
    pub(super) network: Option<OwnedFd>,
    /// The pidfd of a running container, which the caller keeps open.
    pub(super) container: i32,
}

/// The parent's ends.
#[derive(Default)]
pub(super) struct Ours {
    pub(super) pipes: [Option<OwnedFd>; 3],
    pub(super) channel: Option<OwnedFd>,
    pub(super) sync: Option<Sync>,
    /// Where the helper tells that it could not execute the program.
    pub(super) verdict: Option<OwnedFd>,
    /// What is closed when this process ends.
    pub(super) alive: Option<OwnedFd>,
}

/// The parent's ends of the pipes around the id maps.
pub(super) struct Sync {
    pub(super) ready: OwnedFd,
    pub(super) go: OwnedFd,
}

/// Everything open, and the table of the child.
pub(super) struct Opened {
    pub(super) table: Vec<(Slot, OwnedFd)>,
    pub(super) slots: Vec<i32>,
    pub(super) ours: Ours,
}

/// Opens all that the draft names.
pub(super) fn all(draft: &Draft, given: Given, stdio: Stdio) -> Result<Opened> {
    let mut opener = Opener {
        rootfs: given.rootfs,
        network: given.network,
        files: [const { None }; 3],
        ready: None,
        go: None,
        ours: Ours::default(),
    };
    let inherited = opener.take_stdio(stdio)?;
    let mut slots = vec![-1; usize::from(draft.slots_count)];
    let mut table = Vec::with_capacity(draft.opens.len());
    for (slot, open) in &draft.opens {
        let place = slots.get_mut(usize::from(slot.0)).ok_or_else(|| broken("slots"))?;
        if let (Open::Standard(number), true) = (open, inherited) {
            *place = i32::from(*number);
            continue;
        }
        if matches!(open, Open::GoWriter) {
            *place = opener.go.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            continue;
        }
        if matches!(open, Open::AliveWriter) {
            *place = opener.ours.alive.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            continue;
        }
        if matches!(open, Open::Container) {
            *place = given.container;
            continue;
        }
        if matches!(open, Open::Helper) {
            *place = init::executable()?.as_raw_fd();
            continue;
        }
        let fd = opener.open(open)?;
        *place = fd.as_raw_fd();
        table.push((*slot, fd));
    }
    Ok(Opened { table, slots, ours: opener.finish() })
}

fn broken(what: &str) -> SandboxError {
    SandboxError::invalid("plan", format!("names {what} that were not given"))
}

fn failed(action: &'static str) -> impl Fn(Errno) -> SandboxError {
    move |errno| SandboxError::Parent { action, source: errno.into() }
}

struct Opener {
    rootfs: Option<OwnedFd>,
    network: Option<OwnedFd>,
    files: [Option<OwnedFd>; 3],
    /// The parent's ends, once made.
    ready: Option<OwnedFd>,
    go: Option<OwnedFd>,
    ours: Ours,
}

impl Opener {
    /// True when the caller's own files are inherited.
    fn take_stdio(&mut self, stdio: Stdio) -> Result<bool> {
        match stdio {
            Stdio::Inherit => return Ok(true),
            Stdio::Terminal(_) => {}
            Stdio::Files(files) => self.files = files.map(Some),
            Stdio::Pipes => {
                for (number, (theirs, ours)) in self.files.iter_mut().zip(&mut self.ours.pipes).enumerate() {
                    let (read, write) = pipe()?;
                    let (child, parent) = if number == 0 { (read, write) } else { (write, read) };
                    *theirs = Some(child);
                    *ours = Some(parent);
                }
            }
        }
        Ok(false)
    }

    fn open(&mut self, open: &Open) -> Result<OwnedFd> {
        match open {
            Open::Rootfs { nodes } => {
                let rootfs = self.rootfs.take().ok_or_else(|| broken("a root filesystem"))?;
                if !nodes {
                    let dead = MountAttributes { set: NODEV, ..MountAttributes::default() };
                    set_attributes(rootfs.as_fd(), true, dead)
                        .map_err(SandboxError::parent("make the root filesystem's device nodes dead"))?;
                }
                Ok(rootfs)
            }
            Open::Network => self.network.take().ok_or_else(|| broken("a network namespace")),
            Open::Standard(number) => {
                let file = self.files.get_mut(usize::from(*number)).and_then(Option::take);
                file.ok_or_else(|| broken("standard files"))
            }
            Open::Namespace(path) => {
                rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())
                    .map_err(|errno| SandboxError::host("open the namespace", path)(errno.into()))
            }
            Open::Directory(path) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(path, flags, Mode::empty())
                    .map_err(|errno| SandboxError::host("open the directory", path)(errno.into()))
            }
            Open::Container => Err(broken("containers")),
            Open::Bind(mount) => bind(mount),
            Open::Device { path, device } => host_device(path, *device),
            Open::GoWriter | Open::AliveWriter => Err(broken("pipes")),
            Open::Helper => Err(broken("helpers")),
            Open::Verdict => {
                let (read, write) = pipe()?;
                self.ours.verdict = Some(read);
                Ok(write)
            }
            Open::Alive => {
                let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
                let (read, write) = rustix::pipe::pipe_with(flags).map_err(failed("make a pipe"))?;
                self.ours.alive = Some(write);
                Ok(read)
            }
            Open::Channel => {
                let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
                let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None)
                    .map_err(failed("make a socket for the terminal"))?;
                self.ours.channel = Some(ours);
                Ok(theirs)
            }
            Open::Ready => {
                let (read, write) = pipe()?;
                self.ready = Some(read);
                Ok(write)
            }
            Open::Go => {
                let (read, write) = pipe()?;
                self.go = Some(write);
                Ok(read)
            }
        }
    }

    fn finish(mut self) -> Ours {
        if let (Some(ready), Some(go)) = (self.ready, self.go) {
            self.ours.sync = Some(Sync { ready, go });
        }
        self.ours
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(failed("make a pipe"))
}

/// A detached clone of a part of the host's tree, with its attributes set before anyone can see it.
fn bind(wanted: &Bind) -> Result<OwnedFd> {
    let Bind { source, recursive, top, below, ids } = wanted;
    let deep = if *recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | deep;
    let mount = rustix::mount::open_tree(rustix::fs::CWD, source, flags)
        .map_err(|errno| SandboxError::host("open the bind mount's source", source)(errno.into()))?;
    let set = |recursive, attributes| {
        set_attributes(mount.as_fd(), recursive, attributes)
            .map_err(SandboxError::host("set the mount attributes of", source))
    };
    if let Some((maps, recursive)) = ids {
        let namespace = user_namespace_of(maps)?;
        map_ids(mount.as_fd(), namespace.as_fd(), *recursive)
            .map_err(SandboxError::host("map the ids (can its filesystem do that?) of", source))?;
    }
    set(true, *below)?;
    if (top.set, top.clear) != (0, 0) {
        set(false, *top)?;
    }
    Ok(mount)
}

/// A clone of a device node of the host, checked to be that device.
fn host_device(path: &Path, device: u64) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let failed = |errno: Errno| SandboxError::host("open the device", path)(errno.into());
    let mount = rustix::mount::open_tree(rustix::fs::CWD, path, flags).map_err(failed)?;
    let facts = rustix::fs::fstat(&mount).map_err(failed)?;
    let kind = FileType::from_raw_mode(facts.st_mode);
    let is_device = kind == FileType::CharacterDevice || kind == FileType::BlockDevice;
    if is_device && facts.st_rdev == device {
        return Ok(mount);
    }
    let why = format!("{} is another device on this host", path.display());
    Err(SandboxError::invalid("linux.devices", why))
}

/// The terminal's master, which the child has sent before its `execve`.
pub(super) fn receive(channel: BorrowedFd<'_>) -> Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    rustix::net::recvmsg(channel, &mut [std::io::IoSliceMut::new(&mut byte)], &mut control, flags)
        .map_err(failed("receive the terminal"))?;
    let rights = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    rights.ok_or_else(|| failed("receive the terminal")(Errno::NOMSG))
}
