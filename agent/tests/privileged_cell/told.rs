//! What the agent says of itself.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde_json::Value;

use crate::common::wait_until;
use crate::support::{Cell, FOR_EVER};

/// Every line, as the object that it must be.
fn lines(cell: &Cell) -> Vec<Value> {
    let heard = cell.heard.lock().unwrap().clone();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    cell.said.lines().chain(heard.lines()).map(parse).collect()
}

#[test]
fn privileged_starts_calls_and_adoption_are_told_as_json() {
    let Some(mut cell) = Cell::up("told_as_json") else { return };
    cell.end();
    (cell.flags, cell.filter) = (vec!["--log-format", "json"], "info,celda=debug");
    cell.begin();
    cell.run(&["--name", "web", "--app", "shop"], FOR_EVER);
    cell.fails(125, &["run", "-d", "--name", "none", "oci:/nowhere:1"]);
    let of = |lines: &[Value], message: &str, field: &str, value: &str| {
        let found = lines.iter().find(|line| line["message"] == message && line["span"][field] == value);
        found.cloned()
    };
    wait_until(|| of(&lines(&cell), "close", "name", "start").is_some(), "the start's span ends");
    let said = lines(&cell);
    let runs = of(&said, "it runs", "id", "web").expect("a line in the start's span");
    assert_eq!((&runs["span"]["app"], &runs["span"]["attempt"]), (&"shop".into(), &1.into()));
    assert_eq!(runs["span"]["image"].as_str().unwrap(), cell.image());
    for stage in ["prepare_us", "launch_us", "clone_us", "exec_us"] {
        assert!(runs[stage].as_u64().is_some_and(|us| us > 0), "{stage}: {runs}");
    }
    for (field, value) in [("name", "prepare"), ("name", "launch"), ("path", "/celda.cell.v1.Cell/Start")] {
        let span = of(&said, "close", field, value).unwrap_or_else(|| panic!("no span of {value}"));
        assert_eq!(span["level"], "DEBUG");
    }
    let failed = said.iter().find(|line| line["message"] == "it ended" && line["id"] == "none").unwrap();
    assert!(failed["cause"].as_str().is_some_and(|cause| cause.contains("/nowhere")), "{failed}");

    cell.kill();
    cell.heard.lock().unwrap().clear();
    cell.begin();
    let said = lines(&cell);
    let taken = of(&said, "taken up", "name", "adopt").expect("what was adopted");
    assert!(
        said.iter().any(|line| line["message"] == "taken up" && line["id"] == "web" && line["pid"].is_u64()),
        "{taken}"
    );
    let back = of(&said, "the cell is back", "name", "adopt").expect("and how many");
    assert_eq!((&back["adopted_count"], &back["span"]["known_count"]), (&1.into(), &2.into()));
    cell.leaves_nothing("what is told");
}

#[test]
fn privileged_systemd_is_told_when_the_cell_is_up_and_when_it_ends() {
    let Some(mut cell) = Cell::up("systemd_is_told") else { return };
    cell.end();
    let path = cell.files().join("notify.sock");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let told = || {
        let mut bytes = [0; 512];
        let count = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
    };
    cell.notify = Some(path);
    cell.begin();
    assert_eq!(told(), "READY=1");
    assert_eq!(cell.ok(&["ps", "--quiet"]), "", "it is up by then");
    cell.end();
    assert_eq!(told(), "STOPPING=1");
    cell.begin(); // for the end that drains
    cell.leaves_nothing("what systemd is told");
}

#[test]
fn privileged_an_agent_with_the_usual_filter_tells_of_no_start_and_a_wrong_filter_is_refused() {
    let Some(cell) = Cell::up("a_quiet_agent") else { return };
    cell.run(&["--name", "task", "--task"], "exit 0");
    cell.ended("task");
    let mut command = cell.command(&["agent"]);
    let refused = command.env("CELDA_LOG", "celda=loud").output().unwrap();
    assert_eq!(refused.status.code(), Some(125));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("log filter \"celda=loud\"") && said.contains("write a level"), "{said}");
    let heard = cell.heard.lock().unwrap().clone();
    assert!(!heard.contains("it runs") && !heard.contains("close"), "{heard}");
    cell.leaves_nothing("a quiet agent");
}
