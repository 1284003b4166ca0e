//! The multi-source buffer: what many origins number each for itself leaves in the order of each origin's numbers.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::id::NodeId;

/// Numbered items of many origins, each origin in an order of its own. The leader takes proposals through it.
///
/// An origin takes part from its first [`MultiSourceBuffer::expect`] on: nobody can make this grow by making up origins
/// or generations. One origin may hold [`Config::outbox_entries`] and [`Config::outbox_bytes`], all of them together
/// [`Config::buffer_entries`] and [`Config::buffer_bytes`]. At a limit the highest number goes: of the origin that is
/// over its own, or of the one that holds most, so that nobody can crowd out the others. What goes is sent again. The
/// item that just came is always kept if it is its origin's next: it leaves at once, and what waits may wait for it.
#[derive(Clone, Debug)]
pub struct MultiSourceBuffer<T> {
    origins: BTreeMap<NodeId, Origin<T>>,
    entries: usize,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Origin<T> {
    generation: u64,
    /// The number whose turn it is; all below are settled.
    next: u64,
    waiting: BTreeMap<u64, Item<T>>,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Item<T> {
    content: T,
    /// All numbers between this one and its own are settled.
    after: u64,
    bytes: usize,
}

/// What became of an item that was put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It waits for its turn.
    Kept {
        /// How many other items had to go to make room.
        dropped: u64,
    },
    /// Its number is settled or waits already.
    Duplicate,
    /// It belongs to an older generation than its origin has now.
    Stale,
    /// Its origin or generation is not expected yet.
    Unexpected,
    /// There is no room for it.
    Dropped,
}

impl<T> Default for MultiSourceBuffer<T> {
    fn default() -> Self {
        MultiSourceBuffer { origins: BTreeMap::new(), entries: 0, bytes: 0 }
    }
}

impl<T> MultiSourceBuffer<T> {
    /// Number `next` of this generation is the origin's next; all below it are settled.
    ///
    /// A higher generation than before clears what waits; within one the number only rises. False, and nothing changes,
    /// if the origin has a higher generation already.
    pub fn expect(&mut self, origin: NodeId, generation: u64, next: u64) -> bool {
        if self.origins.get(&origin).is_none_or(|source| source.generation < generation) {
            self.remove(origin);
            self.origins.insert(origin, Origin { generation, next, waiting: BTreeMap::new(), bytes: 0 });
            return true;
        }
        let Some(source) = self.origins.get_mut(&origin).filter(|source| source.generation == generation) else {
            return false;
        };
        source.next = source.next.max(next);
        while let Some(lowest) = source.waiting.first_entry()
            && *lowest.key() < source.next
        {
            let bytes = lowest.remove().bytes;
            source.bytes -= bytes;
            self.bytes -= bytes;
            self.entries -= 1;
        }
        true
    }

    /// Puts in the origin's item number `n`, which comes next after number `after`: all between are settled. It counts as so
    /// many bytes. Take out what is next with [`MultiSourceBuffer::pop`].
    pub fn insert(
        &mut self,
        origin: NodeId,
        generation: u64,
        (after, n): (u64, u64),
        content: T,
        bytes: usize,
        config: &Config,
    ) -> Inserted {
        let Some(source) = self.origins.get_mut(&origin) else { return Inserted::Unexpected };
        if generation != source.generation {
            return if generation < source.generation { Inserted::Stale } else { Inserted::Unexpected };
        }
        if n < source.next && mutant!(ProposalTwice) {
            source.next = n;
        }
        if let Some(item) = source.waiting.get_mut(&n) {
            item.after = item.after.min(after);
            return Inserted::Duplicate;
        }
        if n < source.next {
            return Inserted::Duplicate;
        }
        // The last number there is has no next one, and could leave again and again.
        if n == u64::MAX {
            return Inserted::Dropped;
        }
        // Whatever size is claimed, sums stay far from overflowing; above the limit all sizes mean the same.
        let bytes = bytes.min(config.outbox_bytes.saturating_add(1));
        source.waiting.insert(n, Item { content, after, bytes });
        source.bytes += bytes;
        self.bytes += bytes;
        self.entries += 1;
        let mut dropped = 0;
        while let Some(from) = self.over_limit(origin, config) {
            probe!("the intake of proposals is full");
            if self.drop_highest(from) == Some((origin, n)) {
                return Inserted::Dropped;
            }
            dropped += 1;
        }
        Inserted::Kept { dropped }
    }

    /// Who must give something up: the origin that just grew, or whoever holds most; nobody while limits are kept.
    fn over_limit(&self, grown: NodeId, config: &Config) -> Option<NodeId> {
        let own = self.origins.get(&grown)?;
        let only_its_next = own.waiting.len() == 1 && own.is_ready();
        if own.waiting.len() > config.outbox_entries || own.bytes > config.outbox_bytes {
            return (!only_its_next).then_some(grown);
        }
        let spared = only_its_next.then_some(grown);
        let most = |held: fn(&Origin<T>) -> usize| {
            let able = self.origins.iter().filter(|(id, source)| Some(**id) != spared && !source.waiting.is_empty());
            // Among equals the one that just grew gives way.
            able.max_by_key(|(id, source)| (held(source), **id == grown)).map(|(id, _)| *id)
        };
        if self.bytes > config.buffer_bytes {
            most(|source| source.bytes)
        } else if self.entries > config.buffer_entries {
            most(|source| source.waiting.len())
        } else {
            None
        }
    }

    /// Drops an origin's highest item, and says which that was.
    fn drop_highest(&mut self, origin: NodeId) -> Option<(NodeId, u64)> {
        let source = self.origins.get_mut(&origin)?;
        let (n, item) = source.waiting.pop_last()?;
        source.bytes -= item.bytes;
        self.bytes -= item.bytes;
        self.entries -= 1;
        Some((origin, n))
    }

    /// Takes out the origin's next item, with its number, if it is here.
    pub fn pop(&mut self, origin: NodeId) -> Option<(u64, T)> {
        let source = self.origins.get_mut(&origin)?;
        if !source.is_ready() {
            return None;
        }
        let (n, item) = source.waiting.pop_first()?;
        source.next = n + 1; // Cannot overflow: the last number is never kept.
        source.bytes -= item.bytes;
        self.bytes -= item.bytes;
        self.entries -= 1;
        Some((n, item.content))
    }

    /// The origins whose next item is here.
    pub fn ready(&self) -> impl Iterator<Item = NodeId> {
        self.origins.iter().filter(|(_, source)| source.is_ready()).map(|(origin, _)| *origin)
    }

    /// The origin's generation, and the number whose turn it is; none if it takes no part.
    pub fn expected(&self, origin: NodeId) -> Option<(u64, u64)> {
        self.origins.get(&origin).map(|source| (source.generation, source.next))
    }

    /// The origin takes no part any more.
    pub fn remove(&mut self, origin: NodeId) {
        if let Some(source) = self.origins.remove(&origin) {
            self.bytes -= source.bytes;
            self.entries -= source.waiting.len();
        }
    }

    /// Forgets all origins: leadership ended.
    pub fn clear(&mut self) {
        *self = MultiSourceBuffer::default();
    }

    /// How many items wait.
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<T> Origin<T> {
    /// Whether the lowest item's turn has come.
    fn is_ready(&self) -> bool {
        self.waiting.first_key_value().is_some_and(|(n, item)| *n == self.next || item.after < self.next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: NodeId = NodeId::example(1);
    const B: NodeId = NodeId::example(2);
    const KEPT: Inserted = Inserted::Kept { dropped: 0 };

    /// Limits of one origin, then of all.
    fn limits(own: (usize, usize), all: (usize, usize)) -> Config {
        Config {
            outbox_entries: own.0,
            outbox_bytes: own.1,
            buffer_entries: all.0,
            buffer_bytes: all.1,
            ..Config::default()
        }
    }

    /// A number, and the one before it.
    fn at(n: u64) -> (u64, u64) {
        (n - 1, n)
    }

    fn drain(buffer: &mut MultiSourceBuffer<&'static str>, origin: NodeId) -> Vec<u64> {
        std::iter::from_fn(|| buffer.pop(origin)).map(|(n, _)| n).collect()
    }

    #[test]
    fn each_origin_has_an_order_of_its_own() {
        let (mut buffer, config) = (MultiSourceBuffer::default(), Config::default());
        assert!(buffer.expect(A, 1, 1) && buffer.expect(B, 4, 7));
        assert_eq!(buffer.insert(A, 1, at(2), "a2", 2, &config), KEPT);
        assert_eq!(buffer.insert(B, 4, at(7), "b7", 2, &config), KEPT);
        assert_eq!(buffer.ready().collect::<Vec<_>>(), [B]);
        assert_eq!((buffer.pop(A), buffer.pop(B)), (None, Some((7, "b7"))));
        assert_eq!(buffer.insert(A, 1, at(1), "a1", 2, &config), KEPT);
        assert_eq!(buffer.insert(A, 1, at(2), "again", 2, &config), Inserted::Duplicate);
        assert_eq!((buffer.pop(A), buffer.pop(A), buffer.pop(A)), (Some((1, "a1")), Some((2, "a2")), None));
        assert_eq!(buffer.insert(A, 1, at(1), "late", 2, &config), Inserted::Duplicate);
        assert_eq!((buffer.expected(A), buffer.len(), buffer.bytes()), (Some((1, 3)), 0, 0));
    }

    #[test]
    fn nobody_waits_for_numbers_that_are_settled() {
        let (mut buffer, config) = (MultiSourceBuffer::default(), Config::default());
        buffer.expect(A, 1, 3);
        assert_eq!(buffer.insert(A, 1, (7, 9), "a9", 1, &config), KEPT);
        assert_eq!(buffer.insert(A, 1, (4, 7), "a7", 1, &config), KEPT);
        assert_eq!(buffer.pop(A), None, "3 and 4 may still come");
        assert_eq!(buffer.insert(A, 1, (3, 4), "a4", 1, &config), KEPT);
        assert_eq!(buffer.pop(A), None, "3 may still come");
        assert_eq!(buffer.insert(A, 1, (2, 4), "again", 1, &config), Inserted::Duplicate);
        assert_eq!((drain(&mut buffer, A), buffer.expected(A)), (vec![4, 7, 9], Some((1, 10))));
    }

    #[test]
    fn a_new_generation_shuts_out_the_older_one() {
        let (mut buffer, config) = (MultiSourceBuffer::default(), Config::default());
        buffer.expect(A, 5, 1);
        buffer.insert(A, 5, at(2), "old", 3, &config);
        assert_eq!(buffer.insert(A, 6, at(1), "early", 5, &config), Inserted::Unexpected);
        assert!(buffer.expect(A, 6, 1));
        assert_eq!((buffer.len(), buffer.bytes()), (0, 0));
        assert_eq!(buffer.insert(A, 5, at(1), "late", 4, &config), Inserted::Stale);
        assert!(!buffer.expect(A, 5, 9), "a generation never comes back");
        assert_eq!(buffer.expected(A), Some((6, 1)));
    }

    #[test]
    fn the_watermark_drops_what_is_settled_and_never_goes_back() {
        let (mut buffer, config) = (MultiSourceBuffer::default(), Config::default());
        buffer.expect(A, 1, 1);
        for n in [3, 4, 6] {
            buffer.insert(A, 1, at(n), "x", 10, &config);
        }
        assert!(buffer.expect(A, 1, 4) && buffer.expect(A, 1, 2));
        assert_eq!((buffer.len(), buffer.bytes()), (2, 20));
        assert_eq!(drain(&mut buffer, A), [4]);
    }

    #[test]
    fn who_is_not_expected_holds_nothing() {
        let (mut buffer, config) = (MultiSourceBuffer::default(), Config::default());
        assert_eq!(buffer.insert(A, 1, at(1), "x", 1, &config), Inserted::Unexpected);
        buffer.expect(A, 1, 1);
        buffer.insert(A, 1, at(1), "x", 1, &config);
        buffer.remove(A);
        assert_eq!((buffer.pop(A), buffer.len(), buffer.bytes(), buffer.expected(A)), (None, 0, 0, None));
    }

    #[test]
    fn an_origin_over_its_limit_gives_up_its_own_highest() {
        let (mut buffer, config) = (MultiSourceBuffer::default(), limits((2, 100), (9, 900)));
        buffer.expect(A, 1, 1);
        buffer.insert(A, 1, at(4), "x", 1, &config);
        buffer.insert(A, 1, at(3), "x", 1, &config);
        assert_eq!(buffer.insert(A, 1, at(5), "x", 1, &config), Inserted::Dropped);
        assert_eq!(buffer.insert(A, 1, at(1), "x", 99, &config), Inserted::Kept { dropped: 1 });
        assert_eq!((drain(&mut buffer, A), buffer.len(), buffer.bytes()), (vec![1], 1, 1));
    }

    #[test]
    fn whoever_holds_most_makes_room_for_others() {
        for config in [limits((9, 90), (4, 90)), limits((9, 90), (9, 4))] {
            let mut buffer = MultiSourceBuffer::default();
            buffer.expect(A, 1, 1);
            buffer.expect(B, 1, 1);
            for n in 2..6 {
                buffer.insert(A, 1, at(n), "x", 1, &config);
            }
            assert_eq!(buffer.insert(B, 1, at(1), "x", 1, &config), Inserted::Kept { dropped: 1 });
            assert_eq!(buffer.insert(A, 1, at(9), "x", 1, &config), Inserted::Dropped);
            assert_eq!(drain(&mut buffer, B), [1]);
            assert_eq!(buffer.insert(B, 1, at(3), "x", 1, &config), KEPT);
            assert_eq!(buffer.insert(B, 1, at(4), "x", 1, &config), Inserted::Kept { dropped: 1 });
            assert_eq!(buffer.insert(B, 1, at(5), "x", 1, &config), Inserted::Dropped, "now B would hold most");
            buffer.remove(B);
            buffer.insert(A, 1, at(1), "x", 1, &config);
            assert_eq!(drain(&mut buffer, A), [1, 2, 3]);
        }
    }

    #[test]
    fn among_equals_who_comes_last_gives_way() {
        for (first, last) in [(A, B), (B, A)] {
            let (mut buffer, config) = (MultiSourceBuffer::default(), limits((9, 90), (3, 90)));
            buffer.expect(first, 1, 1);
            buffer.expect(last, 1, 1);
            for (origin, n) in [(first, 2), (first, 3), (last, 2)] {
                assert_eq!(buffer.insert(origin, 1, at(n), "x", 1, &config), KEPT);
            }
            assert_eq!(buffer.insert(last, 1, at(3), "x", 1, &config), Inserted::Dropped);
        }
    }

    #[test]
    fn an_item_whose_turn_it_is_always_finds_room() {
        for config in [limits((9, 90), (1, 90)), limits((9, 90), (9, 1)), limits((0, 90), (9, 90))] {
            let mut buffer = MultiSourceBuffer::default();
            buffer.expect(A, 1, 1);
            buffer.expect(B, 1, 1);
            buffer.insert(A, 1, at(2), "waits for one that may never come", 1, &config);
            assert!(matches!(buffer.insert(B, 1, at(1), "long", 30, &config), Inserted::Kept { .. }));
            assert_eq!((buffer.pop(B), buffer.pop(A), buffer.bytes()), (Some((1, "long")), None, buffer.len()));
        }
    }

    #[test]
    fn the_largest_numbers_there_are_do_no_harm() {
        let (mut buffer, config) = (MultiSourceBuffer::default(), Config::default());
        buffer.expect(B, 1, 1);
        buffer.insert(B, 1, at(1), "x", usize::MAX, &config);
        assert_eq!(buffer.insert(B, 1, at(2), "x", usize::MAX, &config), Inserted::Dropped);
        assert_eq!(buffer.pop(B), Some((1, "x")));
        buffer.expect(A, 1, u64::MAX);
        assert_eq!(buffer.insert(A, 1, at(u64::MAX), "x", 1, &config), Inserted::Dropped);
        assert_eq!(buffer.pop(A), None);
    }

    proptest! {
        /// Deliveries in any order and number, from sources that send again what is missing, against tight limits.
        #[test]
        fn every_item_leaves_once_and_in_its_origins_order(
            deliveries in proptest::collection::vec((0..3u8, 1..30u64), 0..300),
            own in (1..9usize, 4..40usize),
            all in (1..20usize, 4..60usize),
        ) {
            let (mut buffer, config) = (MultiSourceBuffer::default(), limits(own, all));
            let mut released = vec![Vec::new(); 3];
            (0..3).for_each(|origin| _ = buffer.expect(NodeId::example(origin), 1, 1));
            let again = (1..30).flat_map(|n| (0..3).map(move |origin| (origin, n)));
            for (origin, n) in deliveries.into_iter().chain(again) {
                let (id, before) = (NodeId::example(origin), buffer.len());
                let next = buffer.expected(id).map_or(0, |(_, next)| next);
                let inserted = buffer.insert(id, 1, at(n), (origin, n), (n % 4) as usize, &config);
                // An item whose turn it is may go over a limit alone.
                let within = |held: usize, limit: usize, one: usize| held <= limit + if n == next { one } else { 0 };
                prop_assert!(within(buffer.len(), all.0, 1) && within(buffer.bytes(), all.1, 3));
                if let Inserted::Kept { dropped } = inserted {
                    prop_assert_eq!(buffer.len() as u64, before as u64 + 1 - dropped);
                }
                while let Some((n, content)) = buffer.pop(id) {
                    prop_assert_eq!(content, (origin, n));
                    released[usize::from(origin)].push(n);
                }
                let held = buffer.origins.values().map(|source| (source.waiting.len(), source.bytes));
                let (entries, bytes) = held.fold((0, 0), |sum, held| (sum.0 + held.0, sum.1 + held.1));
                prop_assert_eq!((entries, bytes), (buffer.len(), buffer.bytes()));
                prop_assert!(buffer.origins.values().all(|source| source.waiting.len() <= own.0 && source.bytes <= own.1));
            }
            prop_assert_eq!(released, vec![(1..30).collect::<Vec<_>>(); 3]);
        }
    }
}
