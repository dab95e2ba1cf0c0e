//! Paths to directories inside the tree, symbolic links followed as a `chroot` would: never out of the root.
//!
//! The same answer as filepath-securejoin gives, which Docker and umoci unpack by: `..` at the root stays there,
//! an absolute target starts at the root of the image, and components after a missing one are taken as written.

use std::collections::HashSet;

use super::error::Problem;
use super::{InodeId, Kind, Tree};

/// Symbolic links followed for one path: MAXSYMLINKS of the kernel, path_resolution(7).
pub(super) const SYMLINKS_MAX: usize = 40;
/// Directories above one name. A path of PATH_MAX bytes cannot have more, and symbolic links must not help.
pub(super) const DEPTH_MAX: usize = 2048;
/// Bytes of symbolic link targets followed for one layer. What a path costs without links is bounded by its own
/// length; forty links of 4095 bytes before every one of millions of entries would not be.
pub(super) const STEPS_MAX: u64 = 64 << 20;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The last directory on the way that exists.
    pub directory: InodeId,
    /// How many directories are above and including it.
    pub depth: usize,
    /// The names below it that do not exist.
    pub missing: Vec<Box<[u8]>>,
}

/// What a walk may cost and where it must stop.
pub(super) struct Walk<'a> {
    /// Bytes of link targets that may still be followed for this layer.
    pub steps: &'a mut u64,
    /// Paths that the layer itself makes directories: what a lower layer has there as a symbolic link is not
    /// followed.
    pub shadowed: Option<&'a HashSet<&'a [u8]>>,
}

/// Walks to the directory `path` (relative to the root). `None` if a symbolic link on the way is shadowed.
#[expect(clippy::needless_pass_by_value, reason = "a walk is used up, its shadowed paths are for one path")]
pub(super) fn directory(tree: &Tree, path: &[u8], walk: Walk<'_>) -> Result<Option<Resolved>, Problem> {
    let mut walked = vec![Tree::ROOT];
    let mut missing: Vec<&[u8]> = Vec::new();
    let mut links = 0;
    // What is still to walk, the next last; `true` for the part of `path` itself.
    let mut rest: Vec<(&[u8], bool)> = vec![(path, true)];
    while let Some((part, literal)) = rest.pop() {
        let (name, tail) = match part.iter().position(|&byte| byte == b'/') {
            Some(slash) => (&part[..slash], &part[slash + 1..]),
            None => (part, &[][..]),
        };
        if !tail.is_empty() {
            rest.push((tail, literal));
        }
        if name.is_empty() || name == b"." {
            continue;
        }
        if name == b".." {
            if missing.pop().is_none() && walked.len() > 1 {
                walked.pop();
            }
            continue;
        }
        let parent = walked[walked.len() - 1];
        match if missing.is_empty() { tree.child(parent, name) } else { None } {
            None => missing.push(name),
            Some(child) => match &tree.inode(child).kind {
                Kind::Directory(_) => walked.push(child),
                Kind::Symlink(target) => {
                    if literal && let Some(shadowed) = walk.shadowed {
                        let so_far = &path[..path.len() - tail.len() - usize::from(!tail.is_empty())];
                        if shadowed.contains(so_far) {
                            return Ok(None);
                        }
                    }
                    links += 1;
                    if links > SYMLINKS_MAX {
                        return Err(Problem::Symlinks(SYMLINKS_MAX));
                    }
                    *walk.steps =
                        walk.steps.checked_sub(target.len() as u64).ok_or(Problem::Steps(STEPS_MAX))?;
                    if target.first() == Some(&b'/') {
                        walked.truncate(1);
                    }
                    rest.push((target, false));
                }
                _ => return Err(Problem::ParentKind(String::from_utf8_lossy(name).into_owned())),
            },
        }
        if walked.len() + missing.len() > DEPTH_MAX {
            return Err(Problem::Depth(DEPTH_MAX));
        }
    }
    Ok(Some(Resolved {
        directory: walked[walked.len() - 1],
        depth: walked.len(),
        missing: missing.into_iter().map(Box::from).collect(),
    }))
}
