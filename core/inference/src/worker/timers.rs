//! The worker's deadlines, in order.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_replication::Moment;

use crate::id::{RunnerId, TaskId};

/// Whose time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Runner(RunnerId),
    Wish(TaskId),
    EarlyInputs,
    HeldAnswers,
    OldAnswers,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    in_order: BTreeSet<(Moment, Timer)>,
    at: BTreeMap<Timer, Moment>,
}

impl Timers {
    /// A timer has one time, or none.
    pub(super) fn set(&mut self, timer: Timer, at: Option<Moment>) {
        let before = match at {
            Some(at) => self.at.insert(timer, at),
            None => self.at.remove(&timer),
        };
        if before != at {
            if let Some(before) = before {
                self.in_order.remove(&(before, timer));
            }
            self.in_order.extend(at.map(|at| (at, timer)));
        }
    }

    pub(super) fn next(&self) -> Option<Moment> {
        self.in_order.first().map(|(at, _)| *at)
    }

    /// Takes those whose time has come.
    pub(super) fn due(&mut self, now: Moment) -> Vec<Timer> {
        let mut due = vec![];
        while let Some((at, timer)) = self.in_order.first().copied().filter(|(at, _)| *at <= now) {
            self.in_order.remove(&(at, timer));
            self.at.remove(&timer);
            due.push(timer);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_has_its_newest_time_alone() {
        let mut timers = Timers::default();
        timers.set(Timer::OldAnswers, Some(Moment(5)));
        timers.set(Timer::EarlyInputs, Some(Moment(4)));
        timers.set(Timer::OldAnswers, Some(Moment(3)));
        assert_eq!(timers.next(), Some(Moment(3)));
        timers.set(Timer::EarlyInputs, None);
        assert_eq!((timers.due(Moment(2)), timers.due(Moment(9))), (vec![], vec![Timer::OldAnswers]));
        assert_eq!(timers.next(), None);
    }
}
