//! What a cell offers its instances: the network, or why there is none, and what goes with it.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Attachment, Grant, Network, NetworkError, NetworkOptions, Published, Result, name_servers, resolv_conf,
};

/// How long the former owner of a port may take to be cleared away.
const CLEARING_WAIT: Duration = Duration::from_secs(20);

/// A network by its number and bits: `10.254.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its number.
    pub network: Ipv4Addr,
    /// Its bits.
    pub prefix_bits: u8,
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("{text:?}: write an IPv4 network with its bits, such as 10.254.0.0/16");
        let (network, bits) = text.split_once('/').ok_or_else(wrong)?;
        let (network, prefix_bits) =
            (network.parse().map_err(|_| wrong())?, bits.parse().map_err(|_| wrong())?);
        super::Addresses::new(network, prefix_bits).map_err(|error| error.to_string())?;
        Ok(Self { network, prefix_bits })
    }
}

/// What an instance has of the network while a container of it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its ports.
    pub ports: Vec<Grant>,
}

impl Attached {
    /// Its ports as the table has them.
    pub fn published(&self) -> Vec<Published> {
        let published = |grant: &Grant| Published {
            protocol: grant.protocol,
            host_port: grant.host_port,
            address: self.address,
            port: grant.container_port,
        };
        self.ports.iter().map(published).collect()
    }
}

/// The network of a cell, or why it has none.
#[derive(Debug)]
pub struct Offer {
    network: std::result::Result<Network, String>,
    options: NetworkOptions,
    resolver: String,
    warnings: Vec<String>,
}

impl Offer {
    /// The network, with what runs already; name servers are the host's where none are given.
    pub fn start(options: NetworkOptions, servers: &[IpAddr], running: &[Attached]) -> Self {
        // A journal that could not be written for a while may have former owners in it.
        let (mut addresses, mut ports) = (HashSet::new(), HashSet::new());
        let in_use: Vec<_> =
            running.iter().map(|attached| attached.address).filter(|one| addresses.insert(*one)).collect();
        let is_first = |one: &Published| ports.insert((one.protocol, one.host_port));
        let published: Vec<_> = running.iter().flat_map(Attached::published).filter(is_first).collect();
        let mut offer = Self {
            network: Network::start(options.clone(), &in_use, &published).map_err(|error| error.to_string()),
            options,
            resolver: resolv_conf(servers),
            warnings: Vec::new(),
        };
        if let Ok(network) = &offer.network {
            for chain in network.strict_chains().unwrap_or_default() {
                offer.warnings.push(format!(
                    "{chain} drops what is forwarded: let iifgroup and oifgroup {} through there",
                    offer.options.group()
                ));
            }
            if offer.name_servers().is_empty() {
                offer
                    .warnings
                    .push("no name server can be reached from instances: set network.name_servers".into());
            }
        }
        offer
    }

    /// None, because of the configuration.
    pub fn off() -> Self {
        Self {
            network: Err("network.enabled is false".into()),
            options: NetworkOptions::default(),
            resolver: String::new(),
            warnings: Vec::new(),
        }
    }

    /// Why there is none.
    pub fn why_not(&self) -> Option<&str> {
        self.network.as_ref().err().map(String::as_str)
    }

    /// The network's options.
    pub fn options(&self) -> &NetworkOptions {
        &self.options
    }

    /// What keeps parts of it from working.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Text of `/etc/resolv.conf`.
    pub fn resolver(&self) -> &str {
        &self.resolver
    }

    /// Who resolves names for instances.
    pub fn name_servers(&self) -> Vec<IpAddr> {
        name_servers(&self.resolver)
    }

    /// A namespace with its address, and these ports led to it.
    ///
    /// # Errors
    /// [`NetworkError`]; nothing is held then.
    pub fn attach(&self, ports: &[Grant]) -> Result<(Attachment, Attached)> {
        let network = self.network()?;
        let attachment = network.take()?;
        let attached = Attached { address: attachment.address, ports: ports.to_vec() };
        match network.publish(&attached.published(), CLEARING_WAIT) {
            Ok(()) => Ok((attachment, attached)),
            Err(error) => {
                drop(attachment);
                network.release(attached.address);
                Err(error)
            }
        }
    }

    /// Gives back what an instance had, whose namespace nobody uses any more.
    ///
    /// # Errors
    /// [`NetworkError`]: then the address stays taken until the agent comes back, since a port may still lead to it.
    pub fn leave(&self, attached: &Attached) -> Result<()> {
        let Ok(network) = &self.network else { return Ok(()) };
        network.unpublish(&attached.published())?;
        network.release(attached.address);
        Ok(())
    }

    /// Takes what nobody needs any more away, as the agent ends.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub fn close(&self) -> Result<()> {
        self.network.as_ref().map_or(Ok(()), Network::close)
    }

    fn network(&self) -> Result<&Network> {
        self.network.as_ref().map_err(|why| NetworkError::None(why.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_networks_with_room() {
        let subnet: Subnet = "10.254.0.0/16".parse().expect("a subnet");
        assert_eq!((subnet.network, subnet.prefix_bits), (Ipv4Addr::new(10, 254, 0, 0), 16));
        for wrong in
            ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/30", "10.0.0.0/7", "x/16", "::/16", "10.0.0.0/256"]
        {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
    }
}
