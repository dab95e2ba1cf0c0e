//! Instances that misbehave, while another does its work.

use celda_api::cell::v1;
use celda_api::cell::v1::check::Probe;
use celda_api::cell::v1::end::Cause;
use celda_api::cell::v1::instance::Health as Shown;
use celda_api::cell::v1::outcome::Result as Outcome;

use crate::support::{Cell, FOR_EVER};
use crate::witness::Witness;

fn program(command: &[&str]) -> v1::Check {
    let command = command.iter().map(|word| (*word).to_owned()).collect();
    v1::Check { probe: Some(Probe::Exec(v1::ExecProbe { command })), ..v1::Check::default() }
}

fn live(check: v1::Check) -> Option<v1::Health> {
    Some(v1::Health { liveness: Some(check), ..v1::Health::default() })
}

fn processes(instance: &v1::Instance) -> usize {
    std::fs::read_to_string(format!("{}/cgroup.procs", instance.cgroup))
        .map_or(0, |pids| pids.lines().count())
}

#[test]
fn privileged_checks_that_hang_are_killed_and_hold_up_no_other() {
    let Some(cell) = Cell::up("checks_that_hang") else { return };
    let witness = Witness::start(&cell);
    let check = v1::Check {
        interval_ms: 100,
        timeout_ms: 200,
        failures_count: 5,
        ..program(&["busybox", "sleep", "1000"])
    };
    let spec = v1::Spec { health: live(check), ..cell.spec("busybox sleep 1000") };
    let patient =
        v1::Health { startup_timeout_ms: 3_600_000, startup_interval_ms: 10, ..spec.health.clone().unwrap() };
    let ids: Vec<String> = (0..12).map(|index| format!("hangs-{index}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    cell.started(&ids, v1::Spec { health: Some(patient), ..spec.clone() });
    for id in &ids {
        let one = cell.wait(id, |one| one.status() == v1::Status::Running);
        for _ in 0..20 {
            assert!(processes(&one) <= 3, "{id}: the shell, its program, and one check at most");
        }
    }
    // One that has come up is ended by so many failures in a row.
    let flag = cell.files().join("hang");
    let volume = format!("{}:/files", cell.files().display());
    let script = "[ -e /files/hang ] && exec busybox sleep 1000; exit 0";
    let check = v1::Check {
        probe: program(&["/bin/sh", "-c", script]).probe,
        ..spec.health.unwrap().liveness.unwrap()
    };
    let check = v1::Check { failures_count: 2, timeout_ms: 2000, ..check };
    let files = Some(v1::Files { volumes: vec![volume], ..v1::Files::default() });
    cell.started(&["later"], v1::Spec { health: live(check), files, ..cell.spec(FOR_EVER) });
    cell.wait("later", |one| one.health() == Shown::Ready);
    std::fs::write(flag, "").unwrap();
    let end = cell.ended("later");
    assert!(end.stopped_by.contains("no answer within 2s"), "{end:?}");
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("checks that hang");
}

#[test]
fn privileged_a_check_that_cannot_be_run_ends_nobody() {
    let Some(cell) = Cell::up("a_check_that_cannot_be_run") else { return };
    let security = || Some(v1::Security { cap_add: vec!["SYS_PTRACE".into()], ..v1::Security::default() });
    let spec = v1::Spec { security: security(), health: live(program(&["true"])), ..cell.spec(FOR_EVER) };
    let refused = cell.start(&["asks"], spec).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(refused.message().contains("SYS_PTRACE"), "{refused}");

    // The same image with a check of its own, which in others is run.
    let check =
        serde_json::json!({"Test": ["CMD", "/bin/busybox", "true"], "Interval": 100_000_000, "Retries": 900});
    let layout = cell.directory().join("layout");
    crate::common::change_config(&layout, |config| config["config"]["Healthcheck"] = check.clone());
    cell.ok(&["pull", "--quiet", &cell.image()]);
    cell.started(&["checked"], cell.spec(FOR_EVER));
    cell.wait("checked", |one| one.health() == Shown::Ready && one.notice.is_empty());
    cell.started(&["traces"], v1::Spec { security: security(), ..cell.spec(FOR_EVER) });
    let traces = cell.wait("traces", |one| one.status() == v1::Status::Running && !one.notice.is_empty());
    assert!(traces.notice.contains("CAP_SYS_PTRACE"), "{}", traces.notice);
    assert_eq!(traces.health(), Shown::Unspecified);
    let inspected: serde_json::Value = serde_json::from_str(&cell.ok(&["inspect", "traces"])).unwrap();
    assert!(inspected[0]["notice"].as_str().unwrap().contains("CAP_SYS_PTRACE"), "{inspected}");
    let said = cell.fails(125, &["exec", "traces", "true"]);
    assert!(said.contains("CAP_SYS_PTRACE"), "{said}");
    // As many looks later as would have ended it long ago.
    let looks = cell.wait("checked", |one| one.health() == Shown::Ready);
    assert_eq!((looks.attempt, cell.wait("traces", |_| true).attempt), (1, 1));
    cell.leaves_nothing("a check that cannot be run");
}

#[test]
fn privileged_a_stop_does_not_wait_for_a_pull() {
    let Some(cell) = Cell::up("a_stop_does_not_wait") else { return };
    let witness = Witness::start(&cell);
    // A registry that takes connections, and says nothing.
    let registry = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/nothing:1", registry.local_addr().unwrap());
    let spec = || v1::Spec { image: image.clone(), ..cell.spec(FOR_EVER) };
    cell.started(&["stopped", "removed", "again"], spec());
    for id in ["stopped", "removed", "again"] {
        cell.wait(id, |one| one.status() == v1::Status::Preparing);
    }
    cell.ok(&["stop", "stopped"]);
    let end = cell.ended("stopped");
    assert_eq!(end.cause(), Cause::Stopped, "{}", end.detail);
    cell.ok(&["rm", "-f", "removed", "again"]);
    let left = || cell.list().0.into_iter().map(|one| one.id).collect::<Vec<_>>();
    crate::common::wait_until(|| left() == ["stopped", "witness"], "the others are forgotten");
    // Another one of the same id begins as soon as the abandoned one is cleared away.
    cell.started(&["again"], cell.spec(FOR_EVER));
    let again = cell.wait("again", |one| one.status() == v1::Status::Running);
    assert_eq!(again.attempt, 1);
    // And one whose turn has not come is stopped as well.
    cell.started(&["turn"], spec());
    cell.ok(&["rm", "-f", "turn"]);
    cell.started(&["turn"], spec());
    cell.ok(&["stop", "turn"]);
    assert_eq!(cell.ended("turn").cause(), Cause::Stopped);
    let mut client = cell.client();
    let described = cell.runtime.block_on(client.describe(v1::DescribeRequest {})).unwrap().into_inner();
    assert_eq!(described.free.unwrap().containers, 398, "two run");
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("stops of pulls");
}

#[test]
fn privileged_what_dies_at_once_for_ever_is_given_up() {
    let Some(cell) = Cell::up("what_dies_at_once") else { return };
    let witness = Witness::start(&cell);
    let restart = v1::Restart {
        policy: v1::restart::Policy::Always.into(),
        immediate_count: Some(1000),
        crashes_max: Some(12),
        ..v1::Restart::default()
    };
    let ids: Vec<String> = (0..6).map(|index| format!("dies-{index}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    cell.started(&ids, v1::Spec { restart: Some(restart), ..cell.spec("exit 4") });
    for id in ids {
        let over = cell.wait(id, |one| one.status() == v1::Status::Exited);
        let end = over.end.unwrap();
        assert_eq!((over.attempt, end.code, end.gave_up), (12, 4, true), "{id}");
    }
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("what dies for ever");
}

#[test]
fn privileged_what_ignores_term_is_killed_alone() {
    let Some(cell) = Cell::up("what_ignores_term") else { return };
    let witness = Witness::start(&cell);
    // All its processes are deaf, and one is stopped.
    let script = "trap '' TERM INT HUP; (trap '' TERM; while :; do busybox sleep 1; done) & kill -STOP $!; \
                  while :; do busybox sleep 1; done";
    cell.started(&["deaf"], cell.spec(script));
    let deaf = cell.wait("deaf", |one| one.status() == v1::Status::Running);
    crate::common::wait_until(|| processes(&deaf) >= 3, "all its processes are there");
    cell.ok(&["stop", "-t", "1", "deaf"]);
    let end = cell.ended("deaf");
    assert_eq!((end.cause(), end.code), (Cause::Signal, 9));
    assert!(!std::path::Path::new(&deaf.cgroup).exists(), "processes are left");
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("what ignores signals");
}

#[test]
fn privileged_what_forks_without_end_forks_within_its_limit() {
    let Some(cell) = Cell::up("what_forks") else { return };
    let mut client = cell.client();
    let described = cell.runtime.block_on(client.describe(v1::DescribeRequest {})).unwrap().into_inner();
    let limits = Some(v1::Limits { pids: 64, ..v1::Limits::default() });
    let spec = v1::Spec { limits, ..cell.spec("f() { f | f & }; f; while :; do busybox sleep 1; done") };
    if !described.controllers.iter().any(|controller| controller == "pids") {
        println!(
            "skipped: the pids controller is not of cgroup v2 here; that the limit is refused is looked at"
        );
        cell.started(&["forks"], spec);
        let end = cell.ended("forks");
        assert!(end.cause() == Cause::Failed && end.detail.contains("pids"), "{end:?}");
        cell.leaves_nothing("a limit that cannot be kept");
        return;
    }
    let witness = Witness::start(&cell);
    cell.started(&["forks"], spec);
    let forks = cell.wait("forks", |one| one.status() == v1::Status::Running);
    crate::common::wait_until(|| processes(&forks) >= 32, "it forks");
    assert!(processes(&forks) <= 64);
    witness.noticed_nothing(&cell);
    cell.ok(&["rm", "-f", "forks"]);
    cell.leaves_nothing("what forks");
}

#[test]
fn privileged_absurd_sizes_are_refused_or_fail_alone() {
    let Some(cell) = Cell::up("absurd_sizes") else { return };
    let witness = Witness::start(&cell);
    let limits = |limits| v1::Spec { limits: Some(limits), ..cell.spec("exit 0") };
    let files = |files| v1::Spec { files: Some(files), ..cell.spec("exit 0") };
    let (l, f) = (v1::Limits::default, v1::Files::default);
    let specs = [
        limits(v1::Limits { memory_bytes: 1, ..l() }),
        limits(v1::Limits { memory_bytes: u64::MAX, memory_swap_bytes: 1, ..l() }),
        limits(v1::Limits { cpu_shares: u64::MAX, ..l() }),
        limits(v1::Limits { cpuset_cpus: "0-99999999999".into(), ..l() }),
        limits(v1::Limits { ulimits: vec!["nofile=18446744073709551615:1".into()], ..l() }),
        limits(v1::Limits { oom_score_adj: i32::MIN, ..l() }),
        files(v1::Files { tmpfs: vec!["/t:size=99999999999999999999".into()], ..f() }),
        files(v1::Files { volumes: vec!["/nowhere/at/all:/x".into(); 1024], ..f() }),
        v1::Spec { hostname: "x".repeat(10_000), ..cell.spec("exit 0") },
        v1::Spec { image: format!("oci:/{}:1", "x/".repeat(3000)), ..cell.spec("exit 0") },
        v1::Spec { image: "127.0.0.1:1/nobody/listens:1".into(), ..cell.spec("exit 0") },
        cell.spec(&"x".repeat(200_000)),
    ];
    for (number, spec) in specs.into_iter().enumerate() {
        let id = format!("absurd-{number}");
        match cell.start(&[&id], spec) {
            Err(status) => assert_eq!(status.code(), tonic::Code::InvalidArgument, "{number}: {status}"),
            Ok(outcomes) if outcomes[0].result() == Outcome::Done => {
                let end = cell.ended(&id);
                assert!(end.code != 0 && !end.detail.is_empty(), "{number}: {end:?}");
            }
            Ok(outcomes) => assert!(!outcomes[0].detail.is_empty(), "{number}: {outcomes:?}"),
        }
    }
    witness.noticed_nothing(&cell);
    cell.leaves_nothing("absurd sizes");
}
