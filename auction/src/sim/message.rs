//! What goes over the simulated network, and what else happens.

use crate::ledger::{Epoch, ReservationId};
use crate::round::{AskId, AttemptId, Event};

/// Names a job in the books.
pub(super) type Job = u32;
/// A cell of the world; the same number as its [`crate::CellIndex`].
pub(super) type CellNumber = u32;

/// Which life of which auctioneer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) auctioneer: u32,
    pub(super) life: u32,
}

/// From an auctioneer to a cell.
#[derive(Debug, Clone, Copy)]
pub(super) enum Call {
    Ask { ask: AskId, job: Job, count: u32 },
    Reserve { attempt: AttemptId, job: Job, epoch: Epoch, first: ReservationId, count: u32, ttl_us: u64 },
    Cancel { first: ReservationId, count: u32 },
    Commit { commit: u32, first: ReservationId, count: u32 },
}

/// From a cell to an auctioneer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// What a round takes in.
    Round(Event),
    /// Of the instances of a commit, so many were unknown.
    Committed { commit: u32, unknown: u32 },
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Happening {
    /// A call reaches a cell.
    Call { cell: CellNumber, from: Caller, call: Call },
    /// An answer reaches an auctioneer.
    Answer { to: Caller, answer: Answer },
    /// A round asked to be woken.
    Wake { caller: Caller },
    /// A commit may have to be sent again.
    CommitDeadline { caller: Caller, commit: u32 },
    /// A job is given to an auctioneer.
    Submit { job: Job },
    /// Every cell frees what is over.
    Sweep,
    /// An instance somewhere ends.
    Finish,
    /// A cell is there again.
    CellStarts { cell: CellNumber, has_disk: bool },
    /// An auctioneer is there again.
    AuctioneerStarts { auctioneer: u32 },
    /// The desired state is compared with what runs, for the jobs of an auctioneer that died.
    Converge { caller: Caller },
    /// The network is whole again.
    Heal,
    /// A cell's machine is taken away for good.
    Leave,
    /// A new cell joins.
    Join,
}
