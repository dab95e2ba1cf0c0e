//! The moves.

use super::{
    Cause, Effect, Effects, End, Event, Illegal, Machine, PERIOD_MS_MAX, Restart, Stage, State, StoppedBy,
};

impl Machine {
    /// Takes an event, and says what is to be done about it.
    ///
    /// # Errors
    /// [`Illegal`], with nothing changed.
    pub fn step(&mut self, event: Event, now_ms: u64) -> Result<Effects, Illegal> {
        let names = (event.name(), self.state.name());
        let stepped = match event {
            Event::Begin => self.begin(now_ms),
            Event::Prepared => self.prepared(now_ms),
            Event::Started => self.started(now_ms),
            Event::Failed(cause) => self.failed(cause, now_ms),
            Event::Ended(cause) => self.ended(cause, now_ms),
            Event::Lost => self.lost(now_ms),
            Event::Stop { by, grace_ms } => Some(self.stop(by, grace_ms, now_ms)),
            Event::Tick => Some(self.tick(now_ms)),
        };
        stepped.ok_or(Illegal { event: names.0, state: names.1 })
    }

    fn go(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.changed_ms = now_ms;
    }

    fn begin(&mut self, now_ms: u64) -> Option<Effects> {
        (self.state == State::Reserved).then(|| self.prepare(now_ms))
    }

    fn prepare(&mut self, now_ms: u64) -> Effects {
        self.attempt = self.attempt.saturating_add(1);
        self.go(State::Preparing, now_ms);
        vec![Effect::Prepare]
    }

    fn prepared(&mut self, now_ms: u64) -> Option<Effects> {
        (self.state == State::Preparing).then(|| {
            self.go(State::Starting, now_ms);
            vec![Effect::Launch]
        })
    }

    fn started(&mut self, now_ms: u64) -> Option<Effects> {
        match &self.state {
            State::Starting => {
                self.go(State::Running { since_ms: now_ms }, now_ms);
                Some(Vec::new())
            }
            State::Stopping { by, stage: Stage::Starting, .. } => {
                let by = by.clone();
                Some(self.ask(by, None, Some(now_ms), now_ms))
            }
            _ => None,
        }
    }

    fn failed(&mut self, cause: Cause, now_ms: u64) -> Option<Effects> {
        match &self.state {
            State::Preparing | State::Starting => Some(self.over(cause, None, None, now_ms)),
            State::Stopping { by, stage: Stage::Starting, .. } => {
                let by = by.clone();
                Some(self.over(cause, Some(by), None, now_ms))
            }
            _ => None,
        }
    }

    fn ended(&mut self, cause: Cause, now_ms: u64) -> Option<Effects> {
        match &self.state {
            State::Running { since_ms } => {
                let since_ms = *since_ms;
                Some(self.over(cause, None, Some(since_ms), now_ms))
            }
            State::Stopping { by, stage: Stage::Asked { .. } | Stage::Killed, since_ms } => {
                let (by, since_ms) = (by.clone(), *since_ms);
                Some(self.over(cause, Some(by), since_ms, now_ms))
            }
            _ => None,
        }
    }

    /// What was half made is made anew and is no crash; what ran is one that ended with the cell.
    fn lost(&mut self, now_ms: u64) -> Option<Effects> {
        match &self.state {
            State::Preparing | State::Starting => {
                let mut effects = vec![Effect::Clean];
                effects.extend(self.prepare(now_ms));
                Some(effects)
            }
            State::Running { since_ms } => {
                let since_ms = *since_ms;
                Some(self.over(Cause::CellRestart, None, Some(since_ms), now_ms))
            }
            State::Stopping { by, stage, since_ms } => {
                let cause = match stage {
                    Stage::Preparing | Stage::Starting => Cause::NeverRan,
                    Stage::Asked { .. } | Stage::Killed => Cause::CellRestart,
                };
                let (by, since_ms) = (by.clone(), *since_ms);
                Some(self.over(cause, Some(by), since_ms, now_ms))
            }
            _ => None,
        }
    }

    fn stop(&mut self, by: StoppedBy, grace_ms: Option<u64>, now_ms: u64) -> Effects {
        match &self.state {
            State::Exited => Vec::new(),
            // A check belongs to a run: outside of one there is nothing to stop.
            State::Reserved | State::Waiting { .. } if !by.is_final() => Vec::new(),
            State::Reserved => {
                self.finish(Cause::NeverRan, Some(by), now_ms);
                vec![Effect::Release]
            }
            State::Waiting { .. } => {
                let cause = self.last_end.as_ref().map_or(Cause::NeverRan, |end| end.cause.clone());
                self.finish(cause, Some(by), now_ms);
                vec![Effect::Release]
            }
            State::Preparing if by.is_final() => self.over(Cause::NeverRan, Some(by), None, now_ms),
            State::Starting if by.is_final() => self.stop_later(by, now_ms),
            State::Preparing | State::Starting => Vec::new(),
            State::Running { since_ms } => {
                let since_ms = *since_ms;
                self.ask(by, grace_ms, Some(since_ms), now_ms)
            }
            State::Stopping { .. } => self.stop_sooner(by, grace_ms, now_ms),
        }
    }

    fn stop_later(&mut self, by: StoppedBy, now_ms: u64) -> Effects {
        self.go(State::Stopping { by, stage: Stage::Starting, since_ms: None }, now_ms);
        Vec::new()
    }

    /// A second wish: it may make the grace shorter, and a wish of somebody's outweighs a failed check.
    fn stop_sooner(&mut self, wish: StoppedBy, grace_ms: Option<u64>, now_ms: u64) -> Effects {
        let grace_ms = grace_ms.unwrap_or(self.policy.grace_ms).min(PERIOD_MS_MAX);
        let State::Stopping { by, stage, .. } = &mut self.state else { return Vec::new() };
        if !by.is_final() && wish.is_final() {
            *by = wish;
        }
        if let Stage::Asked { kill_at_ms } = stage {
            *kill_at_ms = (*kill_at_ms).min(now_ms.saturating_add(grace_ms));
            return self.tick(now_ms);
        }
        Vec::new()
    }

    fn ask(&mut self, by: StoppedBy, grace_ms: Option<u64>, since_ms: Option<u64>, now_ms: u64) -> Effects {
        let grace_ms = grace_ms.unwrap_or(self.policy.grace_ms).min(PERIOD_MS_MAX);
        if grace_ms == 0 {
            self.go(State::Stopping { by, stage: Stage::Killed, since_ms }, now_ms);
            return vec![Effect::Kill];
        }
        let stage = Stage::Asked { kill_at_ms: now_ms.saturating_add(grace_ms) };
        self.go(State::Stopping { by, stage, since_ms }, now_ms);
        vec![Effect::Signal(self.policy.stop_signal)]
    }

    fn tick(&mut self, now_ms: u64) -> Effects {
        if self.wakes_at_ms().is_none_or(|at_ms| now_ms < at_ms) {
            return Vec::new();
        }
        match &mut self.state {
            State::Waiting { .. } => self.prepare(now_ms),
            State::Stopping { stage, .. } => {
                *stage = Stage::Killed;
                vec![Effect::Kill]
            }
            _ => Vec::new(),
        }
    }

    /// An attempt is over: start again, now or later, or not.
    fn over(&mut self, cause: Cause, by: Option<StoppedBy>, since_ms: Option<u64>, now_ms: u64) -> Effects {
        let mut effects = vec![Effect::Clean];
        let is_wanted = match self.policy.restart {
            Restart::Never => false,
            Restart::OnFailure => !cause.is_success(),
            Restart::Always => true,
        };
        if !is_wanted || by.as_ref().is_some_and(StoppedBy::is_final) {
            self.finish(cause, by, now_ms);
            effects.push(Effect::Release);
            return effects;
        }
        let ran_ms = since_ms.map_or(0, |since_ms| now_ms.saturating_sub(since_ms));
        if ran_ms > self.policy.reset_after_ms {
            self.crashes = 0;
        }
        let delay_ms = if cause == Cause::CellRestart {
            Some(0) // the cell's doing, not its own
        } else {
            self.crashes = self.crashes.saturating_add(1);
            self.policy.delay_ms(self.crashes)
        };
        let gave_up = delay_ms.is_none();
        self.last_end = Some(End { cause, stopped_by: by, at_ms: now_ms, gave_up });
        match delay_ms {
            None => {
                self.go(State::Exited, now_ms);
                effects.push(Effect::Release);
            }
            Some(0) => effects.extend(self.prepare(now_ms)),
            Some(delay_ms) => {
                let until_ms = now_ms.saturating_add(delay_ms.min(PERIOD_MS_MAX));
                self.go(State::Waiting { until_ms }, now_ms);
            }
        }
        effects
    }

    fn finish(&mut self, cause: Cause, by: Option<StoppedBy>, now_ms: u64) {
        self.last_end = Some(End { cause, stopped_by: by, at_ms: now_ms, gave_up: false });
        self.go(State::Exited, now_ms);
    }
}
