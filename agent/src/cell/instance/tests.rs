//! Whole lives by hand, and any events at all by proptest: no illegal move, nothing left, nothing given back twice.

use proptest::prelude::*;

use super::*;

const HOUR_MS: u64 = 3_600_000;

fn always() -> Policy {
    Policy { restart: Restart::Always, ..Policy::default() }
}

fn running(policy: Policy) -> Machine {
    let mut machine = Machine::new(policy, 0);
    assert_eq!(machine.step(Event::Begin, 0), Ok(vec![Effect::Prepare]));
    assert_eq!(machine.step(Event::Prepared, 1), Ok(vec![Effect::Launch]));
    assert_eq!(machine.step(Event::Started, 2), Ok(vec![]));
    machine
}

fn client() -> StoppedBy {
    StoppedBy::Client("a test".into())
}

#[test]
fn a_task_runs_once_and_its_result_stays() {
    let mut task = running(Policy::default());
    assert_eq!(task.step(Event::Ended(Cause::Exit { code: 3 }), 9), Ok(vec![Effect::Clean, Effect::Release]));
    assert!(task.is_over());
    let end = task.last_end().expect("an end");
    assert_eq!((&end.cause, &end.stopped_by, end.at_ms), (&Cause::Exit { code: 3 }, &None, 9));
    assert!(task.step(Event::Ended(Cause::Exit { code: 0 }), 9).is_err(), "it ended already");
}

#[test]
fn a_crash_is_answered_at_once_twice_and_then_later() {
    let mut machine = running(always());
    let crash = Event::Ended(Cause::Signal { signal: 11 });
    for attempt in 2..4 {
        assert_eq!(machine.step(crash.clone(), 10), Ok(vec![Effect::Clean, Effect::Prepare]));
        assert_eq!(machine.attempt(), attempt);
        machine.step(Event::Prepared, 10).expect("legal");
        machine.step(Event::Started, 10).expect("legal");
    }
    assert_eq!(machine.step(crash.clone(), 10), Ok(vec![Effect::Clean]));
    assert_eq!(machine.wakes_at_ms(), Some(30_010));
    assert_eq!(machine.step(Event::Tick, 30_009), Ok(vec![]));
    assert_eq!(machine.step(Event::Tick, 30_010), Ok(vec![Effect::Prepare]));
    machine.step(Event::Prepared, 30_010).expect("legal");
    machine.step(Event::Started, 30_010).expect("legal");
    // A long run forgives.
    machine.step(crash, 30_010 + HOUR_MS).expect("legal");
    assert_eq!((machine.crashes(), machine.state()), (1, &State::Preparing));
}

#[test]
fn what_crashes_for_ever_is_given_up() {
    let policy = Policy { crashes_max: 3, ..always() };
    let mut machine = running(policy);
    for _ in 0..2 {
        machine.step(Event::Ended(Cause::Exit { code: 1 }), 5).expect("legal");
        machine.step(Event::Prepared, 5).expect("legal");
        machine.step(Event::Started, 5).expect("legal");
    }
    let effects = machine.step(Event::Ended(Cause::Exit { code: 1 }), 5);
    assert_eq!(effects, Ok(vec![Effect::Clean, Effect::Release]));
    assert!(machine.last_end().expect("an end").gave_up);
}

#[test]
fn on_failure_leaves_a_success_alone() {
    let policy = Policy { restart: Restart::OnFailure, ..Policy::default() };
    let mut machine = running(policy);
    assert!(machine.step(Event::Ended(Cause::Exit { code: 0 }), 5).is_ok() && machine.is_over());
    let mut machine = running(policy);
    assert!(machine.step(Event::Ended(Cause::Exit { code: 1 }), 5).is_ok() && !machine.is_over());
}

#[test]
fn a_stop_asks_waits_and_kills() {
    let mut machine = running(always());
    let stop = Event::Stop { by: client(), grace_ms: Some(50) };
    assert_eq!(machine.step(stop.clone(), 100), Ok(vec![Effect::Signal(SIGTERM)]));
    assert_eq!(machine.step(stop, 120), Ok(vec![]), "a second stop does not lengthen the grace");
    assert_eq!(machine.wakes_at_ms(), Some(150));
    assert_eq!(machine.step(Event::Tick, 150), Ok(vec![Effect::Kill]));
    assert_eq!(machine.step(Event::Tick, 160), Ok(vec![]), "killed once");
    let ended = machine.step(Event::Ended(Cause::Signal { signal: 9 }), 170);
    assert_eq!(ended, Ok(vec![Effect::Clean, Effect::Release]), "and it is not started again");
    assert_eq!(machine.last_end().expect("an end").stopped_by, Some(client()));
    let mut machine = running(always());
    assert_eq!(machine.step(Event::Stop { by: client(), grace_ms: Some(0) }, 5), Ok(vec![Effect::Kill]));
}

#[test]
fn a_stop_before_it_runs_abandons_its_preparation_and_waits_for_its_start() {
    let mut machine = Machine::new(always(), 0);
    machine.step(Event::Begin, 0).expect("legal");
    let stop = Event::Stop { by: client(), grace_ms: None };
    assert_eq!(machine.step(stop, 1), Ok(vec![Effect::Clean, Effect::Release]));
    assert!(machine.step(Event::Prepared, 2).is_err(), "nobody waits for it");
    assert_eq!(machine.last_end().expect("an end").cause, Cause::NeverRan);
    let mut machine = Machine::new(always(), 0);
    machine.step(Event::Begin, 0).expect("legal");
    machine.step(Event::Prepared, 0).expect("legal");
    machine.step(Event::Stop { by: client(), grace_ms: None }, 1).expect("legal");
    assert_eq!(machine.step(Event::Started, 2), Ok(vec![Effect::Signal(SIGTERM)]));
}

#[test]
fn a_failed_check_is_a_crash_unless_somebody_stops_it_as_well() {
    let unhealthy = Event::Stop { by: StoppedBy::Health("503".into()), grace_ms: None };
    let mut machine = running(always());
    machine.step(unhealthy.clone(), 5).expect("legal");
    let ended = Event::Ended(Cause::Signal { signal: 15 });
    assert_eq!(machine.step(ended.clone(), 6), Ok(vec![Effect::Clean, Effect::Prepare]));
    let mut machine = running(always());
    machine.step(unhealthy, 5).expect("legal");
    machine.step(Event::Stop { by: client(), grace_ms: None }, 5).expect("legal");
    assert_eq!(machine.step(ended, 6), Ok(vec![Effect::Clean, Effect::Release]));
}

#[test]
fn a_cell_that_comes_back_makes_anew_what_was_half_made() {
    let mut machine = Machine::new(Policy::default(), 0);
    machine.step(Event::Begin, 0).expect("legal");
    assert_eq!(machine.step(Event::Lost, 5), Ok(vec![Effect::Clean, Effect::Prepare]));
    assert_eq!((machine.attempt(), machine.crashes()), (2, 0));
    let mut task = running(Policy::default());
    assert_eq!(task.step(Event::Lost, 5), Ok(vec![Effect::Clean, Effect::Release]));
    assert_eq!(task.last_end().expect("an end").cause, Cause::CellRestart);
    let mut instance = running(always());
    assert_eq!(instance.step(Event::Lost, 5), Ok(vec![Effect::Clean, Effect::Prepare]));
    assert_eq!(instance.crashes(), 0, "the cell's doing");
}

/// The moves of the picture at the head of the room, and staying where it is.
fn is_drawn(from: &State, to: &State) -> bool {
    use State::{Exited, Preparing, Reserved, Running, Starting, Stopping, Waiting};
    matches!(
        (from, to),
        (Reserved, Preparing | Exited)
            | (Preparing, Starting | Preparing | Waiting { .. } | Exited)
            | (Starting, Running { .. } | Preparing | Stopping { .. } | Waiting { .. } | Exited)
            | (Running { .. }, Preparing | Stopping { .. } | Waiting { .. } | Exited)
            | (Stopping { .. }, Stopping { .. } | Preparing | Waiting { .. } | Exited)
            | (Waiting { .. }, Preparing | Exited)
    ) || from == to
}

fn any_cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        any::<u8>().prop_map(|code| Cause::Exit { code }),
        (1..64).prop_map(|signal| Cause::Signal { signal }),
        any::<bool>().prop_map(|own_limit| Cause::OutOfMemory { kills_count: 1, own_limit }),
        Just(Cause::Failed { status: 125, why: "no".into() }),
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let by = prop_oneof![Just(client()), Just(StoppedBy::Drain), Just(StoppedBy::Health("no".into()))];
    prop_oneof![
        1 => Just(Event::Begin),
        3 => Just(Event::Prepared),
        3 => Just(Event::Started),
        1 => any_cause().prop_map(Event::Failed),
        2 => any_cause().prop_map(Event::Ended),
        1 => Just(Event::Lost),
        1 => (by, proptest::option::of(0..5000_u64)).prop_map(|(by, grace_ms)| Event::Stop { by, grace_ms }),
        2 => Just(Event::Tick),
    ]
}

/// What a runner would have under way for the machine.
#[derive(Default, Debug)]
struct Outside {
    preparing: bool,
    launching: bool,
    running: bool,
    uncleaned: u32,
    releases: u32,
}

impl Outside {
    fn happened(&mut self, event: &Event) {
        match event {
            Event::Prepared => self.preparing = false,
            Event::Failed(_) => (self.preparing, self.launching) = (false, false),
            Event::Started => (self.launching, self.running) = (false, true),
            Event::Ended(_) => self.running = false,
            Event::Lost => (self.preparing, self.launching, self.running) = (false, false, false),
            _ => {}
        }
    }

    fn is_possible(&self, event: &Event) -> bool {
        match event {
            Event::Prepared => self.preparing,
            Event::Failed(_) => self.preparing || self.launching,
            Event::Started => self.launching,
            Event::Ended(_) => self.running,
            Event::Lost => self.preparing || self.launching || self.running,
            _ => true,
        }
    }

    fn do_all(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Prepare => {
                    assert!(!self.preparing && !self.launching && !self.running, "two attempts at once");
                    assert_eq!(self.uncleaned, 0, "a new attempt over what the last one left");
                    (self.preparing, self.uncleaned) = (true, 1);
                }
                Effect::Launch => {
                    assert!(!self.launching && !self.running && !self.preparing);
                    self.launching = true;
                }
                Effect::Signal(_) | Effect::Kill => assert!(self.running, "nobody to tell"),
                Effect::Clean => {
                    assert!(!self.launching && !self.running, "cleared while in use");
                    self.preparing = false; // abandoned
                    self.uncleaned = self.uncleaned.checked_sub(1).expect("cleared twice");
                }
                Effect::Release => self.releases += 1,
            }
        }
    }
}

proptest! {
    #[test]
    fn no_move_is_illegal(
        events in proptest::collection::vec((any_event(), 0..400_000_u64), 0..120),
        restart in prop_oneof![Just(Restart::Never), Just(Restart::OnFailure), Just(Restart::Always)],
        crashes_max in 1..20_u32,
    ) {
        let policy = Policy { restart, crashes_max, ..Policy::default() };
        let (mut machine, mut outside, mut now_ms) = (Machine::new(policy, 0), Outside::default(), 0);
        for (event, passed_ms) in events {
            now_ms += passed_ms;
            let before = machine.clone();
            let is_possible = outside.is_possible(&event) && (event != Event::Begin || machine.state == State::Reserved);
            match machine.step(event.clone(), now_ms) {
                Ok(effects) => {
                    prop_assert!(is_possible, "{event:?} was taken in {:?}", before.state);
                    prop_assert!(is_drawn(&before.state, &machine.state), "{:?} -> {:?}", before.state, machine.state);
                    outside.happened(&event);
                    outside.do_all(&effects);
                }
                Err(_) => {
                    prop_assert!(!is_possible, "{event:?} was refused in {:?}", before.state);
                    prop_assert_eq!(&before, &machine, "a refusal changed something");
                }
            }
            prop_assert_eq!(outside.releases, u32::from(machine.is_over()), "given back exactly once, at the end");
            let busy = outside.preparing || outside.launching || outside.running;
            prop_assert!(!(machine.is_over() && busy), "over while something is under way");
            prop_assert_eq!(machine.has_container(), outside.launching || outside.running);
            let text = serde_json::to_string(&machine).expect("encoded");
            prop_assert_eq!(&serde_json::from_str::<Machine>(&text).expect("decoded"), &machine);
        }
    }
}
