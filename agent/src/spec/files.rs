//! The files that tell a container its name and who resolves names: /etc/hosts, /etc/hostname, /etc/resolv.conf.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;

use super::flags::{Network, RunFlags};
use super::prepare::Step;
use super::{OnNetwork, SpecError};

/// Every container's own addresses.
const LOOPBACK: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// The files, to be written into the root filesystem; a file that the user mounts over is left alone.
pub(super) fn steps(
    flags: &RunFlags,
    hostname: &str,
    network: Option<&OnNetwork>,
) -> Result<Vec<Step>, SpecError> {
    let mut steps = Vec::new();
    let mut add = |path: &'static str, bytes: Vec<u8>| {
        let is_mounted =
            flags.volumes.iter().any(|volume| volume.destination == path || volume.destination == "/etc");
        if !is_mounted {
            steps.push(Step::ImageFile { path, bytes });
        }
    };
    let (mut hosts, resolver) = match flags.network {
        Network::None => (format!("{LOOPBACK}127.0.1.1\t{hostname}\n"), None),
        Network::Cell => {
            let network = network.ok_or_else(|| SpecError::Conflict {
                what: "--network cell".into(),
                why: "only a cell's containers are on its network: add -d".into(),
            })?;
            let hosts = format!("{LOOPBACK}{}\t{hostname}\n", network.address);
            (hosts, Some(network.resolver.clone()))
        }
        Network::Host => (
            of_host("/etc/hosts").unwrap_or_else(|| LOOPBACK.into()),
            Some(of_host("/etc/resolv.conf").unwrap_or_default()),
        ),
    };
    for host in &flags.add_hosts {
        let (name, address) = add_host(host)?;
        let _ = writeln!(hosts, "{address}\t{name}");
    }
    add("/etc/hosts", hosts.into_bytes());
    add("/etc/hostname", format!("{hostname}\n").into_bytes());
    if let Some(resolver) = resolver {
        add("/etc/resolv.conf", resolver.into_bytes());
    }
    Ok(steps)
}

fn of_host(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn add_host(text: &str) -> Result<(&str, IpAddr), SpecError> {
    let wrong = || SpecError::Conflict {
        what: format!("--add-host {text:?}"),
        why: "write NAME:ADDRESS, with an IPv4 or IPv6 address".into(),
    };
    let (name, address) = text.split_once([':', '=']).ok_or_else(wrong)?;
    let address = address.trim_matches(['[', ']']).parse().map_err(|_| wrong())?;
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if name.is_empty() || !name.bytes().all(legal) {
        return Err(wrong());
    }
    Ok((name, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_the_containers_own() {
        let flags =
            RunFlags { add_hosts: vec!["db:10.0.0.5".into(), "v6:[fd00::1]".into()], ..RunFlags::default() };
        let steps = steps(&flags, "box", None).expect("right");
        let Step::ImageFile { path: "/etc/hosts", bytes } = &steps[0] else { panic!("{steps:?}") };
        let text = String::from_utf8_lossy(bytes);
        assert!(text.ends_with("127.0.1.1\tbox\n10.0.0.5\tdb\nfd00::1\tv6\n"), "{text}");
        let network =
            OnNetwork { address: [10, 254, 0, 7].into(), resolver: "nameserver 192.0.2.1\n".into() };
        let flags = RunFlags { network: Network::Cell, ..RunFlags::default() };
        let of_cell = super::steps(&flags, "box", Some(&network)).expect("right");
        let texts = of_cell.iter().map(|step| format!("{step:?}")).collect::<Vec<_>>();
        assert_eq!(texts.len(), 3);
        assert!(of_cell.iter().any(|step| matches!(step, Step::ImageFile { path: "/etc/hosts", bytes }
            if String::from_utf8_lossy(bytes).ends_with("10.254.0.7\tbox\n"))));
        assert!(super::steps(&flags, "box", None).is_err());
        for wrong in ["db", "db:", ":10.0.0.5", "a b:10.0.0.5", "db:10.0.0"] {
            assert!(add_host(wrong).is_err(), "{wrong}");
        }
    }
}
