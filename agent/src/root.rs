//! A new root for a container: a writable layer over an image's mount, with the image's mode and owner.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use celda_layerfs::mount::{DiskLimit, Ladder, Root, WritableLayer};
use oci_spec::runtime::LinuxIdMapping;
use rustix::fs::{AtFlags, Gid, Mode, Uid};

use crate::sandbox::user_namespace;
use crate::{Error, Result};

/// The mode that a writable layer's root is made with.
const DIRECTORY_MODE: u32 = 0o755;

/// A writable layer `containers/<id>` and the overlay over `lower`, an image's mount. With ranges of ids it belongs to the
/// container's root. With `limit_bytes` it holds so much and no more.
///
/// # Errors
/// What layerfs and the sandbox say; nothing is left behind.
pub fn create(
    ladder: &Ladder,
    lower: BorrowedFd<'_>,
    (uids, gids): (&[LinuxIdMapping], &[LinuxIdMapping]),
    (containers, id): (&Path, &str),
    limit_bytes: Option<u64>,
) -> Result<Root> {
    let users = if uids.is_empty() { None } else { Some(user_namespace(uids, gids)?) };
    let root_of = |ranges: &[LinuxIdMapping]| {
        ranges.iter().find(|range| range.container_id() == 0).map(LinuxIdMapping::host_id)
    };
    let owner = (root_of(uids), root_of(gids));
    let layer = match limit_bytes {
        None => WritableLayer::create(containers, id)?,
        Some(bytes) => {
            let limit = DiskLimit { bytes, is_own_user_namespace: users.is_some() };
            WritableLayer::create_limited(containers, id, limit)?
        }
    };
    let overlay = match_root(lower, layer.upper(), owner).and_then(|()| {
        let users = users.as_ref().map(|users| users.as_fd());
        Ok(ladder.overlay_layer(lower, &layer, users)?)
    });
    match overlay {
        Ok(overlay) => Ok(Root::new(layer, overlay)),
        Err(error) => {
            layer.remove()?;
            Err(error)
        }
    }
}

/// Gives the writable layer's root the mode and owner of the image's: overlayfs shows those of the upper directory.
/// In a user namespace the container's root owns it.
fn match_root(
    lower: BorrowedFd<'_>,
    (place, upper): (BorrowedFd<'_>, PathBuf),
    (uid, gid): (Option<u32>, Option<u32>),
) -> Result<()> {
    let failed = |errno: rustix::io::Errno| Error::io("set the owner and mode of", &upper)(errno.into());
    let of_image = rustix::fs::fstat(lower).map_err(failed)?;
    let (uid, gid) = (uid.unwrap_or(of_image.st_uid), gid.unwrap_or(of_image.st_gid));
    if (uid, gid) != (0, 0) {
        let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(place, &upper, ids.0, ids.1, AtFlags::empty()).map_err(failed)?;
    }
    let mode = of_image.st_mode & 0o7777;
    if mode != DIRECTORY_MODE {
        rustix::fs::chmodat(place, &upper, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(failed)?;
    }
    Ok(())
}
