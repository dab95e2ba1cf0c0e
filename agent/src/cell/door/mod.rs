//! How callers of other machines come in: TCP, with TLS 1.3 and certificates on both sides.
//!
//! ```text
//! accept ──> handshake: at most handshakes_max at once, each within HANDSHAKE_DEADLINE; one too many ends the oldest
//!               │ certificate of client_ca, valid now, with a name of `clients`
//!               v
//!            connection: at most connections_max; it ends unless the peer speaks HTTP/2 soon ──> the same services,
//!                                                                                 limits and streams as the socket
//! ```
//! What comes before a certificate was shown costs a handshake's buffers at most, and never a connection's place. Nothing
//! is resumed: each connection shows its certificate, so that one which has run out is out.

mod config;
mod connection;
mod error;
mod incoming;
mod serve;
mod tls;

use std::time::Duration;

pub use config::Listen;
pub use connection::Connection;
pub use error::{DoorError, Result};
pub use incoming::Door;
pub use serve::serve;

/// The port of a cell that is named without one.
pub const PORT: u16 = 7070;
/// How long a TLS handshake may take: a few round trips on any line.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a new connection has to say what any HTTP/2 client says at once.
pub const PREFACE_DEADLINE: Duration = Duration::from_secs(5);
/// How long a silent peer is left alone.
pub const KEEPALIVE_AFTER: Duration = Duration::from_secs(20);
/// How often its kernel is asked after that whether it is there, see tcp(7).
pub const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// How many answers in a row may be missing. This is for lines on which nothing is under way: what is, the kernel sends again
/// for as long as `net.ipv4.tcp_retries2` says.
pub const KEEPALIVE_COUNT: u32 = 4;
