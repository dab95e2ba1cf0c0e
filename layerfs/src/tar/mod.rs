//! The tar reader: bytes in, [`Entry`]s out, no I/O.
//!
//! ```text
//! feed(any chunk) -> 512-byte blocks -> [ extension headers ] header [ sparse map ] -> Entry
//!                                          x g L K                                     |
//!                    content is skipped, never copied  <-------------------------------+
//! ```
//!
//! What is read: v7, old GNU and POSIX ustar headers (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar manual,
//! "Basic Tar Format"), pax extended headers, GNU long names, base-256 numbers, the four GNU sparse formats, and
//! extended attributes as star and libarchive write them.
//!
//! Tars that two well-known readers would read differently are refused rather than guessed at: sizes that
//! disagree, extension headers given twice, data behind a hard link that could as well be a header. An attacker's
//! use for such a tar is to show one tree to a scanner and another to a runtime.
mod assemble;
mod entry;
mod error;
mod header;
mod number;
mod path;
mod pax;
mod reader;
mod sparse;

pub use entry::{Entry, EntryKind, FileData, Segment, Timestamp, Xattr};
pub use error::{TarError, TarReason};
pub use reader::{TarReader, TarSummary, read_all};

/// The unit of a tar in bytes: headers take one, contents are padded to a multiple.
pub const BLOCK_BYTES: usize = 512;
