//! The cells' side: calls are served, cells crash and come back, instances end.

use super::MESSAGE_LIFE_US;
use super::cell::Checked;
use super::message::{Answer, Call, Caller, CellNumber, Happening, Job};
use super::world::World;
use crate::demand::AppId;
use crate::ledger::{Refused, ReservationId, Terms};
use crate::round::Event;
use crate::score::{Bid, Price};
use rand::RngExt;

/// When a cell crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    None,
    Before,
    Within,
    After,
}

/// The chance that a lying cell lies, in 65,536ths.
const LIE: u32 = 20_000;

impl World {
    /// A call reaches a cell.
    pub(super) fn serve(&mut self, cell: CellNumber, from: Caller, call: Call) -> Checked {
        let fate = match self.chance(self.setup.cell_crash) {
            true => [Fate::Before, Fate::Within, Fate::After][self.rng.random_range(0..3)],
            false => Fate::None,
        };
        if fate == Fate::Before && self.cells[cell as usize].is_up {
            self.crash_cell(cell);
        }
        if !self.cells[cell as usize].is_up {
            self.summary.lost += 1;
            return Ok(());
        }
        let served = self.serve_call(cell, call, fate == Fate::Within);
        let (answer, app) = served.map_err(|what| format!("cell {cell} {what}"))?;
        if let Some(answer) = answer
            && fate != Fate::Within
        {
            let answer = self.lie(cell, answer);
            self.answer(cell, from, answer);
        }
        let reserver = if let Call::Reserve { job, .. } = call { Some(job) } else { None };
        self.check_cell(cell, app, reserver)?;
        if matches!(fate, Fate::Within | Fate::After) {
            self.crash_cell(cell);
        }
        Ok(())
    }

    fn check_cell(&mut self, cell: CellNumber, app: AppId, reserver: Option<Job>) -> Checked {
        let checked = self.cells[cell as usize].check(self.summary.events, app, reserver);
        checked.map_err(|what| format!("cell {cell} {what}"))
    }

    /// Does what a call asks for, or a part of it if the cell crashes within.
    fn serve_call(
        &mut self,
        number: CellNumber,
        call: Call,
        is_cut_short: bool,
    ) -> Checked<(Option<Answer>, AppId)> {
        let cell = &mut self.cells[number as usize];
        match call {
            Call::Ask { ask, job, count } => {
                let demand = &self.books.get(job).demand;
                let bid = cell.bid(demand, count)?;
                Ok((Some(Answer::Round(Event::Bid { ask, bid })), demand.app))
            }
            Call::Reserve { attempt, job, epoch, first, count, ttl_us } => {
                let demand = &self.books.get(job).demand;
                let count = if is_cut_short { self.rng.random_range(0..=count) } else { count };
                let terms = Terms { epoch, now_us: self.now_us, ttl_us };
                let (held, refused) = cell.reserve(job, (first, count), demand, terms)?;
                self.summary.reservations_refused += u64::from(held < count);
                Ok((Some(Answer::Round(Event::Reserved { attempt, held, refused })), demand.app))
            }
            Call::Cancel { first, count } => {
                for offset in 0..count {
                    if let Some(hold) = cell.release(first.plus(offset))?
                        && hold.until_us.is_none()
                    {
                        return Err(format!("is told to cancel what is committed: {hold:?}"));
                    }
                }
                Ok((None, AppId(0)))
            }
            Call::Commit { commit, first, count } => {
                let count = if is_cut_short { self.rng.random_range(0..=count) } else { count };
                let unknown = self.serve_commit(number, first, count)?;
                Ok((Some(Answer::Committed { commit, unknown }), AppId(0)))
            }
        }
    }

    /// Commits instances, and says how many the cell does not know.
    fn serve_commit(&mut self, number: CellNumber, first: ReservationId, count: u32) -> Checked<u32> {
        let mut unknown = 0;
        for offset in 0..count {
            let (is_there, job) = self.cells[number as usize].commit(first.plus(offset))?;
            unknown += u32::from(!is_there);
            if let Some(job) = job {
                self.summary.committed += 1;
                self.books.commit(job)?;
                self.check_place(number, job)?;
            }
        }
        Ok(unknown)
    }

    /// An instance is committed on a cell that may run it.
    fn check_place(&self, number: CellNumber, job: u32) -> Checked {
        let (_, class, zone) = self.places[number as usize];
        if self.is_eligible(job, class, zone) {
            return Ok(());
        }
        Err(format!("in zone {zone:?} of class {class:?} commits job {job}, which must not run there"))
    }

    /// What a cell that lies makes of an answer.
    fn lie(&mut self, cell: CellNumber, answer: Answer) -> Answer {
        if !self.cells[cell as usize].lies || !self.chance(LIE) {
            return answer;
        }
        let rng = &mut self.rng;
        match answer {
            Answer::Round(Event::Bid { ask, bid }) => {
                let room = [0, 1, bid.room + 1, u32::MAX][rng.random_range(0..4)];
                let first = Price([0, u64::MAX, bid.first.0 / 2][rng.random_range(0..3)]);
                let step = Price([0, u64::MAX][rng.random_range(0..2)]);
                let used = Price([0, u64::MAX, bid.used.0 / 2][rng.random_range(0..3)]);
                Answer::Round(Event::Bid { ask, bid: Bid { room, first, step, used, ..bid } })
            }
            Answer::Round(Event::Reserved { attempt, held, refused }) => {
                let held = [0, held + 1, held / 2, u32::MAX][rng.random_range(0..4)];
                let refused =
                    [None, refused, Some(Refused::Busy), Some(Refused::Full)][rng.random_range(0..4)];
                Answer::Round(Event::Reserved { attempt, held, refused })
            }
            other => other,
        }
    }

    fn crash_cell(&mut self, cell: CellNumber) {
        self.summary.cell_crashes += 1;
        self.cells[cell as usize].is_up = false;
        let has_disk = self.rng.random_range(0..3) > 0;
        let at_us = self.outage_us();
        self.queue.push(at_us, Happening::CellStarts { cell, has_disk });
    }

    /// A cell is there again; what it lost is placed anew.
    pub(super) fn start_cell(&mut self, cell: CellNumber, has_disk: bool) -> Checked {
        if self.cells[cell as usize].is_gone {
            return Ok(());
        }
        self.lose_instances(cell, has_disk);
        self.check_cell(cell, AppId(0), None)
    }

    /// A cell starts anew. Those of its instances whose commits are known are missed at once, the others by their
    /// auctioneers.
    fn lose_instances(&mut self, cell: CellNumber, has_disk: bool) {
        let mut missed: Vec<(Job, u32)> = Vec::new();
        for hold in self.cells[cell as usize].restart(has_disk) {
            self.books.get_mut(hold.job).live -= 1;
            if hold.acknowledged_us.is_some() || self.books.get(hold.job).is_adopted {
                match missed.iter_mut().find(|(job, _)| *job == hold.job) {
                    Some((_, count)) => *count += 1,
                    None => missed.push((hold.job, 1)),
                }
            }
        }
        for (job, count) in missed {
            self.replace(job, count);
        }
    }

    /// A machine is taken away for good.
    pub(super) fn leave(&mut self) {
        let cell = self.rng.random_range(0..self.cells.len() as u32);
        let (index, ..) = self.places[cell as usize];
        if self.cells[cell as usize].is_gone || self.view.leave(crate::CellIndex(index)).is_err() {
            return;
        }
        self.lose_instances(cell, false);
        let gone = &mut self.cells[cell as usize];
        (gone.is_up, gone.is_gone) = (false, true);
        self.give_up_commits(cell);
    }

    /// Every cell that is up frees what is over.
    pub(super) fn sweep(&mut self) -> Checked {
        for number in 0..self.cells.len() {
            let cell = &mut self.cells[number];
            if cell.is_up && cell.account.holds.iter().any(|hold| hold.until_us.is_some()) {
                let swept = cell.sweep(self.now_us);
                swept.map_err(|what| format!("cell {number} {what}"))?;
                self.check_cell(number as CellNumber, AppId(0), None)?;
            }
        }
        Ok(())
    }

    /// An instance ends by itself. Only one of which no message can be under way any more.
    pub(super) fn finish(&mut self) -> Checked {
        let number = self.rng.random_range(0..self.cells.len());
        let cell = &mut self.cells[number];
        let over_us = self.now_us.saturating_sub(MESSAGE_LIFE_US);
        let ended = cell
            .account
            .holds
            .iter()
            .find(|hold| hold.acknowledged_us.is_some_and(|acknowledged_us| acknowledged_us < over_us));
        let Some((id, app)) = ended.and_then(|hold| Some((ReservationId::new(hold.id)?, hold.app))) else {
            return Ok(());
        };
        if !cell.is_up {
            return Ok(());
        }
        let released = cell.release(id).map_err(|what| format!("cell {number} {what}"))?;
        if let Some(hold) = released {
            let entry = self.books.get_mut(hold.job);
            entry.live -= 1;
            entry.wanted -= 1;
        }
        self.check_cell(number as CellNumber, app, None)
    }
}
