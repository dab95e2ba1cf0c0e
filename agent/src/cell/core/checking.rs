//! Health of instances: looked at while a container runs, and what comes of it.
//!
//! A failed liveness is a crash: the instance is stopped for its health, and its restart policy decides. Readiness is
//! shown, and ends nothing. A check by a program that cannot be run in the instance, as its image may have one, is left
//! out, and the instance is shown with a notice of that.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use celda_api::cell::v1::instance::Health as Shown;
use rustix::fs::{Mode, OFlags};

use super::entry::{Entry, container};
use super::{Core, Input};
use crate::cell::health::{Check, Checks, HealthError, Launch, Probe, Report, State, Watch, of_image};
use crate::cell::holder::Body;
use crate::cell::instance::{Event, StoppedBy};
use crate::cell::journal::Record;
use crate::cell::place::Ground;
use crate::cell::wish_health::{Look, Wanted};
use crate::cell::words::bounded;
use crate::sandbox::exec::{Target, check_joinable, process_of, start_in_time};
use crate::sandbox::{SandboxError, Stdio};

impl Core {
    /// Begins to look at an instance whose container runs.
    pub(super) fn check(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let (checks, notice) = checks_of(entry);
        let is_news = std::mem::replace(&mut entry.notice, notice.clone()) != notice;
        if is_news {
            self.show(id);
        }
        let (Some(checks), Some(entry)) = (checks, self.entries.get_mut(id)) else { return };
        let Some(running) = &entry.running else { return };
        let name = container(id, entry.machine.attempt());
        let network = PathBuf::from(format!("/proc/{}/ns/net", running.pid));
        let made = rustix::fs::open(&network, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|network| Ok((network, running.pidfd.try_clone()?)));
        let (network, pidfd) = match made {
            Ok(made) => made,
            Err(error) => {
                // It has ended already, which is news that comes by another way.
                tracing::debug!(id, %error, "it is not checked");
                return;
            }
        };
        let has_program = [&checks.liveness, &checks.readiness]
            .into_iter()
            .flatten()
            .any(|check| matches!(check.probe, Look::Exec(_)));
        entry.was_entered |= has_program;
        let door = Arc::new(DoorOf {
            pidfd,
            body: entry.body.clone(),
            name,
            ground: Arc::clone(&self.parts.ground),
        });
        let (sender, owner, attempt) = (self.parts.sender.clone(), id.to_owned(), entry.machine.attempt());
        let tell = move |report: Report| {
            let _ = sender.send(Input::Health { id: owner.clone(), attempt, state: report.state });
        };
        let probe = |check: Check<Look>| check.map(|look| probe(look, &door));
        let Checks { startup, liveness, readiness } = checks;
        let checks = Checks { startup, liveness: liveness.map(probe), readiness: readiness.map(probe) };
        let watch = Watch {
            checks,
            network: Some(network),
            known: entry.was_up.then_some(State::Up),
            tell: Box::new(tell),
        };
        match self.parts.health.watch(watch) {
            Ok(watch) => {
                entry.watch = Some(watch);
                entry.health = Some(if entry.was_up { State::Up } else { State::Starting });
            }
            Err(error) => tracing::error!(id, %error, "its health is not checked"),
        }
    }

    /// Its container ended.
    pub(super) fn check_no_more(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.health = None;
        if let Some(watch) = entry.watch.take()
            && let Err(error) = self.parts.health.forget(watch)
        {
            tracing::error!(id, %error, "a health check was not ended");
        }
    }

    /// There is news of its health.
    pub(super) fn health(&mut self, id: &str, attempt: u32, mut state: State) {
        if let State::NotReady { reason } | State::Failed { reason, .. } = &mut state {
            *reason = bounded(reason);
        }
        let is_wanted = |entry: &&mut Entry| entry.machine.attempt() == attempt && entry.watch.is_some();
        let Some(entry) = self.entries.get_mut(id).filter(is_wanted) else { return };
        entry.health = Some(state.clone());
        let is_up = matches!(state, State::Up | State::Ready | State::NotReady { .. });
        if is_up && !entry.was_up {
            entry.was_up = true;
            let kept = entry.kept(id);
            self.record(&Record::Instance(Box::new(kept)));
        }
        self.show(id);
        if let State::Failed { in_startup, reason } = state {
            let why =
                if in_startup { bounded(&format_args!("it did not come up: {reason}")) } else { reason };
            self.step(id, Event::Stop { by: StoppedBy::Health(why), grace_ms: None });
        }
    }
}

/// How health is shown, and what was not well.
pub(super) fn shown(state: Option<&State>) -> (Shown, String) {
    match state {
        None => (Shown::Unspecified, String::new()),
        Some(State::Starting) => (Shown::Starting, String::new()),
        Some(State::Up) => (Shown::Up, String::new()),
        Some(State::Ready) => (Shown::Ready, String::new()),
        Some(State::NotReady { reason }) => (Shown::NotReady, reason.clone()),
        Some(State::Failed { reason, .. }) => (Shown::Failed, reason.clone()),
    }
}

/// The spec's checks, or else the image's, and a word about what is left out of them.
fn checks_of(entry: &Entry) -> (Option<Checks<Look>>, String) {
    let body = || Body::read(entry.body.as_deref()?).ok();
    let wanted = match &entry.wish.health {
        Wanted::None => Ok(None),
        Wanted::Checks(checks) => Ok(Some(checks.clone())),
        // A task is over when its program is: what an image has to say of a service's health does not end it.
        Wanted::OfImage if entry.wish.message.task => Ok(None),
        Wanted::OfImage => body().map_or(Ok(None), |body| of_body(&body)),
    };
    let checks = match wanted {
        Ok(Some(checks)) => checks,
        Ok(None) => return (None, String::new()),
        Err(error) => return (None, format!("{error}; its health is not checked")),
    };
    if !Wanted::Checks(checks.clone()).has_program() {
        return (Some(checks), String::new());
    }
    match body().map(|body| check_joinable(&body.spec)) {
        Some(Err(error)) => {
            let without =
                |check: Option<Check<Look>>| check.filter(|check| !matches!(check.probe, Look::Exec(_)));
            let (liveness, readiness) = (without(checks.liveness), without(checks.readiness));
            let is_left = liveness.is_some() || readiness.is_some();
            let notice = format!("its health is not checked by a program: {error}");
            (is_left.then_some(Checks { liveness, readiness, ..checks }), notice)
        }
        _ => (Some(checks), String::new()),
    }
}

/// The check of the image that a body was made from.
fn of_body(body: &Body) -> Result<Option<Checks<Look>>, HealthError> {
    let annotations = body.spec.annotations().as_ref();
    let Some(check) = annotations.and_then(|all| all.get(crate::spec::HEALTHCHECK)) else { return Ok(None) };
    let document = format!("{{\"config\":{{\"Healthcheck\":{check}}}}}");
    let look = |check: Check<Vec<String>>| check.map(Look::Exec);
    Ok(of_image(document.as_bytes())?.map(|Checks { startup, liveness, readiness }| Checks {
        startup,
        liveness: liveness.map(look),
        readiness: readiness.map(look),
    }))
}

/// What is needed to run a check's program.
struct DoorOf {
    pidfd: OwnedFd,
    body: Option<Arc<OwnedFd>>,
    name: String,
    ground: Arc<Ground>,
}

fn probe(look: Look, door: &Arc<DoorOf>) -> Probe {
    match look {
        Look::Tcp(port) => Probe::Tcp { port },
        Look::Http(port, path, [first, last]) => Probe::Http { port, path, statuses: first..=last },
        Look::Exec(command) => {
            let door = Arc::clone(door);
            let launch: Launch = Arc::new(move |wait| door.run(&command, wait));
            Probe::Exec(launch)
        }
    }
}

impl DoorOf {
    fn run(&self, command: &[String], wait: Duration) -> crate::sandbox::Result<crate::sandbox::exec::Exec> {
        let parent = |action| move |source| SandboxError::Parent { action, source };
        let body = self.body.as_deref().ok_or(SandboxError::Ended)?;
        let Body { spec, seccomp } = Body::read(body).map_err(parent("read the instance's spec"))?;
        let process = process_of(&spec, command.to_vec())?;
        let cgroup = self.ground.hierarchy.group(&self.name)?;
        let null = || {
            let opened = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            opened.map_err(|errno| parent("open /dev/null")(errno.into()))
        };
        let target = Target {
            pidfd: self.pidfd.as_fd(),
            cgroup: Some(&cgroup),
            spec: &spec,
            seccomp: seccomp.as_deref(),
        };
        start_in_time(&target, &process, Stdio::Files([null()?, null()?, null()?]), wait)
    }
}
