//! The container's root: the image beneath, a writable layer above, one overlay mount.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use serde::{Deserialize, Serialize};

use super::attic::Attached;
use super::context::{Context, Refusal, Refused};
use super::ladder::Ladder;
use super::writable::WritableLayer;
use crate::sys::mount_setattr::{MountAttributes, mount_setattr};
use crate::{Error, Result};

const IDMAP_HINT: &str = "user namespaces need Linux 6.15 and a store on a filesystem with id-mapped mounts";

const OVERLAY_HINT: &str = "`celda info` shows what this kernel's overlayfs takes";

/// What the kernel's overlayfs takes, as probed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OverlayAbilities {
    /// Layers are given by fd (`FSCONFIG_SET_FD`, Linux 6.13); by path otherwise.
    pub layers_by_fd: bool,
    /// Lower layers may be detached mounts (Linux 6.15).
    pub detached_lower: bool,
    /// Overlays can be mounted at all, here and by this user.
    pub usable: bool,
    /// Overlay's own attributes go to `user.overlay.*`: outside the initial user namespace `trusted.*` is refused.
    pub user_xattrs: bool,
}

impl Ladder {
    /// An overlay of `lower` (from [`mount_image`](Self::mount_image)) and the writable layer at `upper`
    /// (`containers/<id>` with its `upper` and `work`), detached. Without a writable layer: another mount of `lower`,
    /// read-only.
    ///
    /// The overlay is `volatile`: a container's writable layer is not worth an fsync, it dies with the container.
    /// The root directory's owner, mode and times are those of the image: `upper` gets them first.
    ///
    /// # Errors
    /// [`Error::Mount`] with the kernel's text.
    pub fn overlay(&self, lower: BorrowedFd<'_>, upper: Option<&Path>) -> Result<OwnedFd> {
        self.overlay_mapped(lower, upper, None)
    }

    /// [`overlay`](Self::overlay) for a container with a user namespace of its own: owners are shown as that
    /// namespace maps them. What the container writes is stored with the owners it has on the host. Takes Linux 6.15
    /// and the initial user namespace.
    ///
    /// # Errors
    /// [`Error::Mount`] with the kernel's text; `EINVAL` where a filesystem beneath cannot be id-mapped.
    pub fn overlay_mapped(
        &self,
        lower: BorrowedFd<'_>,
        upper: Option<&Path>,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd> {
        self.overlay_in(lower, (upper, None), user_namespace)
    }

    /// [`overlay_mapped`](Self::overlay_mapped) with a layer that may have a limit.
    ///
    /// # Errors
    /// As `overlay_mapped`.
    pub fn overlay_layer(
        &self,
        lower: BorrowedFd<'_>,
        layer: &WritableLayer,
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd> {
        self.overlay_in(lower, (Some(layer.path()), layer.mount()), user_namespace)
    }

    /// `space` is the filesystem that `upper` and `work` are in, if it is not that of the layer's directory.
    fn overlay_in(
        &self,
        lower: BorrowedFd<'_>,
        (upper, space): (Option<&Path>, Option<BorrowedFd<'_>>),
        user_namespace: Option<BorrowedFd<'_>>,
    ) -> Result<OwnedFd> {
        let mapped = match user_namespace {
            Some(namespace) => Some(
                map_ids(lower, namespace)
                    .map_err(|refusal| refusal.at("map the ids of image", Path::new("/"), IDMAP_HINT))?,
            ),
            None => None,
        };
        let shown = mapped.as_ref().map_or(lower, |mapped| mapped.as_fd());
        let Some(layer) = upper else {
            return self
                .again(shown)
                .map_err(|refusal| refusal.at("mount image again", Path::new("/"), OVERLAY_HINT));
        };
        let abilities = self.overlay;
        if !self.needs_private_namespace() {
            return overlay_over(abilities, shown, shown, (layer, space.map(Space::Detached)));
        }
        let copied =
            |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(Error::io("duplicate a mount for", layer));
        let (lower, space) = (copied(shown)?, space.map(copied).transpose()?);
        let layer_path = layer.to_path_buf();
        let made = self.attic().call(self.run(), move |images| {
            let layer = layer_path.as_path();
            let attached = images.root_of(lower.as_fd());
            let attached = attached.map_err(|refusal| refusal.at("attach image for", layer, OVERLAY_HINT))?;
            let space = space.as_ref().map(|space| Space::attach(space.as_fd(), layer.join(SPACE_POINT)));
            let space = space.transpose();
            let space = space.map_err(|refusal| refusal.at("attach the space of", layer, OVERLAY_HINT))?;
            overlay_over(abilities, lower.as_fd(), attached, (layer, space))
        });
        made.map_err(|refusal| refusal.at("attach image for", layer, OVERLAY_HINT))?
    }

    /// Another detached mount of an image's tree.
    fn again(&self, image: BorrowedFd<'_>) -> Refused<OwnedFd> {
        match clone_detached(image) {
            Err(Errno::INVAL) => {
                let image = rustix::io::fcntl_dupfd_cloexec(image, 3).map_err(Refusal::of)?;
                let cloned = move |images: &mut Attached| {
                    clone_detached(images.root_of(image.as_fd())?).map_err(Refusal::of)
                };
                self.attic().call(self.run(), cloned)?
            }
            answer => answer.map_err(Refusal::of),
        }
    }
}

/// An overlay of `lower`, which is the image as overlayfs takes it, and what is in `layer`, or in its own filesystem.
fn overlay_over(
    abilities: OverlayAbilities,
    image: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    (layer, space): (&Path, Option<Space<'_>>),
) -> Result<OwnedFd> {
    let (place, beneath) = match &space {
        Some(Space::Detached(mount)) => (*mount, Path::new("")),
        Some(Space::Attached(point)) => (CWD, point.as_path()),
        None => (CWD, layer),
    };
    let open = |name: &str| {
        let path = beneath.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(place, &path, flags, Mode::empty())
            .map_err(|errno| Error::io("open", layer.join(name))(errno.into()))
    };
    let (upper, work) = (open("upper")?, open("work")?);
    inherit_root(image, upper.as_fd()).map_err(Error::io("prepare", layer.join("upper")))?;
    mount_overlay(abilities, Layers { lower, upper: upper.as_fd(), work: work.as_fd() })
        .map_err(|refusal| refusal.at("mount overlay with", layer, OVERLAY_HINT))
}

/// Where a layer's own filesystem is attached for as long as it takes to mount an overlay over it.
const SPACE_POINT: &str = "space";

/// A layer's own filesystem, as overlayfs takes it.
enum Space<'a> {
    Detached(BorrowedFd<'a>),
    /// Attached in the calling thread's mount namespace until this is dropped. The overlay keeps what it needs of it.
    Attached(PathBuf),
}

impl Space<'_> {
    fn attach(mount: BorrowedFd<'_>, point: PathBuf) -> Refused<Self> {
        rustix::fs::mkdir(&point, Mode::RWXU).map_err(Refusal::of)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        rustix::mount::move_mount(mount, "", CWD, &point, flags).map_err(Refusal::of)?;
        Ok(Self::Attached(point))
    }
}

impl Drop for Space<'_> {
    fn drop(&mut self) {
        if let Self::Attached(point) = self {
            let _ = rustix::mount::unmount(point.as_path(), UnmountFlags::DETACH);
        }
    }
}

/// A detached clone of a mount with its ids mapped.
fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> Refused<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = rustix::mount::open_tree(mount, "", flags).map_err(Refusal::of)?;
    let attributes = MountAttributes { idmap: Some(namespace), ..MountAttributes::default() };
    mount_setattr(clone.as_fd(), attributes).map_err(Refusal::of)?;
    Ok(clone)
}

/// The three layers of an overlay.
#[derive(Clone, Copy)]
struct Layers<'a> {
    lower: BorrowedFd<'a>,
    upper: BorrowedFd<'a>,
    work: BorrowedFd<'a>,
}

fn mount_overlay(abilities: OverlayAbilities, layers: Layers<'_>) -> Refused<OwnedFd> {
    let context = Context::open("overlay")?;
    set_lower(&context, abilities.layers_by_fd, layers.lower)?;
    set_layer(&context, abilities, "upperdir", layers.upper)?;
    set_layer(&context, abilities, "workdir", layers.work)?;
    context.flag("volatile")?;
    context.string("xino", "auto")?;
    if abilities.user_xattrs {
        context.flag("userxattr")?;
    }
    context.string("source", "celda")?;
    context.mount(MountAttrFlags::empty())
}

/// Gives the one lower layer. `lowerdir+` takes an fd since Linux 6.13 and is there since 6.8; `lowerdir`, which overlayfs
/// always had, is a list with colons, and the fd's name has none.
pub(super) fn set_lower(context: &Context, by_fd: bool, lower: BorrowedFd<'_>) -> Refused<()> {
    if by_fd {
        return context.fd("lowerdir+", lower);
    }
    context.string("lowerdir", format!("/proc/self/fd/{}", lower.as_raw_fd()))
}

/// Gives a layer by fd where the kernel takes it, by the fd's name in /proc otherwise.
fn set_layer(
    context: &Context,
    abilities: OverlayAbilities,
    key: &str,
    layer: BorrowedFd<'_>,
) -> Refused<()> {
    if abilities.layers_by_fd {
        return context.fd(key, layer);
    }
    context.string(key, format!("/proc/self/fd/{}", layer.as_raw_fd()))
}

/// Another detached mount of the same tree. `EINVAL` before Linux 6.15, where a detached mount cannot be cloned.
pub(super) fn clone_detached(mount: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    rustix::mount::open_tree(mount, "", flags)
}

/// Gives the writable layer's root the owner and mode of the image's: overlayfs shows the upper one's.
fn inherit_root(lower: BorrowedFd<'_>, upper: BorrowedFd<'_>) -> std::io::Result<()> {
    let image = rustix::fs::fstat(lower)?;
    let layer = rustix::fs::fstat(upper)?;
    if (image.st_uid, image.st_gid) != (layer.st_uid, layer.st_gid) {
        rustix::fs::fchown(upper, Some(Uid::from_raw(image.st_uid)), Some(Gid::from_raw(image.st_gid)))?;
    }
    let permissions = image.st_mode & 0o7777;
    if permissions != layer.st_mode & 0o7777 {
        rustix::fs::fchmod(upper, Mode::from_raw_mode(permissions))?;
    }
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let modified = Timespec { tv_sec: image.st_mtime, tv_nsec: image.st_mtime_nsec as _ };
    rustix::fs::futimens(upper, &Timestamps { last_access: omit, last_modification: modified })?;
    Ok(())
}
