//! Handing messages to the network, and from it to nodes.

use std::sync::Arc;

use lockstep_replication::message::Message;
use lockstep_replication::{Input, NodeId, wire};

use super::messages::{Content, Envelope, corrupted, parcel, with_clock};
use super::network::{Parcel, Trips};
use super::{Event, World};
use crate::checks::{Broken, Given};
use crate::dice::Site;
use crate::faults::{Kind, Mischief};
use crate::kv::Kv;
use crate::plan::number_of;

impl World {
    /// The places of the machines with this identity.
    pub(super) fn places_of(&self, node: NodeId) -> &[usize] {
        self.places.get(usize::from(number_of(node))).map_or(&[], Vec::as_slice)
    }

    pub(super) fn send(&mut self, from: usize, to: NodeId, message: Message<Kv>) -> Result<(), Broken> {
        let (envelope, parcel, kind) = self.close(from, message)?;
        self.trace.output(1, envelope.hash ^ u64::from(number_of(to)) << 40);
        if let [place] = self.places_of(to) {
            let place = *place;
            if place != from {
                self.transmit(from, place, &envelope, parcel, kind);
            }
            return Ok(());
        }
        // Of two machines under one identity the one hears it whose connection is the newer one.
        let peers = &self.machines[from].process.as_ref().map_or(&[][..], |process| &process.peers);
        let epoch = |place: &usize| peers.get(*place).copied().unwrap_or_default();
        let places = self.places_of(to).iter().copied().filter(|place| *place != from);
        if let Some(place) = places.max_by_key(epoch) {
            self.transmit(from, place, &envelope, parcel, kind);
        }
        Ok(())
    }

    pub(super) fn broadcast(&mut self, from: usize, message: Message<Kv>) -> Result<(), Broken> {
        let (envelope, parcel, kind) = self.close(from, message)?;
        self.trace.output(2, envelope.hash);
        for to in 0..self.machines.len() {
            if self.machines[to].id != self.machines[from].id {
                self.transmit(from, to, &envelope, parcel, kind);
            }
        }
        Ok(())
    }

    /// Puts a message into an envelope, and has the checks look at it. What faults may change crosses as a value.
    fn close(&mut self, from: usize, message: Message<Kv>) -> Result<(Arc<Envelope>, Parcel, Kind), Broken> {
        let kind = Kind::of(&message);
        let (bytes, hash) = Envelope::measure(&message, &mut self.scratch);
        self.checks.sent(from, &self.machines[from].disk, &message, bytes)?;
        let parcel = parcel(&message, bytes);
        let by_wire = self.plan.on_the_wire && self.rules.is_empty();
        let content = if by_wire { Content::Wire(wire::encode(&message)) } else { Content::Value(message) };
        Ok((Arc::new(Envelope { content, hash }), parcel, kind))
    }

    fn transmit(&mut self, from: usize, to: usize, envelope: &Arc<Envelope>, parcel: Parcel, kind: Kind) {
        let Some(process) = self.machines[from].process.as_ref() else { return };
        let epoch = process.peers[to];
        let only = self.plan.only.lost.as_ref();
        let may_be_lost = |sent| only.is_none_or(|only| only.contains(&sent));
        let trips = self.network.carry(self.time, (from, to), epoch, parcel, may_be_lost);
        if !self.rules.is_empty() {
            return self.strike(from, to, epoch, envelope, kind, trips);
        }
        for at in trips.into_iter().flatten() {
            self.arrives(at, from, to, epoch, envelope.clone());
        }
    }

    fn arrives(&mut self, at: u64, from: usize, to: usize, epoch: u64, envelope: Arc<Envelope>) {
        self.push(at, Event::Arrive { from: from as u32, to: to as u32, epoch, envelope });
    }

    /// The faults that strike messages do what they do to this one.
    fn strike(&mut self, from: usize, to: usize, epoch: u64, envelope: &Arc<Envelope>, kind: Kind, trips: Trips) {
        let (time, dice) = (self.time, self.dice);
        let mut struck = Vec::new();
        for rule in self.rules.iter_mut().filter(|rule| rule.concerns(time, from, to, kind)) {
            rule.seen += 1;
            let mut roll = dice.roll(Site::Fault, rule.key, rule.seen);
            if rule.seen <= rule.skip || rule.left == Some(0) || !roll.chance(rule.share, 1000) {
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            struck.push((rule.what, roll.number()));
        }
        let mut envelope = envelope.clone();
        let [mut at, mut again] = trips;
        let mut others = Vec::new();
        for (what, drawn) in struck {
            let Content::Value(message) = &envelope.content else { continue };
            let changed = |message| Arc::new(Envelope { content: Content::Value(message), ..*envelope });
            match what {
                Mischief::Lose => (at, again) = (None, None),
                Mischief::Double => again = again.or(at.map(|at| at + 1)),
                Mischief::Delay(span) => at = at.map(|at| at + span.0),
                Mischief::Again(span) => again = at.map(|at| at + span.0),
                Mischief::Corrupt => match corrupted(message.clone(), drawn) {
                    Some(message) => envelope = changed(message),
                    None => (at, again) = (None, None),
                },
                Mischief::Clock(clock) => envelope = changed(with_clock(message.clone(), clock)),
                Mischief::Contradict | Mischief::Forge => {
                    let Some((at, false_one)) = at.zip(corrupted(message.clone(), drawn)) else { continue };
                    let forged = what == Mischief::Forge;
                    let impostor = (0..self.machines.len()).find(|other| *other != from && *other != to);
                    let sender = if forged { impostor } else { Some(from) };
                    others.extend(sender.map(|from| (at, forged, from, changed(false_one))));
                }
            }
        }
        // By no connection, as gossip comes: a forged one is there first, a contradiction last.
        let send_others = |world: &mut World, first: bool| {
            for (at, _, from, envelope) in others.iter().filter(|(_, forged, _, _)| *forged == first) {
                world.arrives(*at, *from, to, 0, envelope.clone());
            }
        };
        send_others(self, true);
        for at in [at, again].into_iter().flatten() {
            self.arrives(at, from, to, epoch, envelope.clone());
        }
        send_others(self, false);
    }

    /// A message arrives, if its connection still stands as the receiver knows it.
    pub(super) fn arrive(&mut self, from: usize, to: usize, epoch: u64, envelope: Arc<Envelope>) -> Result<(), Broken> {
        if epoch != 0 && self.process(to).peers[from] != epoch {
            return Ok(());
        }
        let sender = self.machines[from].id;
        let seen = envelope.hash ^ u64::from(self.machines[from].number) << 40;
        let message = Envelope::open(envelope).map_err(|error| {
            Broken::new("readable", format!("a message of node {} is none: {error}", number_of(sender)))
        })?;
        self.step(to, Input::Message { from: sender, message }, Given::Message, seen)
    }
}
