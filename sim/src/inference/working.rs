//! Stepping a worker and a gateway, and doing what they ask for.

use lockstep_inference::command::Command;
use lockstep_inference::gateway::{GatewayInput, GatewayOutput, GatewayView};
use lockstep_inference::transient::Transient;
use lockstep_inference::worker::{WorkerInput, WorkerOutput, WorkerView};
use lockstep_replication::{CommandId, Input, NodeId, Ticket};

use super::machine::Asker;
use super::world::{Event, World};
use crate::checks::Broken;
use crate::checks::no_panic::guarded;

impl World {
    /// One step of a worker, once its node has caught up.
    pub(super) fn worker(&mut self, at: usize, input: WorkerInput) -> Result<(), Broken> {
        let (time, machine) = (self.time, &mut self.machines[at]);
        let (number, life, now) = (machine.number, machine.life, machine.clock.now(time));
        let Some(process) = machine.process.as_mut().filter(|process| process.works) else { return Ok(()) };
        let is_told = self.trace.is_told() && !matches!(input, WorkerInput::Wake | WorkerInput::Changed);
        let line = is_told.then(|| format!("{number} worker <- {input:?}"));
        let mut out = Vec::new();
        let (worker, replica) = (&mut process.worker, process.node.replica());
        guarded(|| worker.step(now, replica.state(), replica.next(), input, &mut out))?;
        if let Some(wake) = worker.next_wake().filter(|wake| *wake <= now.at) {
            return Err(Broken::new("wakes", format!("L3: the worker of node {number} wants to be woken at {wake:?}")));
        }
        self.trace.step(time, number, 6 << 8 | out.len() as u64);
        line.into_iter().for_each(|line| self.trace.line(time, || line));
        for output in out {
            self.trace.line(time, || format!("       worker -> {output:?}"));
            match output {
                WorkerOutput::Observe(observation) => {
                    self.push(time, Event::Node { at, life, input: Input::Observe(observation) });
                }
                WorkerOutput::Submit(command) => self.push(time, Event::Command { at, life, stream: None, command }),
                WorkerOutput::Send { to, transient } => self.send_signal(at, to, transient),
                WorkerOutput::Start { runner, life: start, card } => self.runner_starts(at, runner, start, &card)?,
                WorkerOutput::Tell { runner, life: start, message } => self.runner_told(at, runner, start, message)?,
                WorkerOutput::End { runner, life: start, grace } => self.runner_to_end(at, runner, start, grace),
                WorkerOutput::Mirror { cards, whole } => {
                    let mirror = &mut self.machines[at].cards;
                    if whole {
                        mirror.clear();
                    }
                    for (model, card) in cards {
                        match card {
                            Some(card) => drop(mirror.insert(model, (*card).clone())),
                            None => drop(mirror.remove(&model)),
                        }
                    }
                }
                WorkerOutput::Busy(span) => self.push(time, Event::Node { at, life, input: Input::Busy(span) }),
            }
        }
        Ok(())
    }

    /// One step of a gateway, once its node has caught up.
    pub(super) fn gateway(&mut self, at: usize, input: GatewayInput) -> Result<(), Broken> {
        let (time, machine) = (self.time, &mut self.machines[at]);
        let (number, life, now) = (machine.number, machine.life, machine.clock.now(time));
        let Some(process) = machine.process.as_mut().filter(|process| process.works) else { return Ok(()) };
        let is_told = self.trace.is_told() && !matches!(input, GatewayInput::Wake | GatewayInput::Changed);
        let line = is_told.then(|| format!("{number} gateway <- {input:?}"));
        let mut out = Vec::new();
        let (gateway, replica) = (&mut process.gateway, process.node.replica());
        guarded(|| gateway.step(now, replica.state(), replica.next(), input, &mut out))?;
        if let Some(wake) = gateway.next_wake().filter(|wake| *wake <= now.at) {
            return Err(Broken::new(
                "wakes",
                format!("L3: the gateway of node {number} wants to be woken at {wake:?}"),
            ));
        }
        self.trace.step(time, number, 7 << 8 | out.len() as u64);
        line.into_iter().for_each(|line| self.trace.line(time, || line));
        for output in out {
            self.trace.line(time, || format!("       gateway -> {output:?}"));
            match output {
                GatewayOutput::Create { stream, command } => {
                    self.push(time, Event::Command { at, life, stream: Some(stream.0), command });
                }
                GatewayOutput::Submit(command) => self.push(time, Event::Command { at, life, stream: None, command }),
                GatewayOutput::Send { to, transient } => self.send_signal(at, to, transient),
                GatewayOutput::Deliver { stream, part } => self.client_hears(at, stream.0, part)?,
            }
        }
        Ok(())
    }

    fn send_signal(&mut self, at: usize, to: NodeId, transient: Transient) {
        let (life, me) = (self.machines[at].life, self.machines[at].id);
        let event = if to == me {
            Event::Signal { at, life, from: me, transient }
        } else {
            Event::Node { at, life, input: Input::Transient { to: Some(to), transient } }
        };
        self.push(self.time, event);
    }

    /// The creation of a task is named after it, so that it is done at most once.
    pub(super) fn command(&mut self, at: usize, stream: Option<u64>, command: Command) -> Result<(), Broken> {
        let id = match (&command, stream) {
            (Command::CreateTask { task: Some(task), .. }, Some(_)) => Some(CommandId(task.0)),
            _ => None,
        };
        self.give(at, stream.map_or(Asker::Nobody, Asker::Stream), id, command)
    }

    /// Gives a command to a node.
    pub(super) fn give(
        &mut self,
        at: usize,
        asker: Asker,
        id: Option<CommandId>,
        command: Command,
    ) -> Result<(), Broken> {
        let process = self.process(at);
        process.given += 1;
        let ticket = Ticket(process.given);
        process.tickets.insert(ticket, asker);
        self.step(at, Input::Command { ticket, id, command }, 8)
    }

    /// What a worker and a gateway counted until now.
    pub(super) fn count_work(&mut self, worker: &WorkerView, gateway: &GatewayView) {
        self.count("runner_starts", worker.counts.starts);
        self.count("runner_failures", worker.counts.failures);
        self.count("rounds_void", worker.counts.rounds_void);
        self.count("pieces_again", worker.counts.pieces_again);
        self.count("inputs_again", gateway.counts.inputs_again + gateway.counts.inputs_asked);
        self.count("holes_asked", gateway.counts.holes_asked);
        self.count("orphans", gateway.counts.orphans);
    }
}
