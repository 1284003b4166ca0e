//! What this node asks of its disk and of those who encode and decode, and what follows when that is done.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Node, Part, Turn};
use crate::app::App;
use crate::id::{Hash, Index, NodeId, Session, WorkId};
use crate::io::{Kept, Notice, Output, Stop, Work, WorkFailed, Worked};
use crate::message::{Entries, EntriesKind, Message};
use crate::snapshot::Snapshot;
use crate::time::Moment;

/// Work under way, and the part of the log that is not on disk yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    asked: u64,
    pending: BTreeMap<WorkId, Pending>,
    /// Records that wait for the append before them: the next group commit.
    unwritten: Vec<Bytes>,
    unwritten_bytes: usize,
    /// One past the last record that an append was asked for.
    pub(super) appended: Index,
    /// The running hash of the log up to there.
    pub(super) appended_hash: Hash,
    /// One past the last record that is synced.
    pub(super) synced: Index,
    /// The newest append under way: since when, and one past its last record.
    pub(super) appending: Option<(Moment, Index)>,
    /// The first record that the log on disk holds.
    pub(super) first: Index,
    /// Snapshots on disk, by one past their last entry.
    pub(super) snapshots: Vec<Index>,
    /// Whether the log is being cut: until it is, nothing is known of it.
    pub(super) rewinding: bool,
    /// Whether a trim is under way.
    trimming: bool,
}

/// Why work was asked for.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    Keep(Kept),
    Append { until: Index },
    Rewind { to: Index },
    Install { next: Index },
    Save { next: Index },
    Trim { first: Index, snapshots: Vec<Index> },
    Read(ReadFor),
    Encode { periodic: bool },
    Decode(Box<Snapshot>),
}

/// Who wants records from the disk.
#[derive(Clone, Debug)]
pub(super) enum ReadFor {
    /// Whoever missed them: one node, or all.
    Repair { session: Session, to: Option<NodeId> },
    /// A replay to this peer.
    Replay(NodeId),
}

impl Disk {
    pub(super) fn restored(&mut self, first: Index, next: Index, snapshots: Vec<Index>) {
        self.unwritten.clear();
        self.unwritten_bytes = 0;
        self.appended = next;
        self.synced = next;
        self.appending = None;
        self.first = first;
        self.snapshots = snapshots;
        self.rewinding = false;
    }

    /// One more record for the next append.
    pub(super) fn write(&mut self, bytes: Bytes, index: Index) {
        debug_assert_eq!(self.appended.plus(self.unwritten.len() as u64), index, "records are written in order");
        self.unwritten_bytes += bytes.len();
        self.unwritten.push(bytes);
    }

    /// How many bytes are applied, but not on their way to the disk.
    pub(super) fn backlog(&self) -> usize {
        self.unwritten_bytes
    }

    /// Whether all that was applied is synced.
    pub(super) fn is_level(&self) -> bool {
        self.unwritten.is_empty() && self.appending.is_none()
    }

    /// Whether something is being kept.
    pub(super) fn keeps(&self) -> bool {
        self.pending.values().any(|pending| matches!(pending, Pending::Keep(_)))
    }

    /// A snapshot from elsewhere takes the log's place.
    pub(super) fn installed(&mut self, next: Index) {
        self.unwritten.clear();
        self.unwritten_bytes = 0;
        self.appended = next;
        self.first = next;
        self.snapshots.clear();
    }

    /// Whether records from here on are in the log on disk.
    pub(super) fn holds(&self, index: Index) -> bool {
        index >= self.first && index < self.appended
    }
}

impl<A: App> Node<A> {
    pub(super) fn work(&mut self, t: &mut Turn<'_, A>, pending: Pending, work: Work<A>) -> WorkId {
        self.disk.asked += 1;
        let id = WorkId(self.disk.asked);
        self.disk.pending.insert(id, pending);
        t.put(Output::Work { id, work });
        id
    }

    /// Persists what is kept beside the log; `Kept` is acted on only when it is there.
    pub(super) fn keep(&mut self, t: &mut Turn<'_, A>) {
        let kept = self.kept;
        self.work(t, Pending::Keep(kept), Work::Keep(Box::new(kept)));
    }

    /// Sends the records that were applied since to the disk, as one append, and, as the leader, to all. One append is
    /// under way at a time: what comes meanwhile is the next group commit.
    pub(super) fn flush(&mut self, t: &mut Turn<'_, A>) {
        if self.disk.appending.is_none() {
            self.append(t);
        }
    }

    fn append(&mut self, t: &mut Turn<'_, A>) {
        if self.disk.unwritten.is_empty() {
            return;
        }
        let first = self.disk.appended;
        let records = std::mem::take(&mut self.disk.unwritten);
        let until = first.plus(records.len() as u64);
        self.disk.unwritten_bytes = 0;
        self.disk.appended = until;
        self.disk.appended_hash = self.replica.hash();
        self.disk.appending = Some((t.at(), until));
        if let Part::Leading(leading) = &self.part {
            let entries = if buggify!("new entries leave one by one") { 1 } else { self.config.batch_entries };
            for (first, records) in batches(first, &records, entries, self.config.batch_bytes) {
                let session = leading.session;
                t.broadcast(Message::Entries(Entries { session, first, records, kind: EntriesKind::Fresh }));
            }
        }
        self.work(t, Pending::Append { until }, Work::Append { first, records });
    }

    /// Cuts the log: what is past `to` is set aside. Nothing that was applied is forgotten on the way there.
    pub(super) fn rewind(&mut self, t: &mut Turn<'_, A>, to: Index, winner: Session) {
        if !self.disk.is_level() {
            probe!("a branch is set aside while some of it is not synced");
        }
        self.append(t);
        self.counters.rewinds += 1;
        self.disk.rewinding = true;
        let snapshots = self.disk.snapshots.iter().copied().filter(|next| *next <= to);
        let left = if self.disk.first <= to { to } else { snapshots.max().unwrap_or_default() };
        if left < to {
            // The log up to the cut was trimmed behind a snapshot past it, and this node said that it stored that. Kept
            // before the cut: a crash may come between the two.
            probe!("a cut goes deeper than it should");
            let last = to.previous().and_then(|last| self.replica.lineage().session_at(last));
            self.lost_entries(t, last.map(|session| (session, to)));
        }
        self.work(t, Pending::Rewind { to }, Work::Rewind { to, winner });
        self.enter_seeking(t);
    }

    /// This node does not hold any more what it said that it stored: what, if that is known.
    pub(super) fn lost_entries(&mut self, t: &mut Turn<'_, A>, lacks: Option<(Session, Index)>) {
        if !self.kept.damaged {
            self.kept.damaged = true;
            self.kept.lacks = lacks;
            self.healing.lost();
            self.keep(t);
            t.put(Output::Notice(Notice::Damaged));
        }
    }

    pub(super) fn worked(&mut self, t: &mut Turn<'_, A>, id: WorkId, result: Result<Worked<A>, WorkFailed>) {
        let Some(pending) = self.disk.pending.remove(&id) else { return };
        match (pending, result) {
            (Pending::Keep(kept), Ok(Worked::Stored)) => self.is_kept(t, kept),
            (Pending::Append { until }, Ok(Worked::Stored)) => self.has_appended(t, until),
            (Pending::Append { until }, Err(_)) if mutant!(LeadsOnAfterFailedAppend) => self.has_appended(t, until),
            (Pending::Rewind { to }, Ok(Worked::Rewound(restored, aside))) => {
                self.restore(*restored);
                // An emptied node is as a new one: what knows it by another disk must be heard first.
                if self.replica.next() == Index(0) && !self.kept.fresh {
                    self.kept.fresh = true;
                    self.keep(t);
                }
                if self.replica.next() < to {
                    self.lost_entries(t, None);
                }
                let replies = self.outbox.rewound(to, self.replica.origin(self.me));
                self.reply(t, replies);
                t.put(Output::Replaced { next: self.replica.next() });
                if let Some(aside) = aside
                    && !mutant!(UnannouncedAside)
                {
                    t.put(Output::Notice(Notice::SetAside(aside)));
                }
                self.enter_seeking(t);
            }
            (Pending::Install { next }, Ok(Worked::Stored)) => {
                self.disk.synced = self.disk.synced.max(next);
                self.disk.snapshots.push(next);
                self.is_synced(t);
            }
            (Pending::Save { next }, Ok(Worked::Stored)) => {
                if next <= self.replica.next() && !self.disk.rewinding {
                    self.disk.snapshots.push(next);
                    self.trim(t);
                }
            }
            (Pending::Trim { first, snapshots }, Ok(Worked::Stored)) => {
                self.disk.trimming = false;
                self.disk.first = self.disk.first.max(first);
                self.disk.snapshots.retain(|next| snapshots.contains(next) || *next > self.disk.synced);
            }
            (Pending::Read(wanted), Ok(Worked::Read { first, records })) => self.have_read(t, wanted, first, records),
            (Pending::Read(ReadFor::Replay(peer)), Err(_)) => self.serving.replays.failed(peer),
            (Pending::Read(ReadFor::Repair { .. }), Err(_)) => self.counters.requests_limited += 1,
            (Pending::Encode { periodic }, Ok(Worked::Encoded(snapshot))) => self.encoded(t, periodic, *snapshot),
            (Pending::Encode { .. }, Err(failed)) => self.not_encoded(t, failed),
            (Pending::Decode(snapshot), Ok(Worked::Decoded(replica))) => self.decoded(t, *snapshot, *replica),
            (Pending::Decode(_), Err(failed)) => self.not_decoded(t, failed),
            (Pending::Save { .. } | Pending::Trim { .. }, Err(failed)) => {
                self.disk.trimming = false;
                t.put(Output::Notice(Notice::Snapshot(format!("the log could not be shortened: {failed}"))));
            }
            (
                Pending::Keep(_) | Pending::Append { .. } | Pending::Rewind { .. } | Pending::Install { .. },
                Err(failed),
            ) => {
                probe!("a write failed, and the node stops");
                self.stop(t, Stop::Disk(failed.0));
            }
            (
                Pending::Keep(_)
                | Pending::Append { .. }
                | Pending::Rewind { .. }
                | Pending::Install { .. }
                | Pending::Save { .. }
                | Pending::Trim { .. }
                | Pending::Read(_)
                | Pending::Encode { .. }
                | Pending::Decode(_),
                Ok(_),
            ) => self.stop(t, Stop::Disk("work was answered by the result of other work: a defect".into())),
        }
    }

    fn has_appended(&mut self, t: &mut Turn<'_, A>, until: Index) {
        self.disk.synced = self.disk.synced.max(until);
        if self.disk.appending.is_some_and(|(_, last)| last == until) {
            self.disk.appending = None;
        }
        self.is_synced(t);
    }

    /// More of the log is safe: say so to the leader, or count it.
    pub(super) fn is_synced(&mut self, t: &mut Turn<'_, A>) {
        self.heal(t);
        self.save_if_synced(t);
        match &mut self.part {
            Part::Seeking(_) => {}
            Part::Following(following) => {
                let (session, confirmed) = (following.session, following.confirmed);
                if confirmed {
                    self.say_stored(t, session);
                }
                self.give_credit(t);
            }
            Part::Leading(leading) => {
                leading.tally.stored(self.me, self.boot, self.disk.synced);
                if !leading.ready && self.disk.synced > leading.opened {
                    self.take_office(t);
                }
            }
        }
    }

    /// Drops log and snapshots that nobody needs: the log to a distance behind the newest snapshot, but not from under a
    /// joiner; of the snapshots the newest, and the newest that all known nodes have, to rewind to.
    pub(super) fn trim(&mut self, t: &mut Turn<'_, A>) {
        let Some(newest) = self.disk.snapshots.iter().copied().max() else { return };
        if self.config.snapshot_every == 0 || self.disk.trimming || self.disk.rewinding {
            return;
        }
        let all = self.all_have();
        let common = self.disk.snapshots.iter().copied().filter(|next| *next <= all).max();
        let oldest = self.disk.snapshots.iter().copied().min().filter(|_| common.is_none());
        let snapshots: Vec<Index> = common.or(oldest).into_iter().chain([newest]).collect();
        let behind = Index(newest.0.saturating_sub(self.config.keep_behind));
        let held = self.serving.log_needed_from(t.at(), &self.config);
        if held.is_some_and(|held| held < behind) {
            probe!("the log is kept for a joiner");
        }
        let first = held.into_iter().chain([behind]).min().unwrap_or(behind);
        if first <= self.disk.first && self.disk.snapshots.iter().all(|next| snapshots.contains(next)) {
            return;
        }
        self.disk.trimming = true;
        let first = first.max(self.disk.first);
        let pending = Pending::Trim { first, snapshots: snapshots.clone() };
        self.work(t, pending, Work::Trim { log_below: first, snapshots_but: snapshots });
    }
}

/// Cuts a run of records into messages.
pub(super) fn batches(
    first: Index,
    records: &[Bytes],
    entries_at_most: usize,
    bytes_at_most: usize,
) -> Vec<(Index, Vec<Bytes>)> {
    let mut batches: Vec<(Index, Vec<Bytes>)> = Vec::new();
    let mut bytes = 0;
    for (record, offset) in records.iter().zip(0..) {
        match batches.last_mut() {
            Some((_, batch)) if batch.len() < entries_at_most && bytes + record.len() <= bytes_at_most => {
                bytes += record.len();
                batch.push(record.clone());
            }
            Some(_) | None => {
                bytes = record.len();
                batches.push((first.plus(offset), vec![record.clone()]));
            }
        }
    }
    batches
}
