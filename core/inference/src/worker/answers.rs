//! The answers on their way to their gateways: numbered, and kept a while to be sent again.
//!
//! A node that fails in the middle of an answer may run the task again after its restart, and the second answer is
//! another one. So nothing of an answer is sent before the state shows that the task has begun: a node that finds a
//! task begun by an earlier life of its own fails it. Where that entry was in a branch of the log that lost, the task is
//! answered anew, as another attempt, and the gateway tells the two apart.
//!
//! Text goes out as the runner says it. From a certain length on, what follows close upon other text is put together: a
//! runner may be faster than anybody reads, and each piece costs a message.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use lockstep_replication::rng::Rng;
use lockstep_replication::{Moment, NodeId, Seed};

use super::config::WorkerConfig;
use crate::id::TaskId;
use crate::transient::{Attempt, TokenChunk, TokenPart};

/// What a piece costs beside its text.
const PIECE_BYTES: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Answers {
    answers: BTreeMap<TaskId, Answer>,
    /// When text that was held back goes out.
    held: BTreeSet<(Moment, TaskId)>,
    /// Those that ended, with the time until which they are kept.
    old: VecDeque<(Moment, TaskId)>,
    bytes: usize,
    attempts: Rng,
}

#[derive(Clone, Debug)]
struct Answer {
    gateway: NodeId,
    attempt: Attempt,
    /// The number of the first piece that is kept.
    first: u64,
    pieces: VecDeque<TokenPart>,
    bytes: usize,
    /// How many pieces were sent.
    sent: u64,
    /// Until when text is held back, as some was sent just before.
    holds: Moment,
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
    pub(super) fn new(seed: Seed) -> Answers {
        let (answers, held, old) = (BTreeMap::new(), BTreeSet::new(), VecDeque::new());
        Answers { answers, held, old, bytes: 0, attempts: seed.rng() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// To whom the answer of a task goes.
    pub(super) fn gateway(&self, task: &TaskId) -> Option<NodeId> {
        self.answers.get(task).map(|answer| answer.gateway)
    }

    /// The task is given to its runner.
    pub(super) fn open(&mut self, task: TaskId, gateway: NodeId, begun: bool) {
        let attempt = Attempt(self.attempts.number());
        self.answers.entry(task).or_insert(Answer {
            gateway,
            attempt,
            first: 0,
            pieces: VecDeque::new(),
            bytes: 0,
            sent: 0,
            holds: Moment::default(),
            begun,
            complete: false,
            old: false,
        });
    }

    /// The answer goes on: what is to be sent now, or nothing if there is no room for it.
    pub(super) fn push(
        &mut self,
        now: Moment,
        task: TaskId,
        part: TokenPart,
        config: &WorkerConfig,
    ) -> Option<Vec<TokenChunk>> {
        let Some(answer) = self.answers.get_mut(&task).filter(|answer| !answer.complete) else { return Some(vec![]) };
        let before = answer.bytes;
        match part {
            TokenPart::Text(text) => answer.add_text(&text, config),
            TokenPart::End { .. } | TokenPart::Error(_) | TokenPart::Refused(_) => {
                answer.add(part);
                answer.complete = true;
            }
        }
        self.bytes += answer.bytes - before;
        // One full piece and the beginning of the next are worth a message at any time.
        let send = if !answer.begun {
            vec![]
        } else if now < answer.holds && !answer.complete && answer.count_unsent() < 2 && answer.is_long(config) {
            self.held.insert((answer.holds, task));
            vec![]
        } else {
            self.send(now, task, config)
        };
        let Some(answer) = self.answers.get_mut(&task) else { return Some(send) };
        while answer.bytes > config.answer_bytes && answer.first < answer.sent {
            self.bytes -= answer.drop_first();
        }
        let fits = answer.bytes <= config.answer_bytes;
        self.shrink(&task, config);
        (fits && self.bytes <= config.answers_bytes).then_some(send)
    }

    /// An error ends the answer, at once: what is to be sent now. What may not be sent yet is dropped.
    pub(super) fn fail(
        &mut self,
        now: Moment,
        task: TaskId,
        error: TokenPart,
        config: &WorkerConfig,
    ) -> Vec<TokenChunk> {
        let Some(answer) = self.answers.get_mut(&task).filter(|answer| !answer.complete) else { return vec![] };
        let before = answer.bytes;
        while !answer.begun && answer.count_unsent() > 0 {
            answer.drop_last();
        }
        answer.add(error);
        self.bytes = self.bytes - before + answer.bytes;
        (answer.complete, answer.begun) = (true, true);
        self.send(now, task, config)
    }

    /// The state shows that the task has begun, or has ended: what is to be sent now.
    pub(super) fn begin(&mut self, now: Moment, task: TaskId, config: &WorkerConfig) -> Vec<TokenChunk> {
        let Some(answer) = self.answers.get_mut(&task) else { return vec![] };
        answer.begun = true;
        self.send(now, task, config)
    }

    /// What was held back for long enough.
    pub(super) fn release(&mut self, now: Moment, config: &WorkerConfig) -> Vec<TokenChunk> {
        let due: Vec<TaskId> = self.held.iter().take_while(|(at, _)| *at <= now).map(|(_, task)| *task).collect();
        due.into_iter().flat_map(|task| self.send(now, task, config)).collect()
    }

    /// All that was not sent.
    fn send(&mut self, now: Moment, task: TaskId, config: &WorkerConfig) -> Vec<TokenChunk> {
        let Some(answer) = self.answers.get_mut(&task) else { return vec![] };
        self.held.remove(&(answer.holds, task));
        let skip = (answer.sent - answer.first) as usize;
        let unsent = (answer.sent..).zip(answer.pieces.iter().skip(skip)).map(|(n, part)| answer.chunk(task, n, part));
        let unsent: Vec<TokenChunk> = unsent.collect();
        if !unsent.is_empty() {
            answer.sent += unsent.len() as u64;
            answer.holds = now + config.piece_every;
        }
        unsent
    }

    pub(super) fn next_release(&self) -> Option<Moment> {
        self.held.first().map(|(at, _)| *at)
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
        Some(Again::Pieces((first..).zip(pieces).map(|(n, part)| answer.chunk(*task, n, part)).collect()))
    }

    /// A piece that says that the one of this number is kept no more.
    pub(super) fn gone(&self, task: TaskId, n: u64) -> Option<TokenChunk> {
        let part = TokenPart::Error("a part of the answer was lost, and is kept no more".into());
        Some(self.answers.get(&task)?.chunk(task, n, &part))
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
        let Some(answer) = self.answers.remove(&task) else { return };
        self.held.remove(&(answer.holds, task));
        self.bytes -= answer.bytes;
    }
}

impl Answer {
    fn add(&mut self, part: TokenPart) {
        self.bytes += cost(&part);
        self.pieces.push_back(part);
    }

    fn is_long(&self, config: &WorkerConfig) -> bool {
        self.first + self.pieces.len() as u64 > config.pieces_alone
    }

    /// The text of a long answer joins what was not sent, so that many small words are few pieces.
    fn add_text(&mut self, text: &str, config: &WorkerConfig) {
        let mut rest = text;
        if self.count_unsent() > 0
            && self.is_long(config)
            && let Some(TokenPart::Text(last)) = self.pieces.back_mut()
        {
            let (more, later) = rest.split_at(fits(rest, config.piece_bytes.saturating_sub(last.len())));
            last.push_str(more);
            self.bytes += more.len();
            rest = later;
        }
        while !rest.is_empty() {
            // A character has at most four bytes.
            let (piece, later) = rest.split_at(fits(rest, config.piece_bytes.max(4)));
            self.add(TokenPart::Text(piece.to_owned()));
            rest = later;
        }
    }

    fn drop_first(&mut self) -> usize {
        let Some(piece) = self.pieces.pop_front() else { return 0 };
        self.first += 1;
        self.bytes -= cost(&piece);
        cost(&piece)
    }

    fn drop_last(&mut self) {
        self.bytes -= self.pieces.pop_back().map_or(0, |piece| cost(&piece));
    }

    fn count_unsent(&self) -> u64 {
        self.first + self.pieces.len() as u64 - self.sent
    }

    fn chunk(&self, task: TaskId, n: u64, part: &TokenPart) -> TokenChunk {
        TokenChunk { task, n, part: part.clone(), attempt: self.attempt }
    }
}

fn cost(part: &TokenPart) -> usize {
    match part {
        TokenPart::Text(text) | TokenPart::Error(text) | TokenPart::Refused(text) => text.len() + PIECE_BYTES,
        TokenPart::End { .. } => PIECE_BYTES,
    }
}

/// How many of its first bytes fit, cut between characters.
fn fits(text: &str, bytes: usize) -> usize {
    let most = text.len().min(bytes);
    (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use lockstep_replication::Span;

    use super::*;
    use crate::transient::{StopReason, Usage};

    const TASK: TaskId = TaskId([1; 16]);
    const GATEWAY: NodeId = NodeId::example(1);

    fn text(text: &str) -> TokenPart {
        TokenPart::Text(text.into())
    }

    fn error(reason: &str) -> TokenPart {
        TokenPart::Error(reason.into())
    }

    fn chunk(answers: &Answers, n: u64, part: TokenPart) -> TokenChunk {
        TokenChunk { task: TASK, n, part, attempt: answers.answers[&TASK].attempt }
    }

    fn opened(begun: bool) -> (Answers, WorkerConfig) {
        let mut answers = Answers::new(Seed::from_number(1));
        answers.open(TASK, GATEWAY, begun);
        (answers, WorkerConfig::default())
    }

    const START: Moment = Moment(1_000_000_000);

    /// One moment after the other, each long after the one before it.
    fn at(n: u64) -> Moment {
        START + Span::seconds(n)
    }

    #[test]
    fn nothing_is_sent_before_the_task_has_begun() {
        let (mut answers, config) = opened(false);
        assert_eq!(answers.push(at(0), TASK, text("a"), &config), Some(vec![]));
        assert_eq!(answers.again(GATEWAY, &TASK, 0, &config), Some(Again::Pieces(vec![])));
        assert_eq!(answers.push(at(1), TASK, text("b"), &config), Some(vec![]));
        let begun = [chunk(&answers, 0, text("a")), chunk(&answers, 1, text("b"))];
        assert_eq!(answers.begin(at(2), TASK, &config), begun);
        assert_eq!(answers.push(at(2), TASK, text("c"), &config), Some(vec![chunk(&answers, 2, text("c"))]));
        let end = TokenPart::End { stop: StopReason::Stop, usage: Usage::default() };
        assert_eq!(answers.push(at(3), TASK, end.clone(), &config), Some(vec![chunk(&answers, 3, end)]));
        assert_eq!(answers.push(at(4), TASK, text("late"), &config), Some(vec![]), "it was complete");
        assert_eq!(answers.fail(at(4), TASK, error("late"), &config), []);
    }

    #[test]
    fn each_attempt_has_a_name_of_its_own() {
        let (mut answers, config) = opened(true);
        let first = answers.push(at(0), TASK, text("a"), &config).unwrap()[0].attempt;
        answers.retire(at(0), TASK, &config);
        answers.expire(at(60));
        answers.open(TASK, GATEWAY, true);
        assert_ne!(answers.push(at(60), TASK, text("a"), &config).unwrap()[0].attempt, first);
    }

    #[test]
    fn text_of_a_long_answer_that_follows_close_is_put_together() {
        let (mut answers, config) = opened(true);
        let config = WorkerConfig { piece_bytes: 4, pieces_alone: 1, ..config };
        assert_eq!(answers.push(START, TASK, text("a"), &config), Some(vec![chunk(&answers, 0, text("a"))]));
        assert_eq!(answers.push(START, TASK, text("b"), &config), Some(vec![]), "one goes alone");
        for letter in ["c", "d"] {
            assert_eq!(answers.push(START, TASK, text(letter), &config), Some(vec![]));
        }
        let release = answers.next_release().unwrap();
        assert_eq!(release, START + config.piece_every);
        assert_eq!(answers.release(release, &config), [chunk(&answers, 1, text("bcd"))]);
        assert_eq!(answers.next_release(), None);
        // What is more than a piece does not wait, and neither does the end.
        answers.push(release, TASK, text("xxx"), &config);
        let full = [chunk(&answers, 2, text("xxxa")), chunk(&answers, 3, text("ä"))];
        assert_eq!(answers.push(release, TASK, text("aä"), &config), Some(full.into()));
        answers.push(release, TASK, text("y"), &config);
        let end = [chunk(&answers, 4, text("y")), chunk(&answers, 5, error("oh"))];
        assert_eq!(answers.fail(release, TASK, error("oh"), &config), end);
        assert_eq!(answers.next_release(), None);
    }

    #[test]
    fn an_error_ends_it_where_it_is() {
        let (mut answers, config) = opened(false);
        answers.push(at(0), TASK, text("unsent"), &config);
        assert_eq!(answers.fail(at(1), TASK, error("oh"), &config), [chunk(&answers, 0, error("oh"))]);
        assert_eq!(answers.bytes(), 2 + PIECE_BYTES);
    }

    #[test]
    fn what_was_sent_is_sent_again_to_whom_it_belongs() {
        let (mut answers, config) = opened(true);
        let config = WorkerConfig { pieces_again: 2, answer_bytes: 4 * (1 + PIECE_BYTES), ..config };
        let letters = (0..).zip(["a", "b", "c", "d", "e"]);
        letters.for_each(|(n, letter)| drop(answers.push(at(n), TASK, text(letter), &config)));
        assert_eq!(answers.again(NodeId::example(2), &TASK, 0, &config), None);
        assert_eq!(answers.again(GATEWAY, &TASK, 0, &config), Some(Again::Gone), "the buffer has four pieces");
        let pieces = vec![chunk(&answers, 1, text("b")), chunk(&answers, 2, text("c"))];
        assert_eq!(answers.again(GATEWAY, &TASK, 1, &config), Some(Again::Pieces(pieces)));
        assert_eq!(answers.again(GATEWAY, &TASK, 5, &config), Some(Again::Pieces(vec![])));
        assert_eq!(answers.again(GATEWAY, &TASK, u64::MAX, &config), Some(Again::Pieces(vec![])));
        answers.retire(at(9), TASK, &config);
        assert!(answers.again(GATEWAY, &TASK, 4, &config).is_some());
        answers.expire(at(9) + config.answers_for);
        assert_eq!((answers.again(GATEWAY, &TASK, 4, &config), answers.bytes()), (None, 0));
    }

    #[test]
    fn an_answer_that_may_not_be_sent_is_not_kept_without_bound() {
        let (mut answers, config) = opened(false);
        let config = WorkerConfig { answer_bytes: 2 + PIECE_BYTES, pieces_alone: 0, ..config };
        assert!(answers.push(at(0), TASK, text("a"), &config).is_some());
        assert!(answers.push(at(0), TASK, text("b"), &config).is_some());
        assert_eq!(answers.push(at(0), TASK, text("c"), &config), None);
    }

    #[test]
    fn all_answers_together_are_bounded_and_the_old_ones_go_first() {
        let (mut answers, config) = opened(true);
        let config = WorkerConfig { answers_bytes: 2 * (1 + PIECE_BYTES), ..config };
        answers.push(at(0), TASK, text("a"), &config);
        answers.retire(at(0), TASK, &config);
        answers.open(TaskId([2; 16]), GATEWAY, true);
        (0..3).for_each(|n| assert!(answers.push(at(n), TaskId([2; 16]), text("b"), &config).is_some()));
        assert!(answers.gateway(&TASK).is_none());
        assert_eq!(answers.bytes(), config.answers_bytes);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let (mut answers, config) = opened(true);
        let config = WorkerConfig { piece_bytes: 4, ..config };
        let cut = vec![chunk(&answers, 0, text("aä")), chunk(&answers, 1, text("öü"))];
        assert_eq!(answers.push(at(0), TASK, text("aäöü"), &config), Some(cut));
        assert_eq!(answers.push(at(1), TASK, text(""), &config), Some(vec![]));
    }
}
