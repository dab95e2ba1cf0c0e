//! Messages to values that are within their ranges, and back.
//!
//! ```text
//! bytes ── prost ──> api::v1::Call ── decode ──> Request { bid | reserve | settle }     a cell's side
//!                    api::v1::Answer ── decode ──> Bid, Reserved, Settled               an auctioneer's side
//!                          ^── encode ── the same values
//! ```
//! Both sides are hostile here: whatever the bytes, decoding ends with a value that the core can work with or with
//! [`Malformed`], at a cost that the limits below bound. An answer is decoded beside the count that was asked for, so
//! a cell cannot hold more than it was asked to. The limits are part of the API: `auction.proto` states them.

mod answer;
mod request;

pub use answer::{Settled, bid, bid_message, failure, reserved, reserved_message, settled, settled_message};
pub use request::{
    Action, BidRequest, Request, ReserveRequest, SettleRequest, demand, demand_message, request,
    resources_message,
};

use crate::demand::BATCH_MAX;
use crate::error::Error;
use celda_api::auction::v1;

/// The most bytes that a message may have.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The most calls, or answers, that one message of a stream may have.
pub const CALLS_MAX: usize = 256;
/// The most bytes of a failure's detail.
pub const DETAIL_BYTES_MAX: usize = 160;

/// What is wrong with a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A field that must be there is not.
    #[error("{message} without {field}: set it")]
    Missing {
        /// The message's name.
        message: &'static str,
        /// The field's name.
        field: &'static str,
    },
    /// A number that is out of its range.
    #[error("{field} of {value}: {min} to {max} are possible")]
    Range {
        /// The message's and the field's name.
        field: &'static str,
        /// The value.
        value: u64,
        /// The least that is possible.
        min: u64,
        /// The most that is possible.
        max: u64,
    },
    /// More of something than a message may have.
    #[error("{count} {what}: at most {max} are possible")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A call or an action that this version does not know.
    #[error("{what} that this version does not know: one side is older than the other")]
    Unsupported {
        /// "a call", "an action" or "an answer".
        what: &'static str,
    },
    /// The other side said that it could not work with the call.
    #[error("the cell refused the call: {detail}")]
    Failed {
        /// What it said, cut to [`DETAIL_BYTES_MAX`].
        detail: String,
    },
    /// A demand that no auction can work with.
    #[error("a demand that no auction can work with")]
    Demand(#[from] Error),
}

/// The calls of a stream's message.
///
/// # Errors
/// [`Malformed::TooMany`] past [`CALLS_MAX`].
pub fn calls(message: v1::AuctionRequest) -> Result<Vec<v1::Call>, Malformed> {
    check_calls("calls of a message", message.calls.len())?;
    Ok(message.calls)
}

/// The answers of a stream's message.
///
/// # Errors
/// [`Malformed::TooMany`] past [`CALLS_MAX`].
pub fn answers(message: v1::AuctionResponse) -> Result<Vec<v1::Answer>, Malformed> {
    check_calls("answers of a message", message.answers.len())?;
    Ok(message.answers)
}

fn check_calls(what: &'static str, count: usize) -> Result<(), Malformed> {
    if count > CALLS_MAX {
        return Err(Malformed::TooMany { what, count, max: CALLS_MAX });
    }
    Ok(())
}

/// `value`, if it is in its range.
fn within(field: &'static str, value: u64, min: u64, max: u64) -> Result<u64, Malformed> {
    if (min..=max).contains(&value) { Ok(value) } else { Err(Malformed::Range { field, value, min, max }) }
}

/// A count of instances, which is at least 1 and at most [`BATCH_MAX`].
fn instances(field: &'static str, value: u32) -> Result<u32, Malformed> {
    within(field, value.into(), 1, BATCH_MAX.into())?;
    Ok(value)
}
