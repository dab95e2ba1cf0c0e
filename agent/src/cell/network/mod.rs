//! The cell's own network: namespaces that are ready before they are wanted, on a bridge, with a way out and ports in.
//!
//! ```text
//!   thread: new namespace, veth made with both its ends in place, address, route ──> ready ── take ──> Attachment
//!
//!   host: bridge (gateway address) ── cvXXXXXXXX ═ eth0 :instance      nftables: masquerade on the way out,
//!                                  ── cvXXXXXXXX ═ eth0 :instance                one map element for a published port
//! ```
//! Making a namespace waits for the kernel, so a thread keeps some ready. Nothing is taken down by hand: when the last
//! descriptor and process of a namespace are gone the kernel removes it with both ends of its veth, many at once and
//! behind everybody's back; addresses are used in turn, so that none is wanted again before that.
//!
//! Requests to the kernel go out several to a message over a plain socket: the async crate for it sends one at a time,
//! and the thread has to be in the new namespace meanwhile.

mod address;
mod error;
mod message;
mod nftables;
mod pool;
mod setup;
mod socket;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

pub use address::Addresses;
pub use error::{NetworkError, Result};
pub use nftables::{Protocol, Published};
pub use pool::Network;

/// Namespaces that may be kept ready.
pub const READY_COUNT_MAX: usize = 1024;
/// The interface's name in a namespace.
pub const INTERFACE: &str = "eth0";

/// A cell's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// The bridge's name: 1 to 15 letters and digits. It is made if it is not there.
    pub bridge: String,
    /// Addresses of instances are those of this network, whose first is the bridge's.
    pub network: Ipv4Addr,
    /// Bits of the network's number: 8 to 29.
    pub prefix_bits: u8,
    /// Namespaces to be kept ready.
    pub ready_count: usize,
}

impl Default for NetworkOptions {
    /// 65,533 addresses, and 64 namespaces ready.
    fn default() -> Self {
        Self {
            bridge: "celda0".to_owned(),
            network: Ipv4Addr::new(10, 88, 0, 0),
            prefix_bits: 16,
            ready_count: 64,
        }
    }
}

/// An instance's part of the network.
#[derive(Debug)]
pub struct Attachment {
    /// The namespace: `lo` and [`INTERFACE`] are up, the default route is set.
    pub namespace: OwnedFd,
    /// Its address; it stays taken until [`Network::release`].
    pub address: Ipv4Addr,
}
