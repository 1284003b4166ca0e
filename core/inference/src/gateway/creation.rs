//! How a task comes into the log: asked for until somebody knows what became of it.

use lockstep_replication::io::Unknown;
use lockstep_replication::{Index, Moment, Span};

use super::config::GatewayConfig;
use super::io::Failure;
use crate::id::TaskId;
use crate::refusal::Refusal;

/// The task's own id makes this safe: no second one comes of it.
#[derive(Clone, Debug)]
pub(super) struct Creation {
    until: Moment,
    wait: Span,
    phase: Phase,
    /// What was said last, if it was that nobody knows.
    unknown: Option<Unknown>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asked,
    AskAt(Moment),
    /// At this index, if it was this node that got it done.
    Done(Option<Index>),
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Creating {
    Wait,
    Ask,
    /// The state contains where it was done.
    Shown,
    Failed(Failure),
}

impl Creation {
    pub(super) fn new(now: Moment, config: &GatewayConfig) -> Creation {
        let (until, wait) = (now + config.create, config.create_first);
        Creation { until, wait, phase: Phase::AskAt(now), unknown: None }
    }

    /// What became of it: where it was done, if it was.
    pub(super) fn submitted(
        &mut self,
        now: Moment,
        task: TaskId,
        result: Result<Index, Failure>,
        config: &GatewayConfig,
    ) -> Result<Option<Index>, Failure> {
        if self.phase != Phase::Asked {
            return Ok(None);
        }
        let again = match result {
            Ok(index) => {
                self.phase = Phase::Done(Some(index));
                return Ok(Some(index));
            }
            Err(Failure::Refused(Refusal::TaskExists { task: existing })) if existing == task => {
                self.phase = Phase::Done(None);
                return Ok(None);
            }
            Err(Failure::Unknown(unknown)) => Some(unknown),
            // Not now, but an earlier one may have been.
            Err(Failure::NotTaken(_)) if self.unknown.is_some() => self.unknown,
            Err(failure) => return Err(failure),
        };
        self.unknown = again;
        self.phase = Phase::AskAt(now + self.wait);
        self.wait = self.wait.times(2).min(config.create_longest);
        Ok(None)
    }

    /// What follows from the time and from one past the last entry of the state, which does not show the task.
    pub(super) fn advance(&mut self, now: Moment, next: Index) -> Creating {
        match self.phase {
            Phase::Done(Some(index)) if index < next => Creating::Shown,
            Phase::Asked | Phase::AskAt(_) | Phase::Done(_) if self.until <= now => {
                Creating::Failed(Failure::Unknown(self.unknown.unwrap_or(Unknown::TimedOut)))
            }
            Phase::AskAt(at) if at <= now => {
                self.phase = Phase::Asked;
                Creating::Ask
            }
            Phase::Asked | Phase::AskAt(_) | Phase::Done(_) => Creating::Wait,
        }
    }

    pub(super) fn is_repeated(&self) -> bool {
        self.unknown.is_some()
    }

    pub(super) fn deadline(&self) -> Moment {
        match self.phase {
            Phase::AskAt(at) => at.min(self.until),
            Phase::Asked | Phase::Done(_) => self.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{model, task};
    use lockstep_replication::io::NotTaken;

    fn asked() -> (Creation, GatewayConfig) {
        let config = GatewayConfig::default();
        let mut creation = Creation::new(Moment(0), &config);
        assert_eq!(creation.advance(Moment(0), Index(5)), Creating::Ask);
        (creation, config)
    }

    #[test]
    fn the_state_must_contain_where_it_was_done() {
        let (mut creation, config) = asked();
        assert_eq!(creation.advance(Moment(0), Index(9)), Creating::Wait);
        creation.submitted(Moment(1), task(1), Ok(Index(8)), &config).unwrap();
        assert_eq!(creation.advance(Moment(1), Index(8)), Creating::Wait);
        assert_eq!(creation.advance(Moment(1), Index(9)), Creating::Shown);
    }

    #[test]
    fn an_unknown_outcome_is_asked_about_until_it_is_there() {
        let (mut creation, config) = asked();
        let mut now = Moment(0);
        for wait in [250, 500, 1000, 2000, 4000, 4000] {
            let unknown = Failure::Unknown(Unknown::Skipped);
            let next = if wait == 1000 { Failure::NotTaken(NotTaken::NotReady) } else { unknown };
            creation.submitted(now, task(1), Err(next), &config).unwrap();
            assert_eq!(creation.deadline().since(now), Span::millis(wait));
            now = creation.deadline();
            assert_eq!(creation.advance(now, Index(9)), Creating::Ask);
        }
        let exists = Failure::Refused(Refusal::TaskExists { task: task(1) });
        creation.submitted(now, task(1), Err(exists), &config).unwrap();
        assert_eq!(creation.advance(now, Index(u64::MAX)), Creating::Wait, "nobody said where");
        assert_eq!(
            creation.advance(Moment(0) + config.create, Index(9)),
            Creating::Failed(Failure::Unknown(Unknown::Skipped))
        );
    }

    #[test]
    fn nobody_knows_it_for_ever() {
        let (mut creation, config) = asked();
        let late = Moment(0) + config.create;
        assert_eq!(creation.advance(late, Index(9)), Creating::Failed(Failure::Unknown(Unknown::TimedOut)));
        creation.submitted(Moment(1), task(1), Err(Failure::Unknown(Unknown::Stopped)), &config).unwrap();
        assert_eq!(creation.advance(late, Index(9)), Creating::Failed(Failure::Unknown(Unknown::Stopped)));
    }

    #[test]
    fn a_refusal_ends_it() {
        let refusals = [
            Failure::Refused(Refusal::NoInstance { model: model("a") }),
            Failure::Refused(Refusal::TaskExists { task: task(2) }),
            Failure::NotTaken(NotTaken::Full),
        ];
        for refusal in refusals {
            let (mut creation, config) = asked();
            assert_eq!(creation.submitted(Moment(1), task(1), Err(refusal.clone()), &config), Err(refusal));
        }
    }
}
