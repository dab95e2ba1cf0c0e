//! The table of a cell: masquerade on the way out, and a map element for each published port.
//!
//! ```text
//! prerouting, output: fib daddr type local, port in map ──> dnat to the element's address and port
//! postrouting:        from the network, not to its bridge ──> masquerade
//! ```
//! Scripts go to `nft`, as many elements in one as there are: a run of it is a transaction.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use super::error::{NetworkError, Result};

/// Bytes of `nft`'s words that are kept.
const WORDS_BYTES_MAX: usize = 500;

/// Of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A port of the host that leads to an instance's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Of both ports.
    pub protocol: Protocol,
    /// On all addresses of the host.
    pub host_port: u16,
    /// The instance's address.
    pub address: Ipv4Addr,
    /// The port there.
    pub port: u16,
}

/// The name of a bridge's table.
pub(super) fn table(bridge: &str) -> String {
    format!("celda-{bridge}")
}

/// The whole table, in place of whatever was there.
pub(super) fn whole(bridge: &str, network: Ipv4Addr, prefix_bits: u8) -> String {
    let name = table(bridge);
    let mut script = format!("add table ip {name}\ndelete table ip {name}\ntable ip {name} {{\n");
    for protocol in ["tcp", "udp"] {
        // Writing to a String cannot fail.
        let _ =
            writeln!(script, "map published-{protocol} {{ type inet_service : ipv4_addr . inet_service; }}");
    }
    for (chain, hook) in [("in", "prerouting"), ("local", "output")] {
        let _ = writeln!(script, "chain {chain} {{ type nat hook {hook} priority -100; policy accept;");
        for protocol in ["tcp", "udp"] {
            let _ = writeln!(
                script,
                "fib daddr type local dnat ip to {protocol} dport map @published-{protocol};"
            );
        }
        script.push_str("}\n");
    }
    let _ = write!(
        script,
        "chain out {{ type nat hook postrouting priority 100; policy accept;\n\
         ip saddr {network}/{prefix_bits} oifname != \"{bridge}\" masquerade;\n\
         ip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade;\n}}\n}}\n"
    );
    script
}

/// Adds elements.
pub(super) fn add(bridge: &str, all: &[Published]) -> String {
    let mut script = String::new();
    for Published { protocol, host_port, address, port } in all {
        let (name, protocol) = (table(bridge), protocol.name());
        let element = format!("{host_port} : {address} . {port}");
        let _ = writeln!(script, "add element ip {name} published-{protocol} {{ {element} }}");
    }
    script
}

/// Takes elements out.
pub(super) fn delete(bridge: &str, all: &[Published]) -> String {
    let mut script = String::new();
    for Published { protocol, host_port, .. } in all {
        let (name, protocol) = (table(bridge), protocol.name());
        let _ = writeln!(script, "delete element ip {name} published-{protocol} {{ {host_port} }}");
    }
    script
}

/// Runs a script in the calling thread's network namespace.
pub(super) fn run(action: &'static str, script: &str) -> Result<()> {
    let no_nftables = |source| NetworkError::NoNftables { source };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_nftables)?;
    if let Some(mut input) = child.stdin.take() {
        // One that ends early says why below.
        let _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(no_nftables)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(output.stderr.get(..WORDS_BYTES_MAX).unwrap_or(&output.stderr));
    Err(NetworkError::Nftables { action, words: words.trim().escape_debug().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_as_nft_reads_them() {
        let one =
            Published { protocol: Protocol::Tcp, host_port: 8080, address: [10, 88, 0, 2].into(), port: 80 };
        let two = Published { protocol: Protocol::Udp, host_port: 53, ..one };
        assert_eq!(
            add("b0", &[one, two]),
            "add element ip celda-b0 published-tcp { 8080 : 10.88.0.2 . 80 }\n\
             add element ip celda-b0 published-udp { 53 : 10.88.0.2 . 80 }\n"
        );
        assert_eq!(delete("b0", &[one]), "delete element ip celda-b0 published-tcp { 8080 }\n");
        let whole = whole("b0", [10, 88, 0, 0].into(), 16);
        assert!(whole.starts_with("add table ip celda-b0\ndelete table ip celda-b0\ntable ip celda-b0 {\n"));
        assert!(whole.contains("ip saddr 10.88.0.0/16 oifname != \"b0\" masquerade;"));
    }
}
