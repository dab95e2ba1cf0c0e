//! Which extended attributes of an entry reach the container, in canonical order.

use crate::tar::Xattr;

use super::error::Problem;

/// Bytes of an attribute's whole name: XATTR_NAME_MAX, linux/limits.h.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a value: what EROFS counts in 16 bits, one less than XATTR_SIZE_MAX of linux/limits.h.
const VALUE_BYTES_MAX: usize = u16::MAX as usize;
/// `struct posix_acl_xattr_header` and `posix_acl_xattr_entry`, linux/posix_acl_xattr.h.
const ACL_VERSION: [u8; 4] = 2u32.to_le_bytes();
const ACL_ENTRY_BYTES: usize = 8;

/// Sorts by name and keeps the last of each name.
///
/// Dropped are `trusted.overlay.*` and `user.overlay.*`, by which a layer could hide or redirect files of the
/// overlay that its container is mounted through, and names outside of the namespaces that Linux filesystems
/// have (macOS' `com.apple.*`), which could not be set on a disk either.
pub(super) fn canonical(mut xattrs: Vec<Xattr>) -> Result<Vec<Xattr>, Problem> {
    if xattrs.is_empty() {
        return Ok(xattrs);
    }
    xattrs.retain(|xattr| is_kept(&xattr.name));
    for xattr in &xattrs {
        check(xattr).map_err(|why| Problem::Xattr(String::from_utf8_lossy(&xattr.name).into_owned(), why))?;
    }
    // Stable, so that of equal names the last of the archive is the last here.
    xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    xattrs.dedup_by(|next, kept| {
        let same = next.name == kept.name;
        if same {
            std::mem::swap(next, kept);
        }
        same
    });
    Ok(xattrs)
}

fn is_kept(name: &[u8]) -> bool {
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
        return false;
    }
    let named = |namespace: &[u8]| name.len() > namespace.len() && name.starts_with(namespace);
    named(b"user.") || named(b"trusted.") || named(b"security.") || is_acl(name)
}

fn is_acl(name: &[u8]) -> bool {
    name == b"system.posix_acl_access" || name == b"system.posix_acl_default"
}

fn check(xattr: &Xattr) -> Result<(), &'static str> {
    if xattr.name.len() > NAME_BYTES_MAX {
        return Err("its name is longer than 255 bytes");
    }
    if xattr.name.contains(&0) {
        return Err("its name has a NUL");
    }
    if xattr.value.len() > VALUE_BYTES_MAX {
        return Err("its value is longer than 65,535 bytes");
    }
    // The kernel reads an access control list whenever the file is opened, and fails the open if it cannot.
    if is_acl(&xattr.name) {
        let entries =
            xattr.value.strip_prefix(&ACL_VERSION).ok_or("not an access control list of version 2")?;
        if !entries.len().is_multiple_of(ACL_ENTRY_BYTES) {
            return Err("an access control list that is cut off");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xattr(name: &[u8], value: &[u8]) -> Xattr {
        Xattr { name: name.into(), value: value.into() }
    }

    #[test]
    fn sorted_and_the_last_of_a_name_wins() {
        let kept = canonical(vec![
            xattr(b"user.b", b"1"),
            xattr(b"security.capability", b"c"),
            xattr(b"user.b", b"2"),
            xattr(b"user.a", b""),
            xattr(b"user.b", b"3"),
        ]);
        let want = vec![xattr(b"security.capability", b"c"), xattr(b"user.a", b""), xattr(b"user.b", b"3")];
        assert_eq!(kept, Ok(want));
    }

    #[test]
    fn overlay_and_foreign_names_are_dropped() {
        let kept = canonical(vec![
            xattr(b"trusted.overlay.opaque", b"y"),
            xattr(b"user.overlay.redirect", b"/etc"),
            xattr(b"com.apple.quarantine", b"0"),
            xattr(b"user.", b"nameless"),
            xattr(b"user.overlayish", b"stays"),
        ]);
        assert_eq!(kept, Ok(vec![xattr(b"user.overlayish", b"stays")]));
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        let long_name = [b"user.".as_slice(), &[b'n'; 251]].concat();
        let long_value = vec![0; 65_536];
        for bad in [
            xattr(&long_name, b""),
            xattr(b"user.a\0b", b""),
            xattr(b"user.a", &long_value),
            xattr(b"system.posix_acl_access", b""),
            xattr(b"system.posix_acl_access", &[2, 0, 0, 0, 1]),
            xattr(b"system.posix_acl_default", &[3, 0, 0, 0]),
        ] {
            assert!(matches!(canonical(vec![bad.clone()]), Err(Problem::Xattr(..))), "{bad:?}");
        }
    }
}
