//! Programs of exec checks: what hangs at its start hangs for its own instance only, and once.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use celda::cell::health::{EXEC_THREADS_COUNT_MAX, Health, Launch, Probe, State, Watch};
use celda::sandbox::SandboxError;

use super::support::{Watched, impatient, once};

fn refused() -> Launch {
    Arc::new(|_| Err(SandboxError::Ended))
}

#[test]
fn starts_that_hang_hold_up_no_other_instance_and_are_no_more_than_one_each() {
    const HANGING_COUNT: usize = EXEC_THREADS_COUNT_MAX / 2;
    let health = Health::start().expect("started");
    let (let_go, held) = channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let begun: Vec<Arc<AtomicUsize>> = (0..HANGING_COUNT).map(|_| Arc::default()).collect();
    let hanging: Vec<Watched> = begun
        .iter()
        .map(|begun| {
            let (begun, held) = (Arc::clone(begun), Arc::clone(&held));
            let launch: Launch = Arc::new(move |wait| {
                assert!(wait <= Duration::from_millis(200), "{wait:?} is more than the check's timeout");
                begun.fetch_add(1, SeqCst);
                let _ = held.lock().expect("no panic").recv(); // until the test lets go
                Err(SandboxError::Ended)
            });
            let mut checks = impatient(Probe::Exec(launch));
            checks.startup.interval = Duration::from_millis(10);
            Watched::of(&health, checks, None)
        })
        .collect();
    // Each of them has failed, and looked many times more: its start is under way all the same.
    for watched in &hanging {
        let State::Failed { in_startup: true, reason } = watched.next() else { panic!("it came up") };
        assert!(reason.contains("no answer within 200ms"), "{reason}");
    }
    let other = Watched::of(&health, once(Probe::Exec(refused())), None);
    assert!(other.failure().contains("has ended"), "the others' turn comes");
    assert!(begun.iter().all(|begun| begun.load(SeqCst) == 1), "{begun:?}");
    drop(let_go);
}

#[test]
fn what_waits_for_its_turn_is_not_held_to_its_time() {
    let health = Health::start().expect("started");
    let (let_go, held) = channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (begins, begun) = channel();
    let hanging: Vec<Watched> = (0..EXEC_THREADS_COUNT_MAX)
        .map(|_| {
            let (begins, held) = (begins.clone(), Arc::clone(&held));
            let launch: Launch = Arc::new(move |_| {
                let _ = begins.send(());
                let _ = held.lock().expect("no panic").recv();
                Err(SandboxError::Ended)
            });
            Watched::of(&health, once(Probe::Exec(launch)), None)
        })
        .collect();
    for _ in &hanging {
        begun.recv_timeout(super::support::DEADLINE).expect("begun");
    }
    // All launchers are held for longer than this one's time: it begins when it is its turn.
    let (tell, states) = channel();
    let tell = Box::new(move |report: celda::cell::health::Report| drop(tell.send(report.state)));
    let checks = impatient(Probe::Exec(refused()));
    health.watch(Watch { checks, network: None, known: Some(State::Up), tell }).expect("watched");
    let next = || states.recv_timeout(super::support::DEADLINE).expect("a state in time");
    assert_eq!(next(), State::Up);
    for watched in &hanging {
        watched.failure();
    }
    drop(let_go);
    let State::Failed { in_startup: false, reason } = next() else { panic!("it lives") };
    assert!(reason.contains("has ended"), "{reason}");
}
