//! Ports of the host that lead to instances: what is wanted, and who has which.
//!
//! ```text
//! "8080:80/tcp" ──> PortWish ── claim (core's thread, as an instance is accepted) ──> Grant ── kept until its last end
//! ```
//! A port is claimed by a bound socket as well, so that no program of the host takes it meanwhile, and none that has it
//! is cut off.

use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::str::FromStr;

use rustix::net::{AddressFamily, SocketAddrV4, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use crate::spec::FlagError;

/// Ports of one instance.
pub const PORTS_COUNT_MAX: usize = 256;

/// Of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A port that is to be published: `HOST:CONTAINER[/tcp|udp]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortWish {
    /// Of both.
    pub protocol: Protocol,
    /// On the host; 0: any that is free.
    pub host_port: u16,
    /// In the instance.
    pub container_port: u16,
}

impl FromStr for PortWish {
    type Err = FlagError;

    fn from_str(text: &str) -> Result<Self, FlagError> {
        let wrong = |why| FlagError::new("--publish", text, why);
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some(_) => return Err(wrong("the protocol is tcp or udp")),
        };
        let (host, container) = ports
            .split_once(':')
            .ok_or_else(|| wrong("write HOST_PORT:CONTAINER_PORT, HOST_PORT 0 for any"))?;
        let number =
            |text: &str| text.parse().map_err(|_| wrong("a port is 1 to 65535; the host's may be 0"));
        let (host_port, container_port) = (number(host)?, number(container)?);
        if container_port == 0 {
            return Err(wrong("the port in the container is 1 to 65535"));
        }
        Ok(Self { protocol, host_port, container_port })
    }
}

/// Whether these can be published together.
///
/// # Errors
/// What is wrong with them.
pub fn check(wanted: &[PortWish]) -> Result<(), String> {
    if wanted.len() > PORTS_COUNT_MAX {
        return Err(format!("{} ports: at most {PORTS_COUNT_MAX} are possible", wanted.len()));
    }
    let mut seen = std::collections::HashSet::new();
    let twice = wanted.iter().find(|one| one.host_port != 0 && !seen.insert((one.protocol, one.host_port)));
    match twice {
        None => Ok(()),
        Some(one) => Err(format!("port {}/{} of the host is wanted twice", one.host_port, one.protocol)),
    }
}

/// A port of the host that an instance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Of both.
    pub protocol: Protocol,
    /// On the host.
    pub host_port: u16,
    /// In the instance.
    pub container_port: u16,
}

/// Who has which port of the host.
#[derive(Debug)]
pub struct Ports {
    /// What is given for 0.
    range: RangeInclusive<u16>,
    /// Which of them is tried next.
    next: u16,
    claimed: HashMap<(Protocol, u16), Claim>,
}

#[derive(Debug)]
struct Claim {
    owner: String,
    /// Bound, unless a program of the host has the port: then packets go to the instance all the same.
    _socket: Option<OwnedFd>,
}

impl Ports {
    /// None claimed; `range` is what is given to who wants any.
    pub fn new(range: RangeInclusive<u16>) -> Self {
        Self { next: *range.start(), range, claimed: HashMap::new() }
    }

    /// Claims ports for an instance, all of them or none.
    ///
    /// # Errors
    /// Which is taken by whom, for a person to read.
    pub fn claim(&mut self, owner: &str, wanted: &[PortWish]) -> Result<Vec<Grant>, String> {
        let mut granted = Vec::with_capacity(wanted.len());
        for wish in wanted {
            let claimed = match wish.host_port {
                0 => self.claim_any(owner, wish.protocol),
                port => self.claim_one(owner, wish.protocol, port).map(|()| port),
            };
            match claimed {
                Ok(host_port) => {
                    let PortWish { protocol, container_port, .. } = *wish;
                    granted.push(Grant { protocol, host_port, container_port });
                }
                Err(why) => {
                    self.release(&granted);
                    return Err(why);
                }
            }
        }
        Ok(granted)
    }

    fn claim_one(&mut self, owner: &str, protocol: Protocol, port: u16) -> Result<(), String> {
        if let Some(claim) = self.claimed.get(&(protocol, port)) {
            let other = &claim.owner;
            return Err(format!(
                "port {port}/{protocol} of the host is published for {other}: choose another, or 0 for any"
            ));
        }
        let socket = bind(protocol, port).map_err(|errno| {
            format!(
                "port {port}/{protocol} of the host cannot be had ({errno}): end the program that has it (a \
                 connection that has just ended keeps a port for a minute), or choose another, or 0 for any"
            )
        })?;
        self.claimed.insert((protocol, port), Claim { owner: owner.to_owned(), _socket: Some(socket) });
        Ok(())
    }

    fn claim_any(&mut self, owner: &str, protocol: Protocol) -> Result<u16, String> {
        for _ in self.range.clone() {
            let port = self.next;
            self.next = if port >= *self.range.end() { *self.range.start() } else { port + 1 };
            if self.claim_one(owner, protocol, port).is_ok() {
                return Ok(port);
            }
        }
        let (first, last) = (self.range.start(), self.range.end());
        Err(format!(
            "all ports from {first} to {last} of the host are taken: network.ports_first, ports_last"
        ))
    }

    /// Takes over what an instance had before the agent came back. Where a program of the host has taken a port meanwhile
    /// the instance has it all the same, and the answer names it.
    pub fn restore(&mut self, owner: &str, granted: &[Grant]) -> Vec<Grant> {
        let mut lost = Vec::new();
        for grant in granted {
            let socket = bind(grant.protocol, grant.host_port).ok();
            if socket.is_none() {
                lost.push(*grant);
            }
            let claim = Claim { owner: owner.to_owned(), _socket: socket };
            self.claimed.entry((grant.protocol, grant.host_port)).or_insert(claim);
        }
        lost
    }

    /// Gives ports back.
    pub fn release(&mut self, granted: &[Grant]) {
        for grant in granted {
            self.claimed.remove(&(grant.protocol, grant.host_port));
        }
    }
}

/// A socket that nobody else can bind beside. It does not listen: who comes while no instance is there is refused.
fn bind(protocol: Protocol, port: u16) -> Result<OwnedFd, rustix::io::Errno> {
    let kind = if protocol == Protocol::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let socket = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> PortWish {
        text.parse().expect(text)
    }

    #[test]
    fn ports_as_docker_writes_them() {
        assert_eq!(
            wish("8080:80"),
            PortWish { protocol: Protocol::Tcp, host_port: 8080, container_port: 80 }
        );
        assert_eq!(wish("0:53/udp"), PortWish { protocol: Protocol::Udp, host_port: 0, container_port: 53 });
        for wrong in
            ["", "80", ":80", "80:", "80:0", "65536:1", "1:65536", "-1:80", "1:2:3", "80:80/sctp", "80:80/"]
        {
            assert!(wrong.parse::<PortWish>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn absurd_lists_are_refused() {
        assert!(check(&[wish("80:80"), wish("80:80/udp"), wish("0:80"), wish("0:80")]).is_ok());
        assert!(check(&[wish("80:80"), wish("80:81")]).expect_err("twice").contains("80/tcp"));
        assert!(check(&vec![wish("0:80"); 10_000]).expect_err("many").contains("10000"));
    }

    #[test]
    fn a_port_is_one_instances_until_it_is_given_back() {
        let free = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bound");
        let taken = free.local_addr().expect("an address").port();
        let mut ports = Ports::new(taken..=taken);
        let wanted = [PortWish { protocol: Protocol::Tcp, host_port: taken, container_port: 80 }];
        assert!(ports.claim("a", &wanted).expect_err("the host has it").contains("cannot be had"));
        let any = [PortWish { host_port: 0, ..wanted[0] }];
        assert!(ports.claim("a", &any).expect_err("none is left").contains("ports_first"));
        drop(free);
        let granted = ports.claim("a", &any).expect("free now");
        assert_eq!(granted[0].host_port, taken);
        assert!(ports.claim("b", &wanted).expect_err("taken").contains("published for a"));
        assert!(std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, taken)).is_err(), "it is held");
        ports.release(&granted);
        assert_eq!(ports.restore("a", &granted), []);
        assert!(ports.claim("b", &wanted).is_err());
    }
}
