//! Why a batch did not come through.

use std::path::PathBuf;

/// What a function of this room answers.
pub type Result<T, E = ForwardError> = std::result::Result<T, E>;

/// What went wrong between here and a server. All is tried again but what is [`Refused`](Self::Refused).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForwardError {
    /// No connection.
    #[error("connect to {to}: {source}")]
    Connect {
        /// The server.
        to: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It ended.
    #[error("send to {to}: {source}")]
    Send {
        /// The server.
        to: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of certificates that cannot be used.
    #[error("use the certificates for {to}, {path}: {why}", path = path.display())]
    Tls {
        /// The server.
        to: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The collector failed, and may not the next time.
    #[error("export to {to}: {status}")]
    Export {
        /// The collector.
        to: String,
        /// What it said.
        status: Box<tonic::Status>,
    },
    /// It will never take this batch.
    #[error("{to} refuses a batch: {why}")]
    Refused {
        /// The collector.
        to: String,
        /// What it said.
        why: String,
    },
}
