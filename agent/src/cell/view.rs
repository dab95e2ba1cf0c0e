//! How an instance is shown to callers.

use std::sync::Arc;

use celda_api::cell::v1;

use super::instance::{Cause, End, Machine, State};
use super::network::{Grant, Protocol};
use super::wish::Wish;

/// What is shown besides the machine.
#[derive(Debug)]
pub struct Shown<'a> {
    /// Its id.
    pub id: &'a str,
    /// The app that it belongs to.
    pub app: &'a str,
    /// Which of the app's instances it is.
    pub index: u32,
    /// What it runs.
    pub wish: &'a Arc<Wish>,
    /// Where it is.
    pub machine: &'a Machine,
    /// Of its first process; 0 when there is none.
    pub pid: i32,
    /// Of the ledger; 0 when it was given back.
    pub reservation: u64,
    /// When it was accepted, in milliseconds since 1970.
    pub created_ms: u64,
    /// Path of its cgroup, if it runs.
    pub cgroup: String,
    /// On the cell's network, if it is there.
    pub address: Option<std::net::Ipv4Addr>,
    /// Published.
    pub ports: &'a [Grant],
}

impl Shown<'_> {
    /// The message; with the spec only when asked for.
    pub fn message(self, with_spec: bool) -> v1::Instance {
        let Self { id, app, index, wish, machine, pid, reservation, created_ms, cgroup, address, ports } =
            self;
        v1::Instance {
            id: id.to_owned(),
            app: app.to_owned(),
            index,
            image: wish.message.image.clone(),
            task: wish.message.task,
            status: status(machine.state()).into(),
            attempt: machine.attempt(),
            crashes: machine.crashes(),
            pid: u32::try_from(pid).unwrap_or_default(),
            reservation,
            created_ms,
            changed_ms: machine.changed_ms(),
            next_start_ms: if let State::Waiting { until_ms } = machine.state() { *until_ms } else { 0 },
            end: machine.last_end().map(end),
            spec: with_spec.then(|| wish.message.clone()),
            cgroup,
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            ports: ports.iter().map(port).collect(),
            ..v1::Instance::default()
        }
    }
}

fn port(grant: &Grant) -> v1::Port {
    let protocol = match grant.protocol {
        Protocol::Tcp => v1::port::Protocol::Tcp,
        Protocol::Udp => v1::port::Protocol::Udp,
    };
    v1::Port {
        host_port: grant.host_port.into(),
        port: grant.container_port.into(),
        protocol: protocol.into(),
    }
}

fn status(state: &State) -> v1::Status {
    match state {
        State::Reserved => v1::Status::Reserved,
        State::Preparing => v1::Status::Preparing,
        State::Starting => v1::Status::Starting,
        State::Running { .. } => v1::Status::Running,
        State::Stopping { .. } => v1::Status::Stopping,
        State::Waiting { .. } => v1::Status::Waiting,
        State::Exited => v1::Status::Exited,
    }
}

fn end(end: &End) -> v1::End {
    let (cause, code, own_limit) = match &end.cause {
        Cause::Exit { code } => (v1::end::Cause::Exit, i32::from(*code), false),
        Cause::Signal { signal } => (v1::end::Cause::Signal, *signal, false),
        Cause::OutOfMemory { own_limit, .. } => (v1::end::Cause::OutOfMemory, 9, *own_limit),
        Cause::Failed { status, .. } => (v1::end::Cause::Failed, i32::from(*status), false),
        Cause::CellRestart => (v1::end::Cause::CellRestart, 0, false),
        Cause::NeverRan => (v1::end::Cause::Stopped, 0, false),
    };
    v1::End {
        cause: cause.into(),
        code,
        detail: end.cause.to_string(),
        stopped_by: end.stopped_by.as_ref().map(ToString::to_string).unwrap_or_default(),
        at_ms: end.at_ms,
        own_limit,
        gave_up: end.gave_up,
    }
}
