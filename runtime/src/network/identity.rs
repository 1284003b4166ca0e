//! A node's identity in the two forms it takes: the core's `NodeId` and libp2p's `PeerId`.

use libp2p::PeerId;
use libp2p::identity::{KeyType, Keypair, PublicKey, ed25519};
use lockstep_replication::NodeId;

/// What precedes the 32 key bytes in the peer id of an ed25519 key: an identity multihash (code 0) of 36 bytes, that
/// holds a protobuf with the key's type (field 1: ed25519 is 1) and the key itself (field 2: 32 bytes).
const PREFIX: [u8; 6] = [0x00, 36, 0x08, 0x01, 0x12, 32];

/// The node that this keypair belongs to; none if it is not an ed25519 keypair.
pub fn node_of_keypair(keypair: &Keypair) -> Option<NodeId> {
    match keypair.key_type() {
        KeyType::Ed25519 => node_of_peer(&keypair.public().to_peer_id()),
        KeyType::RSA | KeyType::Secp256k1 | KeyType::Ecdsa => None,
    }
}

/// The node behind a peer id; none if its key is not an ed25519 key.
pub fn node_of_peer(peer: &PeerId) -> Option<NodeId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&PREFIX)?;
    key.try_into().ok().map(NodeId)
}

/// The peer id of a node; none if the node's id is not a valid public key, so that no such node can exist.
pub fn peer_of_node(node: &NodeId) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_is_the_public_key_and_survives_the_way_to_a_peer_id_and_back() {
        let keypair = Keypair::generate_ed25519();
        let node = node_of_keypair(&keypair).expect("it is an ed25519 key");
        let public = keypair.public().try_into_ed25519().expect("it is an ed25519 key");
        assert_eq!(node.0, public.to_bytes());
        assert_eq!(peer_of_node(&node), Some(keypair.public().to_peer_id()));
    }

    #[test]
    fn a_peer_id_that_holds_no_ed25519_key_names_no_node() {
        assert_eq!(node_of_peer(&PeerId::random()), None);
    }

    #[test]
    fn bytes_that_are_no_point_of_the_curve_name_no_peer() {
        let mut bytes = [0; 32];
        bytes[0] = 2;
        assert_eq!(peer_of_node(&NodeId(bytes)), None);
    }
}
