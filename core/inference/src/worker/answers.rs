//! The answers on their way to their gateways: numbered, and kept a while to be sent again.
//!
//! A node that fails in the middle of an answer may run the task again after its restart, and the second answer is
//! another one. So nothing of an answer is sent before the state shows that the task has begun: a node that finds a
//! task begun by an earlier life of its own fails it, so that a gateway does not get one half of two answers. Where that
//! entry was in a branch of the log that lost, it still can.

use std::collections::{BTreeMap, VecDeque};

use lockstep_replication::{Moment, NodeId};

use super::config::WorkerConfig;
use crate::id::TaskId;
use crate::transient::{TokenChunk, TokenPart};

/// What a piece costs beside its text.
const PIECE_BYTES: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    answers: BTreeMap<TaskId, Answer>,
    /// Those that ended, with the time until which they are kept.
    old: VecDeque<(Moment, TaskId)>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Answer {
    gateway: NodeId,
    /// The number of the first piece that is kept.
    first: u64,
    pieces: VecDeque<TokenPart>,
    bytes: usize,
    /// How many pieces were sent.
    sent: u64,
    /// Whether the state shows that its task has begun.
    begun: bool,
    /// Whether its last piece is here.
    complete: bool,
    old: bool,
}

/// What is asked for again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// These pieces.
    Pieces(Vec<TokenChunk>),
    /// It is kept no more.
    Gone,
}

impl Answers {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// To whom the answer of a task goes.
    pub(super) fn gateway(&self, task: &TaskId) -> Option<NodeId> {
        self.answers.get(task).map(|answer| answer.gateway)
    }

    /// The task is given to its runner.
    pub(super) fn open(&mut self, task: TaskId, gateway: NodeId, begun: bool) {
        let pieces = VecDeque::new();
        let answer = Answer { gateway, first: 0, pieces, bytes: 0, sent: 0, begun, complete: false, old: false };
        self.answers.entry(task).or_insert(answer);
    }

    /// The answer goes on: what is to be sent now, or nothing if there is no room for it.
    pub(super) fn push(&mut self, task: TaskId, part: TokenPart, config: &WorkerConfig) -> Option<Vec<TokenChunk>> {
        let Some(answer) = self.answers.get_mut(&task).filter(|answer| !answer.complete) else { return Some(vec![]) };
        match part {
            TokenPart::Text(text) => {
                for piece in pieces(&text, config.piece_bytes) {
                    self.bytes += answer.add(TokenPart::Text(piece.to_owned()));
                }
            }
            TokenPart::End { .. } | TokenPart::Error(_) => {
                self.bytes += answer.add(part);
                answer.complete = true;
            }
        }
        let send = if answer.begun { answer.unsent(task) } else { vec![] };
        while answer.bytes > config.answer_bytes && answer.first < answer.sent {
            self.bytes -= answer.drop_first();
        }
        let fits = answer.bytes <= config.answer_bytes;
        self.shrink(&task, config);
        (fits && self.bytes <= config.answers_bytes).then_some(send)
    }

    /// An error ends the answer, at once: what was not sent is dropped.
    pub(super) fn fail(&mut self, task: TaskId, reason: &str) -> Option<TokenChunk> {
        let answer = self.answers.get_mut(&task).filter(|answer| !answer.complete)?;
        while answer.first + (answer.pieces.len() as u64) > answer.sent {
            self.bytes -= answer.pieces.pop_back().map_or(0, |piece| cost(&piece));
        }
        answer.bytes = answer.pieces.iter().map(cost).sum();
        self.bytes += answer.add(TokenPart::Error(reason.to_owned()));
        (answer.complete, answer.begun) = (true, true);
        answer.unsent(task).pop()
    }

    /// The state shows that the task has begun, or has ended: what is to be sent now.
    pub(super) fn begin(&mut self, task: TaskId) -> Vec<TokenChunk> {
        let Some(answer) = self.answers.get_mut(&task) else { return vec![] };
        answer.begun = true;
        answer.unsent(task)
    }

    /// The task has ended: its answer is kept for a while.
    pub(super) fn retire(&mut self, now: Moment, task: TaskId, config: &WorkerConfig) {
        if let Some(answer) = self.answers.get_mut(&task).filter(|answer| !answer.old) {
            answer.old = true;
            self.old.push_back((now + config.answers_for, task));
        }
    }

    /// The pieces from this one on, as far as they were sent; nothing if another node has to do with it.
    pub(super) fn again(&self, from: NodeId, task: &TaskId, first: u64, config: &WorkerConfig) -> Option<Again> {
        let answer = self.answers.get(task).filter(|answer| answer.gateway == from)?;
        let Some(skip) = first.checked_sub(answer.first) else { return Some(Again::Gone) };
        let count = answer.sent.saturating_sub(first).min(config.pieces_again as u64);
        let pieces = answer.pieces.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)).take(count as usize);
        Some(Again::Pieces(
            (first..).zip(pieces).map(|(n, part)| TokenChunk { task: *task, n, part: part.clone() }).collect(),
        ))
    }

    /// Drops the answers that were kept long enough.
    pub(super) fn expire(&mut self, now: Moment) {
        while self.old.front().is_some_and(|(at, _)| *at <= now) {
            self.drop_oldest();
        }
    }

    pub(super) fn next_expiry(&self) -> Option<Moment> {
        self.old.front().map(|(at, _)| *at)
    }

    /// At the limit of all, old answers go first, then what this one sent.
    fn shrink(&mut self, task: &TaskId, config: &WorkerConfig) {
        while self.bytes > config.answers_bytes && !self.old.is_empty() {
            self.drop_oldest();
        }
        let Some(answer) = self.answers.get_mut(task) else { return };
        while self.bytes > config.answers_bytes && answer.first < answer.sent {
            self.bytes -= answer.drop_first();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, task)) = self.old.pop_front() else { return };
        self.bytes -= self.answers.remove(&task).map_or(0, |answer| answer.bytes);
    }
}

impl Answer {
    fn add(&mut self, part: TokenPart) -> usize {
        let cost = cost(&part);
        self.bytes += cost;
        self.pieces.push_back(part);
        cost
    }

    fn drop_first(&mut self) -> usize {
        let Some(piece) = self.pieces.pop_front() else { return 0 };
        self.first += 1;
        self.bytes -= cost(&piece);
        cost(&piece)
    }

    fn unsent(&mut self, task: TaskId) -> Vec<TokenChunk> {
        let skip = (self.sent - self.first) as usize;
        let chunk = |(n, part): (u64, &TokenPart)| TokenChunk { task, n, part: part.clone() };
        let unsent: Vec<TokenChunk> = (self.sent..).zip(self.pieces.iter().skip(skip)).map(chunk).collect();
        self.sent += unsent.len() as u64;
        unsent
    }
}

fn cost(part: &TokenPart) -> usize {
    match part {
        TokenPart::Text(text) | TokenPart::Error(text) => text.len() + PIECE_BYTES,
        TokenPart::End { .. } => PIECE_BYTES,
    }
}

/// The text in pieces of at most so many bytes, cut between characters.
fn pieces(text: &str, bytes: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = (1..=rest.len().min(bytes.max(4))).rev().find(|at| rest.is_char_boundary(*at))?;
        let (piece, later) = rest.split_at(at);
        rest = later;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transient::{StopReason, Usage};

    const TASK: TaskId = TaskId([1; 16]);
    const GATEWAY: NodeId = NodeId::example(1);

    fn text(text: &str) -> TokenPart {
        TokenPart::Text(text.into())
    }

    fn chunk(n: u64, part: TokenPart) -> TokenChunk {
        TokenChunk { task: TASK, n, part }
    }

    fn opened(begun: bool) -> (Answers, WorkerConfig) {
        let mut answers = Answers::default();
        answers.open(TASK, GATEWAY, begun);
        (answers, WorkerConfig::default())
    }

    #[test]
    fn nothing_is_sent_before_the_task_has_begun() {
        let (mut answers, config) = opened(false);
        assert_eq!(answers.push(TASK, text("a"), &config), Some(vec![]));
        assert_eq!(answers.again(GATEWAY, &TASK, 0, &config), Some(Again::Pieces(vec![])));
        assert_eq!(answers.push(TASK, text("b"), &config), Some(vec![]));
        assert_eq!(answers.begin(TASK), [chunk(0, text("a")), chunk(1, text("b"))]);
        assert_eq!(answers.push(TASK, text("c"), &config), Some(vec![chunk(2, text("c"))]));
        let end = TokenPart::End { stop: StopReason::Stop, usage: Usage::default() };
        assert_eq!(answers.push(TASK, end.clone(), &config), Some(vec![chunk(3, end)]));
        assert_eq!(answers.push(TASK, text("late"), &config), Some(vec![]), "it was complete");
        assert_eq!(answers.fail(TASK, "late"), None);
    }

    #[test]
    fn an_error_ends_it_where_it_is() {
        let (mut answers, config) = opened(false);
        answers.push(TASK, text("unsent"), &config);
        assert_eq!(answers.fail(TASK, "oh"), Some(chunk(0, TokenPart::Error("oh".into()))));
        assert_eq!(answers.bytes(), 2 + PIECE_BYTES);
    }

    #[test]
    fn what_was_sent_is_sent_again_to_whom_it_belongs() {
        let (mut answers, config) = opened(true);
        let config = WorkerConfig { pieces_again: 2, answer_bytes: 4 * (1 + PIECE_BYTES), ..config };
        "abcde".chars().for_each(|letter| drop(answers.push(TASK, text(&letter.to_string()), &config)));
        assert_eq!(answers.again(NodeId::example(2), &TASK, 0, &config), None);
        assert_eq!(answers.again(GATEWAY, &TASK, 0, &config), Some(Again::Gone), "the buffer has four pieces");
        let pieces = vec![chunk(1, text("b")), chunk(2, text("c"))];
        assert_eq!(answers.again(GATEWAY, &TASK, 1, &config), Some(Again::Pieces(pieces)));
        assert_eq!(answers.again(GATEWAY, &TASK, 5, &config), Some(Again::Pieces(vec![])));
        assert_eq!(answers.again(GATEWAY, &TASK, u64::MAX, &config), Some(Again::Pieces(vec![])));
        answers.retire(Moment(0), TASK, &config);
        assert!(answers.again(GATEWAY, &TASK, 4, &config).is_some());
        answers.expire(Moment(0) + config.answers_for);
        assert_eq!((answers.again(GATEWAY, &TASK, 4, &config), answers.bytes()), (None, 0));
    }

    #[test]
    fn an_answer_that_may_not_be_sent_is_not_kept_without_bound() {
        let (mut answers, config) = opened(false);
        let config = WorkerConfig { answer_bytes: 2 * (1 + PIECE_BYTES), ..config };
        assert!(answers.push(TASK, text("a"), &config).is_some() && answers.push(TASK, text("b"), &config).is_some());
        assert_eq!(answers.push(TASK, text("c"), &config), None);
    }

    #[test]
    fn all_answers_together_are_bounded_and_the_old_ones_go_first() {
        let (mut answers, config) = opened(true);
        let config = WorkerConfig { answers_bytes: 2 * (1 + PIECE_BYTES), ..config };
        answers.push(TASK, text("a"), &config);
        answers.retire(Moment(0), TASK, &config);
        answers.open(TaskId([2; 16]), GATEWAY, true);
        (0..3).for_each(|_| assert!(answers.push(TaskId([2; 16]), text("b"), &config).is_some()));
        assert!(answers.gateway(&TASK).is_none());
        assert_eq!(answers.bytes(), config.answers_bytes);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let cut: Vec<&str> = pieces("aäöü", 4).collect();
        assert_eq!(cut, ["aä", "öü"]);
        assert_eq!(pieces("", 4).count(), 0);
    }
}
