//! Whom to dial, where and when: given addresses for ever, learned ones while they are worth it. Knows no sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use lockstep_replication::NodeId;
use lockstep_replication::rng::{Rng, Seed};

use super::addresses::{ADDRESSES_A_NODE, NODES_AT_MOST, without_peer};

/// The first pause after a failure; it doubles with each further one,
const PAUSE_AT_LEAST: Duration = Duration::from_millis(100);
/// up to this.
const PAUSE_AT_MOST: Duration = Duration::from_secs(2);
/// Of two nodes that hear of each other, the one with the larger id leaves the other so much time to dial first.
const COURTESY: Duration = Duration::from_millis(200);
/// A learned node that could not be reached for so long is forgotten: whoever is connected to it will name it again.
const FORGET_AFTER: Duration = Duration::from_secs(600);
/// A connection that ended sooner was none: dialling again at once would spin.
const WORTH_REDIALLING_AFTER: Duration = Duration::from_secs(1);

/// What an attempt was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// The given address of this number.
    Given(usize),
    /// A node that others told of, or that was connected before.
    Node(NodeId),
}

/// Addresses to dial now, in parallel; the first that answers will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) target: Target,
    pub(super) addresses: Vec<Multiaddr>,
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    At(Instant),
    UnderWay,
    /// Connected, or not to be dialled at all.
    Rest,
}

#[derive(Clone, Debug)]
struct Given {
    address: Multiaddr,
    /// Who answered there last.
    node: Option<NodeId>,
    plan: Plan,
    failures: u32,
}

#[derive(Clone, Debug)]
struct Known {
    addresses: Vec<Multiaddr>,
    plan: Plan,
    failures: u32,
    failing_since: Option<Instant>,
}

/// The address book, and the next attempt for each line of it.
#[derive(Debug)]
pub(super) struct Dialer {
    me: NodeId,
    given: Vec<Given>,
    known: BTreeMap<NodeId, Known>,
    connected: BTreeSet<NodeId>,
    refused: BTreeMap<NodeId, Instant>,
    rng: Rng,
}

impl Dialer {
    pub(super) fn new(me: NodeId, given: impl IntoIterator<Item = Multiaddr>, now: Instant) -> Self {
        let rng = Seed(me.0).fork("dialer").rng();
        let (known, connected, refused) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let mut dialer = Dialer { me, given: Vec::new(), known, connected, refused, rng };
        for address in given {
            dialer.give(address, now);
        }
        dialer
    }

    /// An address to be dialled for ever, from now on.
    pub(super) fn give(&mut self, address: Multiaddr, now: Instant) {
        if let Some(given) = self.given.iter_mut().find(|given| given.address == address) {
            let connected = given.node.is_some_and(|node| self.connected.contains(&node));
            if given.plan != Plan::UnderWay && !connected {
                given.plan = Plan::At(now);
            }
        } else if self.given.len() < NODES_AT_MOST {
            self.given.push(Given { address, node: None, plan: Plan::At(now), failures: 0 });
        }
    }

    /// Somebody says that a node can be found there.
    pub(super) fn learn(&mut self, node: NodeId, addresses: Vec<Multiaddr>, now: Instant) {
        if node == self.me || addresses.is_empty() || !self.make_room_for(&node) {
            return;
        }
        let connected = self.connected.contains(&node);
        let wait = if self.me < node { Duration::ZERO } else { COURTESY };
        let plan = if connected { Plan::Rest } else { Plan::At(now + wait) };
        let fresh = Known { addresses: Vec::new(), plan, failures: 0, failing_since: None };
        let known = self.known.entry(node).or_insert(fresh);
        // The newest word comes first; what was known before is kept behind it as far as there is room.
        let before = std::mem::replace(&mut known.addresses, addresses);
        for address in before {
            if !known.addresses.contains(&address) {
                known.addresses.push(address);
            }
        }
        known.addresses.truncate(ADDRESSES_A_NODE);
        if known.plan == Plan::Rest {
            known.plan = plan;
        }
    }

    /// What to dial now. Each attempt is to be answered by one of `failed`, `is_self` and `reached`.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Attempt> {
        self.known.retain(|_, known| known.failing_since.is_none_or(|since| now < since + FORGET_AFTER));
        let mut attempts = Vec::new();
        for (number, given) in self.given.iter_mut().enumerate() {
            let unwanted = given.node.is_some_and(|node| self.refused.contains_key(&node));
            if matches!(given.plan, Plan::At(at) if at <= now) && !unwanted {
                given.plan = Plan::UnderWay;
                attempts.push(Attempt { target: Target::Given(number), addresses: vec![given.address.clone()] });
            }
        }
        for (node, known) in &mut self.known {
            if matches!(known.plan, Plan::At(at) if at <= now) && !self.refused.contains_key(node) {
                // Given addresses are dialled anyway.
                let is_given =
                    |address: &Multiaddr| self.given.iter().any(|given| without_peer(&given.address) == *address);
                let addresses: Vec<_> = known.addresses.iter().filter(|address| !is_given(address)).cloned().collect();
                if addresses.is_empty() {
                    known.plan = Plan::Rest;
                } else {
                    known.plan = Plan::UnderWay;
                    attempts.push(Attempt { target: Target::Node(*node), addresses });
                }
            }
        }
        attempts
    }

    /// The attempt came to nothing. No matter if the node got connected otherwise meanwhile.
    pub(super) fn failed(&mut self, target: Target, now: Instant) {
        let pause = |failures: u32, rng: &mut Rng| {
            let full = (PAUSE_AT_LEAST * 2u32.saturating_pow(failures.min(10))).min(PAUSE_AT_MOST);
            full / 2 + Duration::from_micros(rng.below(full.as_micros() as u64 / 2 + 1))
        };
        match target {
            Target::Given(number) => {
                if let Some(given) = self.given.get_mut(number) {
                    if given.node.is_some_and(|node| self.connected.contains(&node)) {
                        given.plan = Plan::Rest;
                        return;
                    }
                    given.plan = Plan::At(now + pause(given.failures, &mut self.rng));
                    given.failures = given.failures.saturating_add(1);
                }
            }
            Target::Node(node) => {
                if let Some(known) = self.known.get_mut(&node) {
                    if self.connected.contains(&node) {
                        known.plan = Plan::Rest;
                        return;
                    }
                    known.plan = Plan::At(now + pause(known.failures, &mut self.rng));
                    known.failures = known.failures.saturating_add(1);
                    known.failing_since.get_or_insert(now);
                }
            }
        }
    }

    /// The attempt found this node itself: never dial that again.
    pub(super) fn is_self(&mut self, target: Target) {
        match target {
            Target::Given(number) => {
                if let Some(given) = self.given.get_mut(number) {
                    given.plan = Plan::Rest;
                }
            }
            Target::Node(node) => {
                self.known.remove(&node);
            }
        }
    }

    /// Another node answers at this address: it is not this one's.
    pub(super) fn is_not_at(&mut self, node: NodeId, address: &Multiaddr) {
        let address = without_peer(address);
        if let Some(known) = self.known.get_mut(&node) {
            known.addresses.retain(|other| *other != address);
        }
    }

    /// The attempt found this node. It counts as failed unless [`Self::connected`] follows before it ends.
    pub(super) fn reached(&mut self, target: Target, node: NodeId) {
        if let Target::Given(number) = target
            && let Some(given) = self.given.get_mut(number)
        {
            given.node = Some(node);
        }
    }

    /// The node is connected and usable.
    pub(super) fn connected(&mut self, node: NodeId) {
        self.connected.insert(node);
        for given in self.given.iter_mut().filter(|given| given.node == Some(node)) {
            (given.plan, given.failures) = (Plan::Rest, 0);
        }
        if let Some(known) = self.known.get_mut(&node) {
            (known.plan, known.failures, known.failing_since) = (Plan::Rest, 0, None);
        }
    }

    /// The node is no longer connected, after it had been for so long.
    pub(super) fn disconnected(&mut self, node: NodeId, lasted: Duration, now: Instant) {
        self.connected.remove(&node);
        let worthwhile = lasted >= WORTH_REDIALLING_AFTER;
        let numbers: Vec<_> = (0..self.given.len()).filter(|n| self.given[*n].node == Some(node)).collect();
        for number in numbers {
            if worthwhile {
                self.given[number].plan = Plan::At(now);
            } else {
                self.failed(Target::Given(number), now);
            }
        }
        if worthwhile && let Some(known) = self.known.get_mut(&node) {
            let wait = if self.me < node { Duration::ZERO } else { COURTESY };
            (known.plan, known.failing_since) = (Plan::At(now + wait), Some(now));
        } else {
            self.failed(Target::Node(node), now);
        }
    }

    /// This node is not to be dialled until then.
    pub(super) fn refuse(&mut self, node: NodeId, until: Instant) {
        if self.refused.len() < NODES_AT_MOST || self.refused.contains_key(&node) {
            self.refused.insert(node, until);
        }
    }

    /// The nodes whose time of refusal is over. They may be dialled again.
    pub(super) fn pardoned(&mut self, now: Instant) -> Vec<NodeId> {
        self.refused.extract_if(.., |_, until| *until <= now).map(|(node, _)| node).collect()
    }

    /// Whether there is room for this node in the book, if need be by forgetting the one that has failed the longest.
    fn make_room_for(&mut self, node: &NodeId) -> bool {
        if self.known.len() < NODES_AT_MOST || self.known.contains_key(node) {
            return true;
        }
        let failing = self.known.iter().filter_map(|(node, known)| Some((known.failing_since?, *node))).min();
        failing.is_some_and(|(_, oldest)| self.known.remove(&oldest).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId::example(5);
    const SMALLER: NodeId = NodeId::example(1);
    const LARGER: NodeId = NodeId::example(9);

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/tcp/{port}").parse().expect("it is an address")
    }

    fn dialled(dialer: &mut Dialer, now: Instant) -> Vec<Target> {
        dialer.due(now).into_iter().map(|attempt| attempt.target).collect()
    }

    /// When the next attempt is due, in milliseconds after `from`.
    fn next_after(dialer: &mut Dialer, from: Instant) -> u64 {
        (0..5000).find(|ms| !dialer.due(from + Duration::from_millis(*ms)).is_empty()).expect("it tries for ever")
    }

    #[test]
    fn given_addresses_are_dialled_at_once_and_in_parallel_and_once() {
        let now = Instant::now();
        let mut dialer = Dialer::new(ME, [address(1), address(2), address(1)], now);
        assert_eq!(dialled(&mut dialer, now), [Target::Given(0), Target::Given(1)]);
        assert_eq!(dialled(&mut dialer, now), []);
    }

    #[test]
    fn pauses_double_from_a_tenth_of_a_second_to_two_and_stay_there() {
        let mut now = Instant::now();
        let mut dialer = Dialer::new(ME, [address(1)], now);
        assert_eq!(dialled(&mut dialer, now).len(), 1);
        for full in [100, 200, 400, 800, 1600, 2000, 2000, 2000] {
            dialer.failed(Target::Given(0), now);
            let pause = next_after(&mut dialer, now);
            assert!((full / 2..=full + 1).contains(&pause), "{pause} ms, of at most {full}");
            now += Duration::from_millis(pause);
        }
    }

    #[test]
    fn a_learned_node_is_dialled_at_once_by_the_smaller_id_and_a_little_later_by_the_larger() {
        let now = Instant::now();
        let mut dialer = Dialer::new(ME, [], now);
        dialer.learn(LARGER, vec![address(1)], now);
        dialer.learn(SMALLER, vec![address(2)], now);
        assert_eq!(dialled(&mut dialer, now), [Target::Node(LARGER)]);
        assert_eq!(dialled(&mut dialer, now + COURTESY), [Target::Node(SMALLER)]);
    }

    #[test]
    fn who_got_connected_meanwhile_is_not_dialled() {
        let now = Instant::now();
        let mut dialer = Dialer::new(ME, [], now);
        dialer.learn(SMALLER, vec![address(2)], now);
        dialer.connected(SMALLER);
        assert_eq!(dialled(&mut dialer, now + COURTESY), []);
        dialer.failed(Target::Node(SMALLER), now);
        assert_eq!(dialled(&mut dialer, now + PAUSE_AT_MOST), []);
    }

    #[test]
    fn a_lost_node_is_redialled_at_once_unless_it_had_only_just_been_connected() {
        let now = Instant::now();
        let mut dialer = Dialer::new(ME, [address(1)], now);
        dialled(&mut dialer, now);
        dialer.reached(Target::Given(0), LARGER);
        dialer.connected(LARGER);
        dialer.disconnected(LARGER, Duration::from_secs(60), now);
        assert_eq!(next_after(&mut dialer, now), 0);
        dialer.connected(LARGER);
        dialer.disconnected(LARGER, Duration::from_millis(5), now);
        assert!(next_after(&mut dialer, now) >= 50, "this would spin");
    }

    #[test]
    fn a_learned_node_is_forgotten_after_ten_minutes_of_failures_and_a_given_address_never() {
        let start = Instant::now();
        let mut dialer = Dialer::new(ME, [address(1)], start);
        dialer.learn(LARGER, vec![address(2)], start);
        dialled(&mut dialer, start);
        dialer.failed(Target::Given(0), start);
        dialer.failed(Target::Node(LARGER), start);
        assert_eq!(dialled(&mut dialer, start + FORGET_AFTER), [Target::Given(0)]);
        assert!(dialer.known.is_empty());
    }

    #[test]
    fn a_refused_node_is_left_alone_for_the_time_and_then_dialled_again() {
        let now = Instant::now();
        let mut dialer = Dialer::new(ME, [], now);
        dialer.learn(LARGER, vec![address(1)], now);
        dialer.refuse(LARGER, now + Duration::from_secs(3));
        let later = now + Duration::from_secs(3);
        assert_eq!(dialer.pardoned(later - Duration::from_millis(1)), []);
        assert_eq!(dialled(&mut dialer, later), []);
        assert_eq!(dialer.pardoned(later), [LARGER]);
        assert_eq!(dialled(&mut dialer, later), [Target::Node(LARGER)]);
    }

    #[test]
    fn an_own_address_is_never_dialled_again() {
        let now = Instant::now();
        let mut dialer = Dialer::new(ME, [address(1)], now);
        dialled(&mut dialer, now);
        dialer.is_self(Target::Given(0));
        assert_eq!(dialled(&mut dialer, now + FORGET_AFTER), []);
    }

    #[test]
    fn the_book_is_bounded_and_makes_room_for_a_new_node_by_forgetting_a_failing_one() {
        let now = Instant::now();
        let mut dialer = Dialer::new(ME, [], now);
        let node = |n: u16| {
            let mut node = NodeId::example(7);
            node.0[1..3].copy_from_slice(&n.to_be_bytes());
            node
        };
        for n in 0..NODES_AT_MOST as u16 + 3 {
            dialer.learn(node(n), vec![address(n)], now);
        }
        assert_eq!(dialer.known.len(), NODES_AT_MOST);
        assert!(!dialer.known.contains_key(&node(NODES_AT_MOST as u16)));
        dialer.failed(Target::Node(node(17)), now);
        dialer.learn(node(NODES_AT_MOST as u16), vec![address(1)], now);
        assert_eq!(dialer.known.len(), NODES_AT_MOST);
        assert!(dialer.known.contains_key(&node(NODES_AT_MOST as u16)) && !dialer.known.contains_key(&node(17)));
    }
}
