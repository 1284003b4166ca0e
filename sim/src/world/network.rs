//! The network: connections that come and break, gossip for those without one, and what goes wrong on the way.
//!
//! Machines are named by their places; each directed link keeps its own counts, so that its draws depend on nothing else.

use lockstep_replication::wire::GOSSIP_BYTES_AT_MOST;

use crate::dice::{Dice, Roll, Site};
use crate::plan::{MILLIS, Sent, Weather};

/// When the copies of a message arrive: none, one or two of them.
pub type Trips = [Option<u64>; 2];

/// All links of the world.
#[derive(Clone, Debug)]
pub struct Network {
    /// What it is like now.
    pub weather: Weather,
    dice: Dice,
    /// The machines' numbers.
    numbers: Vec<u16>,
    /// By sender, then receiver.
    links: Vec<Link>,
    /// Counts connections.
    epochs: u64,
    /// How many connections each message of gossip crosses from each machine, as far as that was asked for since
    /// connections changed; 0: it does not get there.
    hops: Vec<Option<Box<[u16]>>>,
    /// Losses on connections, where somebody wants to know them.
    pub lost: Vec<Sent>,
    /// What was sent, lost and dropped.
    pub counts: Counts,
}

/// What the network did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed over, one for each receiver.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages that never arrive.
    pub lost: u64,
    /// Those of them that a full queue dropped.
    pub dropped: u64,
}

/// One direction between two machines.
#[derive(Clone, Debug, Default)]
struct Link {
    /// The connection that stands; 0: none.
    epoch: u64,
    /// How many faults block it now.
    blocked: u32,
    /// Messages sent on it so far.
    sent: u64,
    /// News of the connection sent on it so far.
    news: u64,
    urgent: Lane,
    bulk: Lane,
}

/// What does not wait for each other.
#[derive(Clone, Debug, Default)]
struct Lane {
    /// When it has sent all that waits.
    free_at: u64,
    /// When the last message arrives.
    arrives: u64,
}

/// One message, as the network sees it.
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    /// Its size.
    pub bytes: usize,
    /// Whether it waits behind entries and chunks.
    pub is_bulk: bool,
}

impl Network {
    /// A network between machines of these numbers, without a connection.
    pub fn new(numbers: Vec<u16>, weather: Weather, dice: Dice) -> Network {
        let machines = numbers.len();
        let links = vec![Link::default(); machines * machines];
        let (lost, counts) = Default::default();
        Network { weather, dice, numbers, links, epochs: 0, hops: vec![None; machines], lost, counts }
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        let at = from * self.numbers.len() + to;
        &mut self.links[at]
    }

    /// The directed link's name in draws.
    fn entity(&self, from: usize, to: usize) -> u64 {
        u64::from(self.numbers[from]) << 16 | u64::from(self.numbers[to])
    }

    /// The connection between two machines that stands; 0 if none does.
    pub fn epoch(&self, a: usize, b: usize) -> u64 {
        self.links[a * self.numbers.len() + b].epoch
    }

    /// A connection is made. Returns its number.
    pub fn connect(&mut self, a: usize, b: usize) -> u64 {
        self.epochs += 1;
        let epoch = self.epochs;
        self.set(a, b, epoch);
        epoch
    }

    /// A connection breaks; what is under way on it is lost. Returns its number, if one stood.
    pub fn cut(&mut self, a: usize, b: usize) -> Option<u64> {
        let epoch = self.epoch(a, b);
        self.set(a, b, 0);
        (epoch != 0).then_some(epoch)
    }

    fn set(&mut self, a: usize, b: usize, epoch: u64) {
        self.link(a, b).epoch = epoch;
        self.link(b, a).epoch = epoch;
        self.hops.fill(None);
    }

    /// One more fault blocks this direction.
    pub fn block(&mut self, from: usize, to: usize) {
        self.link(from, to).blocked += 1;
        self.hops.fill(None);
    }

    /// One fault less.
    pub fn unblock(&mut self, from: usize, to: usize) {
        let link = self.link(from, to);
        link.blocked = link.blocked.saturating_sub(1);
        self.hops.fill(None);
    }

    /// Nothing is blocked, lost, doubled or reordered any more.
    pub fn heal(&mut self) {
        self.links.iter_mut().for_each(|link| link.blocked = 0);
        self.hops.fill(None);
        self.weather =
            Weather { loss: 0, gossip_loss: 0, duplicates: 0, slow: 0, reorders: false, ..self.weather.clone() };
    }

    /// Whether a fault blocks this direction.
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.links[from * self.numbers.len() + to].blocked > 0
    }

    /// When the news of a connection arrives: after all that was sent before it.
    pub fn news(&mut self, now: u64, from: usize, to: usize) -> u64 {
        let entity = self.entity(from, to);
        let (dice, delay, jitter) = (self.dice, self.weather.delay.0, self.weather.jitter.0);
        let link = self.link(from, to);
        link.news += 1;
        let on_the_way = dice.roll(Site::Connection, entity, link.news).between(delay, delay + jitter);
        let at = (now + on_the_way).max(link.urgent.arrives + 1).max(link.bulk.arrives + 1);
        (link.urgent.arrives, link.bulk.arrives) = (at, at);
        at
    }

    /// Carries one message: by the connection that the sender believes in, else (0) by gossip. `may_be_lost` says
    /// whether the weather may lose the message of this number.
    pub fn carry(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        believes: u64,
        parcel: Parcel,
        may_be_lost: impl FnOnce(Sent) -> bool,
    ) -> Trips {
        let (entity, dice) = (self.entity(from, to), self.dice);
        let n = {
            let link = self.link(from, to);
            link.sent += 1;
            link.sent
        };
        self.counts.messages += 1;
        self.counts.bytes += parcel.bytes as u64;
        let trips = if believes == 0 {
            let roll = dice.roll(Site::Gossip, entity, n);
            self.by_gossip(now, (from, to), parcel, roll)
        } else {
            let mut roll = dice.roll(Site::Message, entity, n);
            let lost = roll.chance(self.weather.loss, 1000) && {
                let sent = Sent { from: self.numbers[from], to: self.numbers[to], n };
                let lost = may_be_lost(sent);
                if lost {
                    self.lost.push(sent);
                }
                lost
            };
            if lost { [None; 2] } else { self.by_connection(now, (from, to), believes, parcel, roll) }
        };
        self.counts.lost += u64::from(trips == [None; 2]);
        trips
    }

    fn by_connection(
        &mut self,
        now: u64,
        (from, to): (usize, usize),
        epoch: u64,
        parcel: Parcel,
        mut roll: Roll,
    ) -> Trips {
        let on_the_way = on_the_way(&self.weather, &mut roll);
        let takes = parcel.bytes as u64 * MILLIS / self.weather.bytes_per_milli.max(1);
        let waits_at_most = self.weather.queue_bytes * MILLIS / self.weather.bytes_per_milli.max(1);
        let (reorders, duplicates) = (self.weather.reorders, self.weather.duplicates);
        let again = (reorders && roll.chance(duplicates, 1000)).then(|| on_the_way / 2 + roll.below(on_the_way + 1));
        let link = self.link(from, to);
        if link.epoch != epoch || link.blocked > 0 {
            return [None; 2];
        }
        let lane = if parcel.is_bulk { &mut link.bulk } else { &mut link.urgent };
        if lane.free_at > now + waits_at_most {
            self.counts.dropped += 1;
            return [None; 2];
        }
        lane.free_at = lane.free_at.max(now) + takes;
        let mut at = lane.free_at + on_the_way;
        if !reorders {
            at = at.max(lane.arrives + 1);
        }
        lane.arrives = at.max(lane.arrives);
        [Some(at), again.map(|later| at + later)]
    }

    fn by_gossip(&mut self, now: u64, (from, to): (usize, usize), parcel: Parcel, mut roll: Roll) -> Trips {
        let hops = self.hops(from, to);
        if hops == 0 || parcel.bytes > GOSSIP_BYTES_AT_MOST {
            return [None; 2];
        }
        let takes = parcel.bytes as u64 * MILLIS / self.weather.bytes_per_milli.max(1);
        let twice = roll.chance(self.weather.duplicates, 1000);
        let mut trip = || {
            let mut at = now;
            let mut lost = false;
            for _ in 0..hops {
                at += on_the_way(&self.weather, &mut roll) + takes;
                lost |= roll.chance(self.weather.gossip_loss, 1000);
            }
            (!lost).then_some(at)
        };
        [trip(), if twice { trip() } else { None }]
    }

    /// How many connections a gossiped message crosses; 0 if it cannot get there.
    fn hops(&mut self, from: usize, to: usize) -> u16 {
        if self.hops[from].is_none() {
            self.hops[from] = Some(self.hops_from(from));
        }
        self.hops[from].as_ref().map_or(0, |hops| hops[to])
    }

    fn hops_from(&self, from: usize) -> Box<[u16]> {
        let machines = self.numbers.len();
        let mut hops = vec![0; machines].into_boxed_slice();
        let mut edge = vec![from];
        for distance in 1.. {
            let mut further = Vec::new();
            for here in edge {
                for there in (0..machines).filter(|there| *there != from) {
                    let link = &self.links[here * machines + there];
                    if hops[there] == 0 && link.epoch != 0 && link.blocked == 0 {
                        hops[there] = distance;
                        further.push(there);
                    }
                }
            }
            if further.is_empty() {
                break;
            }
            edge = further;
        }
        hops
    }
}

fn on_the_way(weather: &Weather, roll: &mut Roll) -> u64 {
    let time = roll.between(weather.delay.0, weather.delay.0 + weather.jitter.0);
    if roll.chance(weather.slow, 1000) { time * 10 } else { time }
}

#[cfg(test)]
mod tests {
    use lockstep_replication::Span;

    use super::*;

    fn network(weather: Weather) -> Network {
        Network::new(vec![1, 2, 3], weather, Dice::new(1))
    }

    const SMALL: Parcel = Parcel { bytes: 100, is_bulk: false };

    #[test]
    fn bulk_takes_its_time_and_nothing_urgent_waits_for_it() {
        let mut network = network(Weather { jitter: Span::ZERO, bytes_per_milli: 1_000, ..Weather::default() });
        let epoch = network.connect(0, 1);
        let bulk = Parcel { bytes: 5_000_000, is_bulk: true };
        let [large, _] = network.carry(0, (0, 1), epoch, bulk, |_| true);
        let [small, _] = network.carry(0, (0, 1), epoch, SMALL, |_| true);
        let delay = network.weather.delay.0;
        assert_eq!(large, Some(5_000 * MILLIS + delay));
        assert_eq!(small, Some(MILLIS / 10 + delay));
    }

    #[test]
    fn a_full_queue_drops() {
        let mut network = network(Weather { bytes_per_milli: 1, queue_bytes: 1_000, ..Weather::default() });
        let epoch = network.connect(0, 1);
        let arrived = (0..100).filter(|_| network.carry(0, (0, 1), epoch, SMALL, |_| true)[0].is_some()).count();
        assert_eq!((arrived, network.counts.dropped), (11, 89));
    }

    #[test]
    fn gossip_crosses_a_third_node_and_no_block() {
        let mut network = network(Weather { jitter: Span::ZERO, ..Weather::default() });
        network.connect(0, 1);
        network.connect(1, 2);
        let trip = |network: &mut Network| network.carry(0, (0, 2), 0, Parcel { bytes: 0, is_bulk: false }, |_| true);
        assert_eq!(trip(&mut network), [Some(2 * network.weather.delay.0), None]);
        network.block(1, 2);
        assert_eq!(trip(&mut network), [None; 2]);
    }

    #[test]
    fn a_loss_that_does_not_count_changes_no_other_draw() {
        let rainy = || network(Weather { loss: 300, ..Weather::default() });
        let (mut all, mut none) = (rainy(), rainy());
        let epoch = all.connect(0, 1);
        none.connect(0, 1);
        for now in (0..100).map(|n| n * 1_000 * MILLIS) {
            let arrives = all.carry(now, (0, 1), epoch, SMALL, |_| true)[0];
            let spared = none.carry(now, (0, 1), epoch, SMALL, |_| false)[0];
            assert!(arrives.is_none() || arrives == spared);
        }
        assert!(all.counts.lost > 10 && none.counts.lost == 0);
    }
}
