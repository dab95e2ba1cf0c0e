//! What instances write to standard output and error, in bounded files that outlive the agent.
//!
//! ```text
//!  instance        agent: one thread for all instances                                   readers
//!  stdout ─pipe─> tee ──> lines ──> rate ──> records ──write──> NAME/SEQUENCE.log ──> Follower: since, tail, follow
//!  stderr ─pipe─>  │                          mark set │ moved off the pipe │ mark cleared
//!                  └ what is not a whole line yet stays in its pipe
//! ```
//! Bytes leave a pipe only after they are in the file, so a kill of the agent at any instruction loses nothing: whoever
//! holds the pipes gives them to the next agent, which goes on with the same file. A batch that was written and not yet
//! off its pipe is told by the mark (see `mark`), so that nothing is there twice either. Where the disk is full nothing is consumed: the
//! pipe fills, and the instance waits. What a rate limit drops is counted in notices in the log itself.
//!
//! Nothing is synced: after a power cut a torn tail is cut off, by its checksums.

mod append;
mod error;
mod files;
mod follow;
mod mark;
mod pump;
mod rate;
mod record;
mod source;
mod split;
mod stalled;
mod writer;

use std::time::Duration;

pub use error::{LogsError, Result};
pub use files::Limits;
pub use follow::{Chunk, Entry, Follower, From};
pub use pump::{Logs, LogsOptions};
pub use rate::{Bucket, Rate};
pub use record::{
    HEADER_BYTES, LINE_BYTES_MAX, Record, Records, SEGMENT_HEADER_BYTES, SegmentHeader, Stream, Torn,
};
pub use source::{Log, Source, Tally, Totals};
pub use split::{Piece, first_piece};

/// Longest name of a log.
pub const NAME_BYTES_MAX: usize = 64;
/// Logs that one thread serves.
pub const LOGS_COUNT_MAX: usize = 65_536;
/// How long a line may stay in its pipe without an end before it is written as a partial one.
pub const PARTIAL_WAIT: Duration = Duration::from_millis(500);
/// How often a notice says how much was dropped, while lines are being dropped.
pub const NOTICE_INTERVAL: Duration = Duration::from_secs(1);
/// How long a log whose file could not be written waits before it is tried again.
pub const RETRY_WAIT: Duration = Duration::from_millis(500);
/// The thread looks at its pipes no more often than this unless one of them fills: lines that come meanwhile are written
/// together.
pub const TICK: Duration = Duration::from_millis(20);
