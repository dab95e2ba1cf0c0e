//! What the core keeps of one instance.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use celda_api::cell::v1;

use crate::cell::config::Config;
use crate::cell::health::{State, WatchId};
use crate::cell::holder::{Ended, Running};
use crate::cell::instance::{Cause, Machine};
use crate::cell::journal::Kept;
use crate::cell::logs::Log;
use crate::cell::metrics::Stages;
use crate::cell::network::{Attached, Grant};
use crate::cell::place::Place;
use crate::cell::view::Shown;
use crate::cell::wish::Wish;

/// One instance.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) app: String,
    pub(super) index: u32,
    pub(super) created_ms: u64,
    /// Of the ledger; 0 when it was given back.
    pub(super) reservation: u64,
    pub(super) wish: Arc<Wish>,
    pub(super) machine: Machine,
    /// Ports of the host that lead to it, until its last end.
    pub(super) ports: Vec<Grant>,
    /// What the attempt that is under way has of the cell's network.
    pub(super) attached: Option<Attached>,
    /// What former attempts had, until they are cleared away.
    pub(super) leaving: Vec<Attached>,
    /// It is forgotten as soon as it has ended.
    pub(super) removing: bool,
    /// Of the attempt that is under way, unless it was adopted.
    pub(super) place: Option<Place>,
    /// Of the container that runs.
    pub(super) running: Option<Running>,
    /// Spec and filter of the container that runs.
    pub(super) body: Option<Arc<OwnedFd>>,
    /// An end that was faster than the news of its start.
    pub(super) early_end: Option<Ended>,
    /// What it writes, once one of its containers ran under this agent.
    pub(super) log: Option<Log>,
    /// It is known whether the log has the pipes of the container that runs.
    pub(super) is_taken_up: bool,
    /// The end of its container, until what that wrote is in the log.
    pub(super) last_words_of: Option<Ended>,
    /// Who looks at its health.
    pub(super) watch: Option<WatchId>,
    /// What is known of its health.
    pub(super) health: Option<State>,
    /// What is left out of what was wanted, for a person to read.
    pub(super) notice: String,
    /// Its container has come up once, so the next agent need not wait for that.
    pub(super) was_up: bool,
    /// Somebody ran a program in its container, and may have left something of it there.
    pub(super) was_entered: bool,
    /// When the attempt that is under way began.
    pub(super) begun_at: Instant,
    /// The span of that attempt's start.
    pub(super) start: tracing::Span,
    /// How long it took until it was prepared.
    pub(super) prepared_after: Duration,
    /// When it is looked at next, among the core's timers.
    pub(super) timer_ms: Option<u64>,
}

impl Entry {
    pub(super) fn new(kept: Kept, wish: Arc<Wish>) -> Self {
        let Kept { app, index, reservation, created_ms, removing, was_up, ports, attached, machine, .. } =
            kept;
        Self {
            app,
            index,
            created_ms,
            reservation,
            wish,
            machine,
            ports,
            attached,
            leaving: Vec::new(),
            removing,
            place: None,
            running: None,
            body: None,
            early_end: None,
            log: None,
            is_taken_up: true,
            last_words_of: None,
            watch: None,
            health: None,
            notice: String::new(),
            was_up,
            was_entered: false,
            begun_at: Instant::now(),
            start: tracing::Span::none(),
            prepared_after: Duration::ZERO,
            timer_ms: None,
        }
    }

    pub(super) fn kept(&self, id: &str) -> Kept {
        Kept {
            id: id.to_owned(),
            app: self.app.clone(),
            index: self.index,
            spec: self.wish.digest.clone(),
            reservation: self.reservation,
            created_ms: self.created_ms,
            removing: self.removing,
            was_up: self.was_up,
            ports: self.ports.clone(),
            attached: self.attached.clone(),
            machine: self.machine.clone(),
        }
    }

    pub(super) fn message(&self, id: &str, cgroups: &Path, with_spec: bool) -> v1::Instance {
        let container = container(id, self.machine.attempt());
        let cgroup = self.running.as_ref().map(|_| cgroups.join(container).display().to_string());
        let shown = Shown {
            id,
            app: &self.app,
            index: self.index,
            wish: &self.wish,
            machine: &self.machine,
            pid: self.running.as_ref().map_or(0, |running| running.pid),
            reservation: self.reservation,
            created_ms: self.created_ms,
            cgroup: cgroup.unwrap_or_default(),
            address: self.attached.as_ref().map(|attached| attached.address),
            ports: &self.ports,
        };
        let mut message = shown.message(with_spec);
        let (health, detail) = super::checking::shown(self.health.as_ref());
        message.health = health.into();
        message.health_detail = detail;
        message.notice.clone_from(&self.notice);
        message
    }

    /// How long its start took, of which the holder says the last two.
    pub(super) fn stages(&self, [cloned_us, executed_us]: [u64; 2]) -> Stages {
        let launch = self.begun_at.elapsed().saturating_sub(self.prepared_after);
        let (clone, exec) = (Duration::from_micros(cloned_us), Duration::from_micros(executed_us));
        Stages { prepare: self.prepared_after, launch, clone, exec }
    }

    /// Its attempt is over: what that had of the network is given back when it is cleared away.
    pub(super) fn detach(&mut self) {
        self.leaving.extend(self.attached.take());
    }

    /// The name of its log: another instance of the same id has another.
    pub(super) fn log_name(&self, id: &str) -> String {
        format!("{id}-{:x}", self.created_ms)
    }

    /// When it is forgotten, if it has ended for good.
    pub(super) fn expires_ms(&self, config: &Config) -> Option<u64> {
        let ttl_ms = self.wish.result_ttl_ms.unwrap_or(config.limits.ended_ttl_s * 1000);
        self.machine.is_over().then(|| self.machine.changed_ms().saturating_add(ttl_ms))
    }
}

/// The id of an attempt's container.
pub(super) fn container(id: &str, attempt: u32) -> String {
    format!("{id}-{attempt}")
}

/// The instance and the attempt that a container is of.
pub(super) fn of_container(container: &str) -> Option<(&str, u32)> {
    let (id, attempt) = container.rsplit_once('-')?;
    Some((id, attempt.parse().ok()?))
}

/// How a container ended, as the reason of an end.
pub(super) fn cause(ended: Ended) -> Cause {
    let Ended { status, kills_count, own_limit, at_ms: _ } = ended;
    match (kills_count, u8::try_from(status)) {
        (0, Ok(code)) => Cause::Exit { code },
        (0, Err(_)) => Cause::Signal { signal: status.saturating_neg() },
        (kills_count, _) => Cause::OutOfMemory { kills_count, own_limit },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_named_by_instance_and_attempt() {
        for (id, attempt) in [("web", 1), ("web-1", 2), ("a.b_c-", 30)] {
            assert_eq!(of_container(&container(id, attempt)), Some((id, attempt)));
        }
        for other in ["web", "web-", "web-x", ""] {
            assert_eq!(of_container(other), None);
        }
    }

    #[test]
    fn ends_are_told_apart() {
        let ended = |status, kills_count| Ended { status, kills_count, own_limit: true, at_ms: 0 };
        assert_eq!(cause(ended(3, 0)), Cause::Exit { code: 3 });
        assert_eq!(cause(ended(-9, 0)), Cause::Signal { signal: 9 });
        assert_eq!(cause(ended(-9, 2)), Cause::OutOfMemory { kills_count: 2, own_limit: true });
    }
}
