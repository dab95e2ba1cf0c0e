//! The cell's own network: namespaces that are ready before they are wanted, with a way out and ports in.
//!
//! ```text
//!   thread: new namespace, veth made with both its ends in place, addresses, route ──> ready ── take ──> Attachment
//!
//!   host: cvXXXXXXXX (gateway) ═ eth0 :instance      nftables: what instances may send, masquerade on the way out,
//!         cvXXXXXXXX (gateway) ═ eth0 :instance                one map element for a published port
//! ```
//! Every instance has a link of its own to the host, which routes between them: there is no bridge, whose ports are a
//! thousand at most, and no shared wire on which one could pass for another. All host ends have the gateway's address.
//!
//! Making a namespace waits for the kernel, so a thread keeps some ready. Nothing is taken down by hand: when the last
//! descriptor and process of a namespace are gone the kernel removes it with both ends of its veth, its address and its
//! route, many at once and behind everybody's back; addresses are used in turn, so that none is wanted again before that.
//!
//! Requests to the kernel go out several to a message over a plain socket, from the thread that is in the new namespace.

mod address;
mod error;
mod message;
mod nftables;
mod offer;
mod pool;
mod port;
mod publisher;
mod resolver;
mod setup;
mod socket;

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

pub use address::Addresses;
pub use error::{NetworkError, Result};
pub use nftables::Published;
pub use offer::{Attached, Offer, Subnet};
pub use pool::Network;
pub use port::{Grant, PORTS_COUNT_MAX, PortWish, Ports, Protocol, check as check_ports};
pub use resolver::{name_servers, resolv_conf};

/// Namespaces that may be kept ready.
pub const READY_COUNT_MAX: usize = 1024;
/// The interface's name in a namespace.
pub const INTERFACE: &str = "eth0";
/// What the names of the links' host ends begin with; the address follows in hexadecimal.
pub const LINK_PREFIX: &str = "cv";

/// A cell's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOptions {
    /// Addresses of instances are those of this network, whose first is the gateway's.
    pub network: Ipv4Addr,
    /// Bits of the network's number: 8 to 29.
    pub prefix_bits: u8,
    /// Instances reach what is beyond the host.
    pub egress: bool,
    /// Namespaces to be kept ready.
    pub ready_count: usize,
}

impl NetworkOptions {
    /// The group of the links' host ends, by which the kernel tells them from others.
    pub(crate) fn group(&self) -> u32 {
        u32::from(self.network)
    }
}

impl Default for NetworkOptions {
    /// 65,533 addresses, of Garden's default, and 64 namespaces ready.
    fn default() -> Self {
        Self { network: Ipv4Addr::new(10, 254, 0, 0), prefix_bits: 16, egress: true, ready_count: 64 }
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
