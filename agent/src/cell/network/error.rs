//! What can go wrong with the cell's network.

use std::io;

/// What a function of the network answers.
pub type Result<T> = std::result::Result<T, NetworkError>;

/// Why a network cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A request to the kernel failed.
    #[error("{action}: {source}")]
    Kernel {
        /// What was being done, to what.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An option has no meaning.
    #[error("network {what}: {why}")]
    Invalid {
        /// Which option.
        what: &'static str,
        /// What is wrong with it, and what would be right.
        why: String,
    },
    /// Every address is taken.
    #[error("all addresses of {network}/{prefix_bits} are taken; give the cell a larger network")]
    Full {
        /// The network's number.
        network: std::net::Ipv4Addr,
        /// Its bits.
        prefix_bits: u8,
    },
    /// Another process has the network.
    #[error("another cell of this machine has {network}/{prefix_bits}: give this one another network.subnet")]
    Held {
        /// The network's number.
        network: std::net::Ipv4Addr,
        /// Its bits.
        prefix_bits: u8,
    },
    /// There is no `nft`.
    #[error("nft cannot be run ({source}): install nftables and start the agent again")]
    NoNftables {
        /// What was answered.
        source: io::Error,
    },
    /// `nft` refused a script.
    #[error("nft refused to {action}: {words}; has this kernel nf_tables with nat?")]
    Nftables {
        /// What was being done.
        action: &'static str,
        /// What it said.
        words: String,
    },
    /// A port of the host is published already.
    #[error("port {port} is published for {address} already; choose another")]
    Published {
        /// The host's port.
        port: u16,
        /// For whom.
        address: std::net::Ipv4Addr,
    },
    /// The cell has no network of its own.
    #[error("this cell has no network of its own ({0}): use --network none or host, without published ports")]
    None(String),
    /// The thread that prepares namespaces is gone.
    #[error("the network's thread has ended: {0}; restart the agent")]
    Ended(String),
}

impl NetworkError {
    pub(super) fn kernel<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::Kernel { action, source: source.into() }
    }

    pub(super) fn invalid(what: &'static str, why: impl Into<String>) -> Self {
        Self::Invalid { what, why: why.into() }
    }
}
