//! A cell from another machine's point of view: the commands over TCP, with the certificates of `celda ca`.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

use crate::support::{Cell, FOR_EVER};

#[test]
fn privileged_commands_reach_a_cell_over_tcp_with_certificates() {
    let Some(mut cell) = Cell::up("commands_over_tcp") else { return };
    let directory = cell.files().join("tls");
    let tls = directory.to_str().unwrap();
    let said = cell.ok(&["ca", tls, "--host", "cell.example", "--client", "ops", "--days", "2"]);
    assert_eq!(said.lines().count(), 6, "{said}");
    for file in said.lines() {
        assert_eq!(std::fs::metadata(file).unwrap().mode() & 0o777, 0o600, "{file}");
    }
    assert!(cell.fails(125, &["ca", tls]).contains("is there already"));
    let file = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    cell.configure(format!(
        "[listen]\naddress = \"127.0.0.1:0\"\ncertificate = \"{}\"\nkey = \"{}\"\nclient_ca = \"{}\"\nclients = [\"ops\"]\n\
         [metrics]\nlisten = \"127.0.0.1:0\"",
        file("server-cert.pem"),
        file("server-key.pem"),
        file("ca.pem")
    ));
    let address = said_address(&cell, "tcp");
    let (ca, cert, key) = (file("ca.pem"), file("cert.pem"), file("key.pem"));
    let flags = ["--host", &address, "--tlscacert", &ca, "--tlscert", &cert, "--tlskey", &key];
    let remote = |args: &[&str]| cell.ok(&[args, &flags].concat());

    cell.run(&["--name", "web"], FOR_EVER);
    assert_eq!(remote(&["ps", "--quiet"]), "web\n");
    assert!(remote(&["inspect", "web"]).contains("\"web\""));
    let said =
        cell.ok(&[&["exec"][..], &flags, &["web", "busybox", "echo", "through", "the", "door"]].concat());
    assert_eq!(said, "through the door\n");
    let by_environment = cell
        .command(&["stop", "-t", "0", "web"])
        .envs([("CELDA_HOST", address.as_str()), ("CELDA_CERT_PATH", tls)])
        .output()
        .unwrap();
    assert!(by_environment.status.success(), "{by_environment:?}");
    cell.ended("web");

    let mut stream = std::net::TcpStream::connect(said_address(&cell, "metrics")).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: cell\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    for line in [
        "celda_instances{state=\"running\"} 0",
        "celda_ends_total{reason=\"signal\",stopped_by=\"client\"} 1",
        "celda_start_seconds_count 1",
        "celda_start_stage_seconds_count{stage=\"exec\"} 1",
        "process_threads ",
    ] {
        assert!(text.contains(&format!("\n{line}")), "{line} is not in {text}");
    }

    let said = cell.fails(125, &["ps", "--host", &address]);
    assert!(said.contains("needs certificates"), "{said}");
    let wrong =
        ["--tlscacert", &ca, "--tlscert", &file("server-cert.pem"), "--tlskey", &file("server-key.pem")];
    let said = cell.fails(125, &[&["ps", "--host", &address][..], &wrong].concat());
    assert!(said.contains("on the cell") && said.to_lowercase().contains("certificate"), "{said}");
    let elsewhere = ["ps", "--host", "no host", "--tlscacert", &ca];
    assert!(cell.fails(125, &elsewhere).contains("HOST:PORT"));
    cell.leaves_nothing("TCP");
}

/// Where the agent said that it listens.
fn said_address(cell: &Cell, field: &str) -> String {
    let (_, address) = cell.said.rsplit_once(&format!("{field}=\"")).expect("it says where it listens");
    address.split('"').next().unwrap().to_owned()
}
