//! The host's side: who has the network, whether its addresses are free, and the switches that routing needs.

use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::error::{NetworkError, Result};
use super::{LINK_PREFIX, NetworkOptions, nftables};

/// Routes of fewer bits are ways to everywhere, and overlap with all networks.
const ROUTE_BITS_MIN: u32 = 8;

/// The claim on a network, which the kernel drops with its process: an abstract socket, so that it is one of the
/// calling thread's network namespace.
pub(super) fn claim(options: &NetworkOptions) -> Result<UnixDatagram> {
    let name = format!("celda/network/{}", nftables::table(options));
    let address = SocketAddr::from_abstract_name(name)
        .map_err(NetworkError::kernel("name the socket that stands for the network"))?;
    UnixDatagram::bind_addr(&address).map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => {
            NetworkError::Held { network: options.network, prefix_bits: options.prefix_bits }
        }
        _ => NetworkError::kernel("make the socket that stands for the network")(source),
    })
}

/// Fails when the host reaches a part of the network elsewhere already.
pub(super) fn check_routes(options: &NetworkOptions) -> Result<()> {
    let path = "/proc/thread-self/net/route";
    let text = std::fs::read_to_string(path).map_err(NetworkError::kernel(format!("read {path}")))?;
    match overlapping(&text, options.network, options.prefix_bits) {
        None => Ok(()),
        Some((route, link)) => Err(NetworkError::invalid(
            "subnet",
            format!(
                "{}/{} and {route}, which is reached by {link}, overlap: choose another network.subnet",
                options.network, options.prefix_bits
            ),
        )),
    }
}

/// A route of `/proc/net/route` by no link of an instance that overlaps with the network, and its link.
fn overlapping(text: &str, network: Ipv4Addr, prefix_bits: u8) -> Option<(String, String)> {
    // Addresses are there as this machine keeps them in memory.
    let number = |word: Option<&&str>| u32::from_str_radix(word?, 16).ok().map(u32::from_be);
    let mask = !(u32::MAX >> prefix_bits);
    text.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (destination, route_mask) = (number(words.get(1))?, number(words.get(7))?);
        let link = *words.first()?;
        let is_foreign = !link.starts_with(LINK_PREFIX) && route_mask.leading_ones() >= ROUTE_BITS_MIN;
        let overlaps = (destination ^ u32::from(network)) & mask & route_mask == 0;
        (is_foreign && overlaps).then(|| {
            (format!("{}/{}", Ipv4Addr::from(destination), route_mask.leading_ones()), link.to_owned())
        })
    })
}

/// Has the host forward packets.
pub(super) fn forward() -> Result<()> {
    let name = "ipv4/ip_forward";
    let is_on = std::fs::read_to_string(format!("/proc/sys/net/{name}")).is_ok_and(|text| text.trim() == "1");
    if is_on { Ok(()) } else { switch(name, "1") }
}

/// Writes a switch below `/proc/sys/net`, of the calling thread's namespace.
pub(super) fn switch(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value).map_err(NetworkError::kernel(format!("write {value} to {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_of_somebody_elses_is_found() {
        let line = |link: &str, destination: [u8; 4], mask: [u8; 4]| {
            let hex = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
            format!("{link}\t{}\t00000000\t0001\t0\t0\t0\t{}\t0\t0\t0\n", hex(destination), hex(mask))
        };
        let find = |lines: &[String]| {
            let text = format!("Iface\tDestination\n{}", lines.concat());
            overlapping(&text, Ipv4Addr::new(10, 254, 0, 0), 16).map(|(route, _)| route)
        };
        let other = line("eth0", [10, 88, 0, 0], [255, 255, 0, 0]);
        let default = line("eth0", [0, 0, 0, 0], [0, 0, 0, 0]);
        let own = line("cv0afe0002", [10, 254, 0, 2], [255; 4]);
        assert_eq!(find(&[other.clone(), default, own]), None);
        let wide = line("eth1", [10, 0, 0, 0], [255, 0, 0, 0]);
        assert_eq!(find(&[other, wide]).as_deref(), Some("10.0.0.0/8"));
        assert_eq!(
            find(&[line("br0", [10, 254, 7, 0], [255, 255, 255, 0])]).as_deref(),
            Some("10.254.7.0/24")
        );
        assert_eq!(find(&["rubbish\n".into(), "a b c d e f g h\n".into()]), None);
    }
}
