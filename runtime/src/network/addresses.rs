//! Which addresses nodes tell each other, and how: so that one given address is enough to find a whole cluster.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use lockstep_replication::NodeId;

/// Nodes that one frame may speak of, and nodes that are remembered.
pub(super) const NODES_AT_MOST: usize = 1024;
/// Addresses of one node that are passed on or remembered.
pub(super) const ADDRESSES_A_NODE: usize = 4;

/// Nodes, the sender perhaps among them, and where they listen.
pub(super) type Introductions = BTreeMap<NodeId, Vec<Multiaddr>>;

/// The IP address and port of a TCP address, with or without a peer id behind it; none if it is anything else.
pub(super) fn ip_and_port(address: &Multiaddr) -> Option<(IpAddr, u16)> {
    let mut parts = address.iter();
    let first = parts.next()?;
    let ip = if let Protocol::Ip4(ip) = first {
        IpAddr::V4(ip)
    } else if let Protocol::Ip6(ip) = first {
        IpAddr::V6(ip)
    } else {
        return None;
    };
    let Some(Protocol::Tcp(port)) = parts.next() else { return None };
    let nothing_else = matches!((parts.next(), parts.next()), (None | Some(Protocol::P2p(_)), None));
    nothing_else.then_some((ip, port))
}

/// Whether this network can listen on or dial it: `/ip4/…/tcp/…` or `/ip6/…/tcp/…`, perhaps with `/p2p/…`.
pub(super) fn is_supported(address: &Multiaddr) -> bool {
    ip_and_port(address).is_some()
}

/// Whether it leads back to the same machine.
pub(super) fn is_loopback(address: &Multiaddr) -> bool {
    ip_and_port(address).is_some_and(|(ip, _)| ip.is_loopback())
}

/// The address without the peer id behind it.
pub(super) fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

/// Those of these addresses that a node can use which is connected over loopback, or is not: loopback addresses mean
/// another machine there. At most [`ADDRESSES_A_NODE`], each once, and only ones that can be dialled.
pub(super) fn usable<'a>(addresses: impl IntoIterator<Item = &'a Multiaddr>, over_loopback: bool) -> Vec<Multiaddr> {
    let mut usable = Vec::new();
    for address in addresses {
        let Some((ip, port)) = ip_and_port(address) else { continue };
        let address = without_peer(address);
        if port != 0 && !ip.is_unspecified() && (over_loopback || !ip.is_loopback()) && !usable.contains(&address) {
            usable.push(address);
        }
        if usable.len() == ADDRESSES_A_NODE {
            break;
        }
    }
    usable
}

/// The content of an addresses frame.
pub(super) fn encode(introductions: &Introductions) -> Bytes {
    let list: Vec<(NodeId, Vec<&[u8]>)> = introductions
        .iter()
        .take(NODES_AT_MOST)
        .map(|(node, addresses)| (*node, addresses.iter().take(ADDRESSES_A_NODE).map(Multiaddr::as_ref).collect()))
        .collect();
    postcard::to_stdvec(&list).expect("a list of bytes serialises into memory").into()
}

/// Reads an addresses frame. None if it is none, or exceeds a limit; addresses of other kinds are passed over.
pub(super) fn decode(bytes: &[u8]) -> Option<Introductions> {
    let (list, rest) = postcard::take_from_bytes::<Vec<(NodeId, Vec<&[u8]>)>>(bytes).ok()?;
    if !rest.is_empty() || list.len() > NODES_AT_MOST || list.iter().any(|(_, all)| all.len() > ADDRESSES_A_NODE) {
        return None;
    }
    let read = |bytes: &[u8]| Multiaddr::try_from(bytes.to_vec()).ok().filter(is_supported);
    Some(list.into_iter().map(|(node, all)| (node, all.into_iter().filter_map(read).collect())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().expect("it is an address")
    }

    #[test]
    fn addresses_survive_their_encoding() {
        let introductions = Introductions::from([
            (NodeId::example(1), vec![address("/ip4/10.0.0.1/tcp/7000"), address("/ip6/::1/tcp/7001")]),
            (NodeId::example(2), vec![]),
        ]);
        assert_eq!(decode(&encode(&introductions)), Some(introductions));
    }

    #[test]
    fn too_many_nodes_too_many_addresses_and_trailing_bytes_are_refused() {
        let one = address("/ip4/10.0.0.1/tcp/7000");
        let addresses: Vec<&[u8]> = vec![one.as_ref(); ADDRESSES_A_NODE + 1];
        let many = postcard::to_stdvec(&vec![(NodeId::example(1), addresses)]).expect("it serialises");
        assert_eq!(decode(&many), None);
        let nodes = vec![(NodeId::example(1), Vec::<&[u8]>::new()); NODES_AT_MOST + 1];
        assert_eq!(decode(&postcard::to_stdvec(&nodes).expect("it serialises")), None);
        let mut trailing = encode(&Introductions::new()).to_vec();
        trailing.push(0);
        assert_eq!(decode(&trailing), None);
    }

    #[test]
    fn a_full_frame_fits_into_a_message() {
        let widest = address("/ip6/2001:db8:1111:2222:3333:4444:5555:6666/tcp/65535");
        let node = |n: usize| {
            let mut node = NodeId::example(0);
            node.0[..2].copy_from_slice(&(n as u16).to_be_bytes());
            node
        };
        let all = (0..NODES_AT_MOST).map(|n| (node(n), vec![widest.clone(); ADDRESSES_A_NODE])).collect();
        assert!(encode(&all).len() < lockstep_replication::wire::MESSAGE_BYTES_AT_MOST / 4);
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn loopback_addresses_are_for_nodes_on_the_same_machine_only() {
        let all = [address("/ip4/127.0.0.1/tcp/7000"), address("/ip4/10.0.0.1/tcp/7000"), address("/ip6/::1/tcp/7000")];
        assert_eq!(usable(&all, false), all[1..2]);
        assert_eq!(usable(&all, true), all);
    }

    #[test]
    fn what_cannot_be_dialled_is_not_passed_on() {
        let all = ["/ip4/0.0.0.0/tcp/7000", "/ip4/10.0.0.1/tcp/0", "/ip4/10.0.0.1/udp/7000", "/dns4/example/tcp/7000"];
        assert_eq!(usable(&all.map(address), true), []);
    }

    #[test]
    fn an_address_counts_once_with_or_without_its_peer() {
        let peer = libp2p::PeerId::random();
        let plain = address("/ip4/10.0.0.1/tcp/7000");
        let named = address(&format!("/ip4/10.0.0.1/tcp/7000/p2p/{peer}"));
        assert_eq!(usable([&named, &plain], false), [plain]);
    }
}
