//! What this node does for others who catch up: repairs, replays, snapshots and their chunks.

use bytes::Bytes;

use super::disk::{Pending, ReadFor, batches};
use super::{Node, Part, Turn};
use crate::app::App;
use crate::config::Config;
use crate::id::{Hash, Index, NodeId, Session};
use crate::io::{Notice, Output, Work, WorkFailed};
use crate::message::{Entries, EntriesKind, Message, Offer, Range};
use crate::order::repair::{Asked, RepairTo, Repairer};
use crate::order::replay::Replays;
use crate::snapshot::Snapshot;
use crate::snapshot::periodic::Periodic;
use crate::snapshot::serve::{Answer, Given, LogInfo, Serve};
use crate::time::{Moment, Span};

/// The parts that serve others.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving {
    pub(super) repairer: Repairer,
    pub(super) replays: Replays,
    serve: Serve,
    periodic: Periodic,
    /// A periodic snapshot whose entries are not all on disk yet.
    unsaved: Option<Snapshot>,
}

impl Serving {
    /// The log was cut: what was held may be of the branch that lost.
    pub(super) fn clear(&mut self) {
        self.repairer.reset();
        self.replays.clear();
        self.serve.clear();
        self.unsaved = None;
    }

    pub(super) fn forget(&mut self, peer: NodeId) {
        self.repairer.forget(peer);
        self.replays.stop(peer);
        self.serve.forget(peer);
    }

    pub(super) fn stored(&mut self, peer: NodeId, next: Index) {
        self.serve.stored(peer, next);
    }

    /// A snapshot came from elsewhere: it can be served on.
    pub(super) fn installed(&mut self, now: Moment, snapshot: Snapshot, config: &Config) {
        self.replays.clear();
        self.periodic.came(now, snapshot.manifest.bytes);
        self.serve.hold(snapshot, config);
    }

    /// The log must be kept from here for those who catch up.
    pub(super) fn log_needed_from(&self, now: Moment, config: &Config) -> Option<Index> {
        self.replays.lowest().into_iter().chain(self.serve.log_needed_from(now, config)).min()
    }
}

impl<A: App> Node<A> {
    /// One pass: repairs that lingered long enough, and replays that have credit.
    pub(super) fn serve(&mut self, t: &mut Turn<'_, A>) {
        let Some(session) = self.session() else { return };
        self.serving.replays.expire(t.at(), &self.config);
        for repair in self.serving.repairer.fire(t.at(), &self.config) {
            let to = match repair.to {
                RepairTo::One(node) => {
                    probe!("a repair goes to one");
                    self.counters.repairs_unicast += 1;
                    Some(node)
                }
                RepairTo::All => {
                    probe!("a repair goes to all");
                    self.counters.repairs_broadcast += 1;
                    None
                }
            };
            self.repair(t, session, to, repair.from, repair.until);
        }
        // What the tail holds is sent at once, so a replay may want more in the same pass; its window ends it.
        loop {
            let wanted = self.serving.replays.wanted(self.disk.appended, &self.config);
            if wanted.is_empty() {
                break;
            }
            for read in wanted {
                let until = self.disk.appended;
                let max_bytes = if buggify!("a replay is cut short") { 1 } else { read.max_bytes };
                match self.tail.range(read.from, until, max_bytes).filter(|_| !buggify!("a replay leaves out the tail"))
                {
                    Some(records) => self.have_read(t, ReadFor::Replay(read.peer), read.from, records),
                    None if self.disk.holds(read.from) => {
                        probe!("a replay is read from the disk");
                        let work = Work::Read { from: read.from, until, max_bytes: read.max_bytes };
                        self.work(t, Pending::Read(ReadFor::Replay(read.peer)), work);
                    }
                    None => self.log_is_gone(t, read.peer, read.session),
                }
            }
        }
    }

    fn repair(&mut self, t: &mut Turn<'_, A>, session: Session, to: Option<NodeId>, from: Index, until: Index) {
        let mut until = until.min(self.disk.appended);
        let mut max_bytes = if to.is_some() { self.config.repair_bytes } else { self.config.repair_broadcast_bytes };
        if buggify!("a repair is cut short") {
            max_bytes = 1;
        }
        if mutant!(RepairsEverything) {
            (until, max_bytes) = (self.disk.appended, usize::MAX);
        }
        if from >= until {
            return;
        }
        match self.tail.range(from, until, max_bytes) {
            Some(records) => self.have_read(t, ReadFor::Repair { session, to }, from, records),
            None if self.disk.holds(from) => {
                probe!("a repair is read from the disk");
                self.work(t, Pending::Read(ReadFor::Repair { session, to }), Work::Read { from, until, max_bytes });
            }
            None => {
                probe!("the log begins after what is to be repaired");
                let first = self.disk.first;
                match to {
                    Some(node) => t.send(node, Message::LogBegins { session, first }),
                    None => t.broadcast(Message::LogBegins { session, first }),
                }
            }
        }
    }

    fn log_is_gone(&mut self, t: &mut Turn<'_, A>, peer: NodeId, session: Session) {
        self.serving.replays.stop(peer);
        t.send(peer, Message::LogBegins { session, first: self.disk.first });
    }

    /// Records for somebody who misses them.
    pub(super) fn have_read(&mut self, t: &mut Turn<'_, A>, wanted: ReadFor, first: Index, records: Vec<Bytes>) {
        match wanted {
            ReadFor::Repair { session, to } => {
                if records.is_empty() || self.session() != Some(session) {
                    return;
                }
                let message = Message::Entries(Entries { session, first, records, kind: EntriesKind::Repair });
                match to {
                    Some(to) => t.send(to, message),
                    None => t.broadcast(message),
                }
            }
            ReadFor::Replay(peer) => {
                let bytes = records.iter().map(|record| record.len() as u64).sum();
                if let Some(session) = self.serving.replays.read(peer, first, records.len() as u64, bytes)
                    && self.session() == Some(session)
                {
                    if records.is_empty() {
                        self.log_is_gone(t, peer, session);
                        return;
                    }
                    for (first, records) in batches(first, &records, usize::MAX, self.config.batch_bytes) {
                        t.send(peer, Message::Entries(Entries { session, first, records, kind: EntriesKind::Replay }));
                    }
                }
            }
        }
    }

    pub(super) fn nack_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, range: Range) {
        if self.session() != Some(range.session) || self.disk.rewinding {
            self.counters.stale_session += 1;
            return;
        }
        match self.serving.repairer.asked(t.at(), from, (range.from, range.until), &self.config) {
            Asked::Lingering | Asked::JustRepaired => {}
            Asked::Limited => {
                probe!("a peer asks for repairs too often");
                self.counters.requests_limited += 1;
            }
        }
    }

    pub(super) fn replay_for(
        &mut self,
        t: &mut Turn<'_, A>,
        from: NodeId,
        session: Session,
        first: Index,
        window: u64,
    ) {
        if self.session() != Some(session) || self.disk.rewinding {
            self.counters.stale_session += 1;
            return;
        }
        if first < self.disk.first {
            self.log_is_gone(t, from, session);
            return;
        }
        if !self.serving.replays.start(from, session, first, window, &self.config) {
            self.counters.requests_limited += 1;
        }
    }

    /// A node of this session asks for a snapshot: its leader answers.
    pub(super) fn snapshot_for(&mut self, t: &mut Turn<'_, A>, from: NodeId, session: Session, next: Index) {
        if self.session() != Some(session) || session.leader != self.me || !self.is_ready_leader() {
            self.counters.stale_session += 1;
            return;
        }
        let log = LogInfo { first: self.disk.first, next: self.replica.next(), entry_bytes: self.tail.entry_bytes() };
        if buggify!("a joiner is put off") {
            t.send(from, Message::Offer { session, offer: Offer::Later(Span::millis(100)) });
            return;
        }
        let needs = Snapshot::schema_of(&self.replica);
        if self.peers.get(from).and_then(|peer| peer.schema).is_some_and(|reads| reads < needs) {
            probe!("a joiner reads no snapshot of this version");
            let offer = if next >= log.first { Offer::LogShorter } else { Offer::Newer(needs) };
            t.send(from, Message::Offer { session, offer });
            return;
        }
        match self.serving.serve.asked(t.at(), from, next, log, &self.config) {
            Answer::Offer(_) if buggify!("an offer is dropped") => {}
            Answer::Offer(offer) => t.send(from, Message::Offer { session, offer }),
            Answer::Encode => self.encode(t, false),
            Answer::Wait => {}
        }
    }

    pub(super) fn chunk_for(&mut self, t: &mut Turn<'_, A>, from: NodeId, snapshot: Hash, chunk: u32) {
        match self.serving.serve.chunk(t.at(), from, &snapshot, chunk, &self.config) {
            Given::Chunk(bytes) => {
                self.counters.chunks_served += 1;
                if buggify!("a chunk is sent twice") {
                    t.send(from, Message::Chunk { snapshot, chunk, bytes: Some(bytes.clone()) });
                }
                t.send(from, Message::Chunk { snapshot, chunk, bytes: Some(bytes) });
            }
            Given::Absent => t.send(from, Message::Chunk { snapshot, chunk, bytes: None }),
            Given::TooSoon => self.counters.requests_limited += 1,
        }
    }

    fn encode(&mut self, t: &mut Turn<'_, A>, periodic: bool) {
        let capture = Box::new(self.replica.clone());
        let work = Work::Encode { capture, chunk_bytes: self.config.chunk_bytes };
        let id = self.work(t, Pending::Encode { periodic }, work);
        self.serving.serve.encoding(id);
    }

    /// After each entry: whether the state as it is now should be kept as a periodic snapshot.
    pub(super) fn capture_if_due(&mut self, t: &mut Turn<'_, A>) {
        let bytes = self.tail.entry_bytes() as usize;
        if self.config.snapshot_every == 0 || self.serving.serve.encodes().is_some() {
            return;
        }
        if self.serving.periodic.applied(t.at(), self.replica.next(), bytes, &self.config) {
            self.encode(t, true);
        }
    }

    pub(super) fn encoded(&mut self, t: &mut Turn<'_, A>, periodic: bool, snapshot: Snapshot) {
        self.counters.snapshots_encoded += 1;
        if self.disk.rewinding || !self.replica.lineage().contains(&snapshot.manifest.lineage) {
            probe!("the log was cut while its state was encoded");
            self.serving.periodic.failed();
            self.not_encoded(t, WorkFailed("the log was cut meanwhile".into()));
            return;
        }
        if periodic {
            self.serving.periodic.made(snapshot.manifest.bytes);
            self.serving.unsaved = Some(snapshot.clone());
            self.save_if_synced(t);
        }
        let answers = self.serving.serve.encoded(t.at(), snapshot, &self.config);
        if let Some(session) = self.session() {
            for (peer, offer) in answers {
                t.send(peer, Message::Offer { session, offer });
            }
        }
    }

    /// A snapshot never stands for more than the log beside it does.
    pub(super) fn save_if_synced(&mut self, t: &mut Turn<'_, A>) {
        let synced = if self.disk.rewinding { Index(0) } else { self.disk.synced };
        if self.serving.unsaved.as_ref().is_some_and(|snapshot| snapshot.manifest.next() > synced) {
            probe!("a snapshot waits for its entries to be synced");
        }
        if let Some(snapshot) = self.serving.unsaved.take_if(|snapshot| snapshot.manifest.next() <= synced) {
            let next = snapshot.manifest.next();
            self.work(t, Pending::Save { next }, Work::Save(Box::new(snapshot)));
        }
    }

    pub(super) fn not_encoded(&mut self, t: &mut Turn<'_, A>, failed: WorkFailed) {
        self.serving.periodic.failed();
        self.counters.snapshots_failed += 1;
        t.put(Output::Notice(Notice::Snapshot(format!("the state could not be encoded: {failed}"))));
        let waited = self.serving.serve.failed();
        let Some(session) = self.session() else { return };
        for peer in waited {
            let offer = if self.disk.first == Index(0) { Offer::LogShorter } else { Offer::Later(Span::seconds(1)) };
            t.send(peer, Message::Offer { session, offer });
        }
    }
}

impl<A: App> Node<A> {
    /// How this node's part is called in what others may ask of it.
    pub(super) fn is_following(&self) -> bool {
        matches!(self.part, Part::Following(_))
    }
}
