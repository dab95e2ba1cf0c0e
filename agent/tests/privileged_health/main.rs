//! Checks that reach into containers: by their network namespace, and by programs.

use std::sync::Arc;

use celda::cell::health::{Health, Launch, Probe, State};
use celda::sandbox::exec::{self, Target, process_of};
use celda::sandbox::{NetworkNamespaces, Stdio};
use rustix::process::Signal;
use rustix::thread::LinkNameSpaceType;

#[path = "../privileged_sandbox/support.rs"]
mod sandbox;
#[path = "../cell_health/support.rs"]
#[allow(dead_code, reason = "each test binary uses a part of it")]
mod support;

use sandbox::{Rootfs, alone, request, spec, spec_of, trace, wait_for};
use support::{Watched, http, impatient, once};

#[test]
fn privileged_a_socket_is_made_in_the_instances_network() {
    let Some(_alone) = alone() else { return };
    let before = trace();
    let namespace = NetworkNamespaces::new(0).expect("a pool").take().expect("a namespace");
    let inside = namespace.try_clone().expect("a descriptor");
    // The same port everywhere: only in there somebody listens.
    let (port, listener) = std::thread::spawn(move || {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&inside), kind).expect("inside");
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bound");
        (listener.local_addr().expect("an address").port(), listener)
    })
    .join()
    .expect("no panic");
    let health = Health::start().expect("started");
    let tcp = || once(Probe::Tcp { port });
    let inside = Watched::of(&health, tcp(), Some(namespace.try_clone().expect("a descriptor")));
    assert_eq!(inside.next(), State::Ready);
    let outside = Watched::of(&health, once(http(port)), None);
    assert!(outside.failure().contains("Connection refused"));
    drop(listener);
    assert!(
        matches!(inside.next(), State::Failed { in_startup: false, reason } if reason.contains("refused"))
    );
    drop((health, namespace));
    // The pool's thread ends by itself.
    wait_for(&before);
}

#[test]
fn privileged_programs_are_run_judged_and_killed_in_time() {
    let Some(_alone) = alone() else { return };
    let rootfs = Rootfs::new();
    let value = spec(&["/bin/sleep", "1000"]);
    let container = celda::sandbox::plan(request(&rootfs, &value)).expect("a plan").start().expect("started");
    let container = Arc::new(container);
    let spec = Arc::new(spec_of(&value));
    let launch = |arguments: &[&str]| -> Launch {
        let (container, spec) = (Arc::clone(&container), Arc::clone(&spec));
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Arc::new(move |wait| {
            let target = Target { pidfd: container.pidfd(), cgroup: None, spec: &spec, seccomp: None };
            exec::start_in_time(&target, &process_of(&spec, arguments.clone())?, Stdio::Pipes, wait)
        })
    };
    let health = Health::start().expect("started");
    let before = trace();
    for (arguments, word) in [
        (&["true"][..], ""),
        (&["sh", "-c", "exit 3"], "exit status 3"),
        (&["sh", "-c", "kill -9 $$"], "signal 9"),
        (&["sleep", "1000"], "no answer within"),
        (&["/missing"], "no such file"),
    ] {
        let checks = if word.contains("no answer within") { impatient } else { once };
        let watched = Watched::of(&health, checks(Probe::Exec(launch(arguments))), None);
        if word.is_empty() {
            assert_eq!(watched.next(), State::Ready);
        } else {
            let reason = watched.failure();
            assert!(reason.contains(word), "{word}: {reason}");
        }
        health.forget(watched.id).expect("forgotten");
        // What tells is dropped with the watch, and a program with its look.
        while watched.states.recv().is_ok() {}
    }
    let after = trace();
    assert_eq!(before, after);
    let watched = Watched::of(&health, once(Probe::Exec(launch(&["true"]))), None);
    assert_eq!(watched.next(), State::Ready);
    container.kill(Signal::KILL).expect("signalled");
    assert!(matches!(watched.next(), State::Failed { in_startup: false, reason } if !reason.is_empty()));
    drop(health);
    // The last check's launch is gone with the threads; then the container is this test's alone.
    let mut container = container;
    let deadline = std::time::Instant::now() + support::DEADLINE;
    let alone = loop {
        match Arc::try_unwrap(container) {
            Ok(alone) => break alone,
            Err(shared) => container = shared,
        }
        assert!(std::time::Instant::now() < deadline, "a launch is kept");
        std::thread::yield_now();
    };
    alone.wait().expect("ended");
}
