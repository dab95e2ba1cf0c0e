//! The cell's network, in a network namespace that stands for the host: ways in, out and across, what is refused, and
//! what is left after hundreds of instances.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use celda::cell::network::{Network, NetworkError, NetworkOptions, Protocol, Published};
use celda::sandbox::NetworkNamespaces;
use rustix::thread::LinkNameSpaceType;

/// The longest that a test waits for the kernel.
const DEADLINE: Duration = Duration::from_secs(60);

fn enter(namespace: &OwnedFd) {
    let kind = Some(LinkNameSpaceType::Network);
    rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).expect("entered");
}

/// Runs on a thread in that namespace.
fn inside<T: Send + 'static>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.try_clone().expect("a descriptor");
    let thread = std::thread::spawn(move || {
        enter(&namespace);
        work()
    });
    thread.join().expect("no panic")
}

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
    let host = NetworkNamespaces::new(0).expect("a pool").take().expect("a namespace");
    inside(&host, work);
}

fn options(ready_count: usize) -> NetworkOptions {
    NetworkOptions { ready_count, ..NetworkOptions::default() }
}

/// The interfaces of the calling thread's namespace.
fn links() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").expect("proc");
    let names = text.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort_unstable();
    names
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

/// Listens in a namespace and tells each who comes from where.
fn serve(namespace: &OwnedFd, port: u16) {
    let listener =
        inside(namespace, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("bound"));
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let peer = stream.peer_addr().expect("a peer").ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

/// Where a server sees this thread come from.
fn seen_by(address: Ipv4Addr, port: u16) -> Option<IpAddr> {
    let address = SocketAddr::from((address, port));
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.parse().ok()
}

#[test]
fn privileged_instances_reach_the_host_one_another_and_the_world() {
    on_a_host(|| {
        let network = Network::start(options(2), &[], &[]).expect("started");
        let (one, two) = (network.take().expect("one"), network.take().expect("another"));
        assert_ne!(one.address, two.address);
        serve(&one.namespace, 80);
        // From the host, and from another instance.
        assert_eq!(seen_by(one.address, 80), Some(Ipv4Addr::new(10, 88, 0, 1).into()));
        let to = one.address;
        assert_eq!(inside(&two.namespace, move || seen_by(to, 80)), Some(two.address.into()));
        // A world beyond the host, which knows no way back to instances: they come as the host.
        let world = NetworkNamespaces::new(0).expect("a pool").take().expect("a namespace");
        let ip = |arguments: &str| {
            let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is there");
            assert!(status.success(), "ip {arguments}");
        };
        let holder = world.try_clone().expect("a descriptor");
        let (told_in, told) = std::sync::mpsc::channel::<i32>();
        let (go, go_out) = std::sync::mpsc::channel::<()>();
        let keeper = std::thread::spawn(move || {
            enter(&holder);
            told_in.send(nix::unistd::gettid().as_raw()).expect("told");
            let _ = go_out.recv();
        });
        let thread = told.recv().expect("a thread in the world");
        ip(&format!("link add up0 type veth peer name down0 netns {thread}"));
        ip("addr add 192.0.2.1/24 dev up0");
        ip("link set up0 up");
        inside(&world, || {
            let set = |arguments: &str| {
                Command::new("ip").args(arguments.split(' ')).status().expect("ip").success()
            };
            assert!(set("addr add 192.0.2.9/24 dev down0") && set("link set down0 up"));
        });
        serve(&world, 443);
        let out = inside(&one.namespace, || seen_by(Ipv4Addr::new(192, 0, 2, 9), 443));
        assert_eq!(out, Some(Ipv4Addr::new(192, 0, 2, 1).into()));
        // A published port leads in, from the world and from the host's own addresses.
        let published =
            Published { protocol: Protocol::Tcp, host_port: 8080, address: one.address, port: 80 };
        network.publish(&[published]).expect("published");
        let world_in = inside(&world, || seen_by(Ipv4Addr::new(192, 0, 2, 1), 8080));
        assert_eq!(world_in, Some(Ipv4Addr::new(192, 0, 2, 9).into()));
        assert!(seen_by(Ipv4Addr::LOCALHOST, 8080).is_some());
        let again = Published { address: two.address, ..published };
        let refused = network.publish(&[again]);
        assert!(
            matches!(refused, Err(NetworkError::Published { port: 8080, address }) if address == one.address)
        );
        network.unpublish(&[again]).expect("not that one's");
        assert!(seen_by(Ipv4Addr::LOCALHOST, 8080).is_some());
        network.unpublish(&[published, published]).expect("taken back");
        assert_eq!(inside(&world, || seen_by(Ipv4Addr::new(192, 0, 2, 1), 8080)), None);
        network.publish(&[again]).expect("free again");
        drop(go);
        keeper.join().expect("no panic");
    });
}

#[test]
fn privileged_an_agent_that_comes_back_finds_its_network() {
    on_a_host(|| {
        let first = Network::start(options(1), &[], &[]).expect("started");
        let kept = first.take().expect("one");
        let published = Published { protocol: Protocol::Tcp, host_port: 81, address: kept.address, port: 80 };
        let lost = Published { host_port: 82, ..published };
        first.publish(&[published, lost]).expect("published");
        serve(&kept.namespace, 80);
        drop(first);
        assert!(seen_by(Ipv4Addr::LOCALHOST, 81).is_some(), "it works on without an agent");
        let second = Network::start(options(1), &[kept.address], &[published]).expect("started again");
        assert_ne!(second.take().expect("another").address, kept.address);
        assert!(seen_by(Ipv4Addr::LOCALHOST, 81).is_some());
        assert!(seen_by(Ipv4Addr::LOCALHOST, 82).is_none(), "what nobody wants any more is gone");
        assert!(matches!(second.publish(&[published]), Err(NetworkError::Published { port: 81, .. })));
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
        refuse(&|options| options.bridge = String::new());
        refuse(&|options| options.bridge = "a/../../b".to_owned());
        refuse(&|options| options.bridge = "b".repeat(16));
        refuse(&|options| options.prefix_bits = 33);
        refuse(&|options| options.network = Ipv4Addr::new(10, 88, 0, 7));
        refuse(&|options| options.ready_count = usize::MAX);
        let claimed = Network::start(options(0), &[Ipv4Addr::new(10, 99, 0, 2)], &[]);
        assert!(matches!(claimed, Err(NetworkError::Invalid { what: "in_use", .. })));
        let small = NetworkOptions { prefix_bits: 29, bridge: "small".to_owned(), ..options(3) };
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
        assert_eq!((before.len(), veths_count()), (10, 8), "{before:?}");
        for turn in 0..300_u16 {
            let attachment = network.take().expect("one");
            let port = Published {
                protocol: Protocol::Udp,
                host_port: 1000 + turn,
                address: attachment.address,
                port: 5,
            };
            if turn % 50 == 0 {
                network.publish(&[port]).expect("published");
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
        let listed = Command::new("nft").args(["list", "ruleset"]).output().expect("nft");
        assert!(!String::from_utf8_lossy(&listed.stdout).contains("elements"), "no element is left");
        drop(network);
        wait_until("those that were ready", || veths_count() == 0);
    });
}
