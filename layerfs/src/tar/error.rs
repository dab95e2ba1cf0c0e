//! Why a tar was refused: the reason, the entry and where its header lies.

use std::fmt;

/// A tar that will not be read, with the entry it failed at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("tar entry {path} (header at byte {header_offset}): {reason}")]
pub struct TarError {
    /// The entry's path as the tar gives it, quoted and escaped for a terminal, shortened when very long.
    pub path: String,
    /// Where the header block that was being read starts in the uncompressed tar.
    pub header_offset: u64,
    /// What is wrong.
    pub reason: TarReason,
}

/// Bytes of a path that an error shows.
const SHOWN_PATH_BYTES: usize = 256;

impl TarError {
    /// Binds `reason` to the entry named `path`, whose header starts at `header_offset`.
    pub fn new(path: &[u8], header_offset: u64, reason: TarReason) -> Self {
        Self { path: quote(path), header_offset, reason }
    }
}

/// Quotes bytes of a tar so that a terminal shows them and obeys none of them.
fn quote(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "(unnamed)".to_owned();
    }
    let shown = &bytes[..bytes.len().min(SHOWN_PATH_BYTES)];
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("\"{}{dots}\"", String::from_utf8_lossy(shown).escape_debug())
}

/// What is wrong with an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TarReason {
    /// The header's checksum is not the sum of its bytes: corruption, or not a tar.
    Checksum,
    /// A numeric header field holds neither octal digits nor a base-256 number, or one out of its range.
    Number {
        /// The field's POSIX name.
        field: &'static str,
        /// What stood there.
        found: String,
    },
    /// A pax record is malformed.
    Pax(&'static str),
    /// A pax record's value is not what its key asks for.
    PaxValue {
        /// The record's key.
        key: String,
        /// What stood there.
        found: String,
    },
    /// A global pax header sets what only one entry can have.
    GlobalRecord(String),
    /// The header's size and the pax size are different though both could hold the right one.
    SizesDisagree {
        /// Bytes according to the header.
        header_bytes: u64,
        /// Bytes according to the pax record.
        pax_bytes: u64,
    },
    /// A pax size on an entry of a type that has no content.
    SizeWithoutContent(u64),
    /// A hard link claims content, and what follows is a header.
    AmbiguousLinkContent,
    /// Two extension headers of one type stand before one entry.
    RepeatedExtension(&'static str),
    /// An extension header with no entry after it.
    DanglingExtension,
    /// A path component is `..`.
    ParentComponent,
    /// A path or link target contains a NUL byte.
    Nul,
    /// An entry that is not a directory has no name, or names the root.
    NoName,
    /// A link without a target, or a hard link to the root.
    NoTarget,
    /// Something is over a bound of [`Limits`](crate::Limits).
    Limit {
        /// Which: the field of [`Limits`](crate::Limits).
        limit: &'static str,
        /// How much the tar asks for; 0 where that was not counted to the end.
        asked: u64,
        /// How much is allowed.
        allowed: u64,
    },
    /// A sparse map that cannot be.
    Sparse(&'static str),
    /// A type that a layer cannot contain.
    Unsupported(&'static str),
    /// A zero block with something other than another zero block after it.
    LoneZeroBlock,
    /// The tar ends inside a header, an extension, or an entry's content.
    Torn {
        /// Inside what.
        inside: &'static str,
        /// Bytes that should still have come.
        missing_bytes: u64,
    },
    /// The reader was used again after it had refused its input.
    AfterError,
    /// The receiver of the entries refused this one.
    Receiver(String),
}

impl fmt::Display for TarReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checksum => f.write_str("the header's checksum is wrong; the layer is corrupt or not a tar"),
            Self::Number { field, found } => {
                write!(f, "the header field {field} holds {found}, which is not a number it may hold")
            }
            Self::Pax(what) => write!(f, "malformed pax extended header: {what}"),
            Self::PaxValue { key, found } => write!(f, "the pax record {key} holds {found}"),
            Self::GlobalRecord(key) => {
                write!(f, "a global pax header sets {key}, which only a single entry can have")
            }
            Self::SizesDisagree { header_bytes, pax_bytes } => write!(
                f,
                "sizes disagree: {header_bytes} bytes in the header, {pax_bytes} in its pax record; \
                 refused because readers differ in which they believe (CVE-2025-62518, CVE-2026-33055)"
            ),
            Self::SizeWithoutContent(size) => {
                write!(f, "a pax record claims {size} bytes of content for a type that has none")
            }
            Self::AmbiguousLinkContent => f.write_str(
                "a hard link claims content, but a header follows; refused because readers differ in which it is",
            ),
            Self::RepeatedExtension(kind) => {
                write!(f, "two {kind} headers for one entry; refused because readers differ in which they use")
            }
            Self::DanglingExtension => f.write_str("an extension header with no entry after it"),
            Self::ParentComponent => {
                f.write_str("a path with a `..` component could leave the root; rebuild the layer without it")
            }
            Self::Nul => f.write_str("a path or link target contains a NUL byte"),
            Self::NoName => f.write_str("only a directory may be the root or have an empty name"),
            Self::NoTarget => f.write_str("a link without a target, or a hard link to the root"),
            Self::Limit { limit, asked: 0, allowed } => write!(f, "more than the limit {limit} = {allowed}"),
            Self::Limit { limit, asked, allowed } => write!(f, "{asked} is more than the limit {limit} = {allowed}"),
            Self::Sparse(what) => write!(f, "bad sparse map: {what}"),
            Self::Unsupported(what) => write!(f, "{what} cannot be part of a layer"),
            Self::LoneZeroBlock => f.write_str("a lone zero block is followed by data; the layer is corrupt"),
            Self::Torn { inside, missing_bytes } => {
                write!(f, "the tar ends inside {inside}, {missing_bytes} bytes too early; it is truncated")
            }
            Self::AfterError => f.write_str("the tar was refused already"),
            Self::Receiver(what) => f.write_str(what),
        }
    }
}

impl TarReason {
    /// A header field or pax value as an error shows it.
    pub(super) fn shown(bytes: &[u8]) -> String {
        quote(bytes)
    }
}
