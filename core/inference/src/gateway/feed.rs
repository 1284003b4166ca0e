//! A task's input on its way to one of its ranks.

use std::collections::BTreeSet;

use bytes::Bytes;
use lockstep_replication::{Hash, Moment};

use super::config::GatewayConfig;
use crate::id::TaskId;
use crate::state::Rank;
use crate::transient::InputChunk;

/// A request as its client wrote it.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) bytes: Bytes,
    pub(super) hash: Hash,
}

#[derive(Clone, Debug)]
pub(super) struct Feed {
    pub(super) rank: Rank,
    /// The parts that are to be sent.
    due: BTreeSet<u32>,
    /// When it may go on.
    at: Moment,
    /// The earliest time for more parts.
    paced: Moment,
    /// How often the whole was sent again.
    again: u32,
    pub(super) acknowledged: bool,
}

impl Request {
    pub(super) fn parts(&self, config: &GatewayConfig) -> u32 {
        // One part holds nothing at all.
        u32::try_from(self.bytes.len().div_ceil(config.part_bytes)).unwrap_or(u32::MAX).max(1)
    }

    fn part(&self, task: TaskId, n: u32, config: &GatewayConfig) -> InputChunk {
        let from = (n as usize).saturating_mul(config.part_bytes).min(self.bytes.len());
        let until = from.saturating_add(config.part_bytes).min(self.bytes.len());
        let (input, of) = (self.hash, self.parts(config));
        InputChunk { task, input, n, of, bytes: self.bytes.slice(from..until) }
    }
}

impl Feed {
    pub(super) fn new(now: Moment, rank: Rank, request: &Request, config: &GatewayConfig) -> Feed {
        Feed { rank, due: (0..request.parts(config)).collect(), at: now, paced: now, again: 0, acknowledged: false }
    }

    /// The rank has it.
    pub(super) fn acknowledge(&mut self) {
        self.acknowledged = true;
        self.due.clear();
    }

    /// The rank lacks these parts; none means all.
    pub(super) fn ask(&mut self, now: Moment, parts: &[u32], request: &Request, config: &GatewayConfig) {
        let all = request.parts(config);
        let idle = self.due.is_empty();
        if parts.is_empty() {
            self.due.extend(0..all);
        } else {
            self.due.extend(parts.iter().copied().filter(|n| *n < all));
        }
        if idle && !self.due.is_empty() {
            self.at = now.max(self.paced);
        }
    }

    /// What is to be sent now, and whether it is the whole again.
    pub(super) fn advance(
        &mut self,
        now: Moment,
        task: TaskId,
        request: &Request,
        config: &GatewayConfig,
    ) -> (Vec<InputChunk>, bool) {
        if now < self.at {
            return (vec![], false);
        }
        let again = self.due.is_empty() && self.waits(config);
        if again {
            self.again += 1;
            self.due.extend(0..request.parts(config));
        }
        let mut parts = vec![];
        while parts.len() < config.parts_at_once
            && let Some(n) = self.due.pop_first()
        {
            parts.push(request.part(task, n, config));
        }
        if !parts.is_empty() {
            let pause = config.acknowledge.times(1 << self.again.min(32));
            self.paced = now + config.parts_every;
            self.at = if self.due.is_empty() { now + pause } else { self.paced };
        }
        (parts, again)
    }

    pub(super) fn deadline(&self, config: &GatewayConfig) -> Option<Moment> {
        (!self.due.is_empty() || self.waits(config)).then_some(self.at)
    }

    /// Whether it would be sent again, all of it being sent.
    fn waits(&self, config: &GatewayConfig) -> bool {
        !self.acknowledged && self.again < config.inputs_again
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunnerId;
    use crate::testing::{instance, task};
    use lockstep_replication::{NodeId, Span};

    fn feed(bytes: &'static [u8]) -> (Feed, Request, GatewayConfig) {
        let config = GatewayConfig { part_bytes: 2, parts_at_once: 2, ..GatewayConfig::default() };
        let request = Request { bytes: Bytes::from_static(bytes), hash: Hash::of(bytes) };
        let rank = Rank { node: NodeId::example(1), runner: RunnerId::of(instance(1), 0) };
        (Feed::new(Moment(0), rank, &request, &config), request, config)
    }

    /// The numbers of the parts that go out now.
    fn sent(feed: &mut Feed, now: Moment, request: &Request, config: &GatewayConfig) -> Vec<u32> {
        feed.advance(now, task(1), request, config).0.iter().map(|part| part.n).collect()
    }

    #[test]
    fn the_parts_are_the_whole() {
        let (mut feed, request, config) = feed(b"abcde");
        let (mut parts, _) = feed.advance(Moment(0), task(1), &request, &config);
        parts.extend(feed.advance(Moment(0) + config.parts_every, task(1), &request, &config).0);
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.bytes.to_vec()).collect();
        assert_eq!((parts.len(), bytes.as_slice()), (3, &b"abcde"[..]));
        assert!(parts.iter().all(|part| part.of == 3 && part.input == request.hash));
    }

    #[test]
    fn an_empty_request_has_one_part() {
        let (mut feed, request, config) = feed(b"");
        assert_eq!(sent(&mut feed, Moment(0), &request, &config), [0]);
    }

    #[test]
    fn a_large_one_goes_out_in_steps_and_again_until_it_is_acknowledged() {
        let (mut feed, request, config) = feed(b"abcde");
        let mut times = vec![];
        while let Some(at) = feed.deadline(&config) {
            times.push((at.0 / 1_000_000, sent(&mut feed, at, &request, &config)));
            assert!(feed.deadline(&config).is_none_or(|next| next > at));
        }
        let [first, rest] = [vec![0, 1], vec![2]];
        let expected = [(0, 0), (10, 1), (1010, 0), (1020, 1), (3020, 0), (3030, 1), (7030, 0), (7040, 1)];
        assert_eq!(times, expected.map(|(at, step)| (at, if step == 0 { first.clone() } else { rest.clone() })));
    }

    #[test]
    fn what_is_asked_for_is_sent_at_once_but_not_faster_than_its_pace() {
        let (mut feed, request, config) = feed(b"abcde");
        sent(&mut feed, Moment(0), &request, &config);
        let soon = Moment(0) + Span::millis(1);
        feed.ask(soon, &[0, 7], &request, &config);
        assert!(sent(&mut feed, soon, &request, &config).is_empty());
        assert_eq!(sent(&mut feed, Moment(0) + config.parts_every, &request, &config), [0, 2]);
        feed.acknowledge();
        assert_eq!(feed.deadline(&config), None);
        let later = Moment(0) + Span::seconds(60);
        feed.ask(later, &[9], &request, &config);
        assert_eq!(feed.deadline(&config), None);
        feed.ask(later, &[], &request, &config);
        assert_eq!(sent(&mut feed, later, &request, &config), [0, 1]);
    }
}
