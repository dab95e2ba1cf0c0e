//! The cell's network as its users see it: addresses, published ports, and what is left of them.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use celda_api::cell::v1;
use celda_api::cell::v1::check::Probe;
use celda_api::cell::v1::instance::Health as Shown;

use crate::common::wait_until;
use crate::net::{echo, echoes, inside, links, nft, of_process, seen_by, serve, udp};
use crate::support::{Cell, FOR_EVER};

/// Runs until it is stopped.
const RUNNING: v1::Status = v1::Status::Running;

fn running(cell: &Cell, id: &str) -> v1::Instance {
    cell.wait(id, |one| one.status() == RUNNING)
}

fn address(instance: &v1::Instance) -> Ipv4Addr {
    instance.address.parse().expect("it has an address")
}

/// What a server behind the host's port sees of who comes from the host's loopback; none comes when nobody is there.
fn at_loopback(host: &OwnedFd, port: u16) -> bool {
    inside(host, move || seen_by(Ipv4Addr::LOCALHOST, port).is_some())
}

/// Asserts that nothing of the network is left in the host's namespace.
fn has_nothing(host: &OwnedFd) {
    inside(host, || {
        wait_until(|| links() == ["lo"], "the kernel removes the links");
        assert_eq!(nft("list ruleset"), "");
    });
}

#[test]
fn privileged_instances_are_on_the_network_and_keep_it_over_the_agents_death() {
    let Some((mut cell, host)) = Cell::up_on_a_host("instances_on_the_network", "") else { return };
    let flags =
        ["--name", "web", "-p", "8080:80", "--publish", "5353:53/udp", "-p", "0:81", "--restart", "always"];
    cell.run(&flags, FOR_EVER);
    let web = running(&cell, "web");
    let inside_web = of_process(web.pid);
    let servers = [serve(&inside_web, 80), serve(&inside_web, 81)];
    let echoing = echo(udp(&inside_web, Ipv4Addr::UNSPECIFIED, 53));
    let any = u16::try_from(web.ports[2].host_port).unwrap();
    assert!((61_001..=65_535).contains(&any), "{any}");
    // As it is shown, and as it sees itself.
    let shown = cell.ok(&["ps"]);
    assert!(shown.contains(&web.address) && shown.contains("8080:80/tcp 5353:53/udp"), "{shown}");
    assert!(cell.ok(&["inspect", "web"]).contains(&format!("\"address\": \"{}\"", web.address)));
    let info = cell.ok(&["info"]);
    assert!(info.contains("10.254.0.0/16"), "{info}");
    let files =
        cell.ok(&["exec", "web", "busybox", "cat", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
    assert!(files.contains(&format!("{}\tweb\n", web.address)), "{files}");
    assert!(!files.contains("nameserver 127."), "{files}");
    let all_work = |cell: &Cell, host: &OwnedFd| {
        let caller = udp(host, Ipv4Addr::UNSPECIFIED, 0);
        assert!(echoes(&caller, Ipv4Addr::LOCALHOST, 5353));
        assert!(at_loopback(host, 8080) && at_loopback(host, any));
        assert_eq!(running(cell, "web").address, web.address);
    };
    all_work(&cell, &host);
    cell.kill();
    assert!(at_loopback(&host, 8080), "it goes on without an agent");
    cell.begin();
    all_work(&cell, &host);
    // The new agent knows whose address and ports these are.
    cell.run(&["--name", "other"], FOR_EVER);
    assert_ne!(address(&running(&cell, "other")), address(&web));
    let said = cell.fails(125, &["run", "-d", "--name", "late", "-p", "8080:80", &cell.image()]);
    assert!(said.contains("port 8080/tcp of the host is published for web"), "{said}");
    drop((servers, echoing, inside_web));
    // A crash gives it another address and leaves it its ports.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(web.pid.cast_signed()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let again = cell.wait("web", |one| one.status() == RUNNING && one.attempt == 2);
    assert_eq!(again.ports, web.ports);
    let server = serve(&of_process(again.pid), 80);
    assert!(at_loopback(&host, 8080));
    drop(server);
    cell.ok(&["stop", "-t", "0", "web"]);
    let stopped = cell.wait("web", |one| one.status() == v1::Status::Exited);
    assert_eq!((stopped.address.as_str(), stopped.ports.len()), ("", 0));
    assert!(!at_loopback(&host, 8080));
    cell.run(&["--name", "late", "-p", "8080:80"], FOR_EVER);
    cell.leaves_nothing("instances on a network");
    has_nothing(&host);
}

#[test]
fn privileged_ports_that_cannot_be_had_are_refused() {
    let Some((cell, host)) = Cell::up_on_a_host("ports_that_cannot_be_had", "") else { return };
    let image = cell.image();
    // A program of the host's has one.
    let program = inside(&host, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
    let said = cell.fails(125, &["run", "-d", "-p", "9000:80", &image]);
    assert!(said.contains("port 9000/tcp of the host cannot be had"), "{said}");
    drop(program);
    cell.run(&["--name", "first", "-p", "9000:80"], FOR_EVER);
    // And it is not taken away from the instance.
    assert!(inside(&host, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000)).is_err()));
    // Of three that want the same, one has it.
    let words =
        ["run", "-d", "--name", "many", "--count", "3", "-p", "9001:80", &image, "/bin/sh", "-c", FOR_EVER];
    let said = cell.fails(125, &words);
    assert_eq!(said.matches("published for many-0").count(), 2, "{said}");
    let start = |ports: Vec<v1::Port>| {
        let spec = Some(v1::Spec { image: cell.image(), ports, ..v1::Spec::default() });
        let group = v1::StartGroup { spec, ids: vec!["absurd".into()], ..v1::StartGroup::default() };
        let refused = cell.runtime.block_on(cell.client().start(v1::StartRequest { groups: vec![group] }));
        refused.unwrap_err().message().to_owned()
    };
    let port = |host_port, port| v1::Port { host_port, port, ..v1::Port::default() };
    for (ports, named) in [
        (vec![port(65_536, 80)], "65536"),
        (vec![port(80, 0)], "1 to 65535"),
        (vec![port(80, 80), port(80, 81)], "twice"),
        (vec![port(0, 80); 10_000], "10000 ports"),
    ] {
        let said = start(ports);
        assert!(said.contains("ports") && said.contains(named), "{said}");
    }
    cell.leaves_nothing("ports that were refused");
    has_nothing(&host);
}

#[test]
fn privileged_health_is_looked_at_on_the_network() {
    let Some((cell, host)) = Cell::up_on_a_host("health_on_the_network", "") else { return };
    let http = v1::HttpProbe { port: 8080, ..v1::HttpProbe::default() };
    let check = |probe| Some(v1::Check { probe: Some(probe), interval_ms: 100, ..v1::Check::default() });
    let health = v1::Health {
        liveness: check(Probe::Tcp(v1::TcpProbe { port: 8080 })),
        readiness: check(Probe::Http(http)),
        startup_interval_ms: 50,
        ..v1::Health::default()
    };
    let script = "busybox mkdir /www; echo fine > /www/index.html; exec busybox httpd -f -p 8080 -h /www";
    let spec = v1::Spec {
        image: cell.image(),
        process: Some(v1::Process {
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            ..v1::Process::default()
        }),
        health: Some(health),
        network: v1::Network::Cell.into(),
        ..v1::Spec::default()
    };
    let group = v1::StartGroup { spec: Some(spec), ids: vec!["web".into()], ..v1::StartGroup::default() };
    let request = v1::StartRequest { groups: vec![group] };
    let outcomes = cell.runtime.block_on(cell.client().start(request)).unwrap().into_inner().outcomes;
    assert_eq!(outcomes[0].result(), v1::outcome::Result::Done, "{}", outcomes[0].detail);
    cell.wait("web", |one| one.health() == Shown::Ready);
    cell.leaves_nothing("health on a network");
    has_nothing(&host);
}

#[test]
fn privileged_a_cell_without_nft_comes_up_and_refuses_what_needs_it() {
    let Some(cell) = Cell::up_without_nft("without_nft") else { return };
    let info = cell.ok(&["info"]);
    assert!(info.contains("the cell has no network: nft cannot be run"), "{info}");
    cell.run(&["--name", "plain"], FOR_EVER);
    assert_eq!(running(&cell, "plain").address, "");
    for flags in [["--network", "cell"], ["-p", "8080:80"]] {
        let mut words = vec!["run", "-d"];
        words.extend(flags);
        let image = cell.image();
        words.push(&image);
        let said = cell.fails(125, &words);
        assert!(said.contains("install nftables"), "{said}");
    }
    cell.leaves_nothing("a cell without nft");
}

#[test]
fn privileged_a_container_in_the_foreground_is_a_task_on_the_network() {
    let Some((mut cell, host)) = Cell::up_on_a_host("in_the_foreground", "") else { return };
    let image = cell.image();
    let script = "trap 'echo ends; exit 5' TERM; echo out; echo err >&2; while :; do busybox sleep 0.1; done";
    let args = ["run", "--rm", "--name", "front", "-p", "8080:80", &image, "/bin/sh", "-c", script];
    let begun = |args: &[&str]| {
        let mut command = cell.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let front = begun(&args);
    let server = serve(&of_process(running(&cell, "front").pid), 80);
    assert!(at_loopback(&host, 8080));
    drop(server);
    wait_until(|| cell.ok(&["logs", "front"]).contains("out"), "it writes");
    let signal = |child: &Child| {
        rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::INT)
    };
    signal(&front).unwrap();
    let output = front.wait_with_output().unwrap();
    let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((output.status.code(), said.0.as_ref(), said.1.as_ref()), (Some(5), "out\nends\n", "err\n"));
    assert!(!cell.list().0.iter().any(|one| one.id == "front"), "--rm forgets it");

    // What ignores the signal ends with the second one.
    let deaf = begun(&["run", "--network", "cell", "--name", "deaf", &image, "/bin/sh", "-c", FOR_EVER]);
    running(&cell, "deaf");
    signal(&deaf).unwrap();
    cell.wait("deaf", |one| one.status() == v1::Status::Stopping);
    signal(&deaf).unwrap();
    assert_eq!(deaf.wait_with_output().unwrap().status.code(), Some(128 + 9));
    let said = cell.fails(127, &["run", "--network", "cell", &image, "/missing"]);
    assert!(said.contains("/missing"), "{said}");
    let said = cell.fails(125, &["run", "-it", "-p", "80:80", &image, "sh"]);
    assert!(said.contains("add -d"), "{said}");
    // The agent's end is told, and the container goes on.
    let left = begun(&["run", "--network", "cell", "--name", "left", &image, "/bin/sh", "-c", FOR_EVER]);
    let pid = running(&cell, "left").pid;
    cell.end();
    assert_eq!(left.wait_with_output().unwrap().status.code(), Some(125));
    let said = cell.fails(125, &["run", "--network", "cell", &image, "true"]);
    assert!(said.contains("celda agent"), "{said}");
    cell.begin();
    assert_eq!(running(&cell, "left").pid, pid);
    cell.leaves_nothing("containers in the foreground");
    has_nothing(&host);
}

#[test]
fn privileged_a_cell_whose_network_is_off_says_so() {
    let Some(cell) = Cell::up("network_is_off") else { return };
    for wanted in [["--network", "cell"], ["-p", "80:80"]] {
        let said = cell.fails(125, &[&["run"], &wanted[..], &[&cell.image(), "true"]].concat());
        assert!(said.contains("network.enabled is false"), "{said}");
    }
    for wrong in ["80", "65536:80", "80:65536", "80:0", "80:80/sctp", "a:b"] {
        let said = cell.fails(125, &["run", "-d", "-p", wrong, &cell.image(), "true"]);
        assert!(said.contains("--publish"), "{said}");
    }
    let info = cell.ok(&["info"]);
    assert!(info.contains("network.enabled is false"), "{info}");
    cell.leaves_nothing("a cell whose network is off");
}
