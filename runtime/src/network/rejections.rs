//! Whom the operator is told about, and how often: the same address at most once a minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// An address is named again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Addresses that are remembered. When there are more, new ones are not named until old ones are forgotten.
const ADDRESSES_AT_MOST: usize = 256;

/// When which address was last named.
#[derive(Debug, Default)]
pub(super) struct Rejections {
    named: BTreeMap<Multiaddr, Instant>,
}

impl Rejections {
    /// Whether to name this address now. One that came in is told by its IP address: its port is new each time.
    pub(super) fn is_news(&mut self, address: &Multiaddr, came_in: bool, now: Instant) -> bool {
        self.named.retain(|_, at| now < *at + AGAIN_AFTER);
        let key: Multiaddr = if came_in {
            address.iter().filter(|part| !matches!(part, Protocol::Tcp(_))).collect()
        } else {
            address.clone()
        };
        if self.named.contains_key(&key) || self.named.len() >= ADDRESSES_AT_MOST {
            return false;
        }
        self.named.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_named_once_a_minute_and_whoever_comes_in_by_ip_address() {
        let now = Instant::now();
        let address = |port: u16| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{port}").parse().expect("an address") };
        let mut rejections = Rejections::default();
        assert!(rejections.is_news(&address(1), false, now));
        assert!(!rejections.is_news(&address(1), false, now));
        assert!(rejections.is_news(&address(2), false, now));
        assert!(rejections.is_news(&address(3), true, now));
        assert!(!rejections.is_news(&address(4), true, now));
        assert!(rejections.is_news(&address(1), false, now + AGAIN_AFTER));
    }

    #[test]
    fn strangers_without_number_are_not_remembered_without_number() {
        let now = Instant::now();
        let mut rejections = Rejections::default();
        let address = |n: u16| -> Multiaddr { format!("/ip4/10.0.0.1/tcp/{n}").parse().expect("an address") };
        let named = (0..1000).filter(|n| rejections.is_news(&address(*n), false, now)).count();
        assert_eq!((named, rejections.named.len()), (ADDRESSES_AT_MOST, ADDRESSES_AT_MOST));
    }
}
