//! What can go wrong with a cell as a whole; what goes wrong with one instance is its end.

use std::path::{Path, PathBuf};

use super::journal::Damage;

/// What a function of the cell answers.
pub type Result<T> = std::result::Result<T, CellError>;

/// Why the cell cannot go on, or a call cannot be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CellError {
    /// A syscall on a path failed.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The journal is damaged.
    #[error(
        "read the journal {path}: {damage}; containers that run go on running. Put a copy of the file back, or move it \
         away to begin with an empty cell: then what still runs is ended",
        path = path.display()
    )]
    Journal {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Another agent has the cell.
    #[error("{path}: another celda agent holds this cell; end it, or give another --run", path = path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The holder does not do as it is told.
    #[error("{what}: {why}")]
    Holder {
        /// What was being done.
        what: &'static str,
        /// What came of it, and what to do.
        why: String,
    },
    /// A field of the configuration has no meaning.
    #[error("{path}: {why}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// A filter of what is said has no meaning.
    #[error("log filter {text:?}: {why}; write a level as `info`, or directives as `info,celda::cell=debug`")]
    Filter {
        /// Of the configuration or the environment.
        text: String,
        /// What is wrong.
        why: String,
    },
    /// The cell could not be reached, or refused a call.
    #[error("{what}: {why}")]
    Call {
        /// What was asked for.
        what: String,
        /// What it said, and what to do.
        why: String,
    },
    /// The auction's rooms.
    #[error("the cell's ledger: {0}")]
    Ledger(#[from] celda_auction::Error),
    /// The sockets.
    #[error(transparent)]
    Serve(#[from] celda_auction::transport::Error),
    /// An address that cannot be had.
    #[error("listen on {field} = {address}: {source}; is it in use, or not this machine's?")]
    Address {
        /// Of the configuration.
        field: &'static str,
        /// What it says.
        address: std::net::SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// Where logs are sent on to.
    #[error(transparent)]
    Forward(#[from] super::forward::ForwardError),
    /// TCP.
    #[error(transparent)]
    Door(#[from] super::door::DoorError),
}

impl CellError {
    /// Shapes an [`std::io::Error`] into [`CellError::Io`]; made for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
