//! An instance's health by what the looks found: (event, now) in, effects out; pure.
//!
//! ```text
//!            first success               readiness
//!  Starting ───────────────> Up ─────┬──────────────> Ready <──> NotReady
//!     │ startup.timeout              │ liveness fails so often in a row
//!     └──────────> Failed <──────────┘
//! ```
//! Without a readiness check an instance is ready when it is up; without any check, at once.

use std::time::Duration;

use super::{Check, Checks, STARTUP_PAUSE_FIRST};

/// Which check a look belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Of liveness; also while an instance is coming up.
    Liveness,
    /// Of readiness; while an instance is coming up only where there is none of liveness.
    Readiness,
}

/// What a look found: nothing wrong, or what.
pub type Outcome = std::result::Result<(), String>;

/// What is known of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not answered yet.
    Starting,
    /// It has answered once; whether it is ready is not known yet.
    Up,
    /// It may get requests.
    Ready,
    /// It lives, and may get none.
    NotReady {
        /// What the last look found.
        reason: String,
    },
    /// It is to be ended.
    Failed {
        /// Did it never come up.
        in_startup: bool,
        /// What the last look found.
        reason: String,
    },
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look now, and bring the outcome.
    Begin(Kind),
    /// It is so from now on.
    Become(State),
}

/// One check's course.
#[derive(Clone, Copy, Debug, Default)]
struct Course {
    /// When the next look begins; nothing while one is under way, or none is wanted.
    due_ns: Option<u64>,
    is_looking: bool,
    failures_count: u32,
    successes_count: u32,
}

/// The health of one instance.
#[derive(Clone, Debug)]
pub struct Machine {
    checks: Checks<()>,
    state: State,
    /// Liveness and readiness.
    courses: [Course; 2],
    started_at_ns: u64,
    pause: Duration,
    /// What the last look while coming up found.
    last: String,
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Machine {
    /// An instance that was started at `now_ns`, on any clock that does not go back.
    pub fn new(checks: Checks<()>, now_ns: u64) -> Self {
        let mut machine = Self {
            checks,
            state: State::Starting,
            courses: [Course::default(); 2],
            started_at_ns: now_ns,
            pause: STARTUP_PAUSE_FIRST,
            last: "it was not looked at".to_owned(),
        };
        match machine.startup_kind() {
            Some(kind) => machine.courses[kind as usize].due_ns = Some(now_ns),
            None => machine.state = State::Ready,
        }
        machine
    }

    /// One that was up when a former agent watched it.
    pub fn taken_up(checks: Checks<()>, state: State, now_ns: u64) -> Self {
        let mut machine = Self::new(checks, now_ns);
        if machine.startup_kind().is_some() && state != State::Starting {
            machine.state = state;
            machine.courses = [Course::default(); 2];
            machine.begin_courses(now_ns);
        }
        machine
    }

    /// What is known.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When [`Machine::step`] is wanted next without an outcome.
    pub fn due_ns(&self) -> Option<u64> {
        let deadline = self.startup_deadline_ns();
        self.courses.iter().filter_map(|course| course.due_ns).chain(deadline).min()
    }

    fn startup_kind(&self) -> Option<Kind> {
        match (&self.checks.liveness, &self.checks.readiness) {
            (Some(_), _) => Some(Kind::Liveness),
            (None, Some(_)) => Some(Kind::Readiness),
            (None, None) => None,
        }
    }

    fn startup_deadline_ns(&self) -> Option<u64> {
        let timeout = self.checks.startup.timeout;
        let is_bounded = self.state == State::Starting && !timeout.is_zero();
        is_bounded.then(|| self.started_at_ns.saturating_add(ns(timeout)))
    }

    fn check(&self, kind: Kind) -> Option<&Check<()>> {
        match kind {
            Kind::Liveness => self.checks.liveness.as_ref(),
            Kind::Readiness => self.checks.readiness.as_ref(),
        }
    }

    /// Takes an outcome, or nothing but the time.
    pub fn step(&mut self, outcome: Option<(Kind, Outcome)>, now_ns: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if matches!(self.state, State::Failed { .. }) {
            return effects;
        }
        if let Some((kind, outcome)) = outcome
            && std::mem::take(&mut self.courses[kind as usize].is_looking)
        {
            self.take(kind, outcome, now_ns, &mut effects);
        }
        if self.startup_deadline_ns().is_some_and(|deadline| now_ns >= deadline) {
            let waited = self.checks.startup.timeout;
            let reason = format!("not up after {waited:?}: {}", self.last);
            self.become_(State::Failed { in_startup: true, reason }, &mut effects);
        }
        for kind in [Kind::Liveness, Kind::Readiness] {
            let course = &mut self.courses[kind as usize];
            if course.due_ns.is_some_and(|due| now_ns >= due) {
                (course.due_ns, course.is_looking) = (None, true);
                effects.push(Effect::Begin(kind));
            }
        }
        effects
    }

    fn become_(&mut self, state: State, effects: &mut Vec<Effect>) {
        if matches!(state, State::Failed { .. }) {
            self.courses = [Course::default(); 2];
        }
        if self.state != state {
            self.state = state.clone();
            effects.push(Effect::Become(state));
        }
    }

    fn take(&mut self, kind: Kind, outcome: Outcome, now_ns: u64, effects: &mut Vec<Effect>) {
        if self.state == State::Starting {
            match outcome {
                Ok(()) => {
                    let state = if self.checks.readiness.is_some() { State::Up } else { State::Ready };
                    self.become_(state, effects);
                    self.begin_courses(now_ns);
                    if kind == Kind::Readiness {
                        self.courses[kind as usize].due_ns = None;
                        self.count(kind, Ok(()), now_ns, effects);
                    }
                }
                Err(reason) => {
                    self.last = reason;
                    self.courses[kind as usize].due_ns = Some(now_ns.saturating_add(ns(self.pause)));
                    self.pause = (self.pause * 2).min(self.checks.startup.interval);
                }
            }
            return;
        }
        self.count(kind, outcome, now_ns, effects);
    }

    /// It is up: liveness after its interval, since it has just been seen; readiness now.
    fn begin_courses(&mut self, now_ns: u64) {
        if let Some(check) = &self.checks.liveness {
            self.courses[Kind::Liveness as usize].due_ns = Some(now_ns.saturating_add(ns(check.interval)));
        }
        if self.checks.readiness.is_some() {
            self.courses[Kind::Readiness as usize].due_ns = Some(now_ns);
        }
    }

    fn count(&mut self, kind: Kind, outcome: Outcome, now_ns: u64, effects: &mut Vec<Effect>) {
        let Some(check) = self.check(kind) else { return };
        let (interval, failures_max, successes_max) =
            (check.interval, check.failures_count, check.successes_count);
        let course = &mut self.courses[kind as usize];
        course.due_ns = Some(now_ns.saturating_add(ns(interval)));
        if outcome.is_ok() {
            (course.failures_count, course.successes_count) = (0, course.successes_count.saturating_add(1));
        } else {
            (course.failures_count, course.successes_count) = (course.failures_count.saturating_add(1), 0);
        }
        let (failures_count, successes_count) = (course.failures_count, course.successes_count);
        match (kind, outcome) {
            (Kind::Liveness, Err(reason)) if failures_count >= failures_max => {
                self.become_(State::Failed { in_startup: false, reason }, effects);
            }
            (Kind::Readiness, Ok(())) if successes_count >= successes_max => {
                self.become_(State::Ready, effects);
            }
            // The reason is that of the failure that made it so; a later one is no other state.
            (Kind::Readiness, Err(reason))
                if failures_count >= failures_max && !matches!(self.state, State::NotReady { .. }) =>
            {
                self.become_(State::NotReady { reason }, effects);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Startup;
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn checks(liveness: bool, readiness: bool) -> Checks<()> {
        let check = |wanted: bool| wanted.then(|| Check::of(()));
        Checks { startup: Startup::default(), liveness: check(liveness), readiness: check(readiness) }
    }

    fn failed(kind: Kind) -> Option<(Kind, Outcome)> {
        Some((kind, Err("no".to_owned())))
    }

    #[test]
    fn diegos_course_with_liveness_alone() {
        let mut machine = Machine::new(checks(true, false), 0);
        assert_eq!(machine.step(None, 0), [Effect::Begin(Kind::Liveness)]);
        assert_eq!(machine.step(Some((Kind::Liveness, Ok(()))), 7), [Effect::Become(State::Ready)]);
        assert_eq!(machine.due_ns(), Some(7 + 30 * SECOND));
        assert_eq!(machine.step(None, 7 + 30 * SECOND), [Effect::Begin(Kind::Liveness)]);
        let state = State::Failed { in_startup: false, reason: "no".to_owned() };
        assert_eq!(machine.step(failed(Kind::Liveness), 40 * SECOND), [Effect::Become(state)]);
        assert_eq!((machine.due_ns(), machine.step(None, u64::MAX)), (None, Vec::new()));
    }

    #[test]
    fn startup_is_polled_ever_more_seldom_and_ends() {
        let mut machine = Machine::new(checks(true, false), 0);
        let mut pauses = Vec::new();
        while machine.state() == &State::Starting {
            let due = machine.due_ns().expect("polled");
            let effects = machine.step(None, due);
            if effects == [Effect::Begin(Kind::Liveness)] {
                machine.step(failed(Kind::Liveness), due);
                pauses.push((machine.due_ns().expect("polled") - due) / 1_000_000);
            }
        }
        assert_eq!(pauses[..10], [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2000]);
        let State::Failed { in_startup: true, reason } = machine.state() else {
            panic!("{:?}", machine.state())
        };
        assert_eq!(reason, "not up after 60s: no");
        assert!(pauses.len() < 42);
    }

    #[test]
    fn readiness_only_takes_it_off_and_brings_it_back() {
        let mut checks = checks(true, true);
        let readiness = checks.readiness.as_mut().expect("asked for");
        (readiness.failures_count, readiness.successes_count) = (2, 2);
        let mut machine = Machine::new(checks, 0);
        machine.step(None, 0);
        let effects = machine.step(Some((Kind::Liveness, Ok(()))), 1);
        assert_eq!(effects, [Effect::Become(State::Up), Effect::Begin(Kind::Readiness)]);
        let mut look = |outcome: Outcome| {
            let effects = machine.step(Some((Kind::Readiness, outcome)), 2);
            machine.courses[1].is_looking = true;
            effects
        };
        assert_eq!(look(Ok(())), []);
        assert_eq!(look(Ok(())), [Effect::Become(State::Ready)]);
        assert_eq!(look(Err("a".into())), []);
        assert_eq!(look(Err("b".into())), [Effect::Become(State::NotReady { reason: "b".into() })]);
        assert_eq!(look(Err("c".into())), []);
        assert_eq!(look(Ok(())), []);
        assert_eq!(look(Ok(())), [Effect::Become(State::Ready)]);
    }

    #[test]
    fn without_checks_it_is_ready_and_one_that_was_up_is_not_started_again() {
        let mut none = Machine::new(checks(false, false), 0);
        assert_eq!((none.step(None, 9), none.due_ns(), none.state()), (Vec::new(), None, &State::Ready));
        let mut up = Machine::taken_up(checks(true, true), State::Ready, 5);
        assert_eq!(up.step(None, 5), [Effect::Begin(Kind::Readiness)]);
        assert_eq!(up.due_ns(), Some(5 + 30 * SECOND));
        let mut only = Machine::new(checks(false, true), 0);
        assert_eq!(only.step(None, 0), [Effect::Begin(Kind::Readiness)]);
        let effects = only.step(Some((Kind::Readiness, Ok(()))), 0);
        assert_eq!(effects, [Effect::Become(State::Up), Effect::Become(State::Ready)]);
    }

    proptest! {
        /// Whatever comes whenever: one look of a kind at a time, no outcome of a look that was not asked for counts, a
        /// failed instance stays so, and as long as it has not, something is due or under way.
        #[test]
        fn every_course_is_legal(
            liveness in any::<bool>(), readiness in any::<bool>(),
            events in proptest::collection::vec((0..4_u8, any::<bool>(), 0..70 * SECOND), 0..60)
        ) {
            let mut machine = Machine::new(checks(liveness, readiness), 0);
            let (mut now, mut looking) = (0, [false; 2]);
            for (what, is_good, wait) in events {
                now += wait / 8;
                let kind = [Kind::Liveness, Kind::Readiness][usize::from(what % 2)];
                let outcome = if is_good { Ok(()) } else { Err("no".to_owned()) };
                let given = (what < 3).then_some((kind, outcome));
                let was_failed = matches!(machine.state(), State::Failed { .. });
                let before = machine.state().clone();
                let counted = given.is_some() && std::mem::take(&mut looking[kind as usize]);
                let effects = machine.step(given, now);
                prop_assert!(!was_failed || effects.is_empty());
                for effect in &effects {
                    match effect {
                        Effect::Begin(kind) => prop_assert!(!std::mem::replace(&mut looking[*kind as usize], true)),
                        Effect::Become(State::Failed { in_startup: true, .. }) => prop_assert_eq!(&before, &State::Starting),
                        Effect::Become(_) => prop_assert!(counted),
                    }
                }
                if matches!(machine.state(), State::Failed { .. }) { looking = [false; 2] }
                let is_alive = (liveness || readiness) && !matches!(machine.state(), State::Failed { .. });
                prop_assert!(!is_alive || machine.due_ns().is_some() || looking.contains(&true));
            }
        }
    }
}
