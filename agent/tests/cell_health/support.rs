//! Servers that misbehave, and watches whose states are waited for.

use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use celda::cell::health::{Check, Checks, Health, Probe, Report, Startup, State, Watch, WatchId};

/// The longest that a test waits for a state.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A server on a port of its own; what it does with each connection is given.
pub(crate) fn server(mut serve: impl FnMut(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("bound");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(&mut serve));
    port
}

pub(crate) fn http(port: u16) -> Probe {
    Probe::Http { port, path: "/health".to_owned(), statuses: 200..=200 }
}

/// Liveness by looks that have all the time they need on a busy machine.
pub(crate) fn once(probe: Probe) -> Checks {
    let mut check = Check::of(probe);
    check.timeout = Duration::from_secs(20);
    check.interval = Duration::from_millis(100);
    let startup = Startup { interval: Duration::from_secs(3600), timeout: Duration::from_secs(3) };
    Checks { startup, liveness: Some(check), readiness: None }
}

/// As [`once`], for a probe that is never answered.
pub(crate) fn impatient(probe: Probe) -> Checks {
    let mut checks = once(probe);
    if let Some(check) = &mut checks.liveness {
        check.timeout = Duration::from_millis(200);
    }
    checks
}

pub(crate) struct Watched {
    pub(crate) id: WatchId,
    pub(crate) states: Receiver<Report>,
}

impl Watched {
    pub(crate) fn of(health: &Health, checks: Checks, network: Option<std::os::fd::OwnedFd>) -> Self {
        let (tell, states) = channel();
        let tell = Box::new(move |report| drop(tell.send(report)));
        let id = health.watch(Watch { checks, network, known: None, tell }).expect("watched");
        Self { id, states }
    }

    pub(crate) fn next(&self) -> State {
        let report = self.states.recv_timeout(DEADLINE).expect("a state in time");
        assert_eq!(report.watch, self.id);
        report.state
    }

    /// Why it never came up.
    pub(crate) fn failure(&self) -> String {
        match self.next() {
            State::Failed { in_startup: true, reason } => reason,
            state => panic!("{state:?}"),
        }
    }
}
