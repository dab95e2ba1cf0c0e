//! Extended attributes on disk: behind the inode, or once for many inodes in the shared area.
//!
//! ```text
//! inode | header (12): how many shared | shared ids (4 each) | entry | entry | ...
//! entry:  name length, name index, value length (4) | name without its namespace | value | padding to 4
//! ```

use std::collections::HashMap;

use crate::tar::Xattr;
use crate::tree::{InodeId, Tree};

use super::ErofsError;
use super::format::{XATTR_ENTRY_BYTES, XATTR_HEADER_BYTES, XATTR_SHARED_MAX, round_up};

/// Namespaces and their numbers; the whole names of the access control lists count as namespaces.
const NAMESPACES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];
/// A header counts itself and then units of four bytes, in 16 bits.
const UNITS_MAX: usize = u16::MAX as usize - 1;

/// The shared area, and where each attribute is in it.
#[derive(Debug, Default)]
pub(super) struct Shared<'a> {
    pub bytes: Vec<u8>,
    ids: HashMap<&'a Xattr, u32>,
}

impl<'a> Shared<'a> {
    /// Collects what more than one of the inodes `order` of `tree` has, in the order of first use.
    pub(super) fn collect(tree: &'a Tree, order: &[InodeId]) -> Result<Self, ErofsError> {
        let mut seen: HashMap<&Xattr, usize> = HashMap::new();
        let mut found: Vec<(InodeId, &Xattr, u32)> = Vec::new();
        for &id in order {
            for xattr in &tree.inode(id).xattrs {
                let index = *seen.entry(xattr).or_insert_with(|| {
                    found.push((id, xattr, 0));
                    found.len() - 1
                });
                found[index].2 += 1;
            }
        }
        let mut shared = Self::default();
        for (id, xattr, _) in found.into_iter().filter(|(_, _, uses)| *uses > 1) {
            let at = u32::try_from(shared.bytes.len() / 4).map_err(|_| ErofsError::TooLarge)?;
            shared.ids.insert(xattr, at);
            encode_entry(&mut shared.bytes, xattr).ok_or_else(|| refused(tree, id))?;
        }
        Ok(shared)
    }

    /// What stands behind inode `id`; empty if it has no attributes.
    pub(super) fn encode(&self, tree: &Tree, id: InodeId) -> Result<Vec<u8>, ErofsError> {
        let inode = tree.inode(id);
        if inode.xattrs.is_empty() {
            return Ok(Vec::new());
        }
        let (mut ids, mut entries) = (Vec::new(), Vec::new());
        for xattr in &inode.xattrs {
            match self.ids.get(xattr) {
                Some(shared) if ids.len() < XATTR_SHARED_MAX => ids.push(*shared),
                _ => encode_entry(&mut entries, xattr).ok_or_else(|| refused(tree, id))?,
            }
        }
        let mut body = vec![0; XATTR_HEADER_BYTES];
        body[4] = ids.len() as u8;
        body.extend(ids.into_iter().flat_map(u32::to_le_bytes));
        body.extend_from_slice(&entries);
        if (body.len() - XATTR_HEADER_BYTES) / 4 > UNITS_MAX {
            return Err(refused(tree, id));
        }
        Ok(body)
    }
}

/// What i_xattr_icount says of a body of that length.
pub(super) fn body_units(body_bytes: usize) -> u16 {
    if body_bytes == 0 { 0 } else { (1 + (body_bytes - XATTR_HEADER_BYTES) / 4) as u16 }
}

/// The length of the body that i_xattr_icount says.
pub(super) fn body_bytes(units: u16) -> usize {
    if units == 0 { 0 } else { XATTR_HEADER_BYTES + 4 * (usize::from(units) - 1) }
}

fn refused(tree: &Tree, id: InodeId) -> ErofsError {
    ErofsError::inode(tree, id, "an extended attribute is in no namespace that EROFS has, or too long")
}

fn encode_entry(into: &mut Vec<u8>, xattr: &Xattr) -> Option<()> {
    let (index, namespace) = NAMESPACES.iter().find(|(_, namespace)| xattr.name.starts_with(namespace))?;
    let name = &xattr.name[namespace.len()..];
    // An empty name is right for the two whole names only, and those have nothing after them.
    if name.is_empty() != namespace.starts_with(b"system.") {
        return None;
    }
    into.push(u8::try_from(name.len()).ok()?);
    into.push(*index);
    into.extend(u16::try_from(xattr.value.len()).ok()?.to_le_bytes());
    into.extend_from_slice(name);
    into.extend_from_slice(&xattr.value);
    into.resize(round_up(into.len() as u64, 4) as usize, 0);
    Some(())
}

/// Reads the entry at the start of `bytes`, and how many bytes it takes.
pub(super) fn decode_entry(bytes: &[u8]) -> Option<(Xattr, usize)> {
    let (head, rest) = bytes.split_at_checked(XATTR_ENTRY_BYTES)?;
    let (_, namespace) = NAMESPACES.iter().find(|(index, _)| *index == head[1])?;
    let (name, rest) = rest.split_at_checked(usize::from(head[0]))?;
    if name.is_empty() != namespace.starts_with(b"system.") {
        return None;
    }
    let value = rest.get(..usize::from(u16::from_le_bytes([head[2], head[3]])))?;
    let taken = round_up((XATTR_ENTRY_BYTES + name.len() + value.len()) as u64, 4) as usize;
    let xattr = Xattr { name: [namespace, name].concat().into(), value: value.into() };
    (taken <= bytes.len()).then_some((xattr, taken))
}
