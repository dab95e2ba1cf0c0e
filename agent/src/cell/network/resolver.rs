//! Who resolves names for instances: the host's name servers, less those that are the host's loopback addresses, which
//! are the instance's own inside; pure but for reading the files.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Where a host says who resolves names; the second is the first's source where systemd-resolved answers on loopback.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// Name servers that a C library asks (MAXNS of resolv.h).
const SERVERS_COUNT_MAX: usize = 3;
/// Bytes of a host's file that are read.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The text of an instance's `/etc/resolv.conf`: these servers, or the host's where there are none; with the host's
/// `search` and `options`.
pub fn resolv_conf(servers: &[IpAddr]) -> String {
    let files = FILES.map(|path| std::fs::read_to_string(path).unwrap_or_default());
    compose(servers, &files.each_ref().map(String::as_str))
}

/// The servers that a `resolv.conf` names.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        // A zone is an interface of the host's.
        if words.next()? == "nameserver" { words.next()?.parse().ok() } else { None }
    });
    servers.take(SERVERS_COUNT_MAX).collect()
}

fn compose(servers: &[IpAddr], files: &[&str]) -> String {
    let files = files.iter().map(|text| text.get(..FILE_BYTES_MAX).unwrap_or(text));
    let reachable = |text: &str| -> Vec<IpAddr> {
        // The network is IPv4.
        name_servers(text).into_iter().filter(|server| server.is_ipv4() && !server.is_loopback()).collect()
    };
    let of_host = || files.clone().map(reachable).find(|servers| !servers.is_empty()).unwrap_or_default();
    let servers = if servers.is_empty() { of_host() } else { servers.to_vec() };
    let mut text = String::new();
    for server in servers.iter().take(SERVERS_COUNT_MAX) {
        let _ = writeln!(text, "nameserver {server}");
    }
    let first = files.clone().next().unwrap_or_default();
    for line in first.lines().filter(|line| line.starts_with("search ") || line.starts_with("options ")) {
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_name_servers_are_left_out() {
        let stub = "# stub\nnameserver 127.0.0.53\noptions edns0\nsearch a.example b.example\n";
        let real = "nameserver 192.0.2.1\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver 192.0.2.2\n";
        assert_eq!(
            compose(&[], &[stub, real]),
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\noptions edns0\nsearch a.example b.example\n"
        );
        assert_eq!(compose(&[], &["nameserver 127.0.0.1\n", ""]), "");
        let given = [IpAddr::from([198, 51, 100, 7])];
        assert_eq!(compose(&given, &[real]), "nameserver 198.51.100.7\n");
        assert_eq!(compose(&[], &["nameserver\nnameserver x\nserver 1.1.1.1"]), "");
    }
}
