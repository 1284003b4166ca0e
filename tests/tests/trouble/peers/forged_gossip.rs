//! Gossip as its author likes it: written by hand, with any name, signature and content.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt as _;
use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use libp2p::identity::{Keypair, PublicKey, ed25519};
use libp2p::swarm::Stream;
use libp2p::{PeerId, StreamProtocol};
use libp2p_stream::{AlreadyRegistered, Control};
use lockstep_inference::Inference;
use lockstep_replication::message::Message;
use lockstep_replication::{NodeId, wire};

use super::hostile::Lanes;

const PROTOCOL: StreamProtocol = StreamProtocol::new("/meshsub/1.1.0");
/// What is signed begins with this.
const SIGNED_AS: &[u8] = b"libp2p-pubsub:";
/// The envelope of an urgent message to one node begins with this.
const URGENT_TO_ONE: u8 = 2;

/// Nodes pass over a number that they saw of an author, whoever passed it on.
static SAID: AtomicU64 = AtomicU64::new(1);

/// A stream by which one node is told gossip.
pub(super) struct Gossip {
    out: Stream,
}

/// How the author of a message proves who it is.
pub(super) enum Proof<'a> {
    /// By its own key, as all honest authors do.
    Key(&'a Keypair),
    /// By another's, which comes with the message or not.
    OtherKey(&'a Keypair, bool),
    /// Not at all.
    None,
}

impl Gossip {
    /// Begins to gossip over a connection.
    pub(super) async fn over(lanes: &mut Lanes) -> Gossip {
        let out = lanes.control.open_stream(lanes.peer, PROTOCOL).await.expect("the node gossips");
        Gossip { out }
    }

    /// Passes a message of this author to this node on.
    pub(super) async fn message(&mut self, author: NodeId, proof: Proof<'_>, to: NodeId, message: &Message<Inference>) {
        let envelope = [&[URGENT_TO_ONE][..], &to.0, &wire::encode(message)].concat();
        self.publish(author, proof, wire::topic(message), &envelope).await.expect("the node listens");
    }

    /// Passes these bytes of this author on.
    pub(super) async fn publish(
        &mut self,
        author: NodeId,
        proof: Proof<'_>,
        topic: &str,
        data: &[u8],
    ) -> io::Result<()> {
        let said = SAID.fetch_add(1, Ordering::Relaxed);
        let mut message = Vec::new();
        for (number, bytes) in
            [(1, &peer_of(author).to_bytes()[..]), (2, data), (3, &said.to_be_bytes()), (4, topic.as_bytes())]
        {
            field(&mut message, number, bytes);
        }
        let signed = [SIGNED_AS, &message].concat();
        let (signature, key) = match proof {
            Proof::Key(own) => (Some(own.sign(&signed)), None),
            Proof::OtherKey(other, shown) => (Some(other.sign(&signed)), shown.then(|| other.public())),
            Proof::None => (None, None),
        };
        if let Some(signature) = signature {
            field(&mut message, 5, &signature.expect("ed25519 signs everything"));
        }
        if let Some(key) = key {
            field(&mut message, 6, &key.encode_protobuf());
        }
        let mut call = Vec::new();
        field(&mut call, 2, &message);
        let mut bytes = Vec::new();
        number(&mut bytes, call.len());
        bytes.extend_from_slice(&call);
        self.out.write_all(&bytes).await?;
        self.out.flush().await
    }
}

/// Lets the node say what it likes: it has gossip with those alone who listen to it.
pub(super) fn listen(control: &mut Control) -> Result<(), AlreadyRegistered> {
    let mut incoming = control.accept(PROTOCOL)?;
    tokio::spawn(async move {
        while let Some((_, mut stream)) = incoming.next().await {
            tokio::spawn(async move {
                let mut ignored = [0; 1024];
                while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
            });
        }
    });
    Ok(())
}

/// The node that this keypair belongs to.
pub(super) fn node_of(keypair: &Keypair) -> NodeId {
    NodeId(keypair.public().try_into_ed25519().expect("it was made so").to_bytes())
}

fn peer_of(node: NodeId) -> PeerId {
    PublicKey::from(ed25519::PublicKey::try_from_bytes(&node.0).expect("a node's id is its key")).to_peer_id()
}

/// A field of bytes, as protocol buffers have it.
fn field(out: &mut Vec<u8>, number_of: usize, bytes: &[u8]) {
    number(out, number_of << 3 | 2);
    number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
