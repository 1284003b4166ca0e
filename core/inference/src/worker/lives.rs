//! The life of a runner: started, connected, loaded and warmed up in step with the other ranks, watched, ended, started
//! again.

use lockstep_replication::{Moment, Span};

use super::io::{RunnerSaid, WorkerOutput};
use super::ranks::{self, Level};
use super::seat::{Place, Process};
use super::timers::Timer;
use super::{Turn, Worker};
use crate::id::RunnerId;
use crate::limits;
use crate::runner::{FromRunner, ToRunner, VERSION};
use crate::state::RunnerStatus;
use crate::transient::TokenPart;

impl Worker {
    /// Does what is next for a runner, now that something has changed for it.
    pub(super) fn settle(&mut self, id: RunnerId, turn: &mut Turn<'_>) {
        self.mind_other_ranks(id, turn);
        self.go_on(id, turn);
        self.feed(id, turn);
        self.rearm(id, turn);
    }

    /// A process said or did something.
    pub(super) fn said(&mut self, id: RunnerId, life: u64, said: RunnerSaid, turn: &mut Turn<'_>) {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.life == life) else { return };
        match (said, seat.process) {
            (_, Process::Absent) => return,
            (RunnerSaid::Ended { .. }, Process::Ending) => {
                seat.process = Process::Absent;
                if self.stopping {
                    seat.status = RunnerStatus::ShutDown;
                }
            }
            (_, Process::Ending) => return,
            (RunnerSaid::Ended { reason }, _) => {
                seat.process = Process::Absent;
                self.fail(id, &reason, turn);
            }
            (RunnerSaid::Garbage(how), _) => self.fail(id, &format!("it does not keep to the protocol: {how}"), turn),
            (RunnerSaid::Message(message), _) => {
                seat.heard = turn.now;
                if !self.message(id, message, turn) {
                    return;
                }
            }
        }
        self.settle(id, turn);
    }

    /// The node stops: all processes end, and none is started.
    pub(super) fn stop(&mut self, turn: &mut Turn<'_>) {
        let running: Vec<RunnerId> = self.seats.iter().filter(|(_, seat)| seat.lives()).map(|(id, _)| *id).collect();
        for id in running {
            self.fail_told(id, "the node that worked on it stops", turn);
            let grace = self.config.grace;
            if let Some(seat) = self.seats.get_mut(&id) {
                seat.end(id, grace, turn.out);
                seat.status = RunnerStatus::ShuttingDown;
            }
            self.rearm(id, turn);
        }
    }

    /// The time of a runner has come.
    pub(super) fn tick(&mut self, id: RunnerId, turn: &mut Turn<'_>) {
        let (now, config) = (turn.now, &self.config);
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let silent = seat.work().filter(|_| seat.heard + config.silence <= now);
        if seat.step_by.is_some_and(|by| by <= now) {
            let reason = match seat.process {
                Process::Started => format!("it did not answer its first line within {}", config.hello),
                Process::Connecting => format!("it did not find the other ranks within {}", config.connect),
                Process::Connected => format!("not all ranks found each other within {}", config.connect),
                Process::Loading => format!("it did not load its model within {}", config.load),
                Process::WarmingUp => format!("it was not ready {} after it had loaded", config.warm_up),
                Process::Absent
                | Process::Greeted
                | Process::Gathering
                | Process::Loaded
                | Process::Ready
                | Process::Ending => "it came to nothing".to_owned(),
            };
            self.fail(id, &reason, turn);
        } else if let Some(work) = silent {
            let reason = format!("it said nothing for {} while it was {work}", config.silence);
            self.fail(id, &reason, turn);
        } else if seat.process == Process::Loading && seat.busy_at <= now {
            seat.busy_at = now + Span(config.busy.0 / 2);
            turn.out.push(WorkerOutput::Busy(config.busy));
        }
        self.ask_for_inputs(id, turn);
        self.settle(id, turn);
    }

    /// Whether something follows from what a runner said, beside what was done at once.
    fn message(&mut self, id: RunnerId, message: FromRunner, turn: &mut Turn<'_>) -> bool {
        let (now, config) = (turn.now, &self.config);
        let Some(seat) = self.seats.get_mut(&id) else { return false };
        match (message, seat.process) {
            (FromRunner::Hello { version: VERSION, tasks }, Process::Started) => {
                seat.slots = tasks.clamp(1, config.at_once) as usize;
                (seat.process, seat.step_by) = (Process::Greeted, None);
            }
            (FromRunner::Hello { version, .. }, Process::Started) => {
                let reason = format!("it speaks version {version} of the protocol, this node speaks version {VERSION}");
                self.fail(id, &reason, turn);
            }
            (FromRunner::Connected, Process::Connecting) => {
                (seat.process, seat.status) = (Process::Connected, RunnerStatus::Connected);
                seat.step_by = Some(now + config.connect);
            }
            (FromRunner::Loading { percent }, Process::Loading) => seat.progress(now, percent, config),
            (FromRunner::Loaded, Process::Loading) => {
                (seat.process, seat.status, seat.step_by) = (Process::Loaded, RunnerStatus::Loaded, None);
            }
            (FromRunner::Ready, Process::WarmingUp) => {
                (seat.process, seat.status, seat.step_by) = (Process::Ready, RunnerStatus::Ready, None);
                seat.ready = Some(now);
                if let Some(place) = &seat.place {
                    self.models.forget(&place.made.model);
                }
            }
            (FromRunner::Alive, process) if process > Process::Started => return false,
            (FromRunner::Started { .. }, Process::Ready) => return false,
            (FromRunner::Token { task, text }, Process::Ready) => return self.token(id, task, text, turn),
            (FromRunner::Done { task, stop, usage }, Process::Ready) => self.done(id, task, stop, usage, turn),
            (FromRunner::Failed { task, reason, request }, Process::Ready) => {
                let error = if request { TokenPart::Refused } else { TokenPart::Error };
                self.task_failed(id, task, (error, &reason), turn);
            }
            (FromRunner::Trace { task, spans }, Process::Ready) => {
                self.trace(id, task, spans, turn);
                return false;
            }
            (
                message @ (FromRunner::Hello { .. }
                | FromRunner::Connected
                | FromRunner::Loading { .. }
                | FromRunner::Loaded
                | FromRunner::Ready
                | FromRunner::Started { .. }
                | FromRunner::Token { .. }
                | FromRunner::Done { .. }
                | FromRunner::Failed { .. }
                | FromRunner::Trace { .. }
                | FromRunner::Alive),
                _,
            ) => {
                let reason = format!("it said {:?}, which it was not to say then", name(&message));
                self.fail(id, &reason, turn);
            }
        }
        true
    }

    /// Its process has ended by itself, or has to be ended. It starts again after a while, unless it failed too often.
    pub(super) fn fail(&mut self, id: RunnerId, reason: &str, turn: &mut Turn<'_>) {
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let Some(place) = seat.place.clone() else { return };
        self.counts.failures += 1;
        if seat.ready.is_some_and(|ready| ready + self.config.steady <= turn.now) {
            self.instances.forget(&place.instance);
        }
        self.models.failed(turn.now, &place.made.model);
        let failures = self.instances.failed(turn.now, &place.instance);
        seat.given_up = failures >= self.config.starts;
        let given_up = if seat.given_up { format!("gave up after {failures} starts: ") } else { String::new() };
        let reason = limits::cut_text(&format!("{given_up}{}", reason.replace('\n', " ")), limits::REASON_CHARS);
        seat.kill(id, Span::ZERO, turn.out);
        seat.status = RunnerStatus::Failed { reason: reason.clone() };
        let given_up = seat.given_up;
        let reason = format!("its runner failed: {reason}");
        self.fail_told(id, &reason, turn);
        if given_up {
            self.fail_waiting(id, &reason, turn);
        }
    }

    /// If another rank fell back, what this one has of it is void.
    fn mind_other_ranks(&mut self, id: RunnerId, turn: &mut Turn<'_>) {
        let Some(seat) = self.seats.get_mut(&id).filter(|seat| seat.level() > Level::Down) else { return };
        let Some(place) = seat.place.as_ref().filter(|place| place.made.ranks.len() > 1) else { return };
        let levels = ranks::levels(turn.state, &place.made.ranks);
        if let Some(fallen) = ranks::fallen(&levels, &seat.seen, place.rank, seat.level()) {
            self.counts.rounds_void += 1;
            seat.kill(id, Span::ZERO, turn.out);
            seat.status = RunnerStatus::Idle;
            return self.fail_told(id, &format!("rank {fallen} of its instance fell back"), turn);
        }
        seat.seen = levels.into_iter().zip(&seat.seen).map(|(now, before)| now.max(*before)).collect();
    }

    /// The next step of its life, if its turn has come.
    fn go_on(&mut self, id: RunnerId, turn: &mut Turn<'_>) {
        let (now, config) = (turn.now, &self.config);
        let Some(seat) = self.seats.get_mut(&id).filter(|_| !self.stopping) else { return };
        let Some(place) = seat.place.clone() else { return };
        let (levels, rank) = (ranks::levels(turn.state, &place.made.ranks), place.rank);
        let step = match seat.process {
            Process::Absent => return self.start(id, &place, turn),
            Process::Greeted if ranks::may_connect(&levels, rank) => {
                seat.seen = levels.clone();
                (seat.process, seat.status, seat.heard) = (Process::Gathering, RunnerStatus::Connecting, now);
                return self.go_on(id, turn);
            }
            // It could not find who is not there yet; and one that needs no others would be done before they begin.
            Process::Gathering if ranks::all_connect(&levels, rank) => {
                (Process::Connecting, RunnerStatus::Connecting, Some(now + config.connect), ToRunner::Connect)
            }
            Process::Connected if ranks::may_begin(&levels, rank, Level::Loading, Level::Connected) => {
                seat.progress = now;
                seat.busy_at = now + Span(config.busy.0 / 2);
                turn.out.push(WorkerOutput::Busy(config.busy));
                (Process::Loading, RunnerStatus::Loading { percent: 0 }, Some(now + config.load), ToRunner::Load)
            }
            Process::Loaded if ranks::may_begin(&levels, rank, Level::WarmingUp, Level::Loaded) => {
                (Process::WarmingUp, RunnerStatus::WarmingUp, Some(now + config.warm_up), ToRunner::WarmUp)
            }
            Process::Started
            | Process::Greeted
            | Process::Gathering
            | Process::Connecting
            | Process::Connected
            | Process::Loading
            | Process::Loaded
            | Process::WarmingUp
            | Process::Ready
            | Process::Ending => return,
        };
        let (process, status, step_by, message) = step;
        seat.tell(id, message, turn.out);
        (seat.process, seat.status, seat.step_by, seat.heard) = (process, status, step_by, now);
    }

    fn start(&mut self, id: RunnerId, place: &Place, turn: &mut Turn<'_>) {
        let may = self.may_start(place).is_none_or(|at| at <= turn.now);
        let (Some(seat), Some(card)) = (self.seats.get_mut(&id), turn.state.cards.get(&place.made.model)) else {
            return;
        };
        if seat.given_up || !may {
            return;
        }
        self.lives += 1;
        self.counts.starts += 1;
        seat.life = self.lives;
        seat.process = Process::Started;
        seat.step_by = Some(turn.now + self.config.hello);
        turn.out.push(WorkerOutput::Start { runner: id, life: seat.life, card: card.clone() });
        let ranks = &place.made.ranks;
        let addresses = |node| turn.state.nodes.get(node).map_or(vec![], |node| node.info.addresses.clone());
        let hello = ToRunner::Hello {
            version: VERSION,
            runner: id,
            instance: place.instance,
            rank: place.rank as u16,
            ranks: ranks.len() as u16,
            addresses: ranks.iter().map(|rank| addresses(&rank.node)).collect(),
            model: place.made.model.clone(),
            card: (**card).clone(),
        };
        seat.tell(id, hello, turn.out);
    }

    /// When both its instance and its model may be tried again.
    fn may_start(&self, place: &Place) -> Option<Moment> {
        self.instances.again(&place.instance).max(self.models.again(&place.made.model))
    }

    /// Tells what is new of a runner, and sets its time.
    fn rearm(&mut self, id: RunnerId, turn: &mut Turn<'_>) {
        let config = &self.config;
        let Some(seat) = self.seats.get_mut(&id) else { return };
        let Some(place) = seat.place.clone() else {
            if seat.process == Process::Absent {
                self.seats.remove(&id);
            }
            return self.timers.set(Timer::Runner(id), None);
        };
        seat.show(turn.now, id, turn.state, config, turn.out);
        let loads = seat.process == Process::Loading;
        let times = [
            seat.step_by,
            seat.work().map(|_| seat.heard + config.silence),
            loads.then_some(seat.busy_at),
            seat.rests,
            seat.say_again.map(|(at, _)| at),
            seat.asks.values().map(|ask| ask.at).min(),
        ];
        let waits = seat.process == Process::Absent && !seat.given_up && !self.stopping;
        let again = waits.then(|| self.may_start(&place)).flatten().filter(|at| *at > turn.now);
        self.timers.set(Timer::Runner(id), times.into_iter().chain([again]).flatten().min());
    }
}

fn name(message: &FromRunner) -> &'static str {
    match message {
        FromRunner::Hello { .. } => "hello",
        FromRunner::Connected => "connected",
        FromRunner::Loading { .. } => "loading",
        FromRunner::Loaded => "loaded",
        FromRunner::Ready => "ready",
        FromRunner::Started { .. } => "started",
        FromRunner::Token { .. } => "token",
        FromRunner::Done { .. } => "done",
        FromRunner::Failed { .. } => "failed",
        FromRunner::Trace { .. } => "trace",
        FromRunner::Alive => "alive",
    }
}
