//! What goes wrong, and what operators do.

use std::collections::BTreeMap;

use lockstep_inference::Inference;
use lockstep_inference::command::Command;
use lockstep_inference::id::{InstanceId, ModelId};
use lockstep_inference::state::ModelCard;
use lockstep_replication::message::Refused;
use lockstep_replication::{CommandId, Outcome, Role, Session, Span};

use super::checks::streams::Trouble;
use super::machine::Asker;
use super::plan::{Fault, Model, Who};
use super::runners::Act;
use super::world::{Event, World};
use crate::checks::Broken;
use crate::faults::Part;
use crate::plan::{SECONDS, node_id};

/// Something that an operator asks for until an answer says what became of it.
pub(super) struct Asked {
    command: Command,
    tries: u64,
    pub(super) is_answered: bool,
}

/// How long an operator waits before asking again.
const ASK_AGAIN: Span = Span::seconds(2);

/// The id of an instance of the plan.
pub(super) fn instance_id(n: usize) -> InstanceId {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&(n as u16 + 1).to_be_bytes());
    InstanceId(id)
}

fn card(model: &Model) -> ModelCard {
    ModelCard {
        name: model.name.clone(),
        weights_bytes: 1 << 30,
        layers: 8,
        context_tokens: 4096,
        custom: model.custom,
        runner: "echo".to_owned(),
        settings: BTreeMap::new(),
    }
}

impl World {
    /// Operators add the models' cards at first, then create instances.
    pub(super) fn plan_operators(&mut self) {
        let plan = self.plan.clone();
        for model in &plan.models {
            self.operator(SECONDS / 2, Command::AddCard { model: ModelId::new(&model.name), card: card(model) });
        }
        for (n, planned) in plan.instances.iter().enumerate() {
            let (instance, model) = (Some(instance_id(n)), ModelId::new(&planned.model));
            let nodes = planned.nodes.iter().map(|node| node_id(*node)).collect::<Vec<_>>();
            let command = if nodes.is_empty() {
                Command::PlaceInstance { instance, model, ranks: Some(1) }
            } else {
                Command::CreateInstance { instance, model, nodes }
            };
            self.operator(planned.at.0, command);
        }
    }

    fn operator(&mut self, at: u64, command: Command) {
        let n = self.operators.len();
        self.operators.push(Asked { command, tries: 0, is_answered: false });
        self.push(at, Event::Operator { n });
    }

    pub(super) fn operator_asks(&mut self, n: usize) -> Result<(), Broken> {
        let tries = self.operators[n].tries;
        // A model that is not there yet, or a node: asked again for a while.
        if self.operators[n].is_answered || tries > 60 {
            self.operators[n].is_answered = true;
            return Ok(());
        }
        self.after(ASK_AGAIN, Event::Operator { n });
        let up: Vec<usize> = (0..self.machines.len()).filter(|at| self.machines[*at].works()).collect();
        if up.is_empty() {
            return Ok(());
        }
        let at = self.attempt_roll(n, tries).one_of(&up);
        let asked = &mut self.operators[n];
        asked.tries += 1;
        let mut id = [0xff; 16];
        id[..8].copy_from_slice(&(n as u64).to_be_bytes());
        // What was refused may be granted later: under another name.
        id[8..12].copy_from_slice(&(asked.tries as u32 / 8).to_be_bytes());
        let command = asked.command.clone();
        self.give(at, Asker::Operator(n), Some(CommandId(id)), command)?;
        self.settle(at)
    }

    pub(super) fn operator_hears(&mut self, n: usize, outcome: &Outcome<Inference>) {
        let asked = &mut self.operators[n];
        asked.is_answered |= match outcome {
            Outcome::Done { .. } | Outcome::Refused(Refused::Nothing(_) | Refused::DoneBefore(_)) => true,
            Outcome::Refused(Refused::Application(_)) => match &asked.command {
                // The card or the node may come.
                Command::CreateInstance { .. } | Command::PlaceInstance { .. } => asked.tries > 10,
                Command::SetNodeInfo { .. }
                | Command::EvictNode { .. }
                | Command::AddCard { .. }
                | Command::DeleteCard { .. }
                | Command::DeleteInstance { .. }
                | Command::CreateTask { .. }
                | Command::StartTask { .. }
                | Command::FinishTask { .. }
                | Command::CancelTask { .. }
                | Command::DeleteTask { .. } => true,
            },
            Outcome::Refused(Refused::TooLong { .. } | Refused::Before)
            | Outcome::NotTaken(_)
            | Outcome::Unknown(_) => false,
        };
    }

    /// The fault of this number comes.
    pub(super) fn fault(&mut self, n: usize) -> Result<(), Broken> {
        let plan = self.plan.clone();
        let time = self.time;
        self.trace.line(time, || format!("FAULT {:?}", plan.faults[n].fault));
        let at_of = |node: u16| usize::from(node) - 1;
        match &plan.faults[n].fault {
            Fault::Crash { node, down } => {
                for at in self.who(*node) {
                    self.crash(at, down.0)?;
                }
            }
            Fault::Partition { nodes, lasts } => {
                let inside = |at: usize| nodes.contains(&(at as u16 + 1));
                let machines = (0..self.machines.len()).filter(|at| inside(*at)).collect();
                self.checks.streams.trouble(Trouble { machines, cuts: true, until: time.saturating_add(lasts.0) });
                for from in 0..self.machines.len() {
                    for to in (0..self.machines.len()).filter(|to| inside(*to) != inside(from)) {
                        self.network.block(from, to);
                        self.cut(from, to);
                        self.after(*lasts, Event::Unblock { from, to });
                    }
                }
            }
            Fault::DiskFails { node } => self.machines[at_of(*node)].disk_fails = true,
            Fault::DiskSlow { node, lasts } => {
                let (at, until) = (at_of(*node), time.saturating_add(lasts.0));
                self.machines[at].slow_until = until;
                self.checks.streams.trouble(Trouble { machines: [at].into(), cuts: false, until });
            }
            Fault::KillRunners { node } => self.runners_of(at_of(*node), || Act::End("killed by signal 9")),
            Fault::HangRunners { node } => self.runners_of(at_of(*node), || Act::Hang),
            Fault::GarbageOfRunners { node } => self.runners_of(at_of(*node), || Act::Garbage),
            Fault::DeleteInstance { instance } => {
                self.operator(time, Command::DeleteInstance { instance: instance_id(usize::from(*instance)) });
            }
            Fault::AddCard { model } => {
                let custom = Model {
                    name: model.clone(),
                    custom: true,
                    loads: Span::ZERO,
                    token_every: Span::ZERO,
                    at_once: 1,
                    dies_after: None,
                    dies_loading: false,
                };
                self.operator(time, Command::AddCard { model: ModelId::new(model), card: card(&custom) });
            }
            Fault::DeleteCard { model } => self.operator(time, Command::DeleteCard { model: ModelId::new(model) }),
        }
        Ok(())
    }

    /// The machines that are meant.
    fn who(&self, who: Who) -> Vec<usize> {
        let leads = |at: &usize| match self.machines[*at].process.as_ref().map(|process| process.node.role()) {
            Some(Role::Leading(session)) => Some(session),
            Some(Role::Following(_) | Role::Seeking) | None => None,
        };
        let all = 0..self.machines.len();
        let newest: Option<(Session, usize)> = all.clone().filter_map(|at| Some((leads(&at)?, at))).max();
        match who {
            Who::Node(number) => vec![usize::from(number) - 1],
            Who::Part(Part::Leader) => newest.map(|(_, at)| at).into_iter().collect(),
            Who::Part(Part::Follower) => {
                let follows = |at: &usize| self.machines[*at].process.is_some() && leads(at).is_none();
                all.clone().find(follows).into_iter().collect()
            }
            Who::Part(Part::Everybody) => all.collect(),
        }
    }

    /// Faults stop: the network is whole, all machines are up, nobody asks any more.
    pub(super) fn quiet(&mut self) -> Result<(), Broken> {
        self.is_quiet = true;
        self.network.heal();
        self.kill_idle_hung();
        self.machines.iter_mut().for_each(|machine| (machine.slow_until, machine.disk_fails) = (0, false));
        (0..self.machines.len()).try_for_each(|at| self.start(at))
    }
}
