//! The table of a cell: what instances may send, where it may go, and a map element for each published port.
//!
//! ```text
//! guard (before conntrack):  from an instance: IPv4 of its own address only, and nothing to 127.0.0.0/8
//! in, local:                 to an address of this machine, port in map ──> dnat to the element's address and port
//! pass (forward):            between instances; out, if there is a way out; in, what answers or was published
//! lost:                      to an instance that is gone: dropped, and not sent to where everything else goes
//! out:                       masquerade what leaves, and what comes in where the answer would not come back
//! ```
//! Links of instances are known by their group. The table decides for them alone: what the machine's other tables let
//! through or drop is dropped here as well, or there. Scripts go to `nft`, as many elements in one as there are: a run
//! of it is a transaction.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use super::NetworkOptions;
use super::error::{NetworkError, Result};
use super::port::Protocol;

/// Bytes of `nft`'s words that are kept.
const WORDS_BYTES_MAX: usize = 500;

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

/// The name of a network's table.
pub(super) fn table(options: &NetworkOptions) -> String {
    format!("celda-{}-{}", options.network, options.prefix_bits)
}

/// The whole table, in place of whatever was there.
pub(super) fn whole(options: &NetworkOptions) -> String {
    let (name, group) = (table(options), options.group());
    let network = format!("{}/{}", options.network, options.prefix_bits);
    let egress = if options.egress { "accept" } else { "drop" };
    let publish = ["tcp", "udp"]
        .map(|protocol| {
            format!("fib daddr type local dnat ip to {protocol} dport map @published-{protocol}\n")
        })
        .concat();
    format!(
        "add table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n\
         map published-tcp {{ type inet_service : ipv4_addr . inet_service; }}\n\
         map published-udp {{ type inet_service : ipv4_addr . inet_service; }}\n\
         chain guard {{ type filter hook prerouting priority raw; policy accept;\n\
         iifgroup != {group} accept\n\
         meta nfproto != ipv4 drop\n\
         fib saddr . iif oif missing drop\n\
         ip daddr 127.0.0.0/8 drop\n}}\n\
         chain pass {{ type filter hook forward priority filter; policy accept;\n\
         iifgroup {group} oifgroup {group} accept\n\
         iifgroup {group} ct direction reply accept\n\
         iifgroup {group} {egress}\n\
         oifgroup {group} ct state established,related accept\n\
         oifgroup {group} ct status dnat accept\n\
         oifgroup {group} drop\n}}\n\
         chain lost {{ type filter hook postrouting priority filter; policy accept;\n\
         ip daddr {network} oifgroup != {group} oifname != \"lo\" drop\n}}\n\
         chain in {{ type nat hook prerouting priority dstnat; policy accept;\n{publish}}}\n\
         chain local {{ type nat hook output priority -100; policy accept;\n{publish}}}\n\
         chain out {{ type nat hook postrouting priority srcnat; policy accept;\n\
         ip saddr {network} oifgroup != {group} masquerade\n\
         ip saddr 127.0.0.0/8 oifgroup {group} masquerade\n\
         ip saddr {network} oifgroup {group} ct status dnat masquerade\n}}\n}}\n"
    )
}

/// Takes the whole table away.
pub(super) fn none(options: &NetworkOptions) -> String {
    let name = table(options);
    format!("add table inet {name}\ndelete table inet {name}\n")
}

/// Adds elements.
pub(super) fn add(table: &str, all: &[Published]) -> String {
    let mut script = String::new();
    for Published { protocol, host_port, address, port } in all {
        // Writing to a String cannot fail.
        let _ = writeln!(
            script,
            "add element inet {table} published-{protocol} {{ {host_port} : {address} . {port} }}"
        );
    }
    script
}

/// Takes elements out.
pub(super) fn delete(table: &str, all: &[Published]) -> String {
    let mut script = String::new();
    for Published { protocol, host_port, .. } in all {
        let _ = writeln!(script, "delete element inet {table} published-{protocol} {{ {host_port} }}");
    }
    script
}

/// Runs a script in the calling thread's network namespace.
pub(super) fn run(action: &'static str, script: &str) -> Result<()> {
    nft(action, &["-f", "-"], script).map(drop)
}

/// Chains of other tables that drop what is forwarded unless somebody lets it through, as `TABLE CHAIN`.
pub(super) fn strict_chains(own: &str) -> Result<Vec<String>> {
    Ok(find_strict(&nft("list chains", &["list", "chains"], "")?, own))
}

/// As [`strict_chains`], in the words of `nft list chains`.
fn find_strict(listed: &str, own: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", "", Vec::new());
    for line in listed.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches(" {");
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches(" {");
        } else if line.contains("hook forward") && line.contains("policy drop") && !table.ends_with(own) {
            found.push(format!("{table} {chain}"));
        }
    }
    found
}

fn nft(action: &'static str, words: &[&str], script: &str) -> Result<String> {
    let no_nftables = |source| NetworkError::NoNftables { source };
    let mut child = Command::new("nft")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(no_nftables)?;
    if let Some(mut input) = child.stdin.take() {
        // One that ends early says why below.
        let _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(no_nftables)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
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
            add("t", &[one, two]),
            "add element inet t published-tcp { 8080 : 10.88.0.2 . 80 }\n\
             add element inet t published-udp { 53 : 10.88.0.2 . 80 }\n"
        );
        assert_eq!(delete("t", &[one]), "delete element inet t published-tcp { 8080 }\n");
        let options = NetworkOptions { network: [10, 88, 0, 0].into(), ..NetworkOptions::default() };
        let script = whole(&options);
        assert!(script.starts_with("add table inet celda-10.88.0.0-16\n"));
        assert!(script.contains(&format!("iifgroup {} accept\n", options.group())));
        let closed = whole(&NetworkOptions { egress: false, ..options });
        assert!(closed.contains(" drop\noifgroup"), "{closed}");
    }

    #[test]
    fn chains_that_drop_are_found_and_ones_own_is_not() {
        let listed = "table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority 0; policy drop;\n\t}\n\
                      \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n\
                      table inet own {\n\tchain pass {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n";
        assert_eq!(find_strict(listed, "own"), ["ip filter FORWARD"]);
        assert!(find_strict("", "own").is_empty());
    }
}
