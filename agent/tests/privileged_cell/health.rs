//! Health checks, and what comes of them.

use celda_api::cell::v1;
use celda_api::cell::v1::check::Probe;
use celda_api::cell::v1::end::Cause;
use celda_api::cell::v1::instance::Health as Shown;

use crate::support::{Cell, FOR_EVER};

fn check(probe: Probe) -> Option<v1::Check> {
    Some(v1::Check { probe: Some(probe), interval_ms: 100, timeout_ms: 5000, ..v1::Check::default() })
}

fn program(script: &str) -> Option<v1::Check> {
    check(Probe::Exec(v1::ExecProbe { command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec() }))
}

fn start(cell: &Cell, id: &str, policy: v1::restart::Policy, health: v1::Health) {
    let command = ["/bin/sh", "-c", FOR_EVER].map(str::to_owned).to_vec();
    let spec = v1::Spec {
        image: cell.image(),
        process: Some(v1::Process { command, ..v1::Process::default() }),
        files: Some(v1::Files {
            volumes: vec![format!("{}:/files", cell.files().display())],
            ..v1::Files::default()
        }),
        restart: Some(v1::Restart { policy: policy.into(), ..v1::Restart::default() }),
        stop: Some(v1::Stop { grace_ms: Some(0), ..v1::Stop::default() }),
        health: Some(health),
        ..v1::Spec::default()
    };
    let group = v1::StartGroup { spec: Some(spec), ids: vec![id.to_owned()], ..v1::StartGroup::default() };
    let mut client = cell.client();
    let request = v1::StartRequest { groups: vec![group] };
    let outcomes = cell.runtime.block_on(client.start(request)).unwrap().into_inner().outcomes;
    assert_eq!(outcomes[0].result(), v1::outcome::Result::Done, "{}", outcomes[0].detail);
}

#[test]
fn privileged_a_failed_check_is_a_crash_and_readiness_is_shown() {
    let Some(mut cell) = Cell::up("a_failed_check") else { return };
    let (alive, ready) = (cell.files().join("alive"), cell.files().join("ready"));
    std::fs::write(&alive, "").unwrap();
    let health = v1::Health {
        liveness: program("[ -e /files/alive ]"),
        readiness: program("[ -e /files/ready ]"),
        startup_interval_ms: 50,
        ..v1::Health::default()
    };
    start(&cell, "web", v1::restart::Policy::Always, health);
    cell.wait("web", |one| one.health() == Shown::NotReady);
    std::fs::write(&ready, "").unwrap();
    cell.wait("web", |one| one.health() == Shown::Ready);
    // The next agent looks as well.
    cell.kill();
    cell.begin();
    cell.wait("web", |one| one.health() == Shown::Ready);
    std::fs::remove_file(&alive).unwrap();
    let again = cell.wait("web", |one| one.attempt >= 2);
    std::fs::write(&alive, "").unwrap();
    let end = again.end.expect("an end");
    assert!(end.stopped_by.starts_with("health"), "{end:?}");
    assert!(again.crashes >= 1, "it counts as a crash");
    cell.wait("web", |one| one.health() == Shown::Ready);
    cell.leaves_nothing("health checks");
}

#[test]
fn privileged_what_does_not_come_up_is_ended_and_others_never_notice() {
    let Some(cell) = Cell::up("what_does_not_come_up") else { return };
    let http = v1::HttpProbe { port: 8080, ..v1::HttpProbe::default() };
    let dead = v1::Health {
        liveness: check(Probe::Http(http)),
        startup_interval_ms: 20,
        startup_timeout_ms: 300,
        ..v1::Health::default()
    };
    start(&cell, "dead", v1::restart::Policy::Never, dead);
    let hanging = v1::Health {
        liveness: program("busybox sleep 1000"),
        startup_interval_ms: 20,
        startup_timeout_ms: 300,
        ..v1::Health::default()
    };
    start(&cell, "hangs", v1::restart::Policy::Never, hanging);
    start(&cell, "fine", v1::restart::Policy::Never, v1::Health { none: true, ..v1::Health::default() });
    for id in ["dead", "hangs"] {
        let end = cell.ended(id);
        assert_eq!((end.cause(), end.code), (Cause::Signal, 9), "{end:?}");
        assert!(end.stopped_by.contains("did not come up"), "{end:?}");
    }
    let fine = cell.wait("fine", |one| one.status() == v1::Status::Running);
    assert_eq!((fine.attempt, fine.health()), (1, Shown::Unspecified));
    let group = v1::StartGroup {
        spec: Some(v1::Spec {
            image: cell.image(),
            health: Some(v1::Health::default()),
            ..v1::Spec::default()
        }),
        ids: vec!["none".into()],
        ..v1::StartGroup::default()
    };
    let mut client = cell.client();
    let refused = cell.runtime.block_on(client.start(v1::StartRequest { groups: vec![group] })).unwrap_err();
    assert!(refused.message().contains("neither liveness nor readiness"), "{refused}");
    cell.leaves_nothing("what did not come up");
}

#[test]
fn privileged_an_instance_can_do_without_its_images_check() {
    let Some(cell) = Cell::up("no_healthcheck") else { return };
    cell.run(&["--name", "plain"], FOR_EVER);
    cell.run(&["--name", "without", "--no-healthcheck"], FOR_EVER);
    let request = v1::ListRequest { with_specs: true, ..v1::ListRequest::default() };
    let answer = cell.runtime.block_on(cell.client().list(request)).unwrap().into_inner();
    let none = |id: &str| {
        let one = answer.instances.iter().find(|one| one.id == id).unwrap();
        one.spec.as_ref().unwrap().health.as_ref().is_some_and(|health| health.none)
    };
    assert!(none("without"));
    assert!(!none("plain"));
    cell.leaves_nothing("instances without checks");
}

#[test]
fn privileged_the_flags_of_run_say_how_health_is_looked_at() {
    let Some(cell) = Cell::up("health_flags") else { return };
    let (alive, ready) = (cell.files().join("alive"), cell.files().join("ready"));
    std::fs::write(&alive, "").unwrap();
    let volume = format!("{}:/files", cell.files().display());
    let mut flags = vec!["--name", "web", "-v", &volume, "--stop-timeout", "0"];
    flags.extend(["--health-cmd", "[ -e /files/alive ]", "--ready-cmd", "[ -e /files/ready ]"]);
    flags.extend(["--health-interval", "100ms", "--health-timeout", "20s", "--health-retries", "2"]);
    flags.extend(["--health-start-period", "1m"]);
    cell.run(&flags, FOR_EVER);
    cell.wait("web", |one| one.health() == Shown::NotReady);
    std::fs::write(&ready, "").unwrap();
    cell.wait("web", |one| one.health() == Shown::Ready);
    std::fs::remove_file(&alive).unwrap();
    assert!(cell.ended("web").stopped_by.starts_with("health"));
    let deaf: [&[&str]; 3] = [
        &["--health-tcp", "8080"],
        &["--health-http", "8080/live", "--ready-http", "8080"],
        &["--ready-tcp", "8080"],
    ];
    for (number, flags) in deaf.into_iter().enumerate() {
        let name = format!("deaf-{number}");
        let mut times = vec!["--name", &name, "--stop-timeout", "0"];
        times.extend(["--health-interval", "100ms", "--health-retries", "3"]);
        cell.run(&[&times[..], flags].concat(), FOR_EVER);
        let end = cell.ended(&name);
        assert!(end.stopped_by.contains("did not come up"), "{end:?}");
    }
    let image = cell.image();
    let said = cell.fails(125, &["run", "-d", "--health-retries", "3", &image, "true"]);
    assert!(said.contains("--health-cmd"), "{said}");
    let said = cell.fails(125, &["run", "--health-tcp", "80", &image, "true"]);
    assert!(said.contains("add -d"), "{said}");
    cell.leaves_nothing("health flags");
}
