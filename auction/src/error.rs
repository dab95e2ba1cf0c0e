//! What can be wrong with the arguments of an auction.
//!
//! That a cell has no room is no error but an answer: see [`crate::ledger::Refused`] and [`crate::round::Refusal`].

use crate::demand::Resource;

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An argument that no auction can work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An amount above what any cell is allowed to have.
    #[error("a demand of {amount} {resource} is above the limit of {limit}: ask for less")]
    Absurd {
        /// Of what.
        resource: Resource,
        /// The amount asked for, in the resource's unit.
        amount: u32,
        /// The limit, in the same unit.
        limit: u32,
    },
    /// An instance without a container slot would never be counted.
    #[error("a demand needs at least one container slot: set `containers` to 1")]
    NoContainer,
    /// A batch of none, or of more than [`crate::demand::BATCH_MAX`].
    #[error("a batch of {count} instances: 1 to {max} are possible, split it")]
    BatchCount {
        /// The count asked for.
        count: u32,
        /// The most that one batch may have.
        max: u32,
    },
    /// More names (tags, volumes, stacks) than a demand or a class may have, or a name that is too long.
    #[error("{what}: {count} is above the limit of {max}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A zone, class or cell that the view does not have.
    #[error("there is no {what} {index} in this view: it was never added, or it left")]
    Unknown {
        /// "cell", "zone" or "class".
        what: &'static str,
        /// Its index.
        index: u32,
    },
    /// A cell's capacity that no ledger can keep.
    #[error("a cell with {amount} {resource}: it must be between 1 and {limit}")]
    Capacity {
        /// Of what.
        resource: Resource,
        /// The capacity given, in the resource's unit.
        amount: u32,
        /// The limit, in the same unit.
        limit: u32,
    },
}
