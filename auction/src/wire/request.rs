//! What an auctioneer asks a cell for.

use super::{Malformed, instances, within};
use crate::demand::{AppId, Demand, Requirements, Resources, Strategy, ZoneRule};
use crate::ledger::{Epoch, ReservationId, TTL_MAX_US};
use celda_api::auction::v1;
use celda_api::auction::v1::settle_request::Action as ActionMessage;

/// The largest first id: ids after it never wrap.
const FIRST_ID_MAX: u64 = 1 << 63;

/// A call, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// What would instances cost?
    Bid(BidRequest),
    /// Hold instances.
    Reserve(ReserveRequest),
    /// Keep them or give them back.
    Settle(SettleRequest),
}

/// See `BidRequest` in `auction.proto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BidRequest {
    /// What one instance needs.
    pub demand: Demand,
    /// For how many instances at most.
    pub count: u32,
}

/// See `ReserveRequest` in `auction.proto`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReserveRequest {
    /// What one instance needs.
    pub demand: Demand,
    /// The epoch of the bid.
    pub epoch: Epoch,
    /// The id of the first instance; the others follow in a row.
    pub first: ReservationId,
    /// How many.
    pub count: u32,
    /// How long to hold, in microseconds; at most [`TTL_MAX_US`].
    pub ttl_us: u64,
}

/// See `SettleRequest` in `auction.proto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleRequest {
    /// The id of the first instance; the others follow in a row.
    pub first: ReservationId,
    /// How many.
    pub count: u32,
    /// Keep or give back.
    pub action: Action,
}

/// What is to become of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep it until it is released.
    Commit,
    /// Give it back.
    Release,
}

/// Decodes a call.
///
/// # Errors
/// [`Malformed`], what is missing or out of its range; [`Malformed::Unsupported`] for a call of a later version.
pub fn request(call: v1::call::Call) -> Result<Request, Malformed> {
    match call {
        v1::call::Call::Bid(message) => BidRequest::decode(message).map(Request::Bid),
        v1::call::Call::Reserve(message) => ReserveRequest::decode(message).map(Request::Reserve),
        v1::call::Call::Settle(message) => SettleRequest::decode(&message).map(Request::Settle),
    }
}

impl BidRequest {
    /// Decodes a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(message: v1::BidRequest) -> Result<Self, Malformed> {
        let v1::BidRequest { demand: wanted, count } = message;
        Ok(Self {
            demand: demand(wanted.ok_or(Malformed::Missing { message: "BidRequest", field: "demand" })?)?,
            count: instances("BidRequest.count", count)?,
        })
    }

    /// Encodes it.
    #[must_use]
    pub fn message(&self) -> v1::BidRequest {
        v1::BidRequest { demand: Some(demand_message(&self.demand)), count: self.count }
    }
}

impl ReserveRequest {
    /// Decodes a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(message: v1::ReserveRequest) -> Result<Self, Malformed> {
        let v1::ReserveRequest { demand: wanted, epoch, first_id, count, ttl_us } = message;
        Ok(Self {
            demand: demand(wanted.ok_or(Malformed::Missing { message: "ReserveRequest", field: "demand" })?)?,
            epoch: Epoch(epoch),
            first: first("ReserveRequest.first_id", first_id)?,
            count: instances("ReserveRequest.count", count)?,
            ttl_us: within("ReserveRequest.ttl_us", ttl_us, 1, u64::MAX)?.min(TTL_MAX_US),
        })
    }

    /// Encodes it.
    #[must_use]
    pub fn message(&self) -> v1::ReserveRequest {
        v1::ReserveRequest {
            demand: Some(demand_message(&self.demand)),
            epoch: self.epoch.0,
            first_id: self.first.get(),
            count: self.count,
            ttl_us: self.ttl_us,
        }
    }
}

impl SettleRequest {
    /// Decodes a message.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn decode(message: &v1::SettleRequest) -> Result<Self, Malformed> {
        let action = match message.action() {
            ActionMessage::Commit => Action::Commit,
            ActionMessage::Release => Action::Release,
            ActionMessage::Unspecified => return Err(Malformed::Unsupported { what: "an action" }),
        };
        Ok(Self {
            first: first("SettleRequest.first_id", message.first_id)?,
            count: instances("SettleRequest.count", message.count)?,
            action,
        })
    }

    /// Encodes it.
    #[must_use]
    pub fn message(&self) -> v1::SettleRequest {
        let action = match self.action {
            Action::Commit => ActionMessage::Commit,
            Action::Release => ActionMessage::Release,
        };
        v1::SettleRequest { first_id: self.first.get(), count: self.count, action: action.into() }
    }
}

fn first(field: &'static str, id: u64) -> Result<ReservationId, Malformed> {
    let range = || Malformed::Range { field, value: id, min: 1, max: FIRST_ID_MAX };
    ReservationId::new(within(field, id, 1, FIRST_ID_MAX)?).ok_or_else(range)
}

/// Decodes a demand. Its zone and priority are the auctioneer's business and are not sent.
///
/// # Errors
/// [`Malformed`].
pub fn demand(message: v1::Demand) -> Result<Demand, Malformed> {
    let strategy = match message.strategy() {
        v1::Strategy::Pack => Strategy::Pack,
        v1::Strategy::Spread | v1::Strategy::Unspecified => Strategy::Spread,
    };
    let missing = Malformed::Missing { message: "Demand", field: "resources" };
    let decoded = Demand {
        app: AppId(message.app),
        resources: resources(&message.resources.ok_or(missing)?),
        requirements: message.requirements.map(requirements).unwrap_or_default(),
        zone: ZoneRule::default(),
        strategy,
        priority: 0,
    };
    decoded.check()?;
    Ok(decoded)
}

/// Encodes a demand, as far as a cell must know it.
#[must_use]
pub fn demand_message(demand: &Demand) -> v1::Demand {
    let strategy = match demand.strategy {
        Strategy::Spread => v1::Strategy::Spread,
        Strategy::Pack => v1::Strategy::Pack,
    };
    v1::Demand {
        app: demand.app.0,
        resources: Some(resources_message(&demand.resources)),
        strategy: strategy.into(),
        requirements: requirements_message(&demand.requirements),
    }
}

/// The amounts of a message; the demand's check or the cell's count is what bounds them.
pub(super) fn resources(message: &v1::Resources) -> Resources {
    let v1::Resources { cpu_milli, memory_mib, disk_mib, containers, ports } = *message;
    Resources { cpu_milli, memory_mib, disk_mib, containers, ports }
}

/// Encodes amounts.
#[must_use]
pub fn resources_message(resources: &Resources) -> v1::Resources {
    let Resources { cpu_milli, memory_mib, disk_mib, containers, ports } = *resources;
    v1::Resources { cpu_milli, memory_mib, disk_mib, containers, ports }
}

fn requirements(message: v1::Requirements) -> Requirements {
    let some = |name: String| (!name.is_empty()).then(|| name.into_boxed_str());
    let all = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
    Requirements {
        architecture: some(message.architecture),
        stack: some(message.stack),
        tags: all(message.tags),
        volumes: all(message.volumes),
    }
}

fn requirements_message(requirements: &Requirements) -> Option<v1::Requirements> {
    let Requirements { architecture, stack, tags, volumes } = requirements;
    if architecture.is_none() && stack.is_none() && tags.is_empty() && volumes.is_empty() {
        return None;
    }
    let name = |name: &Option<Box<str>>| name.as_deref().unwrap_or_default().to_owned();
    let all = |names: &[Box<str>]| names.iter().map(|name| String::from(&**name)).collect();
    Some(v1::Requirements {
        architecture: name(architecture),
        stack: name(stack),
        tags: all(tags),
        volumes: all(volumes),
    })
}
