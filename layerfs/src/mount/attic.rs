//! Where images are attached for kernels whose overlayfs takes only layers of the caller's mount namespace: before Linux
//! 6.15.
//!
//! ```text
//! any thread ──work──> the attic's thread, in a mount namespace of its own:
//!                        RUN/lower           a tmpfs
//!                        RUN/lower/<number>  an image's mount, from the first overlay over it on
//!            <── the overlay, detached
//! ```
//! A mount can be attached once, and there a mount that is not attached cannot be cloned. So an image stays attached for
//! all overlays over it, until it is [let go](Attic::release) or the last ladder with this attic is dropped. A thread,
//! because unshare(2) gives a mount namespace to one thread only; the process's others keep the machine's. The namespace
//! is a slave: what the machine unmounts is unmounted there.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags};

use super::context::{Context, Refusal, Refused};

type Work = Box<dyn FnOnce(&mut Attached) + Send>;

/// The thread, which begins with the first work. Clones are the same attic.
#[derive(Debug, Clone, Default)]
pub(super) struct Attic(Arc<OnceLock<Refused<Sender<Work>>>>);

/// It is no part of what a ladder has found out.
impl PartialEq for Attic {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Attic {}

impl Attic {
    /// Has the thread do some work, and waits for it. `run` is where the first one attaches.
    pub(super) fn call<T: Send + 'static>(
        &self,
        run: &Path,
        work: impl FnOnce(&mut Attached) -> T + Send + 'static,
    ) -> Refused<T> {
        let thread = self.0.get_or_init(|| start(run)).as_ref().map_err(Refusal::clone)?;
        let gone =
            || Refusal { errno: Errno::SRCH, kernel: "the thread that attaches images is gone".to_owned() };
        let (answer, answered) = channel();
        let work: Work = Box::new(move |attached| drop(answer.send(work(attached))));
        thread.send(work).map_err(|_| gone())?;
        answered.recv().map_err(|_| gone())
    }

    /// Detaches an image's mount, if it is attached; overlays over it keep what they need. It cannot be attached again.
    pub(super) fn release(&self, mount: BorrowedFd<'_>) {
        let (Some(Ok(thread)), Ok(id)) = (self.0.get(), mount_id(mount)) else { return };
        let _ = thread.send(Box::new(move |attached| attached.release(id)));
    }
}

/// The images that are attached.
pub(super) struct Attached {
    /// The tmpfs.
    directory: PathBuf,
    /// The roots of images, with the numbers of their mount points, by the kernel's ids of the mounts.
    images: HashMap<u64, (OwnedFd, u64)>,
    points_count: u64,
}

impl Attached {
    /// The root of an image as it is attached here.
    pub(super) fn root_of(&mut self, mount: BorrowedFd<'_>) -> Refused<BorrowedFd<'_>> {
        let id = mount_id(mount).map_err(Refusal::of)?;
        if !self.images.contains_key(&id) {
            let number = self.points_count;
            self.points_count += 1;
            let point = self.point(number);
            rustix::fs::mkdir(&point, Mode::RWXU).map_err(refused("make a mount point"))?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(mount, "", CWD, &point, flags).map_err(refused("attach the image"))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root =
                rustix::fs::open(&point, flags, Mode::empty()).map_err(refused("open the attached image"))?;
            self.images.insert(id, (root, number));
        }
        let image = self.images.get(&id).ok_or(Refusal::of(Errno::NOENT))?;
        Ok(image.0.as_fd())
    }

    fn release(&mut self, id: u64) {
        if let Some((_, number)) = self.images.remove(&id) {
            let point = self.point(number);
            let _ = rustix::mount::unmount(&point, UnmountFlags::DETACH);
            let _ = rustix::fs::rmdir(&point);
        }
    }

    fn point(&self, number: u64) -> PathBuf {
        self.directory.join(number.to_string())
    }
}

/// The kernel's id of a mount, which no other has as long as it is there: statx(2).
fn mount_id(mount: BorrowedFd<'_>) -> Result<u64, Errno> {
    Ok(rustix::fs::statx(mount, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

fn refused(what: &'static str) -> impl FnOnce(Errno) -> Refusal {
    move |errno| Refusal { errno, kernel: what.to_owned() }
}

fn start(run: &Path) -> Refused<Sender<Work>> {
    let (directory, pins) = (run.join("lower"), run.join("mounts"));
    let of_io = |error: std::io::Error| Refusal::of(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    std::fs::create_dir_all(&directory).map_err(of_io)?;
    let (sender, works) = channel::<Work>();
    let (ready, is_ready) = channel();
    // The thread begins with all signals blocked: one that the caller holds back for itself would end the process there.
    let of_nix = |errno: nix::Error| of_io(errno.into());
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).map_err(of_nix)?;
    let thread = std::thread::Builder::new().name("celda-attic".to_owned()).spawn(move || {
        let moved = move_in(&directory, &pins);
        let failed = moved.is_err();
        let _ = ready.send(moved);
        let mut attached = Attached { directory, images: HashMap::new(), points_count: 0 };
        if !failed {
            works.into_iter().for_each(|work| work(&mut attached));
        }
    });
    before.thread_set_mask().map_err(of_nix)?;
    thread.map_err(of_io)?;
    is_ready.recv().unwrap_or(Err(Refusal::of(Errno::SRCH)))?;
    Ok(sender)
}

/// Gives the calling thread a mount namespace, and a tmpfs at `directory` there. The copies of pinned images are dropped:
/// being private, they would keep the files of images that are removed.
fn move_in(directory: &Path, pins: &Path) -> Refused<()> {
    crate::sys::namespace::unshare_mounts().map_err(refused("unshare the mount namespace"))?;
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).map_err(refused("separate the mount namespace"))?;
    let _ = rustix::mount::unmount(pins, UnmountFlags::DETACH); // there may be none
    let tmpfs = Context::open("tmpfs")?;
    tmpfs.string("mode", "0700")?;
    let tmpfs = tmpfs.mount(MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tmpfs.as_fd(), "", CWD, directory, flags).map_err(refused("attach a tmpfs"))
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn privileged_its_thread_takes_no_signal_that_the_caller_holds_back() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let run = tempfile::tempdir().expect("a directory");
        let blocked = |status: std::io::Result<String>| {
            let status = status.expect("read");
            let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
            u64::from_str_radix(mask.trim(), 16).expect("digits")
        };
        let mine = || blocked(std::fs::read_to_string("/proc/thread-self/status"));
        let before = mine();
        let theirs = Attic::default()
            .call(run.path(), |_| std::fs::read_to_string("/proc/thread-self/status"))
            .expect("an attic");
        let term = 1 << (Signal::SIGTERM as u64 - 1);
        assert_eq!((blocked(theirs) & term, mine()), (term, before));
    }
}
