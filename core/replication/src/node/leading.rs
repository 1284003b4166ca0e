//! Leading: ordering what is proposed, counting who holds it, beating, ticking.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use imbl::OrdSet;

use super::{Node, Part, Turn};
use crate::app::{App, Liveness as Fate, Wish};
use crate::entry::{Body, Decided, Entry, KnownChange};
use crate::id::{Boot, Index, NodeId, Session};
use crate::liveness::Liveness;
use crate::message::{Beat, DoneMark, Lead, Message, Proposal, Propose, Purpose, Refused};
use crate::order::multi_source::{Inserted, MultiSourceBuffer};
use crate::tally::Tally;
use crate::time::{Moment, Span};

/// Refusals remembered for each node, to be said again.
const REFUSALS: usize = 1024;

/// The leader's own part.
#[derive(Clone, Debug)]
pub(super) struct Leading<A: App> {
    pub(super) session: Session,
    /// Where the session begins.
    pub(super) opened: Index,
    /// When it was opened.
    pub(super) since: Moment,
    /// Whether the opening is synced: until then nobody is told of the session.
    pub(super) ready: bool,
    /// The session's mark.
    mark: Option<Index>,
    pub(super) tally: Tally,
    pub(super) liveness: Liveness,
    intake: MultiSourceBuffer<Proposal<A>>,
    /// What was refused of each node's newest generation.
    refusals: BTreeMap<NodeId, VecDeque<(u64, u64, Refused<A>)>>,
    pub(super) lead_due: Moment,
    pub(super) done: Option<DoneMark>,
    /// The last entry that each other node proposed and has not been told to be done.
    untold: BTreeMap<NodeId, Index>,
    /// Since when each known node is lost.
    lost_since: BTreeMap<NodeId, Moment>,
    /// Whom the operator wants forgotten: each when its turn comes.
    to_forget: BTreeSet<NodeId>,
    /// The change of the known nodes that is done last, by majority before and after it.
    changed: Option<Index>,
    /// Whether anybody is heard who is not known, as of these nodes heard and the last change of those known.
    guests: Option<((u64, Option<Index>), bool)>,
}

impl<A: App> Leading<A> {
    pub(super) fn begin(session: Session, opened: Index, me: NodeId, boot: Boot, now: Moment) -> Self {
        let mut tally = Tally::default();
        tally.stored(me, boot, Index(0));
        Leading {
            session,
            opened,
            since: now,
            ready: false,
            mark: None,
            tally,
            liveness: Liveness::default(),
            intake: MultiSourceBuffer::default(),
            refusals: BTreeMap::new(),
            lead_due: now + Span::seconds(3600),
            done: None,
            untold: BTreeMap::new(),
            lost_since: BTreeMap::new(),
            to_forget: BTreeSet::new(),
            changed: None,
            guests: None,
        }
    }
}

impl<A: App> Node<A> {
    /// The opening is synced: tell everybody, and begin.
    pub(super) fn take_office(&mut self, t: &mut Turn<'_, A>) {
        let peers: Vec<NodeId> = self.peers.connected().collect();
        let known: Vec<NodeId> = self.replica.known().iter().copied().collect();
        if let Part::Leading(leading) = &mut self.part {
            leading.ready = true;
            leading.lead_due = t.at();
            leading.liveness.begin(t.at(), known.into_iter().filter(|node| *node != self.me), &self.config);
            for node in self.replica.known().iter().filter(|node| !peers.contains(node)) {
                leading.liveness.connected(t.at(), *node, false);
            }
        }
        self.say_to_all(t, Purpose::Tell);
        self.decide_fate(t, self.me, Fate::Heard);
        // Nodes that beat before have no reason to say so again at once.
        for peer in peers {
            if let Part::Leading(leading) = &mut self.part {
                leading.liveness.heard(t.at(), peer, Span::ZERO, &self.config);
            }
        }
    }

    /// One pass of the leader: what was proposed, who is alive, what is done, the beat.
    pub(super) fn lead(&mut self, t: &mut Turn<'_, A>) {
        let Part::Leading(leading) = &self.part else { return };
        if !leading.ready {
            return;
        }
        self.take_intake(t);
        self.tick(t);
        self.back(t);
        self.advance_done(t);
        self.change_known(t);
        self.lead_beat(t);
    }

    /// Orders an entry: gives it the next index and applies it. An entry that is too long is refused.
    pub(super) fn order(&mut self, t: &mut Turn<'_, A>, body: Body<A>) -> Result<Index, Refused<A>> {
        let Part::Leading(leading) = &self.part else { return Err(Refused::Before) };
        if self.leaving.is_some() && leading.ready {
            return Err(Refused::Before);
        }
        let index = self.replica.next();
        let stamp = if mutant!(StampGoesBack) { t.now.wall } else { self.replica.stamp().max(t.now.wall) };
        if stamp > t.now.wall {
            probe!("the leader's clock is behind the last stamp");
        }
        let entry = Entry { index, stamp, body };
        let record = entry.seal(self.observed.schema);
        if record.bytes.len() > self.config.entry_limit() {
            probe!("an entry would be too long");
            return Err(Refused::TooLong { bytes: record.bytes.len() as u64, limit: self.config.entry_limit() as u64 });
        }
        self.replica.apply(&record, &entry).expect("the leader orders the next index");
        self.buffer.fast_forward_to(self.replica.next());
        self.counters.entries_ordered += 1;
        self.applied(t, record, entry);
        Ok(index)
    }

    /// A node's proposals, this one's own among them.
    pub(super) fn propose_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, propose: Propose<A>) {
        let origin = self.replica.origin(from);
        let Part::Leading(leading) = &mut self.part else { return };
        if !leading.ready || self.leaving.is_some() || propose.generation < origin.generation {
            if propose.generation < origin.generation {
                probe!("an older generation is shut out");
            }
            return;
        }
        if propose.generation > origin.generation {
            let body = Body::Generation { node: from, generation: propose.generation };
            if self.order(t, body).is_ok()
                && let Part::Leading(leading) = &mut self.part
            {
                leading.intake.expect(from, propose.generation, 1);
                leading.refusals.remove(&from);
            }
            return;
        }
        leading.intake.expect(from, origin.generation, propose.floor.max(origin.n + 1));
        let expected = leading.intake.expected(from).map_or(0, |(_, n)| n);
        let mut after = propose.after;
        let again: Vec<u64> = propose.items.iter().map(|(n, _)| *n).filter(|n| *n < expected).collect();
        for (n, proposal) in propose.items {
            let bytes = postcard::experimental::serialized_size(&proposal).unwrap_or(usize::MAX / 2);
            let number = (after, n);
            after = n;
            match leading.intake.insert(from, propose.generation, number, proposal, bytes, &self.config) {
                Inserted::Kept { dropped } => self.counters.proposals_dropped += dropped,
                Inserted::Dropped => self.counters.proposals_dropped += 1,
                Inserted::Duplicate | Inserted::Stale | Inserted::Unexpected => {}
            }
        }
        if again.is_empty() {
            return;
        }
        // What is asked again was either ordered, which the log shows, or refused, which must be said again.
        let remembered = leading.refusals.get(&from).into_iter().flatten();
        let remembered = remembered.filter(|(generation, n, _)| *generation == propose.generation && again.contains(n));
        let items: Vec<(u64, Refused<A>)> = remembered.map(|(_, n, refused)| (*n, refused.clone())).collect();
        if !items.is_empty() {
            probe!("a refusal is said again");
            self.send_refusals(t, from, propose.generation, items);
        }
    }

    /// Decides the proposals that are next in their origins' orders, as far as the disk keeps up.
    pub(super) fn take_intake(&mut self, t: &mut Turn<'_, A>) {
        let origins: Vec<NodeId> = match &self.part {
            Part::Leading(leading) if !leading.intake.is_empty() => leading.intake.ready().collect(),
            Part::Leading(_) | Part::Seeking(_) | Part::Following(_) => return,
        };
        for origin in origins {
            let mut refusals = Vec::new();
            let generation = self.replica.origin(origin).generation;
            while self.disk.backlog() < self.config.outbox_bytes
                && self.leaving.is_none()
                && let Part::Leading(leading) = &mut self.part
                && let Some((n, proposal)) = leading.intake.pop(origin)
            {
                let id = crate::id::ProposalId { node: origin, generation, n };
                match self.decide(t, id, proposal) {
                    Ok(index) => {
                        if let Part::Leading(leading) = &mut self.part
                            && origin != self.me
                        {
                            leading.untold.insert(origin, index);
                        }
                    }
                    Err(refused) => refusals.push((n, refused)),
                }
            }
            if refusals.is_empty() {
                continue;
            }
            if let Part::Leading(leading) = &mut self.part {
                let remembered = leading.refusals.entry(origin).or_default();
                remembered.extend(refusals.iter().map(|(n, refused)| (generation, *n, refused.clone())));
                while remembered.len() > REFUSALS {
                    remembered.pop_front();
                }
            }
            self.send_refusals(t, origin, generation, refusals);
        }
    }

    fn send_refusals(&mut self, t: &mut Turn<'_, A>, to: NodeId, generation: u64, items: Vec<(u64, Refused<A>)>) {
        if to == self.me {
            let replies = self.outbox.refused(generation, items);
            self.reply(t, replies);
        } else {
            t.send(to, Message::Refused { generation, items });
        }
    }

    /// Decides one proposal and orders what came of it.
    fn decide(
        &mut self,
        t: &mut Turn<'_, A>,
        id: crate::id::ProposalId,
        proposal: Proposal<A>,
    ) -> Result<Index, Refused<A>> {
        let (command, wish) = match proposal {
            Proposal::Command(name, command) => {
                if let Some(index) = name.and_then(|name| self.replica.command(name))
                    && !mutant!(NamedTwice)
                {
                    probe!("a named command was done before");
                    return Err(Refused::DoneBefore(index));
                }
                (name, Wish::Command(command))
            }
            Proposal::Observation(observation) => (None, Wish::Observation(id.node, observation)),
        };
        let Part::Leading(_) = &self.part else { return Err(Refused::Before) };
        self.observed.wall = t.now.wall;
        let events = A::decide(self.replica.state(), &self.observed, wish).map_err(Refused::Application)?;
        if events.is_empty() {
            return Err(Refused::Nothing(self.replica.next()));
        }
        self.order(t, Body::Decided(Decided { proposal: Some(id), command, events }))
    }

    /// Orders what the leader's own ears say of a node, if the application makes something of it.
    fn decide_fate(&mut self, t: &mut Turn<'_, A>, node: NodeId, fate: Fate) {
        let Part::Leading(_) = &self.part else { return };
        self.observed.wall = t.now.wall;
        let events = A::decide(self.replica.state(), &self.observed, Wish::Liveness(node, fate));
        if let Ok(events) = events
            && !events.is_empty()
        {
            // Too long an entry is the application's defect; the node is judged again at the next occasion.
            let _ = self.order(t, Body::Decided(Decided { proposal: None, command: None, events }));
        }
    }

    fn tick(&mut self, t: &mut Turn<'_, A>) {
        let Part::Leading(leading) = &mut self.part else { return };
        let fates = leading.liveness.tick(t.at(), &self.config);
        for (node, fate) in fates {
            if let Part::Leading(leading) = &mut self.part {
                match fate {
                    Fate::Lost => {
                        probe!("a node is lost");
                        self.counters.nodes_lost += 1;
                        leading.lost_since.entry(node).or_insert(t.at());
                        self.observed.telemetry.remove(&node);
                    }
                    Fate::Heard => {
                        leading.lost_since.remove(&node);
                    }
                    Fate::Evicted => {}
                }
            }
            self.decide_fate(t, node, fate);
        }
        if let Part::Leading(leading) = &self.part {
            self.counters.self_doubts = self.counters.self_doubts.max(leading.liveness.doubts());
        }
    }

    /// A node's beat.
    pub(super) fn beat_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, beat: Beat<A>) {
        let Some(peer) = self.peers.entry(from, self.config.nodes) else {
            self.counters.requests_limited += 1;
            return;
        };
        if let Err(reject) = peer.admit(beat.boot, beat.applied == Index(0)) {
            self.counters.rejected_origin += 1;
            t.send(from, Message::Reject { boot: beat.boot, reject });
            return;
        }
        peer.heard = Some(t.at());
        peer.damaged = beat.damaged;
        let is_news = peer.schema.replace(beat.schema) != Some(beat.schema);
        self.started(t, from, beat.boot);
        if is_news {
            self.read_anew();
        }
        if let Part::Leading(leading) = &mut self.part
            && leading.ready
        {
            leading.liveness.heard(t.at(), from, beat.busy, &self.config);
        }
        // The peers' table let others go to make room for this one.
        if self.observed.telemetry.len() > self.config.nodes {
            self.observed.telemetry.retain(|node, _| *node == self.me || self.peers.get(*node).is_some());
        }
        self.observed.telemetry.insert(from, beat.telemetry);
    }

    /// The schema to write: the newest that each of these nodes said it reads, and no newer one than the log shows as long as
    /// one of them has not said so. Never an older one than that: who does not read it cannot follow anyway.
    pub(super) fn schema_for<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>) -> u32 {
        let written = self.replica.schema();
        let others = nodes.into_iter().filter(|node| **node != self.me);
        let reads = others.map(|node| self.peers.get(*node).and_then(|peer| peer.schema).unwrap_or(written));
        reads.chain([A::SCHEMA]).min().unwrap_or(written).max(written)
    }

    /// A node said what it reads, or the known nodes are others.
    pub(super) fn read_anew(&mut self) {
        if let Part::Leading(_) = &self.part {
            self.observed.schema = self.schema_for(self.replica.known());
        }
    }

    /// A node confirmed the session and holds so much.
    pub(super) fn stored_at(&mut self, from: NodeId, session: Session, (boot, disk): (Boot, u64), next: Index) {
        let last = self.replica.next();
        if let Part::Leading(leading) = &mut self.part
            && (leading.session == session || mutant!(OldSessionStored))
            && next <= last
            && leading.tally.stored(from, boot, next)
        {
            self.serving.stored(from, next);
            if let Some(peer) = self.peers.entry(from, self.config.nodes) {
                peer.disk = Some(disk);
            }
            return;
        }
        self.counters.stale_session += 1;
    }

    /// Orders the session's mark when more than half of the known nodes confirmed it.
    fn back(&mut self, t: &mut Turn<'_, A>) {
        let Part::Leading(leading) = &self.part else { return };
        if leading.mark.is_some() {
            return;
        }
        let known = self.replica.known();
        let confirmed = leading.tally.confirmations(known);
        let most = confirmed * 2 + usize::from(mutant!(MarkAtHalf)) > known.len() || mutant!(BackedAlone);
        if most {
            probe!("a session is backed");
            let mark = self.order(t, Body::Backed).ok();
            if let Part::Leading(leading) = &mut self.part {
                leading.mark = mark;
            }
        }
    }

    /// Whether the session's own mark is done by majority: what the known nodes' changes wait for.
    fn is_settled(&self) -> bool {
        let Part::Leading(leading) = &self.part else { return false };
        leading.mark.is_some_and(|mark| leading.tally.majority(self.replica.known()) > mark)
    }

    /// The change of the known nodes that this session ordered and that is not done by majority yet. What earlier ones
    /// ordered is done with the session's mark.
    fn changing(&mut self) -> Option<KnownChange> {
        let (index, change) = self.replica.changed()?;
        let Part::Leading(leading) = &mut self.part else { return None };
        if index > leading.opened
            && leading.changed < Some(index)
            && leading.tally.majority_across(self.replica.known(), Some(change)) > index
        {
            leading.changed = Some(index);
        }
        (index > leading.opened && leading.changed < Some(index)).then_some(change)
    }

    /// Forgets whom the operator wants forgotten, lets one more node become known, or forgets one that was lost for too long.
    fn change_known(&mut self, t: &mut Turn<'_, A>) {
        if self.leaving.is_some() || !self.may_change_known() {
            return;
        }
        if let Some(node) = self.hinders_all() {
            return self.forget(t, node);
        }
        let pending = self.changing().is_some();
        if pending && !mutant!(KnownTwoAtATime) || !self.is_settled() {
            if pending {
                probe!("one change of the known nodes waits for another");
            }
            return;
        }
        let known = self.replica.known();
        let Part::Leading(leading) = &mut self.part else { return };
        if let Some(node) = leading.to_forget.first().copied() {
            self.order_forgotten(t, node);
            // Those that are still to be forgotten may now be all that keeps the rest from agreeing.
            if let Some(next) = self.hinders_all() {
                self.forget(t, next);
            }
            return;
        }
        let Part::Leading(leading) = &self.part else { return };
        let near = |next: Index| self.replica.next().since(next) <= self.config.caught_up_entries;
        let joins = leading.liveness.live().find(|node| {
            !known.contains(node)
                && self.peers.is_connected(*node)
                && !self.peers.is_damaged(*node)
                && leading.tally.next(*node).is_some_and(near)
                && self.peers.get(*node).is_some_and(|peer| peer.schema >= Some(self.observed.schema))
                && known.len() < self.config.nodes
        });
        let gone = leading.lost_since.iter().find(|(node, since)| {
            known.contains(*node) && t.at().since(**since) >= self.config.forget_after && known.len() > 1
        });
        let disk = |node| self.peers.get(node).and_then(|peer| peer.disk);
        let joined = joins.map(|node| KnownChange::Joined { node, disk: disk(node) });
        let change = joined.or(gone.map(|(node, _)| KnownChange::Forgotten(*node)));
        if let Some(change) = change {
            let _ = self.order(t, Body::Known(change));
        }
    }

    /// Whether there is anybody to join or to be forgotten: somebody heard who is not known, or somebody lost.
    fn may_change_known(&mut self) -> bool {
        let Part::Leading(leading) = &mut self.part else { return false };
        let as_of = (leading.liveness.changes(), self.replica.changed().map(|(index, _)| index));
        if leading.guests.is_none_or(|(then, _)| then != as_of) {
            let known = self.replica.known();
            leading.guests = Some((as_of, leading.liveness.nodes().any(|node| !known.contains(&node))));
        }
        leading.guests.is_some_and(|(_, any)| any) || !leading.lost_since.is_empty() || !leading.to_forget.is_empty()
    }

    /// The operator forgets a node: by an entry, in its turn, where more than half of the known nodes are reached, else by a
    /// new founding without it.
    pub(super) fn forget(&mut self, t: &mut Turn<'_, A>, node: NodeId) {
        let known = self.replica.known();
        if node == self.me || !known.contains(&node) || !self.is_ready_leader() {
            return;
        }
        if self.most_are_reached() {
            if let Part::Leading(leading) = &mut self.part {
                leading.to_forget.insert(node);
            }
            return;
        }
        self.give_up(t, node);
        self.found_anew(t, Some(node));
    }

    fn order_forgotten(&mut self, t: &mut Turn<'_, A>, node: NodeId) {
        self.give_up(t, node);
        // It stays to be forgotten until the known nodes show it.
        let _ = self.order(t, Body::Known(KnownChange::Forgotten(node)));
        // Without it others may count as lost at once, and more may be done.
        self.tick(t);
        self.advance_done(t);
    }

    /// What this node held is given up: the operator says that it is gone.
    fn give_up(&mut self, t: &mut Turn<'_, A>, node: NodeId) {
        let Part::Leading(leading) = &mut self.part else { return };
        leading.liveness.forget(node);
        leading.lost_since.remove(&node);
        leading.tally.forget(node);
        self.decide_fate(t, node, Fate::Lost);
        self.decide_fate(t, node, Fate::Evicted);
    }

    /// Moves the promise on as far as the tally allows, and tells those who wait for it.
    fn advance_done(&mut self, t: &mut Turn<'_, A>) {
        if !self.may_be_more_done() {
            return;
        }
        let change = self.changing();
        let known = self.replica.known();
        let Part::Leading(leading) = &self.part else { return };
        let majority = leading.tally.majority_across(known, change);
        let mut by_majority = leading.mark.filter(|mark| majority > *mark).and(majority.previous());
        if mutant!(DoneBeforeMark) {
            by_majority = majority.previous();
        }
        if mutant!(DoneBeforeHeld) {
            by_majority = self.replica.next().previous();
        }
        let alone = if self.most_are_reached() { None } else { self.held_by_all_reached() };
        let Some(index) = by_majority.max(alone) else { return };
        if leading.done.is_some_and(|done| done.index >= index) {
            return;
        }
        // What most hold is not done by majority before the session's own mark is: until then a later session may still
        // be backed without it, so no more than half is promised.
        let holders = leading.tally.holders(known, index);
        let held = if by_majority >= Some(index) { holders } else { holders.min(known.len() / 2) } as u32;
        if alone > by_majority {
            probe!("an entry is done by all that are reached");
        }
        if (held as usize) < holders {
            probe!("most hold an entry before the session's mark is done");
        }
        let held = if mutant!(DoneBeforeHeld) { known.len() as u32 } else { held };
        if held == 0 {
            return;
        }
        let mark = DoneMark { session: leading.session, index, held, of: known.len() as u32 };
        let replies = self.outbox.done(mark, self.replica.next());
        self.reply(t, replies);
        let Part::Leading(leading) = &mut self.part else { return };
        leading.done = Some(mark);
        let told: Vec<NodeId> = leading.untold.keys().copied().collect();
        for node in told {
            if !buggify!("a done mark is left to the next beat") {
                t.send(node, Message::Done(mark));
            }
        }
        leading.untold.retain(|_, last| *last > index);
    }

    /// Whether more than what is done may be held by a majority, or by all that can be reached: cheaper than to see how
    /// much.
    fn may_be_more_done(&mut self) -> bool {
        let Part::Leading(leading) = &mut self.part else { return false };
        let Some(after) = leading.done.map(|done| done.index.next()) else { return true };
        let ahead = leading.tally.ahead(after);
        if ahead == 0 || ahead * 2 > self.replica.known().len() {
            return ahead > 0;
        }
        let Part::Leading(leading) = &self.part else { return false };
        let lacks = |node: NodeId| leading.tally.next(node).is_some_and(|next| next <= after);
        !lacks(self.me) && !self.peers.connected().any(|node| lacks(node) && self.is_reached(node))
    }

    /// Whether more than half of the known nodes can hold entries now.
    fn most_are_reached(&self) -> bool {
        self.most_of(self.replica.known())
    }

    fn most_of(&self, nodes: &OrdSet<NodeId>) -> bool {
        nodes.iter().filter(|node| **node == self.me || self.is_reached(**node)).count() * 2 > nodes.len()
    }

    /// A node that is to be forgotten, if nothing but that such nodes are gone keeps the others from agreeing on it.
    fn hinders_all(&mut self) -> Option<NodeId> {
        let known = self.replica.known();
        let Part::Leading(leading) = &mut self.part else { return None };
        leading.to_forget.retain(|node| known.contains(node));
        let first = *leading.to_forget.first()?;
        let others = leading.to_forget.iter().fold(known.clone(), |others, node| others.without(node));
        (!self.most_are_reached() && self.most_of(&others)).then_some(first)
    }

    /// Whether a known node can hold entries now, as far as its leader knows.
    fn is_reached(&self, node: NodeId) -> bool {
        let Part::Leading(leading) = &self.part else { return false };
        self.peers.is_connected(node) && !self.peers.is_damaged(node) && !leading.liveness.is_lost(node)
    }

    /// The last entry that all who can be reached hold: the promise where most known nodes cannot.
    fn held_by_all_reached(&self) -> Option<Index> {
        let Part::Leading(leading) = &self.part else { return None };
        let others = self.peers.connected().filter(|node| self.is_reached(*node));
        let held = others.filter_map(|node| leading.tally.next(node)).chain(leading.tally.next(self.me));
        held.min().and_then(Index::previous).filter(|index| *index >= leading.opened)
    }

    /// One past the last entry that all known nodes have, as far as this node knows.
    pub(super) fn all_have(&self) -> Index {
        match &self.part {
            Part::Seeking(_) => Index(0),
            Part::Following(following) => following.all,
            Part::Leading(leading) => leading.tally.all(self.replica.known()),
        }
    }

    /// The leader's beat: not while its disk stands still.
    fn lead_beat(&mut self, t: &mut Turn<'_, A>) {
        let stalled = self.is_stalled(t.at());
        let Part::Leading(leading) = &mut self.part else { return };
        if t.at() < leading.lead_due {
            return;
        }
        leading.lead_due = t.at() + self.config.leader_beat_every;
        if stalled {
            probe!("a leader whose disk stands still is silent");
            return;
        }
        if buggify!("a leader leaves out a beat") {
            return;
        }
        let lead = Lead {
            session: leading.session,
            next: self.disk.appended,
            hash: self.disk.appended_hash,
            wall: t.now.wall,
            all: leading.tally.all(self.replica.known()),
            heard: leading.liveness.heard_within(t.at(), self.config.beat_every.times(3)),
            done: leading.done,
        };
        let quiet = leading.liveness.quiet(t.at(), &self.config);
        t.broadcast(Message::Lead(Box::new(lead)));
        for node in quiet {
            t.send(node, Message::Probe { n: 0 });
        }
    }

    /// Whether this node leads while its disk stands still. Then it says nothing by which others would go on following it.
    pub(super) fn is_stalled(&self, now: Moment) -> bool {
        let for_long = |(since, _)| now.since(since) >= self.config.stalled_after;
        self.is_ready_leader() && self.disk.appending.is_some_and(for_long) && !mutant!(BeatsThoughStalled)
    }

    /// This node's beat.
    pub(super) fn beat_message(&self, now: Moment) -> Message<A> {
        Message::Beat(Beat {
            boot: self.boot,
            schema: A::SCHEMA,
            applied: self.replica.next(),
            busy: self.busy_until.since(now),
            damaged: self.is_damaged(),
            telemetry: self.telemetry.clone(),
        })
    }

    /// What a founding needs to know of itself.
    pub(super) fn is_ready_leader(&self) -> bool {
        matches!(&self.part, Part::Leading(leading) if leading.ready)
    }
}

impl<A: App> Leading<A> {
    /// Whether the session is backed.
    pub(super) fn is_backed(&self) -> bool {
        self.mark.is_some()
    }
}
