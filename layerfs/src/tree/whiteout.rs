//! Whiteouts: how a layer says that something of the layers below is gone (OCI image-spec 1.1, layer.md).
//!
//! ```text
//! etc/.wh.motd          motd of the layers below is not in etc any more
//! etc/.wh..wh..opq      nothing of the layers below is in etc any more
//! .wh..wh.plnk, ...     aufs' own bookkeeping: not for anybody else
//! ```
//!
//! They speak of lower layers only, wherever in the archive they stand, so all of a layer's whiteouts are applied
//! before the first of its entries.

use std::collections::HashSet;

use crate::tar::{Entry, EntryKind};

use super::error::Problem;
use super::{Kind, Tree, resolve};

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry's path means for whiteouts.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Not a whiteout: the entry is what it says.
    Plain,
    /// The name in that directory is gone.
    Removed { parent: &'a [u8], name: &'a [u8] },
    /// All names in that directory are gone.
    Opaque { directory: &'a [u8] },
    /// aufs' bookkeeping, and what lies below it.
    Ignored,
}

/// Splits `path` into the directory and the name in it.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// What `path` means.
pub(super) fn meaning(path: &[u8]) -> Result<Meaning<'_>, Problem> {
    let (parent, name) = split(path);
    if parent.split(|&byte| byte == b'/').any(|component| component.starts_with(META_PREFIX)) {
        return Ok(Meaning::Ignored);
    }
    if name == OPAQUE {
        return Ok(Meaning::Opaque { directory: parent });
    }
    if name.starts_with(META_PREFIX) {
        return Ok(Meaning::Ignored);
    }
    match name.strip_prefix(PREFIX) {
        None => Ok(Meaning::Plain),
        Some(b"" | b"." | b"..") => Err(Problem::EmptyWhiteout),
        Some(name) => Ok(Meaning::Removed { parent, name }),
    }
}

/// Applies the whiteouts among `entries` to `tree`, which holds the layers below. The error has the index of its
/// entry.
pub(super) fn apply(tree: &mut Tree, entries: &[Entry], steps: &mut u64) -> Result<(), (usize, Problem)> {
    let mut shadowed: Option<HashSet<&[u8]>> = None;
    for (index, entry) in entries.iter().enumerate() {
        let (path, removed) = match meaning(&entry.path).map_err(|problem| (index, problem))? {
            Meaning::Plain | Meaning::Ignored => continue,
            Meaning::Removed { parent, name } => (parent, Some(name)),
            Meaning::Opaque { directory } => (directory, None),
        };
        let shadowed = shadowed.get_or_insert_with(|| directories(entries));
        let walk = resolve::Walk { steps, shadowed: Some(shadowed) };
        let directory = match resolve::directory(tree, path, walk) {
            Ok(Some(found)) if found.missing.is_empty() => found.directory,
            // What is not there cannot be removed; a name below a file is not there.
            Ok(_) | Err(Problem::ParentKind(_)) => continue,
            Err(problem) => return Err((index, problem)),
        };
        if let Kind::Directory(children) = &mut tree.inodes[directory.0 as usize].kind {
            match removed {
                Some(name) => drop(children.remove(name)),
                None => children.clear(),
            }
        }
    }
    Ok(())
}

fn directories(entries: &[Entry]) -> HashSet<&[u8]> {
    entries.iter().filter(|entry| entry.kind == EntryKind::Directory).map(|entry| &*entry.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_the_specification_says() {
        let removed = |parent: &'static [u8], name: &'static [u8]| Ok(Meaning::Removed { parent, name });
        assert_eq!(meaning(b"etc/.wh.motd"), removed(b"etc", b"motd"));
        assert_eq!(meaning(b".wh.motd"), removed(b"", b"motd"));
        assert_eq!(meaning(b".wh.wh.x"), removed(b"", b"wh.x"));
        assert_eq!(meaning(b"a/b/.wh..wh..opq"), Ok(Meaning::Opaque { directory: b"a/b" }));
        assert_eq!(meaning(b".wh..wh.plnk/1.2"), Ok(Meaning::Ignored));
        assert_eq!(meaning(b".wh..wh.aufs"), Ok(Meaning::Ignored));
        assert_eq!(meaning(b"a/.wh"), Ok(Meaning::Plain));
        assert_eq!(meaning(b"a/.wh.b/c"), Ok(Meaning::Plain));
        for nothing in [b".wh.".as_slice(), b"a/.wh.", b".wh..", b".wh..."] {
            assert_eq!(meaning(nothing), Err(Problem::EmptyWhiteout));
        }
    }
}
