//! The inputs that wait for their turn: put together from parts, known by their hash, bounded in bytes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use lockstep_replication::{Hash, Moment, NodeId, Wall};
use sha2::{Digest, Sha256};

use super::config::WorkerConfig;
use crate::id::TaskId;
use crate::state::InputName;
use crate::transient::InputChunk;

/// What a part costs beside its bytes.
const PART_BYTES: usize = 64;

/// The most lacking parts that are named at once.
const PARTS_NAMED: usize = 512;

/// Tasks in the order in which they were created; the same on every node.
pub(super) type Order = (Wall, TaskId);

/// What a task's input is, and who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) order: Order,
    pub(super) gateway: NodeId,
    pub(super) name: InputName,
}

/// What became of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is of no use, or there is no room.
    Dropped,
    /// It was there already.
    Known,
    /// It is kept.
    Kept,
    /// It was the last one that lacked: the input is whole.
    Whole,
    /// It was the last one that lacked, but the whole is not what the task names. All parts are dropped.
    Wrong,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    inputs: BTreeMap<TaskId, Input>,
    /// Those whose task is known, in its order: the last one gives way.
    in_order: BTreeSet<Order>,
    /// Those whose task is not, by the time at which they are dropped.
    early: BTreeSet<(Moment, TaskId)>,
    known_bytes: usize,
    early_bytes: usize,
}

#[derive(Clone, Debug)]
struct Input {
    from: NodeId,
    hash: Hash,
    /// How many parts there are.
    of: u32,
    parts: BTreeMap<u32, Bytes>,
    bytes: usize,
    cost: usize,
    whole: bool,
    /// None: its task is not known yet.
    order: Option<Order>,
    expires: Moment,
}

impl Inputs {
    pub(super) fn bytes(&self) -> usize {
        self.known_bytes + self.early_bytes
    }

    pub(super) fn is_whole(&self, task: &TaskId) -> bool {
        self.inputs.get(task).is_some_and(|input| input.whole)
    }

    /// A part came. The tasks whose inputs had to give way for it are put into `gave_way`.
    pub(super) fn take(
        &mut self,
        now: Moment,
        from: NodeId,
        expected: Option<&Expected>,
        chunk: InputChunk,
        config: &WorkerConfig,
        gave_way: &mut Vec<TaskId>,
    ) -> Taken {
        let task = chunk.task;
        if chunk.n >= chunk.of || (chunk.bytes.is_empty() && chunk.of > 1) {
            return Taken::Dropped;
        }
        if expected.is_some_and(|expected| expected.gateway != from || expected.name.hash != chunk.input) {
            return Taken::Dropped;
        }
        let limit = expected.map_or(config.input_bytes, |expected| expected.name.bytes.min(config.input_bytes));
        let (held, parts) = match self.inputs.get(&task) {
            Some(input) if input.from != from || input.hash != chunk.input || input.of != chunk.of => {
                return Taken::Dropped;
            }
            Some(input) if input.whole || input.parts.contains_key(&chunk.n) => return Taken::Known,
            Some(input) => (input.bytes, input.parts.len()),
            None => (0, 0),
        };
        if (held + chunk.bytes.len()) as u64 > limit {
            return Taken::Dropped;
        }
        let cost = chunk.bytes.len() + PART_BYTES;
        let order = expected.map(|expected| expected.order);
        if !self.make_room(cost, task, order, config, gave_way) {
            return Taken::Dropped;
        }
        let whole = parts + 1 == chunk.of as usize;
        match order {
            Some(order) => {
                self.known_bytes += cost;
                self.in_order.insert(order);
            }
            None => self.early_bytes += cost,
        }
        let expires = now + config.early_for;
        let input = self.inputs.entry(task).or_insert_with(|| Input {
            from,
            hash: chunk.input,
            of: chunk.of,
            parts: BTreeMap::new(),
            bytes: 0,
            cost: 0,
            whole: false,
            order,
            expires,
        });
        if order.is_none() {
            self.early.insert((input.expires, task));
        }
        input.bytes += chunk.bytes.len();
        input.cost += cost;
        input.parts.insert(chunk.n, chunk.bytes);
        if whole { self.finish(task) } else { Taken::Kept }
    }

    /// The state shows the task: its input may be here already.
    pub(super) fn expect(&mut self, expected: &Expected) {
        let task = expected.order.1;
        let Some(input) = self.inputs.get_mut(&task) else { return };
        let fits = input.from == expected.gateway
            && input.hash == expected.name.hash
            && input.bytes as u64 <= expected.name.bytes
            && input.order.is_none();
        if fits {
            input.order = Some(expected.order);
            self.early.remove(&(input.expires, task));
            self.early_bytes -= input.cost;
            self.known_bytes += input.cost;
            self.in_order.insert(expected.order);
        } else {
            self.remove(&task);
        }
    }

    /// The first of the parts that lack; none if all do.
    pub(super) fn lacking(&self, task: &TaskId) -> Vec<u32> {
        let Some(input) = self.inputs.get(task) else { return vec![] };
        (0..input.of).filter(|n| !input.parts.contains_key(n)).take(PARTS_NAMED).collect()
    }

    /// Takes a whole input out.
    pub(super) fn give(&mut self, task: &TaskId) -> Option<Bytes> {
        let whole = self.is_whole(task).then(|| self.remove(task))??;
        whole.parts.into_values().next()
    }

    pub(super) fn remove_all(&mut self, task: &TaskId) {
        self.remove(task);
    }

    /// Drops the inputs whose task did not come: how many.
    pub(super) fn expire(&mut self, now: Moment) -> u64 {
        let mut expired = 0;
        while let Some((_, task)) = self.early.first().copied().filter(|(at, _)| *at <= now) {
            self.remove(&task);
            expired += 1;
        }
        expired
    }

    pub(super) fn next_expiry(&self) -> Option<Moment> {
        self.early.first().map(|(at, _)| *at)
    }

    fn remove(&mut self, task: &TaskId) -> Option<Input> {
        let input = self.inputs.remove(task)?;
        match input.order {
            Some(order) => {
                self.in_order.remove(&order);
                self.known_bytes -= input.cost;
            }
            None => {
                self.early.remove(&(input.expires, *task));
                self.early_bytes -= input.cost;
            }
        }
        Some(input)
    }

    /// Early inputs give way by age; others from the last task on, but never to a later one.
    fn make_room(
        &mut self,
        cost: usize,
        task: TaskId,
        order: Option<Order>,
        config: &WorkerConfig,
        gave_way: &mut Vec<TaskId>,
    ) -> bool {
        let Some(order) = order else {
            while self.early_bytes + cost > config.early_bytes {
                match self.early.first().copied() {
                    Some((_, oldest)) if oldest != task => drop(self.remove(&oldest)),
                    Some(_) | None => return false,
                }
            }
            return true;
        };
        while self.known_bytes + cost > config.inputs_bytes {
            match self.in_order.last().copied() {
                Some(last) if last > order => {
                    self.remove(&last.1);
                    gave_way.push(last.1);
                }
                Some(_) | None => return false,
            }
        }
        true
    }

    fn finish(&mut self, task: TaskId) -> Taken {
        let Some(input) = self.inputs.get_mut(&task) else { return Taken::Dropped };
        let mut joined = BytesMut::with_capacity(input.bytes);
        std::mem::take(&mut input.parts).into_values().for_each(|part| joined.extend_from_slice(&part));
        if Sha256::digest(&joined)[..] != input.hash.0 {
            self.remove(&task);
            return Taken::Wrong;
        }
        input.parts.insert(0, joined.freeze());
        input.whole = true;
        Taken::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: NodeId = NodeId::example(1);

    fn named(text: &str) -> InputName {
        InputName { hash: Hash(Sha256::digest(text).into()), bytes: text.len() as u64 }
    }

    fn expected(n: u8, text: &str) -> Expected {
        Expected { order: (Wall(n.into()), TaskId([n; 16])), gateway: GATEWAY, name: named(text) }
    }

    /// The parts of a text, three bytes each.
    fn parts(n: u8, text: &str) -> Vec<InputChunk> {
        let of = text.len().div_ceil(3) as u32;
        let chunk = |(part, bytes): (u32, &[u8])| InputChunk {
            task: TaskId([n; 16]),
            input: named(text).hash,
            n: part,
            of,
            bytes: Bytes::copy_from_slice(bytes),
        };
        (0..).zip(text.as_bytes().chunks(3)).map(chunk).collect()
    }

    #[derive(Default)]
    struct Tried {
        inputs: Inputs,
        config: WorkerConfig,
        gave_way: Vec<TaskId>,
    }

    impl Tried {
        fn take(&mut self, expected: Option<&Expected>, chunk: &InputChunk) -> Taken {
            self.inputs.take(Moment(0), GATEWAY, expected, chunk.clone(), &self.config, &mut self.gave_way)
        }
    }

    #[test]
    fn parts_in_any_order_make_the_whole() {
        let mut tried = Tried::default();
        let (expected, parts) = (expected(1, "abcdefgh"), parts(1, "abcdefgh"));
        assert_eq!(tried.inputs.lacking(&TaskId([1; 16])), [] as [u32; 0]);
        assert_eq!(tried.take(Some(&expected), &parts[2]), Taken::Kept);
        assert_eq!(tried.take(Some(&expected), &parts[2]), Taken::Known);
        assert_eq!(tried.inputs.lacking(&TaskId([1; 16])), [0, 1]);
        assert_eq!(tried.take(Some(&expected), &parts[0]), Taken::Kept);
        assert_eq!(tried.inputs.give(&TaskId([1; 16])), None);
        assert_eq!(tried.take(Some(&expected), &parts[1]), Taken::Whole);
        assert_eq!(tried.inputs.give(&TaskId([1; 16])).unwrap(), "abcdefgh");
        assert_eq!(tried.inputs.bytes(), 0);
    }

    #[test]
    fn what_does_not_fit_the_task_is_dropped() {
        let mut tried = Tried::default();
        let (expected, parts) = (expected(1, "abcdefgh"), parts(1, "abcdefgh"));
        let strange = tried.inputs.take(
            Moment(0),
            NodeId::example(9),
            Some(&expected),
            parts[0].clone(),
            &tried.config,
            &mut tried.gave_way,
        );
        assert_eq!(strange, Taken::Dropped);
        for broken in [
            InputChunk { input: Hash([0; 32]), ..parts[0].clone() },
            InputChunk { n: 3, ..parts[0].clone() },
            InputChunk { bytes: Bytes::new(), ..parts[0].clone() },
            InputChunk { bytes: Bytes::from_static(&[0; 9]), ..parts[0].clone() },
        ] {
            assert_eq!(tried.take(Some(&expected), &broken), Taken::Dropped);
        }
        tried.take(Some(&expected), &parts[0]);
        tried.take(Some(&expected), &parts[1]);
        let twisted = InputChunk { bytes: Bytes::from_static(b"xx"), ..parts[2].clone() };
        assert_eq!(tried.take(Some(&expected), &twisted), Taken::Wrong);
        assert_eq!(tried.inputs.bytes(), 0);
    }

    #[test]
    fn an_input_may_come_before_its_task_and_is_not_kept_long_without_it() {
        let mut tried = Tried::default();
        for (n, text) in [(1, "abc"), (2, "def")] {
            assert_eq!(tried.take(None, &parts(n, text)[0]), Taken::Whole);
        }
        tried.inputs.expect(&expected(1, "abc"));
        assert!(tried.inputs.is_whole(&TaskId([1; 16])));
        assert_eq!(tried.inputs.next_expiry(), Some(Moment(0) + tried.config.early_for));
        assert_eq!(tried.inputs.expire(Moment(0) + tried.config.early_for), 1);
        assert_eq!(tried.inputs.next_expiry(), None);
        assert_eq!(tried.inputs.give(&TaskId([1; 16])).unwrap(), "abc");
        assert_eq!(tried.inputs.bytes(), 0);
    }

    #[test]
    fn an_early_input_of_another_task_does_not_stand_in_the_way() {
        let mut tried = Tried::default();
        tried.take(None, &parts(1, "other")[0]);
        tried.inputs.expect(&expected(1, "abc"));
        assert_eq!((tried.inputs.bytes(), tried.inputs.next_expiry()), (0, None));
        assert_eq!(tried.take(Some(&expected(1, "abc")), &parts(1, "abc")[0]), Taken::Whole);
    }

    #[test]
    fn at_the_limit_the_last_task_gives_way() {
        let mut tried = Tried::default();
        tried.config.inputs_bytes = 2 * (3 + PART_BYTES);
        tried.config.early_bytes = 3 + PART_BYTES;
        for n in [2, 3] {
            assert_eq!(tried.take(Some(&expected(n, "abc")), &parts(n, "abc")[0]), Taken::Whole);
        }
        assert_eq!(tried.take(Some(&expected(4, "abc")), &parts(4, "abc")[0]), Taken::Dropped);
        assert_eq!(tried.take(Some(&expected(1, "abc")), &parts(1, "abc")[0]), Taken::Whole);
        assert_eq!(tried.gave_way, [TaskId([3; 16])]);
        for n in [8, 9] {
            assert_eq!(tried.take(None, &parts(n, "abc")[0]), Taken::Whole);
        }
        assert!(!tried.inputs.is_whole(&TaskId([8; 16])) && tried.inputs.is_whole(&TaskId([9; 16])));
    }
}
