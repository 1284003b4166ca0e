//! What the cluster is told of a runner's life: only what is new, and not too much of it.

use lockstep_replication::Moment;

use super::config::WorkerConfig;
use super::io::WorkerOutput;
use super::seat::{Process, Seat};
use crate::id::RunnerId;
use crate::observation::Observation;
use crate::state::{RunnerStatus, State};

impl Seat {
    /// It loads, and is so far.
    pub(super) fn progress(&mut self, now: Moment, percent: u8, config: &WorkerConfig) {
        let RunnerStatus::Loading { percent: shown } = self.status else { return };
        let percent = percent.min(100);
        let soon = now < self.progress + config.percent_every;
        if percent > shown && (percent - shown >= config.percent_step || !soon) {
            self.status = RunnerStatus::Loading { percent };
            self.progress = now;
        }
    }

    /// Has the cluster told how far the runner is, if that is new or did not arrive.
    pub(super) fn show(
        &mut self,
        now: Moment,
        runner: RunnerId,
        state: &State,
        config: &WorkerConfig,
        out: &mut Vec<WorkerOutput>,
    ) {
        if self.place.is_none() {
            return;
        }
        self.rest(now, config);
        let shown = state.runners.get(&runner).is_some_and(|shown| shown.status == self.status);
        let wait = match &self.said {
            None if shown => return,
            Some(said) if *said == self.status => match self.say_again {
                _ if shown => {
                    self.say_again = None;
                    return;
                }
                None => {
                    self.say_again = Some((now + config.repeat_first, config.repeat_first));
                    return;
                }
                Some((at, _)) if at > now => return,
                Some((_, wait)) => wait.times(2).min(config.repeat_longest),
            },
            None | Some(_) => config.repeat_first,
        };
        out.push(WorkerOutput::Observe(Observation::Runner { runner, status: self.status.clone() }));
        self.said = Some(self.status.clone());
        self.say_again = Some((now + wait, wait));
    }

    /// A runner that has no task any more still shows as running for a moment: another task may come.
    fn rest(&mut self, now: Moment, config: &WorkerConfig) {
        if self.process != Process::Ready {
            return;
        }
        if !self.told.is_empty() {
            (self.status, self.rests) = (RunnerStatus::Running, None);
        } else if self.status == RunnerStatus::Running {
            match self.rests {
                None => self.rests = Some(now + config.rest),
                Some(until) if until <= now => (self.status, self.rests) = (RunnerStatus::Ready, None),
                Some(_) => {}
            }
        }
    }
}
