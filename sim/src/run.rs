//! One run from its plan to its verdict: faults and commands, then quiet, then agreement, then one more command each, and
//! agreement again.

use std::collections::BTreeSet;
use std::sync::Arc;

use lockstep_replication::chaos::{self, Chaos, Mutant};
use lockstep_replication::{Hash, Role, Session, Span, View};

use crate::checks::agreement::{disagreement, reasons, waits_for_operator};
use crate::checks::{Broken, limits};
use crate::plan::{MILLIS, Plan, SECONDS};
use crate::report::{Facts, Failure, Report};
use crate::trace::{Detail, Mixer};
use crate::world::World;
use crate::world::clients::ATTEMPTS;
use crate::world::machine::Machine;

/// What a run is asked for beside its plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// What is written down.
    pub detail: Detail,
    /// The ends of phases, between which entries are counted.
    pub phase_ends: Vec<Span>,
    /// The fault that is planted in the nodes.
    pub mutant: Option<Mutant>,
}

/// Plays a plan.
pub fn run(plan: &Plan, options: &Options) -> Report {
    chaos::set(Chaos { mutant: options.mutant, moods: plan.moods.then_some(plan.seed) });
    chaos::take_hits();
    let mut world = World::new(Arc::new(plan.clone()), options.detail);
    let mut facts = Facts::default();
    let broken = lives(&mut world, options, &mut facts).err();
    chaos::set(Chaos::default());
    let failure = broken.map(|Broken { check, reason }| Failure {
        check: check.to_owned(),
        reason,
        at: Span(world.time),
        nodes: reasons(&world.views()),
    });
    world.summary(&mut facts);
    Report {
        seed: plan.seed,
        failure,
        trace_hash: world.trace.hash(),
        checkpoints: world.trace.checkpoints().to_vec(),
        lasted: Span(world.time),
        steps: world.trace.steps(),
        facts,
        probes: chaos::take_hits(),
        commands: world.clients.uids().filter(|uid| world.clients.tried(*uid) > 0).collect(),
        lost_messages: world.network.lost.iter().copied().collect(),
        lines: world.trace.lines().map(str::to_owned).collect(),
    }
}

fn lives(world: &mut World, options: &Options, facts: &mut Facts) -> Result<(), Broken> {
    let mut before = 0;
    for end in &options.phase_ends {
        world.run_until(end.0.min(world.plan.quiet_from.0))?;
        let entries = world.entries();
        facts.entries_by_phase.push(entries.saturating_sub(before));
        before = entries;
    }
    world.run_until(world.plan.quiet_from.0)?;
    world.look_at_limits()?;
    // From here on nodes do what they usually do.
    chaos::set(Chaos { mutant: options.mutant, moods: None });
    world.quiet()?;
    let quiet = world.time;
    // Nobody agrees who has yet to notice which connections broke before.
    world.run_until(quiet + world.plan.timing.dial.0 + world.plan.timing.notice.0)?;
    if world.plan.loses_data() && world.waits_for_operator()? {
        return Ok(());
    }
    let deadline = quiet + world.time_to_agree();
    let agree = world.agree(deadline, "they do not agree in time");
    if agree.is_err() && world.plan.loses_data() && world.waits_for_operator()? {
        return Ok(());
    }
    agree?;
    facts.agreed_after = Span(world.time - quiet);

    // Agreement lasts, and new commands are done everywhere.
    let agreed = world.sessions();
    world.run_until(world.time + 3 * SECONDS)?;
    let before = world.done();
    let mut asked: Vec<(usize, u32)> = world.core().map(|at| (at, world.machines[at].life)).collect();
    asked.iter().for_each(|(at, _)| world.ask_last(*at));
    world.run_until(world.time + SECONDS)?;
    let again = world.agree(world.time + 4 * SECONDS, "they do not agree again");
    if again.is_err() && world.plan.loses_data() && world.waits_for_operator()? {
        return Ok(());
    }
    again?;
    if world.sessions() != agreed {
        let (then, now) = (agreed, world.sessions());
        return Err(Broken::new(
            "agreement",
            format!("they agreed on {then:?} and left it for {now:?} without a fault"),
        ));
    }
    // An upgrade that an entry of now asks for restarts a node, and its client is told that nobody knows.
    asked.retain(|(at, life)| world.machines[*at].life == *life);
    let done = world.done() - before;
    if done < asked.len() as u64 && world.plan.loses_data() && world.waits_for_operator()? {
        return Ok(());
    }
    if done < asked.len() as u64 {
        let reason = format!("{} commands were asked in a quiet cluster, and {done} done", asked.len());
        return Err(Broken::new("one_reply", reason));
    }
    // A client whose answer is "unknown" may ask again.
    for _ in 0..ATTEMPTS {
        world.run_until(world.time + world.plan.config.reply_within.0 + SECONDS)?;
        if !world.clients_wait() {
            break;
        }
    }
    world.look_at_limits()?;
    world.checks.ended(asked.first().map_or(0, |(at, _)| *at), &world.set_aside())
}

impl World {
    /// The machines that must agree: those that are not gone, and whose identity is theirs alone.
    fn core(&self) -> impl Iterator<Item = usize> {
        (0..self.machines.len()).filter(|at| {
            let id = self.machines[*at].id;
            !self.machines[*at].gone && self.machines.iter().filter(|machine| machine.id == id).count() == 1
        })
    }

    fn core_views(&self) -> Vec<(u16, Option<View>)> {
        let mut views: Vec<_> = self.views().into_iter().map(Some).collect();
        self.core().filter_map(|at| views[at].take()).collect()
    }

    /// Waits until all agree; at the deadline, says who does not.
    fn agree(&mut self, deadline: u64, what: &str) -> Result<(), Broken> {
        loop {
            let open = disagreement(&self.core_views()).or_else(|| self.different_states());
            let Some(open) = open else { return Ok(()) };
            if self.time >= deadline {
                return Err(Broken::new("agreement", format!("L13: {what}: {open}")));
            }
            self.run_until(self.time + 50 * MILLIS)?;
        }
    }

    /// Ten seconds, and what machines need to notice, dial, and carry the longest log, or the largest state, twice. A replay
    /// carries a window in the time that a message takes there, a disk to read and another to sync it, and the credit back;
    /// a snapshot so many chunks.
    fn time_to_agree(&self) -> u64 {
        let (timing, weather, config) = (&self.plan.timing, &self.plan.weather, &self.plan.config);
        let bytes = self.machines.iter().map(|machine| machine.disk.bytes()).max().unwrap_or_default();
        let each = |rate: u64| bytes * MILLIS / rate.max(1);
        let round = 2 * weather.delay.0 + weather.jitter.0 + 2 * timing.disk.0;
        let window = config.replay_window.min(config.chunk_bytes * config.chunks_in_flight);
        let windows = bytes / window.max(1) as u64 * round;
        let carries = 2 * (each(weather.bytes_per_milli) + each(timing.disk_bytes_per_milli) + windows);
        10 * SECONDS + timing.notice.0 + 2 * timing.dial.0 + carries + 1_000 * timing.step.0
    }

    /// Whether nothing happens any more until the operator decides: those who hold a log are all damaged, and stay so.
    fn waits_for_operator(&mut self) -> Result<bool, Broken> {
        if !waits_for_operator(&self.core_views()) {
            return Ok(false);
        }
        self.run_until(self.time + 10 * SECONDS)?;
        Ok(waits_for_operator(&self.core_views()))
    }

    fn different_states(&self) -> Option<String> {
        let digests: BTreeSet<Hash> =
            self.core().filter_map(|at| self.machines[at].node().map(|node| node.digest())).collect();
        (digests.len() > 1).then(|| format!("{} states at one index", digests.len()))
    }

    fn sessions(&self) -> BTreeSet<Session> {
        let session = |at: usize| match self.machines[at].node()?.role() {
            Role::Seeking => None,
            Role::Following(session) | Role::Leading(session) => Some(session),
        };
        self.core().filter_map(session).collect()
    }

    fn clients_wait(&self) -> bool {
        let waits = |machine: &Machine| machine.process.as_ref().is_some_and(|process| !process.tickets.is_empty());
        self.machines.iter().any(waits)
    }

    fn done(&self) -> u64 {
        ["done", "done_by_few"].iter().filter_map(|name| self.outcomes.get(name)).sum()
    }

    /// The longest log.
    fn entries(&self) -> u64 {
        self.machines.iter().map(|machine| machine.disk.next().0).max().unwrap_or_default()
    }

    fn set_aside(&self) -> BTreeSet<u64> {
        let asides = self.machines.iter().flat_map(|machine| &machine.disk.asides);
        asides.flat_map(|aside| aside.commands.iter().copied()).collect()
    }

    fn look_at_limits(&self) -> Result<(), Broken> {
        let views = self.views();
        views.iter().filter_map(|(_, view)| view.as_ref()).try_for_each(|view| limits::seen(&self.plan.config, view))
    }

    fn summary(&self, facts: &mut Facts) {
        facts.lost.clone_from(&self.lost_nodes);
        facts.caught_up.clone_from(&self.caught_up);
        let state = self.core().find_map(|at| Some(self.machines[at].node()?.state()));
        facts.final_state = state.map_or("no node is up".to_owned(), |state| {
            let mut mixer = Mixer::default();
            mixer.bytes(&postcard::to_stdvec(state).unwrap_or_default());
            let (keys, sum, done) = (state.map.len(), state.sum, state.done().count());
            format!("{keys} keys, sum {sum}, {done} commands done, hash {:016x}", mixer.hash())
        });
        let mut counters = self.counted.clone();
        for machine in &self.machines {
            let Some(node) = machine.node() else { continue };
            let view = node.view(machine.clock.now(self.time).at);
            facts.caught_up.extend(view.catch_ups.iter().map(|finished| (machine.number, *finished)));
            for (name, _, count) in view.counters.all() {
                *counters.entry(name).or_default() += count;
            }
        }
        let network = self.network.counts;
        let sum = |of: fn(&Machine) -> u64| self.machines.iter().map(of).sum::<u64>();
        counters.extend([
            ("steps", self.trace.steps()),
            ("events", self.events),
            ("entries", self.entries()),
            ("messages", network.messages),
            ("bytes", network.bytes),
            ("messages_lost", network.lost),
            ("messages_dropped", network.dropped),
            ("commands", self.clients.commands()),
            ("starts", sum(|machine| u64::from(machine.life))),
            ("set_aside", sum(|machine| machine.disk.asides.len() as u64)),
        ]);
        counters.extend(self.outcomes.iter().map(|(name, count)| (*name, *count)));
        facts.counters = counters;
    }
}
