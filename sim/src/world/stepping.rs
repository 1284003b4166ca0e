//! Stepping one node, having the checks look at what came out, and doing it.

use lockstep_replication::entry::{Body, Decided};
use lockstep_replication::io::{Notice, Stop, Worked};
use lockstep_replication::{Input, Outcome, Output, Role, Session, Span, Ticket, chaos};

use super::clients::uid_answered;
use super::{Event, World};
use crate::checks::no_panic::guarded;
use crate::checks::{Broken, Given, Step};
use crate::dice::Site;
use crate::kv::{self, Kv};
use crate::plan::{MILLIS, number_of};
use crate::trace::Mixer;

/// The process ends, and is started again after this time.
struct End {
    down: u64,
}

impl World {
    /// One step of a node that is up. `seen` is the hash of what it is given.
    pub(super) fn step(&mut self, at: usize, input: Input<Kv>, given: Given, seen: u64) -> Result<(), Broken> {
        let (time, number) = (self.time, self.machines[at].number);
        let now = self.machines[at].clock.now(time);
        self.trace.step(time, number, seen);
        chaos::step(u64::from(number), self.trace.steps());
        self.tell_input(at, &input);
        let mut out = std::mem::take(&mut self.out);
        let machine = &mut self.machines[at];
        machine.steps += 1;
        let steps = machine.steps;
        let Some(process) = machine.process.as_mut() else { return Ok(()) };
        guarded(|| process.node.step(now, input, &mut out))?;
        self.checks.stepped(&Step { time, at, now, given, out: &out }, &process.node)?;
        self.tell_outputs(&out);
        let mut ends = None;
        for output in out.drain(..) {
            ends = self.perform(at, output)?.or(ends);
        }
        self.out = out;
        match ends {
            Some(End { down }) => self.crash(at, down),
            None => {
                self.plan_wake(at);
                self.plan_unasked(at, steps);
                Ok(())
            }
        }
    }

    /// The time of a planned wake-up came.
    pub(super) fn wake(&mut self, at: usize, n: u64) -> Result<(), Broken> {
        let time = self.time;
        let process = self.process(at);
        if process.wakes != n {
            return Ok(());
        }
        process.wakes_at = u64::MAX;
        let due = process.wants.is_some() && process.wants_at <= time;
        if due {
            process.wants = None;
            self.step(at, Input::Wake, Given::Wake, 1)
        } else {
            self.plan_wake(at);
            Ok(())
        }
    }

    /// Plans the next wake-up. One that comes too early by now is left under way, and planned anew when it comes.
    pub(super) fn plan_wake(&mut self, at: usize) {
        let time = self.time;
        let machine = &mut self.machines[at];
        let (clock, life) = (machine.clock, machine.life);
        let Some(process) = machine.process.as_mut() else { return };
        let wants = process.node.next_wake().map(|wake| wake.at);
        if wants != process.wants {
            process.wants = wants;
            process.wants_at = wants.map_or(u64::MAX, |at| clock.when(at)).max(time);
        }
        let wants_at = process.wants_at;
        if wants.is_none() || wants_at >= process.wakes_at {
            return;
        }
        process.wakes_at = wants_at;
        process.wakes += 1;
        let n = process.wakes;
        let late = self.late(at, wants_at);
        self.push(wants_at + late, Event::Wake { at: at as u32, life, n });
    }

    /// Now and then a wake-up comes that nobody asked for: at once, or anywhere before the next one.
    fn plan_unasked(&mut self, at: usize, steps: u64) {
        let one_in = self.plan.timing.spurious_one_in;
        if one_in == 0 {
            return;
        }
        let machine = &self.machines[at];
        let mut roll = self.dice.roll(Site::Spurious, u64::from(machine.number), steps);
        if roll.below(one_in) != 0 {
            return;
        }
        let Some(process) = machine.process.as_ref() else { return };
        let (life, ahead) = (machine.life, process.wants_at.saturating_sub(self.time).min(1_000 * MILLIS));
        let when = self.time + if roll.chance(1, 2) { 0 } else { roll.below(ahead) };
        self.push(when, Event::Unasked { at: at as u32, life });
    }

    /// A wake-up that nobody asked for comes.
    pub(super) fn unasked(&mut self, at: usize) -> Result<(), Broken> {
        let now = self.machines[at].clock.now(self.time);
        let before = self.process(at).node.next_wake();
        if before.is_some_and(|wake| wake.at <= now.at) {
            return Ok(());
        }
        self.step(at, Input::Wake, Given::Unasked(before), 2)
    }

    fn perform(&mut self, at: usize, output: Output<Kv>) -> Result<Option<End>, Broken> {
        match output {
            Output::Send { to, message } => self.send(at, to, message)?,
            Output::Broadcast(message) => self.broadcast(at, message)?,
            Output::Work { id, work } => self.work(at, id, work)?,
            Output::Reply { ticket, outcome } => self.reply(at, ticket, &outcome)?,
            Output::Refuse { peer, .. } => {
                self.trace.output(5, u64::from(peer.0[1]));
                for peer in self.places_of(peer).to_vec() {
                    self.cut(at, peer);
                }
            }
            Output::Left => {
                return Ok(Some(End { down: self.process(at).leaving.unwrap_or_default() }));
            }
            Output::Stop(Stop::Disk(_) | Stop::Rejected(_)) => {
                let machine = &self.machines[at];
                let mut roll =
                    self.dice.roll(Site::Crash, u64::from(machine.number), u64::from(machine.life) | 1 << 32);
                return Ok(Some(End { down: roll.between(100, 1000) * MILLIS }));
            }
            Output::Applied(entry) => {
                self.trace.output(8, entry.index.0);
                if let Body::Decided(Decided { proposal: None, events, .. }) = &entry.body {
                    self.fate(at, events);
                }
            }
            Output::Replaced { next } => {
                let hash = self.process(at).node.hash();
                self.trace.output(9, next.0 ^ word(&hash.0));
            }
            Output::Transient { transient, .. } => self.trace.output(10, transient),
            Output::Role(role) => self.trace.output(11, role_word(role)),
            Output::Notice(notice) => {
                self.trace.output(12, 0);
                if matches!(notice, Notice::NeedsUpgrade(_)) {
                    self.machines[at].needs_upgrade = true;
                    return Ok(self.is_quiet.then(|| self.upgraded(at)));
                }
            }
        }
        Ok(None)
    }

    /// The operator does as the node says.
    fn upgraded(&mut self, at: usize) -> End {
        self.machines[at].schema = kv::NEWEST_SCHEMA;
        End { down: 100 * MILLIS }
    }

    /// A leader judged a node.
    fn fate(&mut self, at: usize, events: &[kv::Event]) {
        let leads = self.machines[at].node().is_some_and(|node| matches!(node.role(), Role::Leading(_)));
        for event in events.iter().filter(|_| leads) {
            if let kv::Event::Lived { node, alive: kv::Alive::Lost } = event {
                self.lost_nodes.push((number_of(*node), Span(self.time)));
            }
        }
    }

    fn reply(&mut self, at: usize, ticket: Ticket, outcome: &Outcome<Kv>) -> Result<(), Broken> {
        self.trace.output(4, ticket.0);
        self.process(at).tickets.remove(&ticket);
        let uid = uid_answered(ticket);
        *self.outcomes.entry(outcome_name(outcome)).or_default() += 1;
        if let Some(after) = self.clients.tries_again(uid, Some(outcome), self.is_quiet) {
            self.push(self.time + after, Event::Try { uid, at: None });
        }
        Ok(())
    }

    fn tell_input(&mut self, at: usize, input: &Input<Kv>) {
        if !self.trace.is_told() {
            return;
        }
        let number = self.machines[at].number;
        self.trace.line(self.time, || match input {
            Input::Message { from, message } => format!("{number} <- {} {message:?}", number_of(*from)),
            Input::Wake
            | Input::Connected(_)
            | Input::Disconnected(_)
            | Input::Command { .. }
            | Input::Observe(_)
            | Input::Telemetry(_)
            | Input::Transient { .. }
            | Input::Worked { .. }
            | Input::Busy(_)
            | Input::Operator(_) => format!("{number} <- {input:?}"),
        });
    }

    fn tell_outputs(&mut self, out: &[Output<Kv>]) {
        if !self.trace.is_told() {
            return;
        }
        for output in out.iter().filter(|output| !is_small_talk(output)) {
            self.trace.line(self.time, || format!("       -> {output:?}"));
        }
    }
}

/// The first eight bytes of a hash.
pub(super) fn word(hash: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_le_bytes(first)
}

fn role_word(role: Role) -> u64 {
    let session = |session: Session| {
        let mut mixer = Mixer::default();
        mixer.number(session.clock);
        mixer.bytes(&session.leader.0);
        mixer.number(session.boot.starts);
        mixer.number(session.boot.nonce);
        mixer.hash()
    };
    match role {
        Role::Seeking => 0,
        Role::Following(followed) => session(followed) | 1,
        Role::Leading(led) => session(led) & !1,
    }
}

/// How work went, as a number.
pub(super) fn worked_word(result: &Result<Worked<Kv>, lockstep_replication::io::WorkFailed>) -> u64 {
    match result {
        Ok(Worked::Stored) => 1,
        Ok(Worked::Read { first, records }) => {
            let mut mixer = Mixer::default();
            mixer.number(first.0);
            records.iter().for_each(|record| mixer.bytes(record));
            mixer.hash()
        }
        Ok(Worked::Rewound(restored, _)) => word(&restored.replica.hash().0),
        Ok(Worked::Encoded(snapshot)) => word(&snapshot.manifest.hash.0),
        Ok(Worked::Decoded(replica)) => word(&replica.hash().0),
        Err(_) => 2,
    }
}

/// The kinds of outcomes that are counted.
fn outcome_name(outcome: &Outcome<Kv>) -> &'static str {
    match outcome {
        Outcome::Done { held, of, .. } if held * 2 > *of => "done",
        Outcome::Done { .. } => "done_by_few",
        Outcome::Refused(_) => "refused",
        Outcome::NotTaken(_) => "not_taken",
        Outcome::Unknown(_) => "unknown",
    }
}

/// What goes out all the time, and is seen again where it comes in.
fn is_small_talk(output: &Output<Kv>) -> bool {
    use lockstep_replication::message::Message;
    matches!(
        output,
        Output::Send { message: Message::Beat(_) | Message::Probe { .. } | Message::Echo { .. }, .. }
            | Output::Broadcast(Message::Beat(_))
    )
}
