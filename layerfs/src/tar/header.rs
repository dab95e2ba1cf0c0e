//! One header block, read in place.
//!
//! ```text
//! 0        100  108 116 124  136   148    156 157      257   265   297   329 337 345        500
//! | name   |mode|uid|gid|size|mtime|chksum|t |linkname|magic|uname|gname|maj|min| prefix   |
//!                                                     GNU: 386 four sparse entries, 482 more?, 483 real size
//! ```
//! Offsets: POSIX.1-2017 pax, "ustar Header Block"; GNU tar manual, "Basic Tar Format".

use super::number::header_number;
use super::{BLOCK_BYTES, TarReason};

/// A numeric field of the header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    name: &'static str,
    start: usize,
    length: usize,
}

pub(super) const MODE: Field = Field { name: "mode", start: 100, length: 8 };
pub(super) const UID: Field = Field { name: "uid", start: 108, length: 8 };
pub(super) const GID: Field = Field { name: "gid", start: 116, length: 8 };
pub(super) const SIZE: Field = Field { name: "size", start: 124, length: 12 };
pub(super) const MTIME: Field = Field { name: "mtime", start: 136, length: 12 };
pub(super) const DEVMAJOR: Field = Field { name: "devmajor", start: 329, length: 8 };
pub(super) const DEVMINOR: Field = Field { name: "devminor", start: 337, length: 8 };
const GNU_ATIME: Field = Field { name: "atime", start: 345, length: 12 };
const GNU_CTIME: Field = Field { name: "ctime", start: 357, length: 12 };
/// The logical size of an old GNU sparse file.
pub(super) const GNU_REAL_SIZE: Field = Field { name: "realsize", start: 483, length: 12 };

const CHECKSUM: std::ops::Range<usize> = 148..156;
const GNU_SPARSE_START: usize = 386;
const GNU_SPARSE_COUNT: usize = 4;
const GNU_SPARSE_MORE: usize = 482;
const EXTENSION_SPARSE_COUNT: usize = 21;
const EXTENSION_SPARSE_MORE: usize = 504;
const SPARSE_ENTRY_BYTES: usize = 24;

/// Which standard the header follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Before any magic.
    V7,
    /// GNU tar before pax: the bytes of the prefix are times and a sparse map.
    Gnu,
    /// POSIX, pax included.
    Ustar,
    /// Jörg Schilling's star: a shorter prefix.
    Star,
}

/// A header block whose checksum was right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a>(&'a [u8; BLOCK_BYTES]);

impl<'a> Header<'a> {
    /// Looks at a block as a header; `None` unless its checksum is right. Historic tars summed signed bytes, so
    /// both sums are right.
    pub(super) fn check(block: &'a [u8; BLOCK_BYTES]) -> Option<Self> {
        let stored = header_number(&block[CHECKSUM])?;
        // The checksum is taken with its own field as spaces.
        let field = &block[CHECKSUM];
        let spaces = i64::from(b' ') * field.len() as i64;
        let unsigned = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
        if i64::from(unsigned(block) - unsigned(field)) + spaces == stored {
            return Some(Self(block));
        }
        let signed = |bytes: &[u8]| bytes.iter().map(|&byte| i32::from(byte as i8)).sum::<i32>();
        (i64::from(signed(block) - signed(field)) + spaces == stored).then_some(Self(block))
    }

    pub(super) fn format(self) -> Format {
        match &self.0[257..265] {
            b"ustar  \0" => Format::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if &self.0[508..512] == b"tar\0" => Format::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Format::Ustar,
            _ => Format::V7,
        }
    }

    pub(super) fn typeflag(self) -> u8 {
        self.0[156]
    }

    pub(super) fn name(self) -> &'a [u8] {
        until_nul(&self.0[..100])
    }

    pub(super) fn link_name(self) -> &'a [u8] {
        until_nul(&self.0[157..257])
    }

    /// What stands before the name, empty for none.
    pub(super) fn prefix(self) -> &'a [u8] {
        match self.format() {
            Format::V7 => &[],
            Format::Ustar => until_nul(&self.0[345..500]),
            Format::Star => until_nul(&self.0[345..476]),
            // Go's archive/tar before 1.8 wrote a ustar prefix into GNU headers, over the two times, and images of
            // those years are still pulled. Text that is no time is such a prefix.
            Format::Gnu => {
                let times_parse = self.number(GNU_ATIME).is_ok() && self.number(GNU_CTIME).is_ok();
                let text = until_nul(&self.0[345..500]);
                if times_parse || !text.is_ascii() { &[] } else { text }
            }
        }
    }

    /// The field's number, whatever its sign.
    pub(super) fn number(self, field: Field) -> Result<i64, TarReason> {
        header_number(&self.0[field.start..field.start + field.length]).ok_or_else(|| self.bad(field))
    }

    /// The field's number, refused when negative or above `maximum`.
    pub(super) fn bounded(self, field: Field, maximum: u64) -> Result<u64, TarReason> {
        let number = u64::try_from(self.number(field)?).map_err(|_| self.bad(field))?;
        if number > maximum { Err(self.bad(field)) } else { Ok(number) }
    }

    fn bad(self, field: Field) -> TarReason {
        let found = &self.0[field.start..field.start + field.length];
        TarReason::Number { field: field.name, found: TarReason::shown(found) }
    }

    /// The sparse entries of an old GNU header, and whether extension blocks follow.
    pub(super) fn sparse(self) -> (SparseEntries<'a>, bool) {
        let end = GNU_SPARSE_START + GNU_SPARSE_COUNT * SPARSE_ENTRY_BYTES;
        (SparseEntries(&self.0[GNU_SPARSE_START..end]), self.0[GNU_SPARSE_MORE] != 0)
    }
}

/// The sparse entries of an old GNU extension block, and whether another follows.
pub(super) fn sparse_extension(block: &[u8; BLOCK_BYTES]) -> (SparseEntries<'_>, bool) {
    let end = EXTENSION_SPARSE_COUNT * SPARSE_ENTRY_BYTES;
    (SparseEntries(&block[..end]), block[EXTENSION_SPARSE_MORE] != 0)
}

/// Old GNU sparse entries: offset and length, 12 bytes each, as header numbers; the first empty one ends them.
#[derive(Debug)]
pub(super) struct SparseEntries<'a>(&'a [u8]);

impl Iterator for SparseEntries<'_> {
    type Item = Result<(u64, u64), TarReason>;

    fn next(&mut self) -> Option<Self::Item> {
        let (entry, rest) = self.0.split_at_checked(SPARSE_ENTRY_BYTES)?;
        if entry[0] == 0 {
            return None;
        }
        self.0 = rest;
        let number = |bytes| header_number(bytes).and_then(|number| u64::try_from(number).ok());
        let pair = number(&entry[..12]).zip(number(&entry[12..]));
        Some(pair.ok_or(TarReason::Sparse("an entry of the header is not a number")))
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    &field[..end]
}
