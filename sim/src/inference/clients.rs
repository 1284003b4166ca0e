//! Modelled clients: they ask any node, read what comes, are slow, or hang up.

use bytes::Bytes;
use lockstep_inference::Inference;
use lockstep_inference::gateway::{Failure, GatewayInput, StreamId, StreamPart};
use lockstep_inference::id::{ModelId, TaskId};
use lockstep_inference::state::TaskKind;
use lockstep_replication::io::Unknown;
use lockstep_replication::message::Refused;
use lockstep_replication::{Index, Outcome, Span};

use super::checks::answers::Told;
use super::world::{Event, World};
use crate::checks::Broken;
use crate::dice::{Roll, Site};

/// A client that asked.
pub(super) struct Stream {
    pub(super) task: TaskId,
    pub(super) at: usize,
    /// When it asked.
    pub(super) opened: u64,
    life: u32,
    /// How long it takes to read a part.
    reads: Span,
    pub(super) slow: bool,
    /// Whether it was asked in the quiet at the end, when all must go well.
    pub(super) last: bool,
    /// Since when the machine that it asked shows its task no more.
    pub(super) dead_since: Option<u64>,
    /// Whether that machine showed its task.
    pub(super) shown: bool,
    /// When a runner that worked on it fell.
    pub(super) runner_fell: Option<u64>,
    pub(super) open: bool,
}

impl World {
    /// A client of a load asks, and the next one is planned.
    pub(super) fn client_asks(&mut self, load: usize, n: u64) -> Result<(), Broken> {
        let plan = self.plan.clone();
        let planned = &plan.loads[load];
        if self.is_quiet || self.time >= planned.until.0 {
            return Ok(());
        }
        let mut roll = self.dice.roll(Site::Burst, load as u64, n);
        let next = roll.between(planned.every.0 / 2, planned.every.0 * 3 / 2);
        self.push(self.time + next, Event::Ask { load, n: n + 1 });
        let may = |at: &usize| {
            let machine = &self.machines[*at];
            machine.works() && (planned.nodes.is_empty() || planned.nodes.contains(&machine.number))
        };
        let up: Vec<usize> = (0..self.machines.len()).filter(may).collect();
        if up.is_empty() {
            self.count("turned_away", 1);
            return Ok(());
        }
        let at = roll.one_of(&up);
        let (slow, hangs_up) = (roll.chance(planned.slow, 1000), roll.chance(planned.hang_up, 1000));
        let tokens = roll.between(1, planned.tokens);
        let bytes = roll.between(1, planned.request_bytes);
        let stream = self.open(at, &planned.model, tokens, bytes, slow, roll.number())?;
        if hangs_up {
            let after = roll.below(2 * tokens * plan.model(&planned.model).map_or(0, |model| model.token_every.0));
            self.after(Span(after), Event::HangUp { stream });
        }
        Ok(())
    }

    /// In the quiet at the end: a client whose answer must come whole.
    pub(super) fn ask_last(&mut self, at: usize, model: &str) -> Result<(), Broken> {
        let stream = self.streams.len() as u64;
        let drawn = self.dice.roll(Site::Burst, u64::MAX, stream).number();
        let stream = self.open(at, model, 20, 100_000, false, drawn)?;
        if let Some(stream) = self.streams.get_mut(&stream) {
            stream.last = true;
        }
        Ok(())
    }

    fn open(&mut self, at: usize, model: &str, tokens: u64, bytes: u64, slow: bool, drawn: u64) -> Result<u64, Broken> {
        let stream = self.streams.len() as u64;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&drawn.to_be_bytes());
        id[8..].copy_from_slice(&stream.to_be_bytes());
        let task = TaskId(id);
        let input = serde_json::json!({ "tokens": tokens, "content": "x".repeat(bytes as usize) });
        let input = Bytes::from(input.to_string());
        let reads = if slow { Span::seconds(20) } else { Span::millis(2) };
        let asked = Stream {
            task,
            at,
            opened: self.time,
            life: self.machines[at].life,
            reads,
            slow,
            last: false,
            dead_since: None,
            shown: false,
            runner_fell: None,
            open: true,
        };
        self.streams.insert(stream, asked);
        self.count("streams", 1);
        self.checks.opened(stream, task);
        let kind = TaskKind::Chat { max_tokens: 1_000 };
        let model = ModelId::new(model);
        self.gateway(at, GatewayInput::Open { stream: StreamId(stream), model, kind, input, task })?;
        self.settle(at)?;
        Ok(stream)
    }

    /// What became of the creation of a stream's task.
    pub(super) fn created(&mut self, at: usize, stream: u64, outcome: Outcome<Inference>) -> Result<(), Broken> {
        self.gateway(at, GatewayInput::Submitted { stream: StreamId(stream), result: result(outcome) })
    }

    pub(super) fn client_hears(&mut self, at: usize, stream: u64, part: StreamPart) -> Result<(), Broken> {
        let time = self.time;
        self.checks.one_end.delivered(stream, &part)?;
        let Some(known) = self.streams.get_mut(&stream) else { return Ok(()) };
        let (reads, task) = (known.reads, known.task);
        match &part {
            StreamPart::Text(text) => {
                self.checks.answers.heard(task, Told::Text(text))?;
                self.after(reads, Event::Took { stream });
            }
            StreamPart::End { usage, .. } => {
                known.open = false;
                self.checks.answers.heard(task, Told::End(*usage))?;
                self.count("whole", 1);
            }
            StreamPart::Failed(failure) => {
                known.open = false;
                let fell = known.runner_fell;
                self.checks.answers.heard(task, Told::Failed)?;
                self.count("failed", 1);
                self.count(name_of(failure), 1);
                if let (Failure::Runner(_), Some(fell)) = (failure, fell) {
                    let slowest = self.counted.entry("slowest_error_ms").or_default();
                    *slowest = (*slowest).max((time - fell) / 1_000_000);
                }
                self.why_failed(at, stream, failure)?;
            }
        }
        Ok(())
    }

    pub(super) fn client_took(&mut self, stream: u64) -> Result<(), Broken> {
        let Some((at, life)) = self.streams.get(&stream).map(|stream| (stream.at, stream.life)) else { return Ok(()) };
        if self.machines[at].life != life {
            return Ok(());
        }
        self.gateway(at, GatewayInput::Taken { stream: StreamId(stream), chunks: 1 })?;
        self.settle(at)
    }

    pub(super) fn client_hangs_up(&mut self, stream: u64) -> Result<(), Broken> {
        let Some(known) = self.streams.get_mut(&stream).filter(|stream| stream.open) else { return Ok(()) };
        known.open = false;
        let at = known.at;
        self.count("hung_up", 1);
        self.checks.one_end.hung_up(stream);
        self.gateway(at, GatewayInput::Closed { stream: StreamId(stream) })?;
        self.settle(at)
    }

    /// A node dies, and with it its clients' connections: they know.
    pub(super) fn client_connections_break(&mut self, at: usize, life: u32) -> Result<(), Broken> {
        let mut broken = Vec::new();
        for (id, stream) in &mut self.streams {
            if stream.open && stream.at == at && stream.life == life {
                stream.open = false;
                broken.push(*id);
            }
        }
        self.count("cut_off", broken.len() as u64);
        broken.into_iter().for_each(|stream| self.checks.one_end.hung_up(stream));
        Ok(())
    }

    /// The draws of an operator's try.
    pub(super) fn attempt_roll(&self, n: usize, attempt: u64) -> Roll {
        self.dice.roll(Site::Attempt, n as u64, attempt)
    }
}

fn name_of(failure: &Failure) -> &'static str {
    match failure {
        Failure::Refused(_) => "failed_refused",
        Failure::NotOrdered(_) | Failure::NotTaken(_) => "failed_not_taken",
        Failure::Unknown(_) => "failed_unknown",
        Failure::Full(_) | Failure::TooLarge { .. } => "failed_limit",
        Failure::TaskGone => "failed_task_gone",
        Failure::InstanceGone(_) => "failed_instance_gone",
        Failure::NodeGone(_) => "failed_node_gone",
        Failure::Runner(_) => "failed_runner",
        Failure::Request(_) => "failed_request",
        Failure::Anew(_) => "failed_anew",
        Failure::TokensLost(_) => "failed_tokens_lost",
        Failure::InputLost(_) => "failed_input_lost",
        Failure::TooSlow { .. } => "failed_too_slow",
        Failure::TimedOut(_) => "failed_timed_out",
    }
}

/// What became of a stream's task, as its gateway hears it.
fn result(outcome: Outcome<Inference>) -> Result<Index, Failure> {
    match outcome {
        Outcome::Done { index, .. } | Outcome::Refused(Refused::Nothing(index) | Refused::DoneBefore(index)) => {
            Ok(index)
        }
        Outcome::Refused(Refused::Application(refusal)) => Err(Failure::Refused(refusal)),
        Outcome::Refused(Refused::TooLong { .. }) => Err(Failure::NotOrdered("its entry is too long".into())),
        Outcome::Refused(Refused::Before) => Err(Failure::NotOrdered("an earlier leader refused it".into())),
        Outcome::NotTaken(reason) => Err(Failure::NotTaken(reason)),
        Outcome::Unknown(
            reason @ (Unknown::TimedOut | Unknown::Skipped | Unknown::Contested | Unknown::SetAside | Unknown::Stopped),
        ) => Err(Failure::Unknown(reason)),
    }
}
