//! Following a leader: confirming its session, taking its entries in their order, noticing its silence.

use std::collections::VecDeque;

use super::{Node, Part, Turn};
use crate::app::App;
use crate::config::Config;
use crate::entry::{Record, Unreadable};
use crate::id::{Hash, Index, NodeId, Session};
use crate::io::{Kept, Notice, Output};
use crate::lineage::Lineage;
use crate::message::{DoneMark, Entries, EntriesKind, Lead, Message, Standing};
use crate::order::buffer::Inserted;
use crate::replica::NotApplied;
use crate::time::{Moment, Wall};

/// How many of the leader's words on the running hash are remembered, to judge entries from others by.
const ANCHORS: usize = 16;

/// A leader, as its follower knows it.
#[derive(Clone, Debug)]
pub(super) struct Following {
    pub(super) session: Session,
    /// The leader's lineage, its own session last and open-ended.
    pub(super) lineage: Lineage,
    /// When its beat was heard last.
    heard: Moment,
    /// When its silence has lasted too long.
    pub(super) silent_at: Moment,
    /// One past the head, as far as this node heard.
    pub(super) head_next: Index,
    /// The leader's wall clock at its last beat.
    pub(super) wall: Wall,
    /// What the running hash is before an index, by the leader's word.
    anchors: VecDeque<(Index, Hash)>,
    /// Whether this node's confirmation is on its disk.
    pub(super) confirmed: bool,
    /// How far promises go.
    pub(super) done: Option<DoneMark>,
    /// One past the last entry that all known nodes have.
    pub(super) all: Index,
    /// Since when the beats leave this node out: it is not heard there.
    pub(super) unheard_since: Option<Moment>,
}

impl Following {
    /// Whether the leader counts as heard: a fresh beat.
    pub(super) fn hears(&self, now: Moment, config: &Config) -> bool {
        now.since(self.heard) <= config.hears_within
    }

    /// Whether the leader has not heard this node for so long that it will count it as lost.
    pub(super) fn is_unheard(&self, now: Moment, config: &Config) -> bool {
        self.unheard_since.is_some_and(|since| now.since(since) >= config.beat_every.times(2))
    }
}

impl<A: App> Node<A> {
    /// Follows a leader whose log contains this node's.
    pub(super) fn follow(&mut self, t: &mut Turn<'_, A>, session: Session, standing: Standing) {
        self.counters.leaders_followed += 1;
        self.clock = self.clock.max(session.clock);
        let silent_at = self.silence_from(t.at());
        self.part = Part::Following(Box::new(Following {
            session,
            head_next: standing.lineage.next(),
            lineage: standing.lineage.open_ended(),
            heard: t.at(),
            silent_at,
            wall: t.now.wall,
            anchors: VecDeque::new(),
            confirmed: false,
            done: None,
            all: Index(0),
            unheard_since: None,
        }));
        t.put(Output::Role(self.role()));
        self.buffer.reset(self.replica.next());
        self.gap.reset();
        self.outbox.new_leader();
        let replies = self.outbox.doubt_beyond(self.replica.next());
        self.reply(t, replies);
        self.serving.repairer.reset();
        self.confirm(t);
        self.catch_up_with(t);
        let apart = self.replica.known().iter().filter(|node| **node != self.me && !self.peers.is_connected(**node));
        for node in apart.copied().collect::<Vec<_>>() {
            t.send(session.leader, Message::Reach { node, connected: false });
        }
    }

    fn silence_from(&mut self, now: Moment) -> Moment {
        let jitter = self.rng.below(self.config.campaign_jitter.0);
        if buggify!("a follower is soon impatient") {
            return now + crate::Span(self.config.campaign_after.0 / 2 + jitter);
        }
        now + self.config.campaign_after + crate::Span(jitter)
    }

    /// Confirms the session that this node follows, once, above every clock that it confirmed. What is on disk already is
    /// said again, with how far its log goes.
    pub(super) fn confirm(&mut self, t: &mut Turn<'_, A>) {
        let Part::Following(following) = &self.part else { return };
        if self.kept.fresh || self.kept.damaged && !mutant!(DamagedConfirms) {
            return;
        }
        let session = following.session;
        match self.kept.confirmed {
            Some(confirmed) if confirmed == session => {
                if self.on_disk == self.kept {
                    self.say_stored(t, session);
                }
            }
            Some(confirmed)
                if confirmed.clock > session.clock
                    || confirmed.clock == session.clock && !mutant!(ConfirmsTwiceAClock) =>
            {
                if confirmed.clock == session.clock {
                    probe!("a second session of one clock is not confirmed");
                }
                let standing = Standing { session: None, ..self.standing(t.at()) };
                self.tell(t, session.leader, standing);
            }
            Some(_) | None => {
                self.kept.confirmed = Some(session);
                self.kept.clock = self.kept.clock.max(session.clock);
                self.keep(t);
                if mutant!(ConfirmsBeforeSynced) {
                    self.say_stored(t, session);
                }
            }
        }
    }

    /// What was kept is on disk.
    pub(super) fn is_kept(&mut self, t: &mut Turn<'_, A>, kept: Kept) {
        self.on_disk = kept;
        if let Part::Following(following) = &self.part
            && kept.confirmed == Some(following.session)
            && (!kept.damaged || mutant!(DamagedConfirms))
        {
            let session = following.session;
            self.say_stored(t, session);
        }
    }

    pub(super) fn say_stored(&mut self, t: &mut Turn<'_, A>, session: Session) {
        let next = if mutant!(StoredBeforeSynced) { self.replica.next() } else { self.disk.synced };
        let (boot, disk) = (self.boot, self.kept.disk);
        if let Part::Following(following) = &mut self.part {
            following.confirmed = true;
        }
        if buggify!("what is stored is said twice") {
            t.send(session.leader, Message::Stored { session, boot, disk, next });
        }
        t.send(session.leader, Message::Stored { session, boot, disk, next });
    }

    /// A leader's beat.
    pub(super) fn lead_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, lead: Lead) {
        if lead.session.leader != from {
            self.counters.rejected_origin += 1;
            return;
        }
        if let Some(peer) = self.peers.entry(from, self.config.nodes) {
            peer.heard = Some(t.at());
            if peer.boot.is_some_and(|boot| boot != lead.session.boot) {
                probe!("a session is heard of another start than its leader's");
                self.counters.rejected_origin += 1;
                return self.ask(t, from);
            }
        }
        if self.session() != Some(lead.session) {
            let known = self.peers.get(from).and_then(|peer| peer.standing.clone());
            match known {
                Some(standing) if standing.session == Some(lead.session) => self.consider(t, lead.session, standing),
                Some(_) | None => self.ask(t, from),
            }
        }
        if self.session() != Some(lead.session) {
            return;
        }
        let silent_at = self.silence_from(t.at());
        {
            let Part::Following(following) = &mut self.part else { return };
            following.heard = t.at();
            following.silent_at = silent_at;
            following.wall = lead.wall;
            if !mutant!(HeadNotHeard) {
                following.head_next = following.head_next.max(lead.next);
            }
            following.all = following.all.max(lead.all);
            following.unheard_since =
                if lead.heard.contains(&self.me) { None } else { following.unheard_since.or(Some(t.at())) };
            if following.anchors.len() == ANCHORS {
                following.anchors.pop_front();
            }
            following.anchors.push_back((lead.next, lead.hash));
        }
        self.confirm(t);
        if let Some(mark) = lead.done {
            self.done_from(t, from, mark);
        }
        self.check_branch(t, &lead);
        self.ask_to_heal(t);
    }

    /// The leader names the running hash of its log: where this node stands at the same index it must have the same one.
    fn check_branch(&mut self, t: &mut Turn<'_, A>, lead: &Lead) {
        if lead.next == self.replica.next() && lead.hash != self.replica.hash() && lead.next.0 > 0 {
            self.counters.conflicts += 1;
            t.put(Output::Notice(Notice::Conflict(lead.next)));
            // What this node said that it stored may be counted as held by it.
            self.lost_entries(t, None);
            self.rewind(t, Index(0), lead.session);
        }
    }

    /// The leader has been silent for too long.
    pub(super) fn hear_silence(&mut self, t: &mut Turn<'_, A>) {
        if let Part::Following(following) = &self.part
            && t.at() >= following.silent_at
        {
            probe!("a leader is silent");
            self.enter_seeking(t);
            self.seek(t);
        }
    }

    /// How far promises go, by the leader's word.
    pub(super) fn done_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, mark: DoneMark) {
        let Part::Following(following) = &mut self.part else {
            self.counters.stale_session += 1;
            return;
        };
        if following.session != mark.session || from != following.session.leader {
            self.counters.stale_session += 1;
            return;
        }
        if following.done.is_none_or(|done| mark.index >= done.index) {
            following.done = Some(mark);
        }
        self.tell_done(t);
    }

    /// Tells this node's clients, as far as its own state has come.
    pub(super) fn tell_done(&mut self, t: &mut Turn<'_, A>) {
        let done = match &self.part {
            Part::Seeking(_) => None,
            Part::Following(following) => following.done,
            Part::Leading(leading) => leading.done,
        };
        if let Some(mark) = done
            && self.outbox.awaits_done()
        {
            let replies = self.outbox.done(mark, self.replica.next());
            self.reply(t, replies);
        }
    }

    /// Entries came: from the leader, or from another node if they join the running hash that the leader named.
    pub(super) fn entries_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, entries: Entries) {
        let Part::Following(following) = &mut self.part else {
            self.counters.stale_session += 1;
            return;
        };
        let stale = entries.session < following.session && mutant!(OldSessionTaken);
        if entries.session != following.session && !stale {
            if entries.session.leader == from && entries.session > following.session {
                probe!("entries of a newer session came before its leader's word");
                self.ask(t, from);
            }
            self.counters.stale_session += 1;
            return;
        }
        if self.stuck.is_some() || self.kept.confirmed > Some(following.session) {
            return;
        }
        let until = entries.first.plus(entries.records.len() as u64);
        if from != (if stale { entries.session.leader } else { following.session.leader })
            && !mutant!(OriginFromPayload)
            && !joins(&entries, self.replica.next(), self.replica.hash(), &following.anchors)
        {
            self.counters.rejected_origin += 1;
            return;
        }
        following.head_next = following.head_next.max(until);
        let (kind, bytes) = (entries.kind, entries.bytes());
        let before = self.replica.next();
        for (bytes, offset) in entries.records.into_iter().zip(0..) {
            self.take_record(t, Record { index: entries.first.plus(offset), bytes });
        }
        if kind == EntriesKind::Replay {
            self.replayed(t, from, bytes);
        }
        if self.replica.next() > before {
            self.tell_done(t);
        }
    }

    /// One record: the next one is applied at once, a later one waits in the buffer, an earlier one was had before.
    fn take_record(&mut self, t: &mut Turn<'_, A>, record: Record) {
        let index = record.index;
        if record.bytes.len() > self.config.entry_limit() {
            self.counters.rejected_origin += 1;
            return;
        }
        if index < self.replica.next() {
            probe!("an entry came twice");
            self.counters.entries_duplicate += 1;
            if self.tail.get(index).is_some_and(|had| had.bytes != record.bytes) {
                self.counters.conflicts += 1;
                t.put(Output::Notice(Notice::Conflict(index)));
            }
            return;
        }
        if index == self.replica.next() {
            if self.apply_next(t, record) {
                self.buffer.fast_forward_to(self.replica.next());
                self.release(t);
            }
            return;
        }
        if buggify!("the ordered buffer has no room") {
            self.counters.entries_dropped += 1;
            return;
        }
        match self.buffer.insert(record, &self.config) {
            Inserted::Kept { dropped } => self.counters.entries_dropped += dropped,
            Inserted::Duplicate => self.counters.entries_duplicate += 1,
            Inserted::Conflict => {
                self.counters.conflicts += 1;
                t.put(Output::Notice(Notice::Conflict(index)));
            }
            Inserted::Dropped => self.counters.entries_dropped += 1,
        }
    }

    /// Applies what is next, as far as it is here.
    pub(super) fn release(&mut self, t: &mut Turn<'_, A>) {
        while let Some(record) = self.buffer.pop() {
            if !self.apply_next(t, record) {
                self.buffer.reset(self.replica.next());
                return;
            }
        }
    }

    /// Applies the next record. False if it cannot be read: then this node stops applying.
    fn apply_next(&mut self, t: &mut Turn<'_, A>, record: Record) -> bool {
        if self.stuck.is_some() {
            return false;
        }
        match self.replica.take(&record) {
            Ok(entry) => {
                self.applied(t, record, entry);
                true
            }
            Err(refused @ (NotApplied::Unreadable(_) | NotApplied::Unfounded)) => {
                let newer = matches!(refused, NotApplied::Unreadable(Unreadable::Newer { .. }));
                if newer {
                    probe!("an entry needs a newer version");
                }
                let text = refused.to_string();
                self.stuck = Some(text.clone());
                t.put(Output::Notice(if newer { Notice::NeedsUpgrade(text) } else { Notice::Conflict(record.index) }));
                false
            }
            Err(NotApplied::OutOfOrder { .. }) => false,
        }
    }
}

/// Whether these entries follow on what this node has and end where the leader named the running hash.
fn joins(entries: &Entries, next: Index, hash: Hash, anchors: &VecDeque<(Index, Hash)>) -> bool {
    let until = entries.first.plus(entries.records.len() as u64);
    let Some((_, wanted)) = anchors.iter().find(|(index, _)| *index == until) else { return false };
    if entries.first > next || until <= next {
        return false;
    }
    let mut running = hash;
    for (bytes, offset) in entries.records.iter().zip(0..) {
        let index = entries.first.plus(offset);
        if index >= next {
            running = Record { index, bytes: bytes.clone() }.chain(running);
        }
    }
    running == *wanted
}
