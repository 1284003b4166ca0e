//! Getting to the head: by a small repair, a snapshot, or a replay of the log. A snapshot where it is less work, the log as
//! the fallback that is always right.

use bytes::Bytes;

use super::disk::Pending;
use super::{Node, Part, Turn};
use crate::app::App;
use crate::config::Config;
use crate::id::{Hash, Index, NodeId, Session};
use crate::io::{Notice, Output, Work, WorkFailed};
use crate::message::{Message, Offer, Range};
use crate::order::repair::{Ask, GapChange};
use crate::replica::Replica;
use crate::snapshot::fetch::{Fetch, Took};
use crate::snapshot::{Manifest, Snapshot};
use crate::time::{Moment, Span};
use crate::view::{CatchUpPath, FinishedCatchUp};

/// How often a snapshot is asked for before the log is replayed instead.
const ASKED_AT_MOST: u32 = 4;

/// How many finished catch-ups are remembered.
const FINISHED: usize = 16;

/// A catch-up under way, or none.
#[derive(Clone, Debug, Default)]
pub(super) struct CatchingUp {
    pub(super) stage: Stage,
    run: Option<Run>,
    /// The schema that the leader's state needs, if this node does not read it.
    pub(super) needs: Option<u32>,
}

/// Which way, and how far.
#[derive(Clone, Debug, Default)]
pub(super) enum Stage {
    /// Only holes, if anything: the gap repair's affair.
    #[default]
    Idle,
    /// The leader was asked for a snapshot.
    Asking { again_at: Moment, tries: u32 },
    /// Its chunks are coming.
    Fetching(Box<Fetch>),
    /// It is being decoded.
    Decoding { until: Moment },
    /// The log is coming.
    Replaying { moved: Moment, owed: u64 },
}

/// What is measured of it.
#[derive(Clone, Copy, Debug)]
struct Run {
    asked: Moment,
    target: Index,
    snapshot_bytes: u64,
    /// Where the log took over.
    log_from: Index,
    /// How many snapshots nobody held any more.
    vanished: u32,
}

impl CatchingUp {
    pub(super) fn due(&self, config: &Config) -> Option<Moment> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Asking { again_at, .. } => Some(*again_at),
            Stage::Fetching(fetch) => fetch.due(),
            Stage::Decoding { until } => Some(*until),
            Stage::Replaying { moved, .. } => Some(*moved + config.nack_patience),
        }
    }

    /// A peer is gone: what it was asked for must be asked of others.
    pub(super) fn lost(&mut self, peer: NodeId) {
        if let Stage::Fetching(fetch) = &mut self.stage {
            fetch.lost(peer);
        }
    }

    pub(super) fn path(&self) -> Option<CatchUpPath> {
        match &self.stage {
            Stage::Idle => None,
            Stage::Asking { .. } => Some(CatchUpPath::Asking),
            Stage::Fetching(_) => Some(CatchUpPath::Snapshot),
            Stage::Decoding { .. } => Some(CatchUpPath::Installing),
            Stage::Replaying { .. } => Some(CatchUpPath::Log),
        }
    }
}

impl<A: App> Node<A> {
    /// A leader was found: get what its log has more than this one's.
    pub(super) fn catch_up_with(&mut self, t: &mut Turn<'_, A>) {
        let Part::Following(following) = &self.part else { return };
        // A transfer outlives a change of leader if it is of the same branch.
        if let Stage::Fetching(fetch) = &mut self.catching_up.stage
            && (following.lineage.contains(&fetch.manifest().lineage) || mutant!(ForeignSnapshot))
        {
            probe!("a transfer went on under another leader");
            fetch.resume(t.at(), following.session.leader);
            return;
        }
        if matches!(self.catching_up.stage, Stage::Decoding { .. }) {
            probe!("the leader changed while a snapshot was decoded");
            return;
        }
        self.catching_up.stage = Stage::Idle;
        self.catching_up.needs = None;
        if self.behind() > 0 {
            self.begin_catching_up(t);
        }
    }

    /// Entries between here and the head, as far as this node heard.
    pub(super) fn behind(&self) -> u64 {
        match &self.part {
            Part::Following(following) => following.head_next.since(self.replica.next()),
            Part::Seeking(_) | Part::Leading(_) => 0,
        }
    }

    fn begin_catching_up(&mut self, t: &mut Turn<'_, A>) {
        self.begin_run(t);
        let far = self.behind() > self.config.repair_entries;
        if far && self.config.fetch_snapshots {
            self.ask_snapshot(t, 1)
        } else {
            self.start_replay(t)
        }
        probe!("a catch-up began");
    }

    pub(super) fn ask_snapshot(&mut self, t: &mut Turn<'_, A>, tries: u32) {
        let Part::Following(following) = &self.part else { return };
        let session = following.session;
        self.gap.reset();
        self.counters.snapshots_requested += 1;
        self.catching_up.stage = Stage::Asking { again_at: t.at() + self.config.chunk_within, tries };
        t.send(session.leader, Message::RequestSnapshot { session, next: self.replica.next() });
    }

    fn start_replay(&mut self, t: &mut Turn<'_, A>) {
        let Part::Following(following) = &self.part else { return };
        let session = following.session;
        self.gap.reset();
        self.counters.replays_started += 1;
        self.catching_up.stage = Stage::Replaying { moved: t.at(), owed: 0 };
        let (from, window) = (self.replica.next(), self.config.replay_window as u64);
        t.send(session.leader, Message::Replay { session, from, window });
    }

    /// A connection stands: a replay that its leader sent before was too large for gossip.
    pub(super) fn replay_by_connection(&mut self, t: &mut Turn<'_, A>, peer: NodeId) {
        if self.leader() == Some(peer) && matches!(self.catching_up.stage, Stage::Replaying { .. }) {
            probe!("a replay is asked for again by a new connection");
            self.start_replay(t);
        }
    }

    /// Whether there is a leader to catch up with, and a log to do it with.
    pub(super) fn may_catch_up(&self) -> bool {
        self.is_following() && !self.disk.rewinding && self.stuck.is_none()
    }

    /// One pass: what is late is asked for again, what is done is ended.
    pub(super) fn catch_up(&mut self, t: &mut Turn<'_, A>) {
        let Part::Following(following) = &self.part else { return };
        if !self.may_catch_up() {
            return;
        }
        let head_next = if mutant!(LastEntryLost) { Index(0) } else { following.head_next };
        let hole = self.buffer.hole(head_next);
        match &mut self.catching_up.stage {
            Stage::Idle => self.mend(t, hole),
            Stage::Asking { again_at, tries } => {
                let tries = *tries;
                if t.at() >= *again_at {
                    probe!("an offer is asked for again, or the log is replayed without");
                    if tries < ASKED_AT_MOST { self.ask_snapshot(t, tries + 1) } else { self.start_replay(t) }
                }
            }
            Stage::Fetching(_) => self.fetch(t),
            Stage::Decoding { until } => {
                if t.at() >= *until {
                    self.snapshot_failed(t, "it took too long to decode".into());
                }
            }
            Stage::Replaying { moved, .. } => {
                if hole.is_none() {
                    self.catching_up.stage = Stage::Idle;
                } else if t.at() >= *moved + self.config.nack_patience {
                    probe!("a replay stood still and is asked for anew");
                    self.begin_catching_up(t);
                }
            }
        }
        self.finish_catching_up(t);
    }

    /// Holes in the order: left alone for a moment, then asked for; a large one, or one that stays, is caught up with.
    fn mend(&mut self, t: &mut Turn<'_, A>, hole: Option<(Index, Index)>) {
        if hole.is_some_and(|(from, until)| until.since(from) > self.config.repair_entries) {
            probe!("a hole is too large for a repair");
            self.begin_catching_up(t);
            return;
        }
        let nodes = self.replica.known().len().max(2);
        match self.gap.observe(t.at(), &mut self.rng, hole, nodes, &self.config) {
            GapChange::Opened => self.counters.gaps += 1,
            GapChange::Closed { suppressed: true } => {
                probe!("a hole closed before its NACK");
                self.counters.nacks_suppressed += 1;
            }
            GapChange::None | GapChange::Progressed | GapChange::Closed { suppressed: false } => {}
        }
        match self.gap.fire(t.at(), &mut self.rng, &self.config) {
            None => {}
            Some(Ask::Nack { .. }) if self.buffer.has_holes(self.config.repair_holes) => {
                probe!("there are too many holes to be asked for one by one");
                self.counters.escalations += 1;
                self.begin_run(t);
                self.start_replay(t);
            }
            Some(Ask::Nack { from, until }) => {
                let Part::Following(following) = &self.part else { return };
                let session = following.session;
                let to = self.source(session);
                self.counters.nacks_sent += 1;
                if buggify!("a NACK is sent twice") {
                    t.send(to, Message::Nack(Range { session, from, until }));
                }
                t.send(to, Message::Nack(Range { session, from, until }));
            }
            Some(Ask::Escalate) => {
                probe!("a hole is given up for a catch-up");
                self.counters.escalations += 1;
                self.begin_catching_up(t);
            }
        }
    }

    /// Whom to ask: the leader, or another of the session where it cannot be reached.
    fn source(&self, session: Session) -> NodeId {
        if self.peers.is_connected(session.leader) {
            return session.leader;
        }
        probe!("a hole is asked of another node than the leader");
        self.sources(session).into_iter().next().unwrap_or(session.leader)
    }

    /// The connected nodes of a session, its leader first.
    fn sources(&self, session: Session) -> Vec<NodeId> {
        let of_it = self.peers.iter().filter(|(node, peer)| {
            let says_so = || peer.standing.as_ref().is_some_and(|standing| standing.session == Some(session));
            peer.connected.is_some() && (*node == session.leader || says_so())
        });
        let mut sources: Vec<NodeId> = of_it.map(|(node, _)| node).collect();
        sources.sort_by_key(|node| *node != session.leader);
        sources
    }

    fn finish_catching_up(&mut self, t: &mut Turn<'_, A>) {
        if !matches!(self.catching_up.stage, Stage::Idle) {
            return;
        }
        if let Some(run) = self.catching_up.run
            && self.replica.next() >= run.target
        {
            self.catching_up.run = None;
            if self.caught_up.len() == FINISHED {
                self.caught_up.remove(0);
            }
            self.caught_up.push(FinishedCatchUp {
                path: if run.snapshot_bytes > 0 { CatchUpPath::Snapshot } else { CatchUpPath::Log },
                requested_to_applied_us: t.at().since(run.asked).0 / 1000,
                snapshot_bytes: run.snapshot_bytes,
                tail_entries: self.replica.next().since(run.log_from),
            });
        }
        if self.behind() == 0 {
            self.settle_in(t);
        }
    }

    /// The leader's answer to the request for a snapshot.
    pub(super) fn offer_from(&mut self, t: &mut Turn<'_, A>, from: NodeId, session: Session, offer: Offer) {
        let Stage::Asking { tries, .. } = self.catching_up.stage else {
            probe!("an offer came that nobody waits for");
            self.counters.stale_session += 1;
            return;
        };
        if session.leader != from || self.session() != Some(session) {
            self.counters.rejected_origin += 1;
            return;
        }
        match offer {
            Offer::Snapshot(manifest) => self.begin_fetching(t, from, *manifest),
            Offer::LogShorter => {
                probe!("the log is shorter than a snapshot");
                self.start_replay(t);
            }
            Offer::NothingYet => self.catching_up.stage = Stage::Idle,
            Offer::Later(span) => {
                probe!("a joiner is told to ask later");
                let wait = span.max(Span::millis(10)).min(self.config.transfer_patience);
                self.catching_up.stage = Stage::Asking { again_at: t.at() + wait, tries };
            }
            Offer::Newer(schema) => self.needs_newer(t, schema),
        }
    }

    /// The state needs a newer program than this: nothing is lost by asking again, seldom, since another may come to lead.
    fn needs_newer(&mut self, t: &mut Turn<'_, A>, schema: u32) {
        probe!("a snapshot needs a newer version");
        self.catching_up.stage = Stage::Asking { again_at: t.at() + self.config.transfer_patience, tries: 1 };
        if self.catching_up.needs.replace(schema) != Some(schema) {
            t.put(Output::Notice(Notice::NeedsUpgrade(needs_upgrade::<A>(schema))));
        }
    }

    fn begin_fetching(&mut self, t: &mut Turn<'_, A>, from: NodeId, manifest: Manifest) {
        let Part::Following(following) = &self.part else { return };
        let of_this_branch = following.lineage.contains(&manifest.lineage) || mutant!(ForeignSnapshot);
        if !of_this_branch || manifest.next() <= self.replica.next() {
            probe!("an offer is of no use any more");
            self.snapshot_failed(t, "it is not newer than what this node has, or of another branch".into());
            return;
        }
        if manifest.schema > A::SCHEMA {
            return self.needs_newer(t, manifest.schema);
        }
        match Fetch::new(t.at(), manifest, from, &self.config) {
            Ok(fetch) => {
                self.catching_up.needs = None;
                self.catching_up.stage = Stage::Fetching(Box::new(fetch));
                self.fetch(t);
            }
            Err(bad) => self.snapshot_failed(t, bad.to_string()),
        }
    }

    /// Asks for chunks as far as the window goes; gives up a transfer that does not move.
    fn fetch(&mut self, t: &mut Turn<'_, A>) {
        let Some(session) = self.session() else { return };
        let sources = self.sources(session);
        let Stage::Fetching(fetch) = &mut self.catching_up.stage else { return };
        if fetch.stalled(t.at()) {
            probe!("the chunks of a snapshot stopped coming");
            self.snapshot_failed(t, "its chunks stopped coming".into());
            return;
        }
        let before = fetch.retried();
        let snapshot = fetch.manifest().hash;
        for (source, chunk) in fetch.ask(t.at(), &sources, &self.config) {
            t.send(source, Message::RequestChunk { snapshot, chunk });
        }
        self.counters.chunks_retried += fetch.retried() - before;
        if fetch.stalled(t.at()) {
            probe!("nobody holds a snapshot any more");
            match &mut self.catching_up.run {
                // A new leader may hold another one.
                Some(run) if run.vanished < ASKED_AT_MOST => {
                    run.vanished += 1;
                    self.ask_snapshot(t, 1);
                }
                Some(_) | None => self.snapshot_failed(t, "nobody holds it any more".into()),
            }
        }
    }

    pub(super) fn chunk_from(
        &mut self,
        t: &mut Turn<'_, A>,
        from: NodeId,
        snapshot: Hash,
        chunk: u32,
        bytes: Option<Bytes>,
    ) {
        let Stage::Fetching(fetch) = &mut self.catching_up.stage else {
            probe!("a chunk came after its transfer");
            self.counters.chunks_rejected += 1;
            return;
        };
        let len = bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        match fetch.take(t.at(), from, snapshot, chunk, bytes) {
            Took::Rejected(_) => self.counters.chunks_rejected += 1,
            Took::Absent => probe!("a source does not hold the snapshot"),
            Took::Kept => self.counters.snapshot_bytes_received += len,
            Took::Complete(snapshot) => {
                self.counters.snapshot_bytes_received += len;
                self.catching_up.stage = Stage::Decoding { until: t.at() + self.config.install_within };
                let work =
                    Work::Decode { snapshot: snapshot.clone(), raw_bytes_at_most: self.config.snapshot_raw_bytes };
                self.work(t, Pending::Decode(snapshot), work);
            }
        }
    }

    /// A snapshot is decoded and checked: it takes the state's place if it is still what is wanted.
    pub(super) fn decoded(&mut self, t: &mut Turn<'_, A>, snapshot: Snapshot, replica: Replica<A>) {
        if !matches!(self.catching_up.stage, Stage::Decoding { .. }) {
            return;
        }
        let Part::Following(following) = &self.part else {
            probe!("a snapshot was decoded when there was no leader");
            self.catching_up.stage = Stage::Idle;
            return;
        };
        let next = replica.next();
        let of_this_branch = following.lineage.contains(&snapshot.manifest.lineage) || mutant!(ForeignSnapshot);
        if !of_this_branch || next <= self.replica.next() || self.disk.rewinding {
            probe!("a decoded snapshot is of no use any more");
            self.snapshot_failed(t, "the log has gone another way meanwhile".into());
            return;
        }
        self.counters.snapshots_installed += 1;
        let origin = self.replica.origin(self.me);
        self.replica = replica;
        self.tail = Default::default();
        self.disk.installed(next);
        self.buffer.fast_forward_to(next);
        if let Some(run) = &mut self.catching_up.run {
            run.snapshot_bytes = snapshot.manifest.bytes;
            run.log_from = next;
        }
        self.recognise(t, true);
        self.serving.installed(t.at(), snapshot.clone(), &self.config);
        self.work(t, Pending::Install { next }, Work::Install(Box::new(snapshot)));
        t.put(Output::Replaced { next });
        let replies = self.outbox.skipped(&self.replica, origin, self.replica.origin(self.me));
        self.reply(t, replies);
        if !self.buffer.is_empty() {
            probe!("live entries waited for a snapshot to be installed");
        }
        self.release(t);
        self.catching_up.stage = Stage::Idle;
        if self.behind() > 0 {
            probe!("the log goes on after a snapshot");
            self.start_replay(t);
        }
    }

    pub(super) fn not_decoded(&mut self, t: &mut Turn<'_, A>, failed: WorkFailed) {
        if matches!(self.catching_up.stage, Stage::Decoding { .. }) {
            self.snapshot_failed(t, failed.0);
        }
    }

    /// Nothing is lost by it: the log is replayed from where this node stands.
    fn snapshot_failed(&mut self, t: &mut Turn<'_, A>, why: String) {
        self.counters.snapshots_failed += 1;
        // There may be no leader now to replay the log from.
        self.catching_up.stage = Stage::Idle;
        t.put(Output::Notice(Notice::Snapshot(format!("a snapshot could not be used, so the log is replayed: {why}"))));
        self.start_replay(t);
    }

    /// The log that was asked for begins later: only a snapshot leads there.
    pub(super) fn log_begins(&mut self, t: &mut Turn<'_, A>, from: NodeId, session: Session, first: Index) {
        if session.leader != from || self.session() != Some(session) || first <= self.replica.next() {
            self.counters.stale_session += 1;
            return;
        }
        if matches!(self.catching_up.stage, Stage::Fetching(_) | Stage::Decoding { .. }) {
            return;
        }
        if self.config.fetch_snapshots {
            probe!("the log begins too late to be replayed");
            self.begin_run(t);
            self.ask_snapshot(t, 1);
        } else {
            let text = format!("the leader's log begins at {first}, and fetching snapshots is disabled here");
            t.put(Output::Notice(Notice::Snapshot(text)));
            self.catching_up.stage = Stage::Replaying { moved: t.at(), owed: 0 };
        }
    }

    fn begin_run(&mut self, t: &mut Turn<'_, A>) {
        let Part::Following(following) = &self.part else { return };
        let (asked, target, log_from) = (t.at(), following.head_next, self.replica.next());
        self.catching_up.run.get_or_insert(Run { asked, target, snapshot_bytes: 0, log_from, vanished: 0 });
    }

    /// A part of a replay was taken in.
    pub(super) fn replayed(&mut self, t: &mut Turn<'_, A>, from: NodeId, bytes: usize) {
        if let Stage::Replaying { moved, owed } = &mut self.catching_up.stage
            && self.peers.is_connected(from)
        {
            *moved = t.at();
            *owed += bytes as u64;
        }
        self.give_credit(t);
    }

    /// Lets the replay go on, unless the disk is behind: then what comes would only wait in memory.
    pub(super) fn give_credit(&mut self, t: &mut Turn<'_, A>) {
        let window = self.config.replay_window;
        if let (Stage::Replaying { owed, .. }, Part::Following(following)) = (&mut self.catching_up.stage, &self.part)
            && *owed >= window as u64 / 8
            && self.disk.backlog() < window
        {
            let (session, bytes) = (following.session, std::mem::take(owed));
            t.send(session.leader, Message::Credit { session, bytes });
        }
    }
}

/// What is said of a state that this node cannot read.
pub(super) fn needs_upgrade<A: App>(schema: u32) -> String {
    format!("the state needs schema version {schema}, this node reads up to {}: upgrade it", A::SCHEMA)
}
