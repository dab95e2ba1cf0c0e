//! What keeps a door shut.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What a function of this room answers.
pub type Result<T, E = DoorError> = std::result::Result<T, E>;

/// Why nothing can listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    /// A file of `[listen]` could not be read.
    #[error("read listen.{field} {path}: {source}", path = path.display())]
    Read {
        /// Which.
        field: &'static str,
        /// Where.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It has not what it should.
    #[error("listen.{field} {path}: {why}; it is to be PEM, as `celda ca` and openssl write it", path = path.display())]
    Pem {
        /// Which.
        field: &'static str,
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Certificate and key do not go together, or cannot be used.
    #[error("use the certificate {path} with its key: {source}", path = path.display())]
    Certificate {
        /// Of the cell.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The address is taken, or not this machine's.
    #[error("listen on {address}: {source}; is it in use, or not this machine's?")]
    Bind {
        /// As configured.
        address: SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
}
