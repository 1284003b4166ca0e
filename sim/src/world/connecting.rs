//! Connections: how machines dial each other, learn of it, and learn that it is over.

use lockstep_replication::Input;

use super::{Event, World};
use crate::checks::{Broken, Given};
use crate::dice::{Roll, Site};
use crate::plan::MILLIS;

impl World {
    fn pair_roll(&self, a: usize, b: usize, n: u64) -> Roll {
        let (a, b) = (self.machines[a].number, self.machines[b].number);
        self.dice.roll(Site::Connection, u64::from(a.min(b)) << 16 | u64::from(a.max(b)) | 1 << 32, n)
    }

    pub(super) fn dial(&mut self, a: usize, b: usize) {
        let time = self.time;
        if self.network.epoch(a, b) != 0 || self.machines[a].gone || self.machines[b].gone {
            return;
        }
        if self.machines[a].id == self.machines[b].id {
            return;
        }
        let forgotten = |at: usize, other: usize| {
            let machine = &self.machines[at];
            machine.pace.free_at <= time && machine.process.as_ref().is_some_and(|process| process.peers[other] == 0)
        };
        let blocked = self.network.is_blocked(a, b) || self.network.is_blocked(b, a);
        if blocked || !forgotten(a, b) || !forgotten(b, a) {
            let again = time + self.pair_roll(a, b, time).between(20, 200) * MILLIS;
            return self.push(again, Event::Dial { a: a as u32, b: b as u32 });
        }
        let epoch = self.network.connect(a, b);
        let took = self.pair_roll(a, b, time).between(0, self.plan.timing.dial.0);
        for (at, peer) in [(a, b), (b, a)] {
            let when = self.network.news(time + took, peer, at);
            let life = self.machines[at].life;
            self.push(when, Event::Met { at: at as u32, life, peer: peer as u32, epoch });
        }
    }

    /// A connection breaks; each side notices in its time, and then they dial again.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        let Some(epoch) = self.network.cut(a, b) else { return };
        let mut roll = self.pair_roll(a, b, self.time);
        let (dial, notice) = (self.plan.timing.dial.0, self.plan.timing.notice.0);
        let mut last = self.time;
        for (at, peer) in [(a, b), (b, a)] {
            // Not before the news that it stood.
            let notices = self.time + dial + roll.between(0, notice);
            let when = self.network.news(notices, peer, at);
            let life = self.machines[at].life;
            self.push(when, Event::Parted { at: at as u32, life, peer: peer as u32, epoch });
            last = last.max(when);
        }
        self.push(last + roll.between(0, dial), Event::Dial { a: a as u32, b: b as u32 });
    }

    pub(super) fn met(&mut self, at: usize, peer: usize, epoch: u64) -> Result<(), Broken> {
        let id = self.machines[peer].id;
        let twin = self.has_twin(at, peer);
        self.process(at).peers[peer] = epoch;
        if twin {
            return Ok(());
        }
        self.step(at, Input::Connected(id), Given::Other, epoch << 1)
    }

    pub(super) fn parted(&mut self, at: usize, peer: usize, epoch: u64) -> Result<(), Broken> {
        if self.process(at).peers[peer] != epoch {
            return Ok(());
        }
        self.process(at).peers[peer] = 0;
        let id = self.machines[peer].id;
        if self.has_twin(at, peer) {
            return Ok(());
        }
        self.step(at, Input::Disconnected(id), Given::Other, epoch << 1 | 1)
    }

    /// Whether the node at `at` is connected to another machine with the identity of `peer`.
    fn has_twin(&self, at: usize, peer: usize) -> bool {
        let Some(process) = self.machines[at].process.as_ref() else { return false };
        let others = self.places_of(self.machines[peer].id).iter().filter(|other| **other != peer);
        others.into_iter().any(|other| process.peers[*other] != 0)
    }
}
