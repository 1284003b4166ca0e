//! One run from its plan to its verdict: faults and clients, then quiet, then rest; one more client for each node and
//! model, whose answer must come whole; and at last nothing happens any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lockstep_inference::gateway::Failure;
use lockstep_inference::id::{InstanceId, ModelId};
use lockstep_replication::chaos::{self, Chaos, PROBES};
use lockstep_replication::{Hash, Index, Role, Span};

use super::checks::growth::Growth;
use super::checks::same::{Ended, differs};
use super::checks::streams::Failed;
use super::clients::Stream;
use super::plan::Plan;
use super::world::{Event, World};
use crate::checks::Broken;
use crate::plan::{MILLIS, SECONDS};
use crate::report::{Facts, Failure as Failed_, Report};
use crate::trace::Detail;

/// How long after faults stopped all must be at rest: hung runners are noticed, failed ones wait before they start.
const REST_WITHIN: Span = Span::seconds(240);

/// How long a last answer may take.
const ANSWER_WITHIN: Span = Span::seconds(60);

/// How long nothing may happen at the end.
const IDLE: Span = Span::seconds(30);

/// How often the checks look at everybody.
const LOOK_EVERY: Span = Span::seconds(1);

/// Plays a plan.
pub fn run(plan: &Plan, detail: Detail) -> Report {
    chaos::set(Chaos::default());
    let mut world = World::new(Arc::new(plan.clone()), detail);
    let mut rest = Span::ZERO;
    let broken = world.lives(&mut rest).and_then(|()| world.as_expected()).err();
    let failure = broken.map(|Broken { check, reason }| Failed_ {
        check: check.to_owned(),
        reason,
        at: Span(world.time),
        nodes: world.everybody(),
    });
    let counters = world.counters();
    Report {
        seed: plan.seed,
        failure,
        trace_hash: world.trace.hash(),
        checkpoints: world.trace.checkpoints().to_vec(),
        lasted: Span(world.time),
        steps: world.trace.steps(),
        facts: Facts { agreed_after: rest, counters, final_state: world.final_state(), ..Facts::default() },
        probes: [0; PROBES.len()],
        commands: BTreeSet::new(),
        lost_messages: BTreeSet::new(),
        lines: world.trace.lines().map(str::to_owned).collect(),
    }
}

impl World {
    fn lives(&mut self, rest: &mut Span) -> Result<(), Broken> {
        self.run_until(self.plan.quiet_from.0)?;
        self.quiet()?;
        let quiet = self.time;
        // What was killed last is seen to be gone.
        self.run_until(quiet + SECONDS)?;
        self.comes_to_rest(quiet + REST_WITHIN.0)?;
        *rest = Span(self.time - quiet);
        for (at, model) in self.served() {
            self.ask_last(at, &model)?;
        }
        self.comes_to_rest(self.time + ANSWER_WITHIN.0)?;
        // A runner rests a moment before it shows as ready.
        self.run_until(self.time + 5 * SECONDS)?;
        let before = self.log_ends();
        self.run_until(self.time + IDLE.0)?;
        Growth::idle(before, self.log_ends())?;
        self.comes_to_rest(self.time)?;
        self.checks.growth.ended()
    }

    /// Waits until nothing is left to do; at the deadline, says what is.
    fn comes_to_rest(&mut self, deadline: u64) -> Result<(), Broken> {
        while let Some((check, open)) = self.unrest() {
            if self.time >= deadline {
                return Err(Broken::new(check, format!("it does not come to rest: {open}")));
            }
            self.run_until(self.time + 500 * MILLIS)?;
        }
        Ok(())
    }

    /// What the cluster holds, by the first machine that is up.
    fn final_state(&self) -> String {
        let replica = self.machines.iter().find_map(|machine| machine.replica());
        replica.map_or("no node is up".to_owned(), |replica| {
            let state = replica.state();
            let (nodes, cards, instances) = (state.nodes.len(), state.cards.len(), state.instances.len());
            let (runners, tasks) = (state.runners.len(), state.tasks.len());
            format!("{nodes} nodes, {cards} cards, {instances} instances, {runners} runners, {tasks} tasks")
        })
    }

    /// What keeps the cluster from being at rest, if anything does, and the check that says so.
    fn unrest(&self) -> Option<(&'static str, String)> {
        if let Some(machine) = self.machines.iter().find(|machine| !machine.works()) {
            return Some(("agreement", format!("node {} has not caught up", machine.number)));
        }
        let replicas = || self.machines.iter().filter_map(|machine| machine.replica());
        let ends: BTreeSet<(Index, Hash)> = replicas().map(|replica| (replica.next(), replica.hash())).collect();
        if ends.len() != 1 {
            return Some(("agreement", format!("logs end differently: {ends:?}")));
        }
        let sessions: BTreeSet<_> = self
            .machines
            .iter()
            .filter_map(|machine| {
                machine.process.as_ref().map(|process| match process.node.role() {
                    Role::Seeking => None,
                    Role::Following(session) | Role::Leading(session) => Some(session),
                })
            })
            .collect();
        if sessions.len() != 1 || sessions.contains(&None) {
            return Some(("agreement", format!("sessions differ: {sessions:?}")));
        }
        let digests: BTreeSet<Hash> = replicas().map(|replica| replica.digest()).collect();
        if digests.len() != 1 {
            return Some(("agreement", format!("{} states at one index", digests.len())));
        }
        if let Some(n) = self.operators.iter().position(|asked| !asked.is_answered) {
            return Some(("one_end", format!("operator {n} has no answer")));
        }
        if let Some(stream) = self.checks.one_end.open().first() {
            return Some(("one_end", format!("stream {stream} has not ended")));
        }
        let state = self.machines.first()?.replica()?.state();
        if let Some((task, _)) = state.tasks.iter().next() {
            return Some(("one_end", format!("task {task} is live, and nobody waits for it")));
        }
        if let Some(what) = self.checks.runners.differs(state, &self.given_up()) {
            return Some(("runners", what));
        }
        self.machines
            .iter()
            .find_map(|machine| {
                let process = machine.process.as_ref()?;
                let (worker, gateway) = (process.worker.view(), process.gateway.view());
                let ended = Ended { node: machine.id, state, cards: &machine.cards, worker, gateway };
                differs(&ended).map(|what| ("same", format!("node {}: {what}", machine.number)))
            })
            .or_else(|| self.instance_that_is_not_ready())
    }

    fn instance_that_is_not_ready(&self) -> Option<(&'static str, String)> {
        let (state, given_up) = (self.machines.first()?.replica()?.state(), self.given_up());
        let dies =
            |model: &ModelId| self.plan.model(&model.0).is_some_and(|it| it.dies_after.is_some() || it.dies_loading);
        let mut waits = state
            .instances
            .iter()
            .filter(|(id, made)| !given_up.contains(*id) && (dies(&made.model) || !state.is_ready(made)));
        waits.next().map(|(id, _)| ("runners", format!("instance {id} is neither ready nor given up")))
    }

    /// The instances that some worker does not try any more.
    fn given_up(&self) -> BTreeSet<InstanceId> {
        let processes = self.machines.iter().filter_map(|machine| machine.process.as_ref());
        let runners = processes.flat_map(|process| process.worker.view().runners);
        runners.filter(|runner| runner.given_up).filter_map(|runner| runner.instance).collect()
    }

    /// Each machine with each model that a ready instance serves.
    fn served(&self) -> Vec<(usize, String)> {
        let Some(state) = self.machines.first().and_then(|machine| machine.replica()).map(|replica| replica.state())
        else {
            return Vec::new();
        };
        let ready = state.instances.values().filter(|made| state.is_ready(made));
        let models: BTreeSet<&ModelId> = ready.map(|made| &made.model).collect();
        let all = (0..self.machines.len()).flat_map(|at| models.iter().map(move |model| (at, model.0.to_string())));
        all.collect()
    }

    fn log_ends(&self) -> Index {
        self.machines.iter().map(|machine| machine.disk.next()).max().unwrap_or_default()
    }

    /// A client is told that its answer does not come: the failure must be true.
    pub(super) fn why_failed(&mut self, at: usize, stream: u64, failure: &Failure) -> Result<(), Broken> {
        let (Some(stream), Some(replica)) = (self.streams.get(&stream), self.machines[at].replica()) else {
            return Ok(());
        };
        let Stream { task, opened, slow, last, .. } = *stream;
        let of = Failed { task, at, opened, now: self.time, state: replica.state(), slow, last };
        self.checks.streams.failed(failure, of)
    }

    /// Looks at all open streams: none may stay whose task its machine had, and has no more.
    pub(super) fn look(&mut self) -> Result<(), Broken> {
        self.after(LOOK_EVERY, Event::Look);
        let time = self.time;
        for (id, stream) in self.streams.iter_mut().filter(|(_, stream)| stream.open) {
            let Some(replica) = self.machines[stream.at].replica() else { continue };
            if replica.state().tasks.contains_key(&stream.task) {
                (stream.shown, stream.dead_since) = (true, None);
            } else if stream.shown {
                let since = *stream.dead_since.get_or_insert(time);
                self.checks.streams.dead(*id, since, time)?;
            }
        }
        Ok(())
    }

    fn counters(&mut self) -> BTreeMap<&'static str, u64> {
        for at in 0..self.machines.len() {
            let machine = &self.machines[at];
            let Some(process) = machine.process.as_ref() else { continue };
            let view = process.node.view(machine.clock.now(self.time).at);
            let (worker, gateway) = (process.worker.view(), process.gateway.view());
            self.count("snapshots_installed", view.counters.snapshots_installed);
            self.count("sessions_opened", view.counters.sessions_opened);
            self.count_work(&worker, &gateway);
        }
        let network = self.network.counts;
        let starts = self.machines.iter().map(|machine| u64::from(machine.life)).sum();
        let of = [
            ("entries", self.log_ends().0),
            ("events", self.events),
            ("messages", network.messages),
            ("bytes", network.bytes),
            ("messages_lost", network.lost),
            ("starts", starts),
            ("given_up", self.given_up().len() as u64),
        ];
        of.into_iter().for_each(|(name, so_many)| self.count(name, so_many));
        self.counted.clone()
    }

    /// What the plan expects beside the checks.
    fn as_expected(&mut self) -> Result<(), Broken> {
        let plan = self.plan.clone();
        if plan.expect.is_empty() {
            return Ok(());
        }
        let before = self.counted.clone();
        let counters = self.counters();
        self.counted = before;
        for (name, band) in &plan.expect {
            let found = counters.get(name.as_str()).copied().unwrap_or_default();
            if band.at_least.is_some_and(|least| found < least) || band.at_most.is_some_and(|most| found > most) {
                let reason = format!("the counter `{name}` is {found}, expected {band:?}");
                return Err(Broken::new(crate::scenario::EXPECT, reason));
            }
        }
        Ok(())
    }

    /// What each machine says of itself, a line each.
    fn everybody(&self) -> String {
        let line = |machine: &super::machine::Machine| match machine.process.as_ref() {
            None => format!("node {}: down", machine.number),
            Some(process) => {
                let (worker, gateway) = (process.worker.view(), process.gateway.view());
                let runners: Vec<String> = worker
                    .runners
                    .iter()
                    .map(|it| format!("{} {:?} in life {:?}", it.runner, it.status, it.life))
                    .collect();
                format!(
                    "node {}: {:?}, log before {}, works: {}, {} streams, {} tasks, runners {runners:?}",
                    machine.number,
                    process.node.role(),
                    process.node.replica().next(),
                    process.works,
                    gateway.streams,
                    worker.tasks,
                )
            }
        };
        self.machines.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
