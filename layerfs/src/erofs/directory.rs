//! Directories on disk: blocks of sorted entries, each block with its own names.
//!
//! ```text
//! block: | nid, where its name starts, type | ... | name name name ... zeros |     12 bytes an entry, at most 512
//! ```
//!
//! The kernel finds a name by binary search over blocks and then entries, so the order is that of bytes, with `.`
//! and `..` in their places among the others.

use super::format::{BLOCK_BYTES, DIRENT_BYTES};

const BLOCK: usize = BLOCK_BYTES as usize;

/// One entry to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Name<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub file_type: u8,
}

/// `names`, sorted, with `.` and `..` put in their places.
pub(super) fn with_dots<'a, T: Copy + 'a>(
    names: impl Iterator<Item = (&'a [u8], T)> + 'a,
    dot: T,
    dot_dot: T,
) -> impl Iterator<Item = (&'a [u8], T)> {
    let mut names = names.peekable();
    let mut dots = [(b".".as_slice(), dot), (b"..".as_slice(), dot_dot)].into_iter().peekable();
    std::iter::from_fn(move || match (names.peek(), dots.peek()) {
        (Some(name), Some(dot)) if name.0 < dot.0 => names.next(),
        (_, Some(_)) => dots.next(),
        _ => names.next(),
    })
}

/// The bytes that a directory of these names has, the last block not filled up.
pub(super) fn measure<'a>(names: impl Iterator<Item = &'a [u8]>) -> u64 {
    let (mut blocks, mut used) = (0u64, 0);
    for name in names {
        let needed = DIRENT_BYTES + name.len();
        if used + needed > BLOCK {
            blocks += 1;
            used = 0;
        }
        used += needed;
    }
    blocks * BLOCK_BYTES + used as u64
}

/// Writes `names` to `into`, which has [`measure`] bytes and is zero.
pub(super) fn encode(names: &[Name<'_>], into: &mut [u8]) {
    let mut rest = names;
    for block in into.chunks_mut(BLOCK) {
        let mut used = 0;
        let count = rest
            .iter()
            .take_while(|name| {
                used += DIRENT_BYTES + name.name.len();
                used <= BLOCK
            })
            .count();
        let (here, later) = rest.split_at(count);
        rest = later;
        let mut name_at = count * DIRENT_BYTES;
        for (entry, name) in here.iter().enumerate() {
            let dirent = &mut block[entry * DIRENT_BYTES..][..DIRENT_BYTES];
            dirent[..8].copy_from_slice(&name.nid.to_le_bytes());
            dirent[8..10].copy_from_slice(&(name_at as u16).to_le_bytes());
            dirent[10] = name.file_type;
            block[name_at..][..name.name.len()].copy_from_slice(name.name);
            name_at += name.name.len();
        }
    }
}

/// Reads one block (or the shorter last one); `None` if it is not sound.
pub(super) fn decode(block: &[u8]) -> Option<Vec<Name<'_>>> {
    let dirent = |index: usize| {
        let bytes = block.get(index * DIRENT_BYTES..)?.first_chunk::<DIRENT_BYTES>()?;
        let nid = u64::from_le_bytes(*bytes.first_chunk()?);
        Some((nid, usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), bytes[10]))
    };
    let (_, names_at, _) = dirent(0)?;
    if names_at == 0 || names_at % DIRENT_BYTES != 0 || names_at > block.len() {
        return None;
    }
    let count = names_at / DIRENT_BYTES;
    let mut names = Vec::with_capacity(count);
    for index in 0..count {
        let (nid, start, file_type) = dirent(index)?;
        let end = if index + 1 < count { dirent(index + 1)?.1 } else { block.len() };
        if start < names_at {
            return None;
        }
        let name = block.get(start..end)?;
        // Only the last name of a block is followed by zeros.
        let length = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
        if length == 0 || index + 1 < count && length != name.len() {
            return None;
        }
        names.push(Name { name: &name[..length], nid, file_type });
    }
    Some(names)
}
