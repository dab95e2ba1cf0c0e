//! pax extended headers: records `LENGTH KEY=VALUE\n`, where LENGTH counts the whole record.
//!
//! Keys: POSIX.1-2017 pax, "pax Extended Header"; `SCHILY.xattr.` from star, `LIBARCHIVE.xattr.` from libarchive;
//! `GNU.sparse.` from the GNU tar manual, "Storing Sparse Files".

use super::number::{decimal, timestamp};
use super::{TarReason, Timestamp, Xattr};
use crate::Limits;

/// What extended headers said, global ones first and then the entry's own on top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxFields {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) sparse: Option<Box<PaxSparse>>,
}

/// The `GNU.sparse.` records of formats 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    /// Logical bytes, from `GNU.sparse.size` (0.x) or `GNU.sparse.realsize` (1.0).
    pub(super) real_size: Option<u64>,
    pub(super) path: Option<Vec<u8>>,
    pub(super) entries_count: Option<u64>,
    /// Offset and length of each run, of the formats that keep their map here.
    pub(super) map: Vec<(u64, u64)>,
    /// Format 0.0: an offset that waits for its length.
    offset: Option<u64>,
}

/// Whose records are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// One entry's.
    Entry,
    /// Those of all entries that follow.
    Global,
}

/// XATTR_NAME_MAX of Linux.
const XATTR_NAME_BYTES: usize = 255;
/// Extended attributes of one entry. Real files have a handful; every record is compared with all before it.
const XATTRS_COUNT: usize = 256;
/// Digits of a record's length: pax headers are far below 10^9 bytes.
const LENGTH_DIGITS: usize = 9;

impl PaxFields {
    /// Applies every record of `block` in its order; a later one of the same key wins, an empty one restores what
    /// the header says.
    pub(super) fn apply(&mut self, mut block: &[u8], scope: Scope, limits: &Limits) -> Result<(), TarReason> {
        let mut own_size = None;
        while !block.is_empty() {
            let Record { key, value, rest } = split_record(block)?;
            block = rest;
            if scope == Scope::Global && is_of_one_entry(key) {
                return Err(TarReason::GlobalRecord(TarReason::shown(key)));
            }
            self.record(key, value, limits)?;
            if key == b"size" {
                match (own_size, self.size) {
                    (Some(earlier), Some(later)) if earlier != later => {
                        return Err(TarReason::Pax("two size records that disagree"));
                    }
                    (_, later) => own_size = later,
                }
            }
        }
        match &self.sparse {
            Some(sparse) if sparse.offset.is_some() => Err(TarReason::Sparse("an offset without a length")),
            _ => Ok(()),
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<(), TarReason> {
        let bad = || TarReason::PaxValue { key: TarReason::shown(key), found: TarReason::shown(value) };
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link_path = text(value)?,
            b"size" => self.size = unless_empty(value, decimal).ok_or_else(bad)?,
            b"uid" => self.uid = unless_empty(value, id).ok_or_else(bad)?,
            b"gid" => self.gid = unless_empty(value, id).ok_or_else(bad)?,
            b"mtime" => self.mtime = unless_empty(value, timestamp).ok_or_else(bad)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattr(name, value, limits)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    let name = percent_decoded(name).ok_or_else(bad)?;
                    let value = base64_decoded(value).ok_or_else(bad)?;
                    self.xattr(&name, &value, limits)?;
                } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
                    let sparse = self.sparse.get_or_insert_default();
                    sparse.record(name, value, limits)?.ok_or_else(bad)?;
                }
            }
        }
        Ok(())
    }

    fn xattr(&mut self, name: &[u8], value: &[u8], limits: &Limits) -> Result<(), TarReason> {
        if name.is_empty() || name.contains(&0) {
            return Err(TarReason::Pax("an extended attribute whose name is empty or contains NUL"));
        }
        if name.len() > XATTR_NAME_BYTES {
            return Err(TarReason::Pax(
                "an extended attribute's name is longer than Linux allows (255 bytes)",
            ));
        }
        match self.xattrs.iter().position(|xattr| &*xattr.name == name) {
            Some(at) => self.xattrs[at].value = value.into(),
            None if self.xattrs.len() == XATTRS_COUNT => {
                return Err(TarReason::Pax("more than 256 extended attributes"));
            }
            None => self.xattrs.push(Xattr { name: name.into(), value: value.into() }),
        }
        let total: usize = self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum();
        if total > limits.xattrs_bytes {
            let allowed = limits.xattrs_bytes as u64;
            return Err(TarReason::Limit { limit: "xattrs_bytes", asked: total as u64, allowed });
        }
        Ok(())
    }
}

impl PaxSparse {
    /// One record, by its key less `GNU.sparse.`; `None` when the value is no number.
    fn record(&mut self, key: &[u8], value: &[u8], limits: &Limits) -> Result<Option<()>, TarReason> {
        if key == b"name" {
            self.path = text(value)?;
            return Ok(Some(()));
        }
        if key == b"map" {
            return self.map_record(value, limits);
        }
        let Some(number) = decimal(value) else { return Ok(None) };
        match key {
            b"major" => self.major = Some(number),
            b"minor" => self.minor = Some(number),
            b"size" | b"realsize" => self.real_size = Some(number),
            b"numblocks" => self.entries_count = Some(number),
            b"offset" if self.offset.is_none() => self.offset = Some(number),
            b"numbytes" => match self.offset.take() {
                Some(offset) => self.push((offset, number), limits)?,
                None => return Err(TarReason::Sparse("a length without an offset")),
            },
            b"offset" => return Err(TarReason::Sparse("an offset without a length")),
            _ => {}
        }
        Ok(Some(()))
    }

    /// Format 0.1: `offset,length,offset,length,...`.
    fn map_record(&mut self, value: &[u8], limits: &Limits) -> Result<Option<()>, TarReason> {
        self.map.clear();
        if value.is_empty() {
            return Ok(Some(()));
        }
        let mut numbers = value.split(|&byte| byte == b',').map(decimal);
        while let Some(offset) = numbers.next() {
            let (Some(offset), Some(Some(length))) = (offset, numbers.next()) else { return Ok(None) };
            self.push((offset, length), limits)?;
        }
        Ok(Some(()))
    }

    fn push(&mut self, run: (u64, u64), limits: &Limits) -> Result<(), TarReason> {
        if self.map.len() >= limits.sparse_segments_count {
            let allowed = limits.sparse_segments_count as u64;
            return Err(TarReason::Limit { limit: "sparse_segments_count", asked: 0, allowed });
        }
        self.map.push(run);
        Ok(())
    }
}

/// Keys that would give every entry one name, one target or one content.
fn is_of_one_entry(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.")
}

struct Record<'a> {
    key: &'a [u8],
    value: &'a [u8],
    rest: &'a [u8],
}

fn split_record(block: &[u8]) -> Result<Record<'_>, TarReason> {
    let digits = block.iter().take(LENGTH_DIGITS + 1).position(|&byte| byte == b' ');
    let digits = digits.ok_or(TarReason::Pax("a record without a length"))?;
    let length = decimal(&block[..digits]).ok_or(TarReason::Pax("a record's length is not a number"))?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let (record, rest) = block
        .split_at_checked(length)
        .ok_or(TarReason::Pax("a record's length reaches beyond the extended header"))?;
    let pair = record
        .get(digits + 1..)
        .and_then(|record| record.strip_suffix(b"\n"))
        .ok_or(TarReason::Pax("a record does not end with a newline where its length says"))?;
    let equals = pair.iter().position(|&byte| byte == b'=');
    match equals {
        Some(at) if at > 0 => Ok(Record { key: &pair[..at], value: &pair[at + 1..], rest }),
        _ => Err(TarReason::Pax("a record without a key")),
    }
}

fn text(value: &[u8]) -> Result<Option<Vec<u8>>, TarReason> {
    if value.contains(&0) {
        return Err(TarReason::Nul);
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

/// `Some(None)` for an empty value, `None` for one that `parse` refuses.
fn unless_empty<T>(value: &[u8], parse: impl FnOnce(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

fn id(value: &[u8]) -> Option<u32> {
    decimal(value).and_then(|id| u32::try_from(id).ok())
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                (digit(bytes.next()?)? << 4 | digit(bytes.next()?)?) as u8
            }
            byte => byte,
        });
    }
    Some(decoded)
}

/// Base64 of RFC 4648, section 4; libarchive leaves the padding out, others do not.
fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let bits = group.iter().try_fold(0u32, |bits, &byte| {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            Some(bits << 6 | u32::from(six))
        })?;
        match group.len() {
            4 => decoded.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 => decoded.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
            2 => decoded.extend_from_slice(&(bits >> 4).to_be_bytes()[3..]),
            _ => return None,
        }
    }
    Some(decoded)
}
