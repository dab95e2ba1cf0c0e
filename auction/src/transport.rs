//! How auctioneers and cells reach each other: addresses, who is let in, and what can go wrong.
//!
//! ```text
//! https://HOST:PORT   TCP, mutual TLS: both sides show a certificate of the authority that the other trusts
//! unix:PATH           a unix socket; each side checks the user of the process at the other end
//! http://IP:PORT      TCP in clear, on loopback addresses only
//! ```

mod socket;

pub(crate) use socket::Socket;

use crate::wire::Malformed;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tonic::transport::{Certificate, ClientTlsConfig, Identity, ServerTlsConfig};

/// The longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: std::time::Duration = std::time::Duration::from_secs(5);

/// The result of this module's, the service's and the client's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong between auctioneers and cells.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address that is none.
    #[error("{given:?} is no address of a cell: write https://HOST:PORT, unix:PATH or http://LOOPBACK:PORT")]
    Address {
        /// What was given, cut.
        given: String,
    },
    /// TCP in clear, and not on loopback.
    #[error(
        "{address} would be in clear for others to read and write: use https with certificates, or a unix socket"
    )]
    InClear {
        /// The address.
        address: String,
    },
    /// An `https` address, and no certificates.
    #[error(
        "{address} needs certificates: give the client's certificate, its key, and the authority of the cells"
    )]
    NoCertificates {
        /// The address.
        address: String,
    },
    /// Certificates or keys that cannot be used.
    #[error("setting up TLS: check the certificates and the key, which are to be PEM")]
    Tls(#[source] tonic::transport::Error),
    /// A socket could not be made.
    #[error("listening on {address}: is it in use, or forbidden?")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The service ended.
    #[error("serving auctioneers")]
    Serve(#[source] tonic::transport::Error),
    /// A list of cells that could not be read.
    #[error("reading a list of cells, line {line}: {what}")]
    List {
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        what: String,
    },
    /// A member that no view can keep.
    #[error("cell {name:?} cannot join")]
    Member {
        /// Its name.
        name: String,
        /// Why.
        source: crate::Error,
    },
    /// A cell that is not, or no longer, a member.
    #[error("cell {name:?} is no member: it left, or never joined")]
    NoMember {
        /// Its name.
        name: String,
    },
    /// The system gave no random numbers. Reservation ids are drawn at random: two auctioneers that draw the same take
    /// each other's reservations for their own.
    #[error("asking the system for random numbers, without which reservations could be confused")]
    Seed(#[source] std::io::Error),
    /// As many batches are under way as may be.
    #[error("{max} batches are under way, which is the limit: place this one when another has ended")]
    Busy {
        /// The limit.
        max: usize,
    },
    /// The call was not sent.
    #[error("cell {name:?} cannot be called: {why}")]
    NotSent {
        /// The cell.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// No answer came in time, however often it was asked for.
    #[error(
        "cell {name:?} did not answer within {deadline_ms} ms: what was asked for may have happened or not"
    )]
    Deadline {
        /// The cell.
        name: String,
        /// How long was waited in all.
        deadline_ms: u64,
    },
    /// The cell answered what is no answer.
    #[error("cell {name:?} gave an answer that is none")]
    Answer {
        /// The cell.
        name: String,
        /// What is wrong with it.
        source: Malformed,
    },
}

/// Where a cell listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP with mutual TLS: a host name or IP address, and a port.
    Tls {
        /// The host; its certificate must be for it.
        host: Box<str>,
        /// The port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
    /// TCP in clear on a loopback address.
    Loopback(SocketAddr),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self> {
        let none = || Error::Address { given: given.chars().take(ADDRESS_BYTES_MAX / 4).collect() };
        if given.len() > ADDRESS_BYTES_MAX {
            return Err(none());
        }
        if let Some(path) = given.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(none()) };
        }
        if let Some(socket) = given.strip_prefix("http://") {
            let socket: SocketAddr = socket.parse().map_err(|_| none())?;
            if !socket.ip().is_loopback() {
                return Err(Error::InClear { address: given.to_owned() });
            }
            return Ok(Self::Loopback(socket));
        }
        let (host, port) =
            given.strip_prefix("https://").and_then(|rest| rest.rsplit_once(':')).ok_or_else(none)?;
        let port = port.parse().map_err(|_| none())?;
        let is_name =
            |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        let is_ipv6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_ipv6 = is_ipv6.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        if host.is_empty() || !(is_name(host) || is_ipv6) {
            return Err(none());
        }
        Ok(Self::Tls { host: host.into(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Loopback(socket) => write!(f, "http://{socket}"),
        }
    }
}

/// A certificate with its key, and the authority whose certificates the other side must show. All PEM.
#[derive(Clone)]
pub struct Certificates {
    identity: Identity,
    authority: Certificate,
}

impl Certificates {
    /// From PEM: this side's certificate chain, its key, and the authority of the other side.
    #[must_use]
    pub fn from_pem(certificate: &[u8], key: &[u8], authority: &[u8]) -> Self {
        Self { identity: Identity::from_pem(certificate, key), authority: Certificate::from_pem(authority) }
    }

    pub(crate) fn server(&self) -> ServerTlsConfig {
        let config = ServerTlsConfig::new().identity(self.identity.clone());
        config.client_ca_root(self.authority.clone()).timeout(HANDSHAKE_DEADLINE)
    }

    pub(crate) fn client(&self, host: &str) -> ClientTlsConfig {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let config = ClientTlsConfig::new().identity(self.identity.clone()).domain_name(host);
        config.ca_certificate(self.authority.clone()).timeout(HANDSHAKE_DEADLINE)
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A key is nobody's to print.
        f.write_str("Certificates")
    }
}

/// The users whose processes are let in over a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users(Vec<u32>);

impl Users {
    /// The user that owns `path`, which is a directory or a file that this process made: itself.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn owner_of(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        Ok(Self(vec![std::fs::metadata(path)?.uid()]))
    }

    /// These user ids.
    #[must_use]
    pub fn these(uids: &[u32]) -> Self {
        Self(uids.to_vec())
    }

    /// Whether a process of this user is let in.
    #[must_use]
    pub fn has(&self, uid: u32) -> bool {
        self.0.contains(&uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "https://cell-1.example:7000",
            "https://[::1]:7000",
            "unix:/run/celda.sock",
            "http://127.0.0.1:7000",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn rubbish_is_no_address() {
        let long = format!("unix:/{}", "x".repeat(ADDRESS_BYTES_MAX));
        for text in
            ["", "cell", "unix:cell", "https://:1", "https://a b:1", "https://a", "https://a:70000", &long]
        {
            assert!(matches!(text.parse::<Address>(), Err(Error::Address { .. })), "{text}");
        }
        assert!(matches!("http://10.0.0.1:1".parse::<Address>(), Err(Error::InClear { .. })));
    }
}
