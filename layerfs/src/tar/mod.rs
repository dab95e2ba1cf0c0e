//! The tar reader: bytes in, [`Entry`]s out, no I/O.
mod entry;

pub use entry::{Entry, EntryKind, FileData, Segment, Timestamp, Xattr};
