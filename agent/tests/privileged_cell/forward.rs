//! What instances write, sent on by the agent itself.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;

use crate::support::Cell;

#[test]
fn privileged_an_agent_sends_logs_on_and_the_next_one_goes_on() {
    let Some(mut cell) = Cell::up("sends_logs_on") else { return };
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    // An instance that ended before anybody was to be told of it.
    cell.run(&["--name", "old", "--task", "--app", "shop"], "echo before");
    cell.ended("old");
    cell.configure(format!("[logs.forward.syslog]\naddress = \"{}\"\n", server.local_addr().unwrap()));
    // Messages follow each other without an end of line: each text here has one of its own as its last byte.
    let mut stream = BufReader::new(server.accept().unwrap().0);
    let until = |stream: &mut BufReader<std::net::TcpStream>, end: &str| {
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains(end) {
            let bytes = stream.fill_buf().unwrap();
            assert!(!bytes.is_empty(), "the agent ended the connection: {}", String::from_utf8_lossy(&said));
            let count = bytes.len();
            said.extend_from_slice(bytes);
            stream.consume(count);
        }
        String::from_utf8(said).unwrap()
    };
    let said = until(&mut stream, "before");
    assert!(said.contains(" shop old stdout [celda@32473 app=\"shop\" instance=\"old\""), "{said}");
    cell.run(&["--name", "new", "--task"], "echo first; echo second >&2");
    let said = until(&mut stream, "second");
    assert!(said.contains("] first") && said.contains(" - new stderr ["), "{said}");
    crate::common::wait_until(
        || {
            let places = std::fs::read_to_string(cell.root().join("cell/forward/syslog.places"));
            places.is_ok_and(|text| {
                text.lines().filter(|line| line.starts_with("new-")).any(|line| line.ends_with(" 2"))
            })
        },
        "the places are written",
    );
    cell.kill();
    cell.begin();
    cell.run(&["--name", "last", "--task"], "echo third");
    let mut stream = BufReader::new(server.accept().unwrap().0);
    let said = until(&mut stream, "third");
    assert!(!said.contains("first") && !said.contains("before"), "what was sent is not sent again: {said}");
    assert!(cell.ok(&["metrics"]).contains("celda_forward_connected{forwarder=\"syslog\"} 1"));
    cell.leaves_nothing("logs that are sent on");
}
