//! How a connection comes to be: TCP, the cluster key, then encryption by identity and streams over it.

use std::error::Error;
use std::io;
use std::time::Duration;

use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufWriter};
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::timeout::TransportTimeoutError;
use libp2p::core::transport::{Boxed, TransportError};
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::pnet::{PnetConfig, PnetOutput, PreSharedKey};
use libp2p::{PeerId, Transport as _, noise, tcp, yamux};

/// Said by both sides under the cluster key, before anything else. Under two keys each side reads noise here, and knows
/// at once; without it the next layer would wait for bytes that never come, and then fail obscurely.
const GREETING: [u8; 16] = *b"lockstep cluster";

/// From the first packet to an authenticated connection. Also how long a stranger can hold a half-open connection.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// The private-network layer encrypts 1 KiB at a time; collected, they leave in one system call and in full packets.
const WRITE_BUFFER_BYTES: usize = 64 << 10;

/// Streams a connection may hold: two lanes, gossip and ping in both directions, and room.
const STREAMS_AT_MOST: usize = 32;

/// The other side does not hold this cluster's key. Its text is what an operator reads.
#[derive(Debug, thiserror::Error)]
#[error("it does not have this cluster's key (or is no Lockstep node)")]
struct Stranger;

/// Authenticated connections, over TCP, between holders of the cluster key.
pub(super) fn build(keypair: &Keypair, cluster_key: [u8; 32]) -> Result<Boxed<(PeerId, StreamMuxerBox)>, noise::Error> {
    let mut streams = yamux::Config::default();
    streams.set_max_num_streams(STREAMS_AT_MOST);
    let key = PreSharedKey::new(cluster_key);
    Ok(tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .and_then(move |socket, _| greet(BufWriter::with_capacity(WRITE_BUFFER_BYTES, socket), key))
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(keypair)?)
        .multiplex(streams)
        .timeout(HANDSHAKE_WITHIN)
        .map(|(peer, streams), _| (peer, StreamMuxerBox::new(streams)))
        // The layers' own errors hide their innermost causes, which are what matters here.
        .map_err(|error| match error {
            TransportTimeoutError::Timeout => io::Error::from(io::ErrorKind::TimedOut),
            TransportTimeoutError::TimerError(error) => error,
            TransportTimeoutError::Other(error) => error.either(
                |below| below.either(|below| below.either(|tcp| tcp, io::Error::other), io::Error::other),
                io::Error::other,
            ),
        })
        .boxed())
}

/// Encrypts with the cluster key, and sees that the other side has it too. Whoever breaks off in here is a stranger: a
/// holder of another key sees noise as well, and may have hung up before its own greeting arrived.
async fn greet<S>(socket: S, key: PreSharedKey) -> Result<PnetOutput<S>, Stranger>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut socket = PnetConfig::new(key).handshake(socket).await.map_err(|_| Stranger)?;
    let mut heard = [0; GREETING.len()];
    let greeted = async {
        socket.write_all(&GREETING).await?;
        socket.flush().await?;
        socket.read_exact(&mut heard).await
    };
    match greeted.await {
        Ok(()) if heard == GREETING => Ok(socket),
        Ok(()) | Err(_) => Err(Stranger),
    }
}

/// Whether the handshake failed because the other side is a stranger, and the sentence that says so.
pub(super) fn stranger(error: &TransportError<io::Error>) -> Option<String> {
    let TransportError::Other(error) = error else { return None };
    causes(error).find(|cause| cause.is::<Stranger>()).map(ToString::to_string)
}

/// The error and what caused it, outermost first.
fn causes(error: &io::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(Some(error as &(dyn Error + 'static)), |error| cause(*error))
}

/// An `io::Error` made from another error names that one's source as its own, so that the other one has to be looked
/// for inside.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
