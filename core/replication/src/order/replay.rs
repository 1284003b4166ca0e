//! The serving side of log replays: long runs of the log, read piece by piece and sent against byte credit.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::id::{Index, NodeId, Session};
use crate::time::Moment;

/// How many replays run at the same time for each snapshot that may be served: a replay costs less.
const REPLAYS_PER_SERVE: usize = 4;

/// The replays that this node serves.
///
/// A follower grants a window: so many bytes may be on their way to it, and it credits what it has taken in. One read
/// from disk at most is outstanding for each. A replay ends by itself once it has reached the end of the log, since fresh
/// entries reach the follower without it.
#[derive(Clone, Debug, Default)]
pub struct Replays {
    peers: BTreeMap<NodeId, Replay>,
    /// Whose turn was last, so that all get theirs while bytes are short.
    turn: Option<NodeId>,
}

#[derive(Clone, Debug)]
struct Replay {
    session: Session,
    /// The first entry that was not read yet.
    next: Index,
    window: u64,
    /// Bytes sent and not credited.
    sent: u64,
    /// The first entry of the read that is outstanding, and how many bytes were set apart for it.
    reading: Option<(Index, u64)>,
    /// Whether it began or was credited since the last look.
    stirred: bool,
    /// The last look at which it had stirred.
    stirred_at: Moment,
}

/// A piece of the log that should be read for a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadWanted {
    /// For whom.
    pub peer: NodeId,
    /// The session in which it asked.
    pub session: Session,
    /// The first entry.
    pub from: Index,
    /// How many bytes there is credit for.
    pub max_bytes: usize,
}

impl Replays {
    /// Begins a replay, in place of the peer's last one if there was one. A larger window than
    /// [`Config::replay_window`] is made as small as that. False if there is no room for another, or no window.
    pub fn start(&mut self, peer: NodeId, session: Session, from: Index, window: u64, config: &Config) -> bool {
        let full = self.peers.len() >= config.serves.saturating_mul(REPLAYS_PER_SERVE);
        if window == 0 || (full && !self.peers.contains_key(&peer)) {
            return false;
        }
        let window = window.min(config.replay_window as u64);
        let (stirred, stirred_at) = (true, Moment(0));
        self.peers.insert(peer, Replay { session, next: from, window, sent: 0, reading: None, stirred, stirred_at });
        true
    }

    /// The follower has taken in so many bytes of the session's replay. Counts up to what is on its way, no further.
    pub fn credit(&mut self, peer: NodeId, session: Session, bytes: u64) {
        if let Some(replay) = self.peers.get_mut(&peer).filter(|replay| replay.session == session) {
            replay.sent = replay.sent.saturating_sub(bytes);
            replay.stirred = true;
        }
    }

    /// What to read now, where `end` is one past the last entry that can be read. Counts as being read from here on.
    ///
    /// Replays that have reached the end are over.
    pub fn wanted(&mut self, end: Index, config: &Config) -> Vec<ReadWanted> {
        if self.peers.is_empty() {
            return Vec::new();
        }
        self.peers.retain(|_, replay| replay.next < end);
        let outstanding: u64 = self.peers.values().map(Replay::outstanding).sum();
        let mut room = (config.outstanding_bytes as u64).saturating_sub(outstanding);
        let mut peers: Vec<NodeId> = self.peers.keys().copied().collect();
        let served = peers.partition_point(|peer| self.turn.is_some_and(|turn| *peer <= turn));
        peers.rotate_left(served);
        let mut wanted = Vec::new();
        for peer in peers {
            let Some(replay) = self.peers.get_mut(&peer) else { continue };
            // Half of the window is read while the other half is on its way: so a slow disk is asked seldom.
            let piece = (config.batch_bytes as u64).max(replay.window / 2).min(replay.window);
            let credit = replay.window.saturating_sub(replay.outstanding()).min(piece);
            let credit = if mutant!(ReplayWithoutWindow) { piece } else { credit };
            // Small pieces would stay small for ever, each credited and sent by itself: wait for half a batch.
            let enough = (config.batch_bytes as u64).min(replay.window).div_ceil(2);
            if replay.reading.is_some() || credit.min(room) < enough {
                if credit < enough {
                    probe!("a replay waits for credit");
                }
                continue;
            }
            let bytes = credit.min(room);
            room -= bytes;
            replay.reading = Some((replay.next, bytes));
            self.turn = Some(peer);
            wanted.push(ReadWanted { peer, session: replay.session, from: replay.next, max_bytes: bytes as usize });
        }
        wanted
    }

    /// A read came back with so many records from `first` on, which leave now.
    ///
    /// The session to send them in; none if nobody waits for them any more. No records means that the log begins later
    /// than `first`: the replay is over, and the session is there to say so in.
    pub fn read(&mut self, peer: NodeId, first: Index, records: u64, bytes: u64) -> Option<Session> {
        let replay = self.peers.get_mut(&peer)?;
        if replay.reading?.0 != first {
            return None;
        }
        let session = replay.session;
        if records == 0 {
            self.peers.remove(&peer);
            return Some(session);
        }
        replay.reading = None;
        replay.next = first.plus(records);
        replay.sent = replay.sent.saturating_add(bytes);
        Some(session)
    }

    /// A read failed: that replay is over. The follower asks again, here or elsewhere.
    pub fn failed(&mut self, peer: NodeId) {
        if self.peers.get(&peer).is_some_and(|replay| replay.reading.is_some()) {
            self.peers.remove(&peer);
        }
    }

    /// The peer is gone or needs no more.
    pub fn stop(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// Ends all replays: another branch.
    pub fn clear(&mut self) {
        self.peers.clear();
    }

    /// The first entry that a replay still needs: the log must be kept from here on.
    pub fn lowest(&self) -> Option<Index> {
        self.peers.values().map(|replay| replay.next).min()
    }

    /// Ends the replays whose follower credited nothing for [`Config::hold_log_for`]: the log is not kept for the mute.
    ///
    /// Call it with every beat or tick. It measures from call to call, so that nobody else has to tell it the time.
    pub fn expire(&mut self, now: Moment, config: &Config) {
        self.peers.retain(|_, replay| {
            if std::mem::take(&mut replay.stirred) {
                replay.stirred_at = now;
            }
            now < replay.stirred_at + config.hold_log_for
        });
    }

    /// How many replays run.
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }
}

impl Replay {
    /// Bytes that are on their way, or will be once they are read.
    fn outstanding(&self) -> u64 {
        self.sent + self.reading.map_or(0, |(_, bytes)| bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Boot;
    use crate::time::Span;

    const A: NodeId = NodeId::example(1);
    const B: NodeId = NodeId::example(2);
    const SESSION: Session = Session { clock: 1, leader: A, boot: Boot { starts: 1, nonce: 1 } };
    const LATER: Session = Session { clock: 2, ..SESSION };

    /// A window and a batch, in bytes, and how many bytes all may have outstanding.
    fn limits(window: usize, batch: usize, all: usize) -> Config {
        Config { replay_window: window, batch_bytes: batch, outstanding_bytes: all, serves: 1, ..Config::default() }
    }

    /// Who reads from where, and how much.
    fn wanted(replays: &mut Replays, end: u64, config: &Config) -> Vec<(NodeId, u64, usize)> {
        let wanted = replays.wanted(Index(end), config);
        wanted.into_iter().map(|read| (read.peer, read.from.0, read.max_bytes)).collect()
    }

    #[test]
    fn a_replay_goes_on_against_credit_and_ends_at_the_end() {
        let (mut replays, config) = (Replays::default(), limits(100, 60, 1000));
        assert!(replays.start(A, SESSION, Index(10), 1 << 40, &config));
        assert_eq!(wanted(&mut replays, 50, &config), [(A, 10, 60)]);
        assert_eq!(wanted(&mut replays, 50, &config), [], "one read is outstanding");
        assert_eq!(replays.read(A, Index(10), 20, 55), Some(SESSION));
        assert_eq!(wanted(&mut replays, 50, &config), [(A, 30, 45)]);
        assert_eq!(replays.read(A, Index(30), 15, 45), Some(SESSION));
        assert_eq!(wanted(&mut replays, 50, &config), [], "no credit is left");
        replays.credit(A, LATER, 100);
        assert_eq!(wanted(&mut replays, 50, &config), [], "another session's credit does not count");
        replays.credit(A, SESSION, u64::MAX);
        assert_eq!((wanted(&mut replays, 50, &config), replays.lowest()), (vec![(A, 45, 60)], Some(Index(45))));
        assert_eq!(replays.read(A, Index(45), 5, 9), Some(SESSION));
        assert_eq!((wanted(&mut replays, 50, &config), replays.len(), replays.lowest()), (vec![], 0, None));
    }

    #[test]
    fn pieces_do_not_become_small() {
        let (mut replays, config) = (Replays::default(), limits(100, 60, 1000));
        replays.start(A, SESSION, Index(0), 100, &config);
        wanted(&mut replays, 999, &config);
        replays.read(A, Index(0), 5, 90);
        assert_eq!(wanted(&mut replays, 999, &config), []);
        replays.credit(A, SESSION, 20);
        assert_eq!(wanted(&mut replays, 999, &config), [(A, 5, 30)]);
    }

    #[test]
    fn all_together_keep_within_the_limit_and_take_turns() {
        let (mut replays, config) = (Replays::default(), limits(100, 60, 70));
        replays.start(A, SESSION, Index(0), 100, &config);
        replays.start(B, SESSION, Index(0), 100, &config);
        assert_eq!(wanted(&mut replays, 999, &config), [(A, 0, 60)]);
        replays.read(A, Index(0), 1, 60);
        replays.credit(A, SESSION, 60);
        assert_eq!(wanted(&mut replays, 999, &config), [(B, 0, 60)], "the other one's turn");
        replays.read(B, Index(0), 1, 60);
        assert_eq!(wanted(&mut replays, 999, &config), []);
        replays.stop(B);
        assert_eq!(wanted(&mut replays, 999, &config), [(A, 1, 60)], "what was on its way to B is free again");
    }

    #[test]
    fn a_read_that_nobody_waits_for_is_dropped() {
        let (mut replays, config) = (Replays::default(), limits(100, 60, 1000));
        assert_eq!(replays.read(A, Index(0), 1, 1), None);
        replays.start(A, SESSION, Index(0), 100, &config);
        assert_eq!(replays.read(A, Index(0), 1, 1), None, "nothing is being read");
        wanted(&mut replays, 999, &config);
        replays.start(A, LATER, Index(7), 100, &config);
        assert_eq!(wanted(&mut replays, 999, &config), [(A, 7, 60)]);
        assert_eq!(replays.read(A, Index(0), 1, 1), None, "the replay before it asked for that");
        assert_eq!(replays.read(A, Index(7), 1, 1), Some(LATER));
    }

    #[test]
    fn a_log_that_begins_later_or_fails_ends_the_replay() {
        let (mut replays, config) = (Replays::default(), limits(100, 60, 1000));
        for read in [true, false] {
            replays.start(A, SESSION, Index(0), 100, &config);
            replays.failed(A);
            assert_eq!(replays.len(), 1, "that was no read of this replay");
            wanted(&mut replays, 999, &config);
            if read {
                assert_eq!(replays.read(A, Index(0), 0, 0), Some(SESSION));
            } else {
                replays.failed(A);
            }
            assert!(replays.is_empty());
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_one_each() {
        let (mut replays, config) = (Replays::default(), limits(100, 60, 1000));
        assert!(!replays.start(A, SESSION, Index(0), 0, &config), "no window, no replay");
        for n in 1..=4 {
            assert!(replays.start(NodeId::example(n), SESSION, Index(u64::from(n)), 100, &config));
        }
        assert!(!replays.start(NodeId::example(5), SESSION, Index(0), 100, &config));
        assert!(replays.start(A, LATER, Index(9), 100, &config), "in place of its first one");
        assert_eq!((replays.len(), replays.lowest()), (4, Some(Index(2))));
        replays.clear();
        assert!(replays.is_empty());
    }

    #[test]
    fn the_log_is_not_held_for_a_mute_follower() {
        let (mut replays, config) = (Replays::default(), limits(100, 60, 1000));
        replays.start(A, SESSION, Index(0), 100, &config);
        replays.start(B, SESSION, Index(0), 100, &config);
        let begun = Moment(0) + Span::seconds(1000);
        replays.expire(begun, &config);
        replays.credit(B, SESSION, 1);
        replays.expire(begun + Span::seconds(1), &config);
        replays.expire(begun + config.hold_log_for, &config);
        assert_eq!(replays.peers.keys().collect::<Vec<_>>(), [&B]);
    }
}
