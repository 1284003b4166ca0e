//! The leader's table of who lives: what it hears, when it gives a node up, and when it doubts its own ears instead.
//!
//! Volatile: it starts fresh with each leadership. What follows from it (no new work, instances given up) is ordered by
//! the leader as the application decides.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::app;
use crate::config::Config;
use crate::id::NodeId;
use crate::time::{Moment, Span};

/// So many others must have lost their connection to a node too, or all who live where there are fewer.
const BROKEN_REPORTS: usize = 3;

/// A tick that comes later than this after its time means that the leader itself slept or stalled.
const TICK_LATE: Span = Span::seconds(1);

/// Nodes that fall silent within this time of each other count as silent together.
const TOGETHER: Span = Span::seconds(2);

/// So many nodes, and more than [`DOUBT_PERCENT`] of all, silent together: more likely the leader's ears than theirs.
const DOUBT_NODES: usize = 3;

/// See [`DOUBT_NODES`].
const DOUBT_PERCENT: usize = 30;

/// A doubt ends after this time, answered or not.
const DOUBT_AT_MOST: Span = Span::seconds(60);

/// The leader's table. Empty and without deadlines on a node that does not lead.
#[derive(Clone, Debug, Default)]
pub struct Liveness {
    nodes: BTreeMap<NodeId, Node>,
    /// When the next regular tick is due; none if this node does not lead.
    tick_at: Option<Moment>,
    /// Silence before this moment is no evidence: the leader itself was away.
    deaf_until: Moment,
    doubt: Option<Moment>,
    doubts: u64,
    /// Who was heard for the first time, or again, and when: reported by the next tick.
    fresh: BTreeMap<NodeId, Moment>,
    /// Whether a connection to a node may be broken.
    broken: bool,
    /// Counts the nodes that came and went.
    changed: u64,
    /// `broken_after` and `beat_every`, as of the beginning of the leadership.
    broken_after: Span,
    beat_every: Span,
}

#[derive(Clone, Debug)]
struct Node {
    /// When its last beat or other message came, or when the table began.
    heard: Moment,
    busy_until: Moment,
    state: State,
    /// Since when this leader's own connection to it is broken.
    broken: Option<Moment>,
    /// Who else says that its connection to it is broken, and since when.
    broken_for: BTreeMap<NodeId, Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not heard yet in this leadership, and not given up either.
    Awaited,
    Heard,
    Lost(Moment),
    Evicted,
}

impl Node {
    fn new(now: Moment) -> Node {
        Node { heard: now, busy_until: now, state: State::Awaited, broken: None, broken_for: BTreeMap::new() }
    }

    fn lives(&self) -> bool {
        match self.state {
            State::Awaited | State::Heard => true,
            State::Lost(_) | State::Evicted => false,
        }
    }

    /// When its silence will have been too long. A busy lease counts as being heard until it ends.
    fn silent_at(&self, deaf_until: Moment, config: &Config) -> Moment {
        let after = if mutant!(LostTooSoon) { Span::seconds(2) } else { config.lost_after };
        self.heard.max(self.busy_until).max(deaf_until) + after
    }
}

impl Liveness {
    /// A leadership begins: these nodes, this one not among them, count as heard just now.
    pub fn begin(&mut self, now: Moment, nodes: impl Iterator<Item = NodeId>, config: &Config) {
        *self = Liveness {
            nodes: nodes.take(config.nodes).map(|node| (node, Node::new(now))).collect(),
            tick_at: Some(now + config.tick_every),
            doubts: self.doubts,
            changed: self.changed + 1,
            broken_after: config.broken_after,
            beat_every: config.beat_every,
            ..Liveness::default()
        };
    }

    /// The leadership ended.
    pub fn end(&mut self) {
        *self = Liveness { doubts: self.doubts, changed: self.changed + 1, ..Liveness::default() };
    }

    /// A node's beat came. It may be silent for `busy` from now on, within `busy_at_most`; the newest beat's word counts.
    pub fn heard(&mut self, now: Moment, node: NodeId, busy: Span, config: &Config) {
        let Some(record) = self.record(now, node, config) else { return };
        record.heard = now;
        record.busy_until = now + busy.min(config.busy_at_most);
        if record.state != State::Heard {
            record.state = State::Heard;
            self.fresh.insert(node, now);
        }
    }

    /// Any other message of a node came. That it lives is proved by it as well; that it is back is for its beat to say.
    pub fn spoke(&mut self, now: Moment, node: NodeId) {
        if let Some(record) = self.nodes.get_mut(&node).filter(|record| record.lives()) {
            record.heard = now;
        }
    }

    /// This leader's own connection to a node stands, or broke. Say it too of those that are not connected when the
    /// leadership begins.
    pub fn connected(&mut self, now: Moment, node: NodeId, connected: bool) {
        if let Some(record) = self.nodes.get_mut(&node) {
            record.broken = if connected { None } else { record.broken.or(Some(now)) };
            self.broken |= !connected;
        }
    }

    /// `reporter` says that its connection to `node` stands, or broke. What strangers say does not count.
    pub fn reach(&mut self, now: Moment, reporter: NodeId, node: NodeId, connected: bool) {
        if reporter == node || !self.nodes.contains_key(&reporter) {
            return;
        }
        if let Some(record) = self.nodes.get_mut(&node) {
            if connected {
                record.broken_for.remove(&reporter);
            } else {
                record.broken_for.entry(reporter).or_insert(now);
            }
        }
    }

    /// What became of the nodes since the last call. Call it whenever [`Liveness::due`] is not later than `now`; more
    /// often does no harm.
    pub fn tick(&mut self, now: Moment, config: &Config) -> Vec<(NodeId, app::Liveness)> {
        let Some(tick_at) = self.tick_at else { return Vec::new() };
        let fresh = std::mem::take(&mut self.fresh);
        let mut changes: Vec<_> = fresh.into_keys().map(|node| (node, app::Liveness::Heard)).collect();
        let regular = now >= tick_at;
        if !regular && !self.broken {
            return changes;
        }
        if regular {
            self.broken = self.nodes.values().any(|node| node.broken.is_some());
            self.tick_at = Some(now + config.tick_every.max(Span(1)));
            if now.since(tick_at) > TICK_LATE && !mutant!(LostUnderDoubt) {
                probe!("the leader's own tick came late");
                self.deaf_until = now;
                self.begin_doubt(now);
            }
            let was_in_doubt = self.doubt.is_some();
            self.end_doubt(now, config);
            let doubt_ended = was_in_doubt && self.doubt.is_none();
            if !doubt_ended && self.silent_together(now, config) {
                probe!("many nodes fall silent together");
                self.begin_doubt(now);
            }
        }
        if self.doubt.is_some() && !mutant!(LostUnderDoubt) {
            return changes;
        }
        // With one node fewer alive, fewer need to agree on the next.
        loop {
            let overdue = self.overdue(now, regular, config);
            if overdue.is_empty() {
                break;
            }
            for node in overdue {
                if let Some(record) = self.nodes.get_mut(&node) {
                    record.state = State::Lost(now);
                    changes.push((node, app::Liveness::Lost));
                }
            }
        }
        for (node, record) in &mut self.nodes {
            if matches!(record.state, State::Lost(since) if now.since(since) >= config.evict_after) {
                record.state = State::Evicted;
                changes.push((*node, app::Liveness::Evicted));
            }
        }
        changes
    }

    /// When to call [`Liveness::tick`] next: the regular tick, or sooner where a connection broke. It lies in the past only
    /// after one of the calls that bring news.
    pub fn due(&self) -> Option<Moment> {
        let tick_at = self.tick_at?;
        if !self.broken {
            return self.fresh.values().copied().chain([tick_at]).min();
        }
        let live = self.live().count();
        let broken = self.nodes.values().filter(|_| self.doubt.is_none()).filter_map(|node| self.broken_at(node, live));
        broken.chain(self.fresh.values().copied()).chain([tick_at]).min()
    }

    /// Rises whenever a node enters the table or leaves it.
    pub fn changes(&self) -> u64 {
        self.changed
    }

    /// All nodes in the table.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// The nodes that are not counted as lost: heard, or not yet silent for long enough.
    pub fn live(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.iter().filter(|(_, node)| node.lives()).map(|(id, _)| *id)
    }

    /// Who was heard within this time.
    pub fn heard_within(&self, now: Moment, span: Span) -> Vec<NodeId> {
        let heard = |node: &Node| node.state == State::Heard && now.since(node.heard) <= span;
        self.nodes.iter().filter(|(_, node)| heard(node)).map(|(id, _)| *id).collect()
    }

    /// The live nodes that were silent for half the time after which they are lost. Asking each whether it is there, at
    /// every beat of the leader, is what keeps lost beats from being taken for lost nodes.
    pub fn quiet(&self, now: Moment, config: &Config) -> Vec<NodeId> {
        let half = Span(config.lost_after.0 / 2);
        let quiet = |node: &Node| node.lives() && now.since(node.heard.max(node.busy_until)) > half;
        self.nodes.iter().filter(|(_, node)| quiet(node)).map(|(id, _)| *id).collect()
    }

    /// How long ago a node was last heard; none if its beat was not heard in this leadership.
    pub fn heard_ago(&self, now: Moment, node: NodeId) -> Option<Span> {
        self.nodes.get(&node).filter(|node| node.state != State::Awaited).map(|node| now.since(node.heard))
    }

    /// Whether a node is counted as lost.
    pub fn is_lost(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(|node| !node.lives())
    }

    /// How often this leader doubted its own ears, in all its leaderships.
    pub fn doubts(&self) -> u64 {
        self.doubts
    }

    /// A node belongs to the cluster no more.
    pub fn forget(&mut self, node: NodeId) {
        self.changed += 1;
        self.nodes.remove(&node);
        self.fresh.remove(&node);
        self.nodes.values_mut().for_each(|other| {
            other.broken_for.remove(&node);
        });
    }

    fn record(&mut self, now: Moment, node: NodeId, config: &Config) -> Option<&mut Node> {
        self.tick_at?;
        if !self.nodes.contains_key(&node) {
            if self.nodes.len() >= config.nodes {
                return None;
            }
            self.changed += 1;
            self.nodes.insert(node, Node::new(now));
        }
        self.nodes.get_mut(&node)
    }

    /// Who is to be counted as lost now: silence is judged at regular ticks, broken connections at any time.
    fn overdue(&self, now: Moment, regular: bool, config: &Config) -> Vec<NodeId> {
        if mutant!(NeverLost) {
            return Vec::new();
        }
        let live = self.live().count();
        let silent = |node: &Node| regular && node.lives() && now >= node.silent_at(self.deaf_until, config);
        let broken = |node: &Node| self.broken_at(node, live).is_some_and(|at| now >= at);
        self.nodes.iter().filter(|(_, node)| silent(node) || broken(node)).map(|(id, _)| *id).collect()
    }

    /// When the connections to a live node, this leader's own and those of three others that live (or of all where there
    /// are fewer), will have been broken for long enough. `live` is the number of live nodes.
    fn broken_at(&self, node: &Node, live: usize) -> Option<Moment> {
        let own = node.broken.filter(|_| node.lives())?;
        // A beat that came after the break came another way: then two more must stay away.
        let silent = if node.heard > own { node.heard + self.beat_every.times(2) } else { own };
        let speaks = |reporter: &NodeId| self.nodes.get(reporter).is_some_and(Node::lives);
        let mut reports: Vec<Moment> = node.broken_for.iter().filter(|(id, _)| speaks(id)).map(|(_, at)| *at).collect();
        reports.sort();
        let agreed = match BROKEN_REPORTS.min(live - 1) {
            0 => own,
            enough => *reports.get(enough - 1)?,
        };
        Some(silent.max(agreed) + self.broken_after)
    }

    /// Whether somebody is overdue, and with those who soon will be they are suspiciously many.
    fn silent_together(&self, now: Moment, config: &Config) -> bool {
        let silent_at =
            self.nodes.values().filter(|node| node.lives()).map(|node| node.silent_at(self.deaf_until, config));
        let (mut live, mut together, mut overdue) = (0, 0, false);
        for at in silent_at {
            live += 1;
            together += usize::from(at < now + TOGETHER);
            overdue |= at <= now;
        }
        overdue && together >= DOUBT_NODES && together * 100 > live * DOUBT_PERCENT
    }

    fn begin_doubt(&mut self, now: Moment) {
        if self.doubt.is_none() {
            probe!("the leader doubts its own ears");
            self.doubts += 1;
            self.doubt = Some(now);
        }
    }

    /// A doubt ends when two beats' time went by and half of those that are not silent (one at least) were heard in it.
    fn end_doubt(&mut self, now: Moment, config: &Config) {
        let Some(since) = self.doubt else { return };
        let awake = |node: &&Node| node.lives() && node.silent_at(self.deaf_until, config) > now;
        let awaited = self.nodes.values().filter(awake).count();
        let heard = self.nodes.values().filter(|node| node.state == State::Heard && node.heard > since).count();
        let answered = now.since(since) >= config.beat_every.times(2) && heard > 0 && 2 * heard >= awaited;
        if answered || now.since(since) >= DOUBT_AT_MOST {
            self.doubt = None;
        }
    }
}
