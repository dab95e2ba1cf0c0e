//! The cell's network, in a network namespace that stands for the host: ways in, out and across, what is refused, and
//! what is left after hundreds of instances.

#![allow(clippy::unwrap_used)]

#[path = "common/net.rs"]
mod net;

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use celda::cell::network::{Network, NetworkError, NetworkOptions, Protocol, Published};
use net::{OUTSIDE, WORLD, echo, echoes, inside, ip, links, nft, received, seen_by, serve, udp, world};

/// The longest that a test waits for the kernel.
const DEADLINE: Duration = Duration::from_secs(60);
/// The gateway's address.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 254, 0, 1);
const NOW: Duration = Duration::ZERO;

/// Runs in a namespace of its own that stands for the host, where that is allowed.
fn on_a_host(work: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        let required = std::env::var("CELDA_REQUIRE_PRIVILEGED").as_deref() == Ok("1");
        assert!(!required, "this test must run as root");
        println!("skipped: needs root");
        return;
    }
    // Alone, since descriptors are counted.
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    inside(&net::namespace(), work);
}

fn options(ready_count: usize) -> NetworkOptions {
    NetworkOptions { ready_count, ..NetworkOptions::default() }
}

fn veths_count() -> usize {
    links().iter().filter(|name| name.starts_with("cv")).count()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::yield_now();
    }
}

/// The calling thread's namespace.
fn here() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}

fn published(host_port: u16, address: Ipv4Addr) -> Published {
    Published { protocol: Protocol::Tcp, host_port, address, port: 80 }
}

#[test]
fn privileged_instances_reach_the_host_one_another_and_the_world() {
    on_a_host(|| {
        let network = Network::start(options(2), &[], &[]).unwrap();
        let (one, two) = (network.take().unwrap(), network.take().unwrap());
        assert_ne!(one.address, two.address);
        let _server1 = serve(&one.namespace, 80);
        // From the host, and from another instance.
        assert_eq!(seen_by(one.address, 80), Some(GATEWAY.into()));
        let to = one.address;
        assert_eq!(inside(&two.namespace, move || seen_by(to, 80)), Some(two.address.into()));
        // A world beyond the host, which knows no way back to instances: they come as the host.
        let world = world();
        let _server2 = serve(&world, 443);
        let out = inside(&one.namespace, || seen_by(WORLD, 443));
        assert_eq!(out, Some(OUTSIDE.into()));
        // A published port leads in: from the world, from the host's own addresses, from instances, itself among them.
        let tcp = published(8080, one.address);
        network.publish(&[tcp], NOW).unwrap();
        assert_eq!(inside(&world, || seen_by(OUTSIDE, 8080)), Some(WORLD.into()));
        for own in [Ipv4Addr::LOCALHOST, OUTSIDE, GATEWAY] {
            assert!(seen_by(own, 8080).is_some(), "{own}");
        }
        for instance in [&one, &two] {
            for own in [OUTSIDE, GATEWAY] {
                assert!(inside(&instance.namespace, move || seen_by(own, 8080)).is_some(), "{own}");
            }
        }
        // And so does one of UDP.
        network.publish(&[Published { protocol: Protocol::Udp, port: 53, ..tcp }], NOW).unwrap();
        let _server3 = echo(udp(&one.namespace, Ipv4Addr::UNSPECIFIED, 53));
        assert!(echoes(&udp(&here(), Ipv4Addr::UNSPECIFIED, 0), Ipv4Addr::LOCALHOST, 8080));
        assert!(echoes(&udp(&world, Ipv4Addr::UNSPECIFIED, 0), OUTSIDE, 8080));
        assert!(echoes(&udp(&two.namespace, Ipv4Addr::UNSPECIFIED, 0), GATEWAY, 8080));
        // It is one instance's at a time.
        let again = published(8080, two.address);
        let refused = network.publish(&[again], NOW);
        assert!(
            matches!(refused, Err(NetworkError::Published { port: 8080, address }) if address == one.address)
        );
        network.unpublish(&[again]).unwrap();
        assert!(seen_by(Ipv4Addr::LOCALHOST, 8080).is_some(), "not that one's");
        network.unpublish(&[tcp, tcp]).unwrap();
        assert_eq!(inside(&world, || seen_by(OUTSIDE, 8080)), None);
        network.publish(&[again], NOW).unwrap();
    });
}

#[test]
fn privileged_an_instance_cannot_pass_for_another_or_reach_the_hosts_loopback() {
    on_a_host(|| {
        let network = Network::start(options(1), &[], &[]).unwrap();
        let (one, two) = (network.take().unwrap(), network.take().unwrap());
        let (address, other) = (one.address, two.address);
        let at_gateway = udp(&here(), GATEWAY, 7000);
        let at_loopback = udp(&here(), Ipv4Addr::LOCALHOST, 7001);
        let at_other = udp(&two.namespace, Ipv4Addr::UNSPECIFIED, 7002);
        let honest = udp(&one.namespace, address, 0);
        let stranger = Ipv4Addr::new(203, 0, 113, 5);
        inside(&one.namespace, move || {
            ip(&format!("addr add {stranger}/32 dev eth0"));
            ip(&format!("addr add {other}/32 dev eth0"));
            // What is to 127.0.0.1 goes out to the host.
            ip("addr del 127.0.0.1/8 dev lo");
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            ip(&format!("route add 127.0.0.0/8 via {GATEWAY} dev eth0"));
        });
        let send = || {
            for false_one in [stranger, other] {
                let liar = udp(&one.namespace, false_one, 0);
                liar.send_to(b"false", (GATEWAY, 7000)).unwrap();
                // Its own way to the other leads to itself now.
                if false_one == stranger {
                    liar.send_to(b"false", (GATEWAY, 7000)).unwrap();
                }
            }
            honest.send_to(b"false", (Ipv4Addr::LOCALHOST, 7001)).unwrap();
            honest.send_to(b"true", (GATEWAY, 7000)).unwrap();
            let own: UdpSocket = udp(&here(), Ipv4Addr::LOCALHOST, 0);
            own.send_to(b"true", (Ipv4Addr::LOCALHOST, 7001)).unwrap();
        };
        send();
        assert_eq!(received(&at_gateway).as_deref(), Some("true"));
        assert_eq!(received(&at_loopback).as_deref(), Some("true"));
        // Nor by what is no IPv4, which nothing else here looks at.
        let guard = nft("list chain inet celda-10.254.0.0-16 guard");
        assert!(guard.contains("meta nfproto != ipv4 drop"), "{guard}");
        // Without the guard they would have come: this test sends what it says it does.
        nft("flush chain inet celda-10.254.0.0-16 guard");
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "0").unwrap();
        send();
        assert_eq!(received(&at_gateway).as_deref(), Some("false"));
        assert_eq!(received(&at_loopback).as_deref(), Some("false"));
        drop(at_other);
    });
}

#[test]
fn privileged_only_what_is_allowed_is_forwarded() {
    on_a_host(|| {
        let network = Network::start(NetworkOptions { egress: false, ..options(1) }, &[], &[]).unwrap();
        let (one, two) = (network.take().unwrap(), network.take().unwrap());
        let world = world();
        let _server4 = serve(&world, 443);
        let _server5 = serve(&one.namespace, 80);
        let _server6 = serve(&here(), 22);
        let address = one.address;
        assert_eq!(inside(&one.namespace, || seen_by(WORLD, 443)), None, "there is no way out");
        assert!(inside(&one.namespace, || seen_by(GATEWAY, 22)).is_some());
        assert!(inside(&two.namespace, move || seen_by(address, 80)).is_some());
        // Who knows the way in comes to published ports only.
        inside(&world, || ip(&format!("route add 10.254.0.0/16 via {OUTSIDE}")));
        assert_eq!(inside(&world, move || seen_by(address, 80)), None);
        network.publish(&[published(8080, address)], NOW).unwrap();
        assert_eq!(inside(&world, || seen_by(OUTSIDE, 8080)), Some(WORLD.into()));
        // What another table drops stays dropped, and is said.
        assert!(network.strict_chains().unwrap().is_empty());
        nft("add table ip host");
        nft("add chain ip host FORWARD { type filter hook forward priority 0 ; policy drop ; }");
        assert_eq!(network.strict_chains().unwrap(), ["ip host FORWARD"]);
        assert_eq!(inside(&world, || seen_by(OUTSIDE, 8080)), None);
    });
}

#[test]
fn privileged_nothing_of_ipv6_is_half_there() {
    on_a_host(|| {
        let network = Network::start(options(1), &[], &[]).unwrap();
        let one = network.take().unwrap();
        if !std::path::Path::new("/proc/sys/net/ipv6").exists() {
            return; // and nothing of it is there
        }
        let (switches, addresses) = inside(&one.namespace, || {
            let switch =
                |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/eth0/{name}")).unwrap();
            let switches = ["disable_ipv6", "accept_ra", "accept_dad"].map(switch);
            (switches, std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap())
        });
        assert_eq!(switches, ["1\n", "0\n", "0\n"]);
        assert!(!addresses.contains("eth0"), "{addresses}");
        let of_host = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        assert!(!of_host.contains("cv"), "{of_host}");
    });
}

#[test]
fn privileged_a_network_is_one_cells_and_nobody_elses() {
    on_a_host(|| {
        let first = Network::start(options(0), &[], &[]).unwrap();
        assert!(matches!(Network::start(options(0), &[], &[]), Err(NetworkError::Held { .. })));
        let other = NetworkOptions { network: Ipv4Addr::new(10, 253, 0, 0), ..options(0) };
        drop(Network::start(other, &[], &[]).unwrap());
        first.close().unwrap();
        drop(first);
        let world = world();
        let taken = NetworkOptions { network: Ipv4Addr::new(192, 0, 2, 0), prefix_bits: 28, ..options(0) };
        let refused = Network::start(taken, &[], &[]).unwrap_err();
        assert!(refused.to_string().contains("reached by up0"), "{refused}");
        drop(world);
    });
}

#[test]
fn privileged_an_agent_that_comes_back_finds_its_network() {
    on_a_host(|| {
        let first = Network::start(options(1), &[], &[]).expect("started");
        let kept = first.take().expect("one");
        let published = Published { protocol: Protocol::Tcp, host_port: 81, address: kept.address, port: 80 };
        let lost = Published { host_port: 82, ..published };
        first.publish(&[published, lost], NOW).expect("published");
        let _server7 = serve(&kept.namespace, 80);
        drop(first);
        assert!(seen_by(Ipv4Addr::LOCALHOST, 81).is_some(), "it works on without an agent");
        let second = Network::start(options(1), &[kept.address], &[published]).expect("started again");
        assert_ne!(second.take().expect("another").address, kept.address);
        assert!(seen_by(Ipv4Addr::LOCALHOST, 81).is_some());
        assert!(seen_by(Ipv4Addr::LOCALHOST, 82).is_none(), "what nobody wants any more is gone");
        assert!(matches!(second.publish(&[published], NOW), Err(NetworkError::Published { port: 81, .. })));
    });
}

#[test]
fn privileged_senseless_options_and_full_networks_are_refused() {
    on_a_host(|| {
        let refuse = |change: &dyn Fn(&mut NetworkOptions)| {
            let mut options = options(0);
            change(&mut options);
            assert!(matches!(Network::start(options, &[], &[]), Err(NetworkError::Invalid { .. })));
        };
        refuse(&|options| options.prefix_bits = 33);
        refuse(&|options| options.network = Ipv4Addr::new(10, 254, 0, 7));
        refuse(&|options| options.ready_count = usize::MAX);
        let claimed = Network::start(options(0), &[Ipv4Addr::new(10, 99, 0, 2)], &[]);
        assert!(matches!(claimed, Err(NetworkError::Invalid { what: "subnet", .. })));
        let small = NetworkOptions { prefix_bits: 29, ..options(3) };
        let network = Network::start(small, &[], &[]).expect("started");
        let all: Vec<_> = (0..5).map(|_| network.take().expect("free")).collect();
        assert!(matches!(network.take(), Err(NetworkError::Full { prefix_bits: 29, .. })));
        let free = all[0].address;
        drop(all);
        network.release(free);
        assert_eq!(network.take().expect("one").address, free);
    });
}

#[test]
fn privileged_hundreds_of_instances_leave_nothing() {
    on_a_host(|| {
        let network = Network::start(options(8), &[], &[]).expect("started");
        wait_until("full", || network.ready_count() == 8);
        let before = links();
        let files = || std::fs::read_dir("/proc/self/fd").expect("proc").count();
        let files_before = files();
        assert_eq!((before.len(), veths_count()), (9, 8), "{before:?}");
        for turn in 0..300_u16 {
            let attachment = network.take().expect("one");
            let port = Published {
                protocol: Protocol::Udp,
                host_port: 1000 + turn,
                address: attachment.address,
                port: 5,
            };
            if turn % 50 == 0 {
                network.publish(&[port], NOW).expect("published");
                network.unpublish(&[port]).expect("taken back");
            }
            let address = attachment.address;
            drop(attachment);
            network.release(address);
        }
        wait_until("full again", || network.ready_count() == 8);
        wait_until("the kernel has removed the others", || veths_count() == 8);
        assert_eq!(links().len(), before.len());
        assert_eq!(files(), files_before);
        assert!(!nft("list ruleset").contains("elements"), "no element is left");
        network.close().unwrap();
        assert_eq!(nft("list ruleset"), "");
        drop(network);
        wait_until("those that were ready", || links() == ["lo"]);
    });
}
