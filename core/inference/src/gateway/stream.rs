//! One client's stream, from its opening to its last part.

use lockstep_replication::{Moment, NodeId};

use super::Turn;
use super::answer::{Answer, Asked, OfAnother, Taken, Want};
use super::config::GatewayConfig;
use super::creation::{Creating, Creation};
use super::feed::{Feed, Request};
use super::io::{Failure, GatewayOutput, StreamId, StreamPart};
use super::view::Counts;
use super::window::Window;
use crate::command::Command;
use crate::id::{InstanceId, ModelId, TaskId};
use crate::state::{InputName, Instance, NodeStatus, State, Task, TaskKind, TaskStatus};
use crate::transient::{TokenChunk, TokenPart, Transient};

pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) task: TaskId,
    model: ModelId,
    kind: TaskKind,
    request: Request,
    pub(super) creation: Creation,
    /// Who works on it, once the state showed it.
    place: Option<InstanceId>,
    /// The way of the request to each rank; the first one answers.
    pub(super) feeds: Vec<Feed>,
    /// Who answers.
    worker: Option<NodeId>,
    running: bool,
    /// Whether the state has it no more.
    gone: bool,
    /// A node that worked on it and is lost.
    lost: Option<NodeId>,
    answer: Answer,
    /// What ends it beside its answer: what another rank says, or a part of another answer.
    failure: Option<Failure>,
    window: Window,
    /// When something was heard of it last.
    heard: Moment,
}

impl Stream {
    pub(super) fn new(
        now: Moment,
        id: StreamId,
        task: TaskId,
        (model, kind): (ModelId, TaskKind),
        request: Request,
        config: &GatewayConfig,
    ) -> Stream {
        Stream {
            id,
            task,
            model,
            kind,
            request,
            creation: Creation::new(now, config),
            place: None,
            feeds: vec![],
            worker: None,
            running: false,
            gone: false,
            lost: None,
            answer: Answer::new(),
            failure: None,
            window: Window::default(),
            heard: now,
        }
    }

    pub(super) fn request_bytes(&self) -> u64 {
        self.request.bytes.len() as u64
    }

    /// The state shows the task, or shows it changed: whether it says who works on it for the first time.
    pub(super) fn show(&mut self, task: &Task, made: &Instance, turn: &mut Turn<'_>, config: &GatewayConfig) -> bool {
        self.heard = turn.now;
        self.running = task.status == TaskStatus::Running;
        if self.place == Some(task.instance) {
            self.gone = false;
            return false;
        }
        // Another instance has a task of this name, after a branch of the log lost: half an answer is of no use to it.
        self.gone = self.place.is_some() || self.answer.next > 0;
        if self.gone {
            return false;
        }
        self.place = Some(task.instance);
        self.feeds = made.ranks.iter().map(|rank| Feed::new(turn.now, *rank, &self.request, config)).collect();
        self.lost = made.ranks.iter().map(|rank| rank.node).find(|node| is_lost(turn.state, *node));
        if let Some(rank) = made.ranks.first() {
            self.answered_by(rank.node, turn.counts);
        }
        true
    }

    /// The state has the task no more.
    pub(super) fn leave(&mut self) {
        self.gone = true;
    }

    /// A node is lost or gone.
    pub(super) fn lose(&mut self, node: NodeId) -> bool {
        let its = self.works(node);
        self.lost = self.lost.or(its.then_some(node));
        its
    }

    /// Whether a node has a rank of the task's instance.
    fn works(&self, node: NodeId) -> bool {
        self.feeds.iter().any(|feed| feed.rank.node == node)
    }

    /// A part of the answer came: whether it may be one.
    pub(super) fn token(
        &mut self,
        from: NodeId,
        chunk: TokenChunk,
        turn: &mut Turn<'_>,
        config: &GatewayConfig,
    ) -> bool {
        // Before the state shows the task nobody knows who answers it: the sender is looked at later.
        if self.worker.is_some_and(|worker| worker != from) {
            // Another rank says nothing but why there will be no answer.
            self.failure = match chunk.part {
                TokenPart::Error(reason) if self.works(from) => Some(Failure::Runner(reason)),
                TokenPart::Refused(reason) if self.works(from) => Some(Failure::Request(reason)),
                TokenPart::Error(_) | TokenPart::Refused(_) | TokenPart::Text(_) | TokenPart::End { .. } => {
                    turn.counts.tokens_refused += 1;
                    return false;
                }
            };
            return true;
        }
        self.heard = turn.now;
        // What was answered was read.
        if let Some(feed) = self.feeds.first_mut() {
            feed.acknowledge();
        }
        let TokenChunk { n, part, attempt, .. } = chunk;
        let error = match &part {
            TokenPart::Error(reason) => Failure::Runner(reason.clone()),
            TokenPart::Text(_) | TokenPart::End { .. } | TokenPart::Refused(_) => Failure::Anew(from),
        };
        match self.answer.take(from, (attempt, n), part, config) {
            Taken::Kept => {}
            Taken::Doubled => turn.counts.tokens_doubled += 1,
            Taken::Dropped => turn.counts.tokens_dropped += 1,
            Taken::Anew => self.failure = Some(error),
        }
        true
    }

    /// A rank lacks parts of the request, or, with none, has it all.
    pub(super) fn feed(
        &mut self,
        from: NodeId,
        lacking: Option<&[u32]>,
        turn: &mut Turn<'_>,
        config: &GatewayConfig,
    ) -> bool {
        let Some(feed) = self.feeds.iter_mut().find(|feed| feed.rank.node == from) else {
            turn.counts.signals_refused += 1;
            return false;
        };
        self.heard = turn.now;
        match lacking {
            None => feed.acknowledge(),
            Some(parts) => {
                turn.counts.inputs_asked += 1;
                feed.ask(turn.now, parts, &self.request, config);
            }
        }
        true
    }

    pub(super) fn taken(&mut self, chunks: u64) {
        self.window.take(chunks);
    }

    /// Does all that is to be done now; returns the last part if this is the end.
    pub(super) fn advance(&mut self, turn: &mut Turn<'_>, config: &GatewayConfig) -> Option<StreamPart> {
        self.try_advance(turn, config).unwrap_or_else(|failure| Some(StreamPart::Failed(failure)))
    }

    fn try_advance(&mut self, turn: &mut Turn<'_>, config: &GatewayConfig) -> Result<Option<StreamPart>, Failure> {
        self.create(turn)?;
        if let Some(last) = self.deliver(turn, config)? {
            return Ok(Some(last));
        }
        if let Some(node) = self.lost {
            return Err(Failure::NodeGone(node));
        }
        if !self.gone {
            self.send_request(turn, config);
        }
        self.ask(turn, config)?;
        if self.heard + config.patience <= turn.now {
            let waiting = self.feeds.iter().find(|feed| !feed.acknowledged);
            return Err(waiting.map_or(Failure::TimedOut(config.patience), |feed| Failure::InputLost(feed.rank.node)));
        }
        Ok(None)
    }

    pub(super) fn deadline(&self, config: &GatewayConfig) -> Moment {
        let patience = self.heard + config.patience;
        let creation = (self.place.is_none() && !self.gone).then(|| self.creation.deadline());
        let feeds = self.feeds.iter().filter(|_| !self.gone).filter_map(|feed| feed.deadline(config));
        feeds.chain(creation).chain(self.answer.deadline()).fold(patience, Moment::min)
    }

    fn create(&mut self, turn: &mut Turn<'_>) -> Result<(), Failure> {
        if self.place.is_some() || self.gone {
            return Ok(());
        }
        match self.creation.advance(turn.now, turn.next) {
            Creating::Wait => {}
            Creating::Ask => {
                turn.counts.created_again += u64::from(self.creation.is_repeated());
                let input = InputName { hash: self.request.hash, bytes: self.request_bytes() };
                let command = Command::CreateTask {
                    task: Some(self.task),
                    model: self.model.clone(),
                    kind: self.kind,
                    input,
                    gateway: Some(turn.me),
                };
                turn.out.push(GatewayOutput::Create { stream: self.id, command });
            }
            Creating::Shown => self.gone = true,
            Creating::Failed(failure) => return Err(failure),
        }
        Ok(())
    }

    fn deliver(&mut self, turn: &mut Turn<'_>, config: &GatewayConfig) -> Result<Option<StreamPart>, Failure> {
        if self.worker.is_none() && self.gone {
            // It came and went between two states. Only a worker of its model can have something to say about it.
            let state = turn.state;
            let answers = |node: &NodeId| {
                let of_model = state.instances.values().filter(|made| made.model == self.model);
                of_model.filter_map(|made| made.ranks.first()).any(|rank| rank.node == *node)
            };
            let found = self.answer.senders().find(answers);
            if let Some(node) = found {
                self.answered_by(node, turn.counts);
            }
        }
        let Some(worker) = self.worker else { return Ok(None) };
        while let Some(part) = self.answer.pop().map_err(|OfAnother| Failure::Anew(worker))? {
            match part {
                TokenPart::Text(text) => {
                    self.window.deliver(text.len());
                    turn.out.push(GatewayOutput::Deliver { stream: self.id, part: StreamPart::Text(text) });
                    self.window.check(config)?;
                }
                TokenPart::End { stop, usage } => return Ok(Some(StreamPart::End { stop, usage })),
                TokenPart::Error(reason) => return Err(Failure::Runner(reason)),
                TokenPart::Refused(reason) => return Err(Failure::Request(reason)),
            }
        }
        self.failure.take().map_or(Ok(None), Err)
    }

    fn send_request(&mut self, turn: &mut Turn<'_>, config: &GatewayConfig) {
        for feed in &mut self.feeds {
            let (parts, again) = feed.advance(turn.now, self.task, &self.request, config);
            turn.counts.inputs_again += u64::from(again);
            let to = feed.rank.node;
            let send = |part| GatewayOutput::Send { to, transient: Transient::Input(part) };
            turn.out.extend(parts.into_iter().map(send));
        }
    }

    /// Asks for what lacks of the answer. A task that is gone may have ended well: then its rest is on its way, or can be
    /// had from its worker for a while. The state does not tell how it ended; without its end, an answer is not whole.
    fn ask(&mut self, turn: &mut Turn<'_>, config: &GatewayConfig) -> Result<(), Failure> {
        let want = match self.worker {
            _ if self.gone => Some(Want::Rest),
            Some(_) if self.answer.has_hole() => Some(Want::Hole),
            Some(_) if self.running => Some(Want::Quiet),
            Some(_) | None => None,
        };
        match self.answer.ask(turn.now, want, config) {
            Asked::Wait => {}
            Asked::Now(want) => {
                match want {
                    Want::Hole | Want::Rest => turn.counts.holes_asked += 1,
                    Want::Quiet => turn.counts.quiet_asked += 1,
                }
                let transient = Transient::TokensMissing { task: self.task, from: self.answer.next };
                turn.out.extend(self.worker.map(|to| GatewayOutput::Send { to, transient }));
            }
            Asked::GivenUp(_) => {
                let gone = self.place.filter(|instance| !turn.state.instances.contains_key(instance));
                return Err(match (self.worker, gone) {
                    (Some(worker), _) if self.answer.has_hole() => Failure::TokensLost(worker),
                    (_, Some(instance)) => Failure::InstanceGone(instance),
                    (_, None) => Failure::TaskGone,
                });
            }
        }
        Ok(())
    }

    fn answered_by(&mut self, node: NodeId, counts: &mut Counts) {
        self.worker = Some(node);
        counts.tokens_refused += self.answer.keep_from(node);
    }
}

pub(super) fn is_lost(state: &State, node: NodeId) -> bool {
    state.nodes.get(&node).is_some_and(|node| matches!(node.status, NodeStatus::Lost { .. }))
}
