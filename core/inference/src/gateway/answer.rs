//! An answer on its way in: put in order, and asked for where it has holes.

use std::collections::BTreeMap;

use lockstep_replication::{Moment, NodeId, Span};

use super::config::GatewayConfig;
use crate::transient::{Attempt, TokenPart};

#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The number of the part that is next.
    pub(super) next: u64,
    /// Which answer the parts before it are of.
    attempt: Option<Attempt>,
    /// The parts that wait, and who sent them.
    ahead: BTreeMap<u64, (NodeId, Attempt, TokenPart)>,
    ahead_bytes: usize,
    asking: Option<Asking>,
}

/// Why the next part is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// One that comes after it is there.
    Hole,
    /// Its task is gone.
    Rest,
    /// Nothing came for a while, so it may be lost.
    Quiet,
}

#[derive(Clone, Copy, Debug)]
struct Asking {
    want: Want,
    since: Moment,
    at: Moment,
    asks: u32,
}

/// What became of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Kept,
    /// It was there already.
    Doubled,
    /// There is no room for it.
    Dropped,
    /// It is of another answer than those before it.
    Anew,
}

/// What follows from what is wanted and from the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Wait,
    Now(Want),
    GivenUp(Want),
}

/// A part is of another answer than those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfAnother;

impl Answer {
    pub(super) fn new() -> Answer {
        Answer { next: 0, attempt: None, ahead: BTreeMap::new(), ahead_bytes: 0, asking: None }
    }

    /// A part came. The next one always has room: it does not stay.
    pub(super) fn take(
        &mut self,
        from: NodeId,
        (attempt, n): (Attempt, u64),
        part: TokenPart,
        config: &GatewayConfig,
    ) -> Taken {
        if self.attempt.is_some_and(|before| before != attempt) {
            return Taken::Anew;
        }
        if n < self.next || self.ahead.contains_key(&n) {
            return Taken::Doubled;
        }
        let full = self.ahead.len() >= config.ahead || self.ahead_bytes + bytes(&part) > config.ahead_bytes;
        if full && n != self.next {
            return Taken::Dropped;
        }
        self.ahead_bytes += bytes(&part);
        self.ahead.insert(n, (from, attempt, part));
        Taken::Kept
    }

    /// Takes out the next part, if it is there. It fails if the part is of another answer than those before it.
    pub(super) fn pop(&mut self) -> Result<Option<TokenPart>, OfAnother> {
        let Some((_, attempt, part)) = self.ahead.remove(&self.next) else { return Ok(None) };
        self.ahead_bytes -= bytes(&part);
        if *self.attempt.get_or_insert(attempt) != attempt {
            return Err(OfAnother);
        }
        self.next += 1;
        self.asking = None;
        Ok(Some(part))
    }

    /// Who sent the parts that wait.
    pub(super) fn senders(&self) -> impl Iterator<Item = NodeId> {
        self.ahead.values().map(|(from, ..)| *from)
    }

    /// It is known who answers: drops what others sent, and says how many parts that were.
    pub(super) fn keep_from(&mut self, node: NodeId) -> u64 {
        let before = self.ahead.len();
        self.ahead.retain(|_, (from, ..)| *from == node);
        self.ahead_bytes = self.ahead.values().map(|(.., part)| bytes(part)).sum();
        (before - self.ahead.len()) as u64
    }

    pub(super) fn has_hole(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Whether the next part is to be asked for now.
    pub(super) fn ask(&mut self, now: Moment, want: Option<Want>, config: &GatewayConfig) -> Asked {
        let Some(want) = want else {
            self.asking = None;
            return Asked::Wait;
        };
        let asking = match &mut self.asking {
            Some(asking) if asking.want == want => asking,
            other => other.insert(Asking { want, since: now, at: now + wait(want, 0, config), asks: 0 }),
        };
        if now < asking.at {
            return Asked::Wait;
        }
        let until = asking.since + config.hole_longest;
        let (most, until) = match want {
            Want::Hole => (config.hole_asks, Some(until)),
            Want::Rest => (config.rest_asks, Some(until)),
            Want::Quiet => (u32::MAX, None),
        };
        if asking.asks >= most || until.is_some_and(|until| until <= now) {
            return Asked::GivenUp(want);
        }
        asking.asks = asking.asks.saturating_add(1);
        let next = now + wait(want, asking.asks, config);
        asking.at = until.map_or(next, |until| next.min(until));
        Asked::Now(want)
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.asking.map(|asking| asking.at)
    }
}

/// How long to wait after so many requests.
fn wait(want: Want, asks: u32, config: &GatewayConfig) -> Span {
    let doubled = |first: Span, times: u32| first.times(1 << times.min(40));
    match want {
        // The first request goes out after one wait, the second after one more, and then it doubles.
        Want::Hole | Want::Rest => doubled(config.hole, asks.saturating_sub(1)),
        Want::Quiet => doubled(config.quiet, asks).min(config.quiet_longest),
    }
}

fn bytes(part: &TokenPart) -> usize {
    match part {
        TokenPart::Text(text) | TokenPart::Error(text) | TokenPart::Refused(text) => text.len(),
        TokenPart::End { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: NodeId = NodeId::example(2);
    const FIRST: Attempt = Attempt(7);
    const SECOND: Attempt = Attempt(3);

    fn text(text: &str) -> TokenPart {
        TokenPart::Text(text.into())
    }

    fn ready(answer: &mut Answer) -> Vec<TokenPart> {
        std::iter::from_fn(|| answer.pop().unwrap()).collect()
    }

    #[test]
    fn parts_come_out_once_and_in_order() {
        let (mut answer, config) = (Answer::new(), GatewayConfig::default());
        let mut take = |n: u64| {
            let taken = answer.take(WORKER, (FIRST, n), text(&n.to_string()), &config);
            (taken, ready(&mut answer))
        };
        assert_eq!(take(1), (Taken::Kept, vec![]));
        assert_eq!(take(1), (Taken::Doubled, vec![]));
        assert_eq!(take(0), (Taken::Kept, vec![text("0"), text("1")]));
        assert_eq!(take(0), (Taken::Doubled, vec![]));
        assert_eq!(take(2), (Taken::Kept, vec![text("2")]));
    }

    #[test]
    fn what_waits_is_bounded_and_the_next_part_never_waits() {
        let config = GatewayConfig { ahead: 2, ahead_bytes: 5, ..GatewayConfig::default() };
        let mut answer = Answer::new();
        assert_eq!(answer.take(WORKER, (FIRST, 9), text("123456"), &config), Taken::Dropped);
        assert_eq!(answer.take(WORKER, (FIRST, 2), text("123"), &config), Taken::Kept);
        assert_eq!(answer.take(WORKER, (FIRST, 3), text("12"), &config), Taken::Kept);
        assert_eq!(answer.take(WORKER, (FIRST, 4), text(""), &config), Taken::Dropped);
        assert_eq!(answer.take(WORKER, (FIRST, 0), text("123456789"), &config), Taken::Kept);
        assert_eq!(answer.take(WORKER, (FIRST, 1), text("123456789"), &config), Taken::Dropped);
        assert_eq!(ready(&mut answer).len(), 1);
        assert_eq!(answer.take(WORKER, (FIRST, 1), text("123456789"), &config), Taken::Kept);
        assert_eq!((ready(&mut answer).len(), answer.ahead_bytes), (3, 0));
    }

    #[test]
    fn two_answers_are_not_mixed() {
        let (mut answer, config) = (Answer::new(), GatewayConfig::default());
        answer.take(WORKER, (FIRST, 1), text("b"), &config);
        answer.take(WORKER, (SECOND, 0), text("A"), &config);
        assert_eq!(answer.pop(), Ok(Some(text("A"))));
        assert_eq!(answer.pop(), Err(OfAnother));
        let mut answer = Answer::new();
        answer.take(WORKER, (FIRST, 0), text("a"), &config);
        ready(&mut answer);
        // Whatever its number: what comes later is of no use here.
        assert_eq!(answer.take(WORKER, (SECOND, 0), text("A"), &config), Taken::Anew);
        assert_eq!(answer.take(WORKER, (SECOND, 5), text("F"), &config), Taken::Anew);
    }

    #[test]
    fn parts_of_strangers_are_dropped_when_it_is_known_who_answers() {
        let (mut answer, config) = (Answer::new(), GatewayConfig::default());
        answer.take(NodeId::example(9), (FIRST, 0), text("lie"), &config);
        answer.take(WORKER, (FIRST, 1), text("b"), &config);
        assert_eq!(answer.keep_from(WORKER), 1);
        answer.take(WORKER, (FIRST, 0), text("a"), &config);
        assert_eq!(ready(&mut answer), [text("a"), text("b")]);
    }

    /// When a part that never comes is asked for, in milliseconds; the last time is when it is given up.
    fn asks(want: Want, most: usize) -> Vec<u64> {
        let (mut answer, config) = (Answer::new(), GatewayConfig::default());
        let (mut now, mut times) = (Moment(0), vec![]);
        while times.len() < most {
            match answer.ask(now, Some(want), &config) {
                Asked::Wait => {}
                Asked::Now(_) => times.push(now.0 / 1_000_000),
                Asked::GivenUp(_) => return [times, vec![now.0 / 1_000_000]].concat(),
            }
            assert!(answer.deadline().unwrap() > now);
            now = answer.deadline().unwrap();
        }
        times
    }

    #[test]
    fn a_hole_is_asked_for_ever_less_often_and_then_given_up() {
        assert_eq!(asks(Want::Hole, 99), [50, 100, 200, 400, 800, 1600, 3000]);
        assert_eq!(asks(Want::Rest, 99), [50, 100, 200, 400]);
        assert_eq!(asks(Want::Quiet, 6), [2000, 6000, 14_000, 30_000, 60_000, 90_000]);
    }

    #[test]
    fn progress_begins_anew() {
        let (mut answer, config) = (Answer::new(), GatewayConfig::default());
        let later = Moment(0) + Span::seconds(10);
        answer.ask(Moment(0), Some(Want::Hole), &config);
        assert_eq!(answer.ask(Moment(0) + config.hole, Some(Want::Hole), &config), Asked::Now(Want::Hole));
        answer.take(WORKER, (FIRST, 0), text("a"), &config);
        ready(&mut answer);
        assert_eq!(answer.ask(later, Some(Want::Hole), &config), Asked::Wait);
        assert_eq!(answer.deadline(), Some(later + config.hole));
        assert_eq!(answer.ask(later, None, &config), Asked::Wait);
        assert_eq!(answer.deadline(), None);
    }
}
