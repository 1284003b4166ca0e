//! Connections between machines, and messages on them.

use bytes::Bytes;
use lockstep_inference::Inference;
use lockstep_replication::message::Message;
use lockstep_replication::{Input, NodeId, wire};

use super::world::{Event, World};
use crate::checks::Broken;
use crate::dice::{Roll, Site};
use crate::plan::{MILLIS, number_of};
use crate::trace::Mixer;
use crate::world::messages::parcel;
use crate::world::network::Parcel;

/// The longest that machines take to notice that a connection broke.
const NOTICE: u64 = 1_000 * MILLIS;

impl World {
    pub(super) fn place_of(&self, node: NodeId) -> Option<usize> {
        usize::from(number_of(node)).checked_sub(1).filter(|at| *at < self.machines.len())
    }

    fn pair_roll(&self, a: usize, b: usize) -> Roll {
        self.dice.roll(Site::Connection, (a.min(b) << 16 | a.max(b)) as u64 | 1 << 32, self.time)
    }

    pub(super) fn dial(&mut self, a: usize, b: usize) {
        if self.network.epoch(a, b) != 0 {
            return;
        }
        let forgotten = |at: usize, other: usize| {
            self.machines[at].process.as_ref().is_some_and(|process| process.peers[other] == 0)
        };
        let blocked = self.network.is_blocked(a, b) || self.network.is_blocked(b, a);
        let mut roll = self.pair_roll(a, b);
        if blocked || !forgotten(a, b) || !forgotten(b, a) {
            return self.push(self.time + roll.between(20, 200) * MILLIS, Event::Dial { a, b });
        }
        let epoch = self.network.connect(a, b);
        let took = roll.between(0, 50) * MILLIS;
        for (at, peer) in [(a, b), (b, a)] {
            let when = self.network.news(self.time + took, peer, at);
            let life = self.machines[at].life;
            self.push(when, Event::Met { at, life, peer, epoch });
        }
    }

    /// A connection breaks; each side notices in its time, and then they dial again.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let Some(epoch) = self.network.cut(a, b) else { return };
        let mut roll = self.pair_roll(a, b);
        let mut last = self.time;
        for (at, peer) in [(a, b), (b, a)] {
            // Not before the news that it stood.
            let notices = self.time + 50 * MILLIS + roll.below(NOTICE);
            let when = self.network.news(notices, peer, at);
            let life = self.machines[at].life;
            self.push(when, Event::Parted { at, life, peer, epoch });
            last = last.max(when);
        }
        self.push(last + roll.between(1, 50) * MILLIS, Event::Dial { a, b });
    }

    pub(super) fn met(&mut self, at: usize, peer: usize, epoch: u64) -> Result<(), Broken> {
        let id = self.machines[peer].id;
        self.process(at).peers[peer] = epoch;
        self.step(at, Input::Connected(id), epoch << 1)
    }

    pub(super) fn parted(&mut self, at: usize, peer: usize, epoch: u64) -> Result<(), Broken> {
        let id = self.machines[peer].id;
        if self.process(at).peers[peer] != epoch {
            return Ok(());
        }
        self.process(at).peers[peer] = 0;
        self.step(at, Input::Disconnected(id), epoch << 1 | 1)
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, message: &Message<Inference>) {
        if let Some(to) = self.place_of(to).filter(|to| *to != from) {
            let bytes = wire::encode(message);
            self.carry(from, to, &bytes, parcel(message, bytes.len()));
        }
    }

    pub(super) fn broadcast(&mut self, from: usize, message: &Message<Inference>) {
        let bytes = wire::encode(message);
        for to in (0..self.machines.len()).filter(|to| *to != from) {
            self.carry(from, to, &bytes, parcel(message, bytes.len()));
        }
    }

    fn carry(&mut self, from: usize, to: usize, bytes: &Bytes, parcel: Parcel) {
        let mut mixer = Mixer::default();
        mixer.bytes(bytes);
        self.trace.output(1, mixer.hash() ^ (to as u64) << 40);
        let epoch = self.machines[from].process.as_ref().map_or(0, |process| process.peers[to]);
        let trips = self.network.carry(self.time, (from, to), epoch, parcel, |_| true);
        for at in trips.into_iter().flatten() {
            self.push(at, Event::Arrive { from, to, epoch, bytes: bytes.clone() });
        }
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, epoch: u64, bytes: &[u8]) -> Result<(), Broken> {
        if epoch != 0 && self.process(to).peers[from] != epoch {
            return Ok(());
        }
        let sender = self.machines[from].id;
        let message = wire::decode(bytes).map_err(|error| {
            Broken::new("readable", format!("a message of node {} is none: {error}", number_of(sender)))
        })?;
        self.step(to, Input::Message { from: sender, message }, from as u64)
    }
}
