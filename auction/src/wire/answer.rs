//! What a cell answers.

use super::request::{resources, resources_message};
use super::{DETAIL_BYTES_MAX, Malformed, within};
use crate::demand::{AMOUNT_MAX, RESOURCES_COUNT, Resources, Shortage};
use crate::ledger::{Epoch, Refused};
use crate::score::{Bid, PRICE_MAX, PRICE_ONE, Price};
use celda_api::auction::v1;
use celda_api::auction::v1::failure::Reason;
use celda_api::auction::v1::reserve_response::Refused as RefusedMessage;

/// All bits of a shortage.
const SHORT_MAX: u64 = (1 << RESOURCES_COUNT) - 1;

/// What became of ids that were committed or released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// It is so now.
    pub done: u32,
    /// No such reservation: over, released, of another epoch, or never made.
    pub unknown: u32,
    /// Another thread of the cell was at it: ask again.
    pub busy: u32,
}

/// Decodes the bid of a cell that was asked for `count` instances.
///
/// # Errors
/// [`Malformed::Range`] for more room than was asked for and for prices past [`PRICE_MAX`].
pub fn bid(message: &v1::BidResponse, count: u32) -> Result<Bid, Malformed> {
    let room = within("BidResponse.room", message.room.into(), 0, count.into())? as u32;
    let price = |field, value| within(field, value, 0, PRICE_MAX).map(Price);
    let free = message.free.as_ref().map(resources).unwrap_or_default();
    for amount in free.amounts() {
        within("BidResponse.free", amount.into(), 0, AMOUNT_MAX.into())?;
    }
    Ok(Bid {
        epoch: Epoch(message.epoch),
        room,
        first: price("BidResponse.first", message.first)?,
        step: price("BidResponse.step", message.step)?,
        used: Price(within("BidResponse.used", message.used.into(), 0, PRICE_ONE)?),
        short: shortage("BidResponse.short", message.short)?,
        free,
    })
}

/// Encodes a bid. What is free is only said when nothing fits.
#[must_use]
pub fn bid_message(bid: &Bid) -> v1::BidResponse {
    v1::BidResponse {
        epoch: bid.epoch.0,
        room: bid.room,
        first: bid.first.0,
        step: bid.step.0,
        // At most PRICE_ONE.
        used: bid.used.0 as u32,
        short: bid.short.bits().into(),
        free: (bid.room == 0 && bid.free != Resources::default()).then(|| resources_message(&bid.free)),
    }
}

/// Decodes the answer of a cell that was asked to hold `count` instances: how many it holds, and why not all.
///
/// # Errors
/// [`Malformed::Range`] for more than was asked for; [`Malformed::Missing`] for fewer without a reason.
pub fn reserved(message: &v1::ReserveResponse, count: u32) -> Result<(u32, Option<Refused>), Malformed> {
    let held = within("ReserveResponse.held", message.held.into(), 0, count.into())? as u32;
    if held == count {
        return Ok((held, None));
    }
    let refused = match message.refused() {
        RefusedMessage::Unspecified => {
            return Err(Malformed::Missing { message: "ReserveResponse", field: "refused" });
        }
        RefusedMessage::Short => Refused::Short(shortage("ReserveResponse.short", message.short)?),
        RefusedMessage::Epoch => Refused::Epoch(Epoch(message.epoch)),
        RefusedMessage::Busy => Refused::Busy,
        RefusedMessage::Full => Refused::Full,
        RefusedMessage::Class => Refused::Short(Shortage::NONE),
    };
    Ok((held, Some(refused)))
}

/// Encodes the answer to a reservation.
#[must_use]
pub fn reserved_message(held: u32, refused: Option<Refused>) -> v1::ReserveResponse {
    let (refused, short, epoch) = match refused {
        None => (RefusedMessage::Unspecified, 0, 0),
        Some(Refused::Short(short)) if short.is_none() => (RefusedMessage::Class, 0, 0),
        Some(Refused::Short(short)) => (RefusedMessage::Short, short.bits().into(), 0),
        Some(Refused::Epoch(epoch)) => (RefusedMessage::Epoch, 0, epoch.0),
        Some(Refused::Busy) => (RefusedMessage::Busy, 0, 0),
        Some(Refused::Full) => (RefusedMessage::Full, 0, 0),
    };
    v1::ReserveResponse { held, refused: refused.into(), short, epoch }
}

/// Decodes the answer of a cell that was asked to settle `count` instances.
///
/// # Errors
/// [`Malformed::Range`] unless the parts are as many as were asked for.
pub fn settled(message: &v1::SettleResponse, count: u32) -> Result<Settled, Malformed> {
    let v1::SettleResponse { done, unknown, busy } = *message;
    let sum = u64::from(done) + u64::from(unknown) + u64::from(busy);
    within("the sum of SettleResponse", sum, count.into(), count.into())?;
    Ok(Settled { done, unknown, busy })
}

/// Encodes the answer to a settlement.
#[must_use]
pub fn settled_message(settled: &Settled) -> v1::SettleResponse {
    v1::SettleResponse { done: settled.done, unknown: settled.unknown, busy: settled.busy }
}

/// Encodes why a call had no effect.
#[must_use]
pub fn failure(malformed: &Malformed) -> v1::Failure {
    let reason = match malformed {
        Malformed::Unsupported { .. } => Reason::Unsupported,
        _ => Reason::Invalid,
    };
    let mut detail = match malformed {
        Malformed::Demand(error) => error.to_string(),
        other => other.to_string(),
    };
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
    v1::Failure { reason: reason.into(), detail }
}

fn shortage(field: &'static str, bits: u32) -> Result<Shortage, Malformed> {
    Ok(Shortage::from_bits(within(field, bits.into(), 0, SHORT_MAX)? as u8))
}

/// The failure of a cell as an error.
impl From<v1::Failure> for Malformed {
    fn from(message: v1::Failure) -> Self {
        let mut detail = message.detail;
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES_MAX));
        Self::Failed { detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::{BATCH_MAX, Resource};

    #[test]
    fn a_cell_cannot_offer_or_hold_more_than_was_asked_for() {
        let message = v1::BidResponse { room: 4, ..Default::default() };
        assert!(bid(&message, 4).is_ok());
        assert!(matches!(bid(&message, 3), Err(Malformed::Range { value: 4, max: 3, .. })));
        assert!(reserved(&v1::ReserveResponse { held: 3, ..Default::default() }, 3).is_ok());
        assert!(reserved(&v1::ReserveResponse { held: 4, ..Default::default() }, 3).is_err());
        let settle = |done, unknown, busy| settled(&v1::SettleResponse { done, unknown, busy }, 3);
        assert!(settle(1, 1, 1).is_ok());
        assert!(settle(u32::MAX, 4, 0).is_err());
        assert!(settle(1, 1, 0).is_err());
    }

    #[test]
    fn prices_and_amounts_past_the_limit_are_refused() {
        let fine = v1::BidResponse { room: 1, first: PRICE_MAX, step: PRICE_MAX, ..Default::default() };
        assert!(bid(&fine, BATCH_MAX).is_ok());
        assert!(bid(&v1::BidResponse { first: PRICE_MAX + 1, ..fine }, 1).is_err());
        assert!(bid(&v1::BidResponse { step: u64::MAX, ..fine }, 1).is_err());
        assert!(bid(&v1::BidResponse { short: 32, ..fine }, 1).is_err());
        assert!(bid(&v1::BidResponse { used: 1 + PRICE_ONE as u32, ..fine }, 1).is_err());
        let free = v1::Resources { memory_mib: AMOUNT_MAX + 1, ..Default::default() };
        assert!(bid(&v1::BidResponse { free: Some(free), ..fine }, 1).is_err());
    }

    #[test]
    fn every_refusal_survives_the_way() {
        let ports = Shortage::NONE.with(Resource::Ports);
        for refused in [
            Refused::Short(ports),
            Refused::Short(Shortage::NONE),
            Refused::Epoch(Epoch(u64::MAX)),
            Refused::Busy,
            Refused::Full,
        ] {
            assert_eq!(reserved(&reserved_message(2, Some(refused)), 3), Ok((2, Some(refused))));
        }
        assert_eq!(reserved(&reserved_message(3, None), 3), Ok((3, None)));
        assert!(reserved(&reserved_message(2, None), 3).is_err(), "fewer, and no reason");
    }

    #[test]
    fn a_long_detail_is_cut_between_characters() {
        let detail = "ä".repeat(DETAIL_BYTES_MAX);
        let Malformed::Failed { detail } = Malformed::from(v1::Failure { detail, ..Default::default() })
        else {
            panic!("a failure is a failure");
        };
        assert_eq!(detail.len(), DETAIL_BYTES_MAX);
    }
}
