//! An instance that does its work while others misbehave.

use celda_api::cell::v1;

use crate::support::Cell;

/// What is known of it before.
pub(crate) struct Witness {
    pid: u32,
}

impl Witness {
    /// Starts one that says so ten times a second, and is looked at as often.
    pub(crate) fn start(cell: &Cell) -> Self {
        let command = ["/bin/sh", "-c", "[ -e /bin/sh ]"].map(str::to_owned).to_vec();
        let liveness = v1::Check {
            probe: Some(v1::check::Probe::Exec(v1::ExecProbe { command })),
            interval_ms: 100,
            timeout_ms: 60_000,
            ..v1::Check::default()
        };
        let health = Some(v1::Health { liveness: Some(liveness), ..v1::Health::default() });
        let spec = v1::Spec { health, ..cell.spec("while :; do echo here; busybox sleep 0.1; done") };
        cell.started(&["witness"], spec);
        let pid = cell.wait("witness", |one| one.health() == v1::instance::Health::Ready).pid;
        Self { pid }
    }

    /// It is the same one, is well, goes on with its work, and a program runs in it.
    pub(crate) fn noticed_nothing(&self, cell: &Cell) {
        let now = cell.wait("witness", |one| one.id == "witness");
        assert_eq!(
            (now.pid, now.attempt, now.status(), now.health()),
            (self.pid, 1, v1::Status::Running, v1::instance::Health::Ready),
            "{now:?}"
        );
        let said = || cell.ok(&["logs", "witness"]).lines().count();
        let before = said();
        crate::common::wait_until(|| said() > before, "the witness goes on");
        assert_eq!(cell.ok(&["exec", "witness", "/bin/sh", "-c", "echo well"]), "well\n");
    }
}
