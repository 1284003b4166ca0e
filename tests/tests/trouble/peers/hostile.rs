//! A peer that holds the cluster's key and says what it likes: real connections, but none of the node's own code.

use std::io;
use std::time::Duration;

use futures::io::{AsyncReadExt as _, AsyncWriteExt as _};
use futures::{AsyncRead, AsyncWrite, StreamExt as _};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PnetOutput, PreSharedKey};
use libp2p::swarm::dial_opts::DialOpts;
use libp2p::swarm::{Stream, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Transport as _, noise, tcp, yamux};
use libp2p_stream::Control;
use lockstep_inference::Inference;
use lockstep_replication::message::{Message, Standing};
use lockstep_replication::wire;
use tokio::task::JoinHandle;

use super::forged_gossip;

/// Holders of one cluster key greet each other with this under it.
const GREETING: [u8; 16] = *b"lockstep cluster";
const URGENT: StreamProtocol = StreamProtocol::new("/lockstep/urgent/1");
const BULK: StreamProtocol = StreamProtocol::new("/lockstep/bulk/1");
/// A frame with a message for the node.
const MESSAGE: u8 = 0;
/// How long a node may take to answer the peer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long a node that was sent garbage leaves the peer alone, and room.
const FORGIVES_WITHIN: Duration = Duration::from_secs(8);

/// An identity that may connect.
pub(super) struct Hostile {
    key: [u8; 32],
    keypair: Keypair,
}

/// One connection to one node, with both lanes open.
pub(super) struct Lanes {
    urgent: Stream,
    /// Held open: a node closes a connection without both lanes.
    _bulk: Stream,
    /// The node, and the way to open more streams to it.
    pub(super) peer: PeerId,
    pub(super) control: Control,
    swarm: JoinHandle<()>,
}

impl Hostile {
    /// A new identity with this cluster key.
    pub(super) fn new(key: [u8; 32]) -> Hostile {
        Hostile { key, keypair: Keypair::generate_ed25519() }
    }

    /// Connects to a node: again and again while that has not forgiven it.
    pub(super) async fn connect(&self, address: &Multiaddr) -> Lanes {
        let retried = async {
            loop {
                match self.try_connect(address).await {
                    Ok(lanes) => return lanes,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        };
        tokio::time::timeout(FORGIVES_WITHIN, retried).await.expect("the node lets a holder of the key connect")
    }

    async fn try_connect(&self, address: &Multiaddr) -> io::Result<Lanes> {
        let (mut swarm, mut control) = self.swarm()?;
        forged_gossip::listen(&mut control).map_err(io::Error::other)?;
        swarm.dial(DialOpts::unknown_peer_id().address(address.clone()).build()).map_err(io::Error::other)?;
        let peer = loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::ConnectionEstablished { peer_id, .. } = event {
                break peer_id;
            }
            if let SwarmEvent::OutgoingConnectionError { error, .. } = event {
                return Err(io::Error::other(error));
            }
        };
        let swarm = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        let lanes = async {
            let mut open = async |protocol| control.open_stream(peer, protocol).await.map_err(io::Error::other);
            let (urgent, bulk) = (open(URGENT).await?, open(BULK).await?);
            io::Result::Ok((urgent, bulk))
        };
        match lanes.await {
            Ok((urgent, bulk)) => Ok(Lanes { urgent, _bulk: bulk, peer, control, swarm }),
            Err(error) => {
                swarm.abort();
                Err(error)
            }
        }
    }

    fn swarm(&self) -> io::Result<(Swarm<libp2p_stream::Behaviour>, Control)> {
        let key = PreSharedKey::new(self.key);
        let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
            .and_then(move |socket, _| greet(socket, key))
            .upgrade(Version::V1)
            .authenticate(noise::Config::new(&self.keypair).map_err(io::Error::other)?)
            .multiplex(yamux::Config::default())
            .map(|(peer, streams), _| (peer, StreamMuxerBox::new(streams)))
            .boxed();
        let behaviour = libp2p_stream::Behaviour::new();
        let control = behaviour.new_control();
        let config = libp2p::swarm::Config::with_tokio_executor();
        Ok((Swarm::new(transport, behaviour, PeerId::from(self.keypair.public()), config), control))
    }
}

async fn greet<S>(socket: S, key: PreSharedKey) -> io::Result<PnetOutput<S>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut socket = PnetConfig::new(key).handshake(socket).await.map_err(io::Error::other)?;
    socket.write_all(&GREETING).await?;
    socket.flush().await?;
    let mut heard = [0; GREETING.len()];
    socket.read_exact(&mut heard).await?;
    Ok(socket)
}

impl Lanes {
    /// Says a message.
    pub(super) async fn say(&mut self, message: &Message<Inference>) {
        self.payload(&wire::encode(message)).await;
    }

    /// Sends a whole frame with this payload.
    pub(super) async fn payload(&mut self, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_le_bytes().to_vec();
        frame.push(MESSAGE);
        frame.extend_from_slice(payload);
        self.bytes(&frame).await;
    }

    /// Sends these bytes as they are, on the urgent lane.
    pub(super) async fn bytes(&mut self, bytes: &[u8]) {
        // The node may hang up in the midst of it, which is for the test to judge by the node.
        let _ = self.urgent.write_all(bytes).await;
        let _ = self.urgent.flush().await;
    }

    /// What the node says of itself on connection.
    pub(super) async fn standing(&mut self) -> Standing {
        let heard = async {
            loop {
                let Message::Hello { standing, .. } = self.hear().await.expect("the node says who it is") else {
                    continue;
                };
                return *standing;
            }
        };
        tokio::time::timeout(ANSWERS_WITHIN, heard).await.expect("the node says who it is in time")
    }

    /// Waits until all that was sent was taken in: the node takes messages of one lane in order, and echoes this one.
    pub(super) async fn echo(&mut self) {
        const N: u64 = 0x5eed;
        self.say(&Message::Probe { n: N }).await;
        let echo = Message::Echo { n: N };
        let heard = async { while self.hear().await.expect("the node still speaks") != echo {} };
        tokio::time::timeout(ANSWERS_WITHIN, heard).await.expect("the node answers in time");
    }

    /// Waits until the node hangs up.
    pub(super) async fn hung_up(&mut self) {
        let end = async { while self.hear().await.is_ok() {} };
        tokio::time::timeout(ANSWERS_WITHIN, end).await.expect("the node hangs up in time");
    }

    /// The next message on the urgent lane.
    async fn hear(&mut self) -> io::Result<Message<Inference>> {
        loop {
            let mut head = [0; 5];
            self.urgent.read_exact(&mut head).await?;
            let [a, b, c, d, kind] = head;
            let mut payload = vec![0; u32::from_le_bytes([a, b, c, d]) as usize];
            self.urgent.read_exact(&mut payload).await?;
            if kind == MESSAGE {
                return Ok(wire::decode(&payload).expect("a node speaks its own protocol"));
            }
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.swarm.abort();
    }
}
