//! A TCP proxy for one direction of dialling between two nodes: it can be broken, held, or slowed down.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// How many bytes wait in a slowed-down direction; then its sender waits.
const WAITING_AT_MOST: usize = 8 << 20;

/// What becomes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They flow.
    Open,
    /// They flow so much later.
    Slow(Duration),
    /// They stand still, and nobody is told: a cable pulled out. What was sent arrives once it is open again.
    Held,
    /// Connections are closed, new ones at once: a machine that is there, without the program.
    Broken,
}

/// A listening proxy. Dropped, it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback. Where a connection leads to is asked for anew each time; to nowhere, it is
    /// closed at once.
    ///
    /// # Panics
    /// No port is free.
    pub async fn start(to: impl Fn() -> Option<SocketAddr> + Send + 'static) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (way, watched) = watch::channel(Way::Open);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                // What ended is forgotten.
                while connections.try_join_next().is_some() {}
                if let Some(target) = to() {
                    connections.spawn(carry(client, target, watched.clone()));
                }
            }
        });
        Proxy { address, way, task }
    }

    /// Where to dial instead of the node itself.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what becomes of the bytes, from now on.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(client: TcpStream, target: SocketAddr, mut way: watch::Receiver<Way>) {
    // A held link lets nobody through, so that the dialler waits as it would for a machine that does not answer.
    if way.wait_for(|way| *way != Way::Held).await.is_err() || *way.borrow() == Way::Broken {
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else { return };
    // Without it small messages would wait for each other.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (there, back) = (way.clone(), way.clone());
    // When one direction ends, so does the connection: nodes never close a single one.
    tokio::select! {
        _ = way.wait_for(|way| *way == Way::Broken) => {}
        _ = pump(from_client, to_server, there) => {}
        _ = pump(from_server, to_client, back) => {}
    }
}

/// Moves bytes one way, as late as the way says.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut way: watch::Receiver<Way>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut bytes = 0;
    let mut ended = false;
    while !ended || !waiting.is_empty() {
        let held = *way.borrow_and_update() == Way::Held;
        let due = waiting.front().map(|(due, _)| *due);
        tokio::select! {
            changed = way.changed() => if changed.is_err() { return Ok(()) },
            read = from.read(&mut buffer), if !held && !ended && bytes < WAITING_AT_MOST => {
                let read = read?;
                if read == 0 {
                    ended = true;
                    continue;
                }
                let later = match *way.borrow() {
                    Way::Slow(later) => later,
                    Way::Open | Way::Held | Way::Broken => Duration::ZERO,
                };
                bytes += read;
                waiting.push_back((Instant::now() + later, buffer[..read].to_vec()));
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if !held && due.is_some() => {
                if let Some((_, chunk)) = waiting.pop_front() {
                    bytes -= chunk.len();
                    to.write_all(&chunk).await?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A proxy before a server that sends back what it gets, and a connection through it.
    async fn echoed() -> (Proxy, TcpStream) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                let (mut read, mut write) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        let proxy = Proxy::start(move || Some(target)).await;
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    async fn echo(stream: &mut TcpStream) -> io::Result<()> {
        let mut heard = [0; 4];
        stream.write_all(b"echo").await?;
        stream.read_exact(&mut heard).await?;
        assert_eq!(heard, *b"echo");
        Ok(())
    }

    #[tokio::test]
    async fn an_open_way_carries_and_a_broken_one_closes() {
        let (proxy, mut stream) = echoed().await;
        echo(&mut stream).await.unwrap();
        proxy.set(Way::Broken);
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        let mut again = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(echo(&mut again).await.is_err(), "a new connection is closed too");
        proxy.set(Way::Open);
        echo(&mut TcpStream::connect(proxy.address()).await.unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn a_held_way_is_silent_and_delivers_what_was_sent_once_it_opens() {
        let (proxy, mut stream) = echoed().await;
        echo(&mut stream).await.unwrap();
        proxy.set(Way::Held);
        let held = tokio::time::timeout(Duration::from_millis(100), echo(&mut stream)).await;
        assert!(held.is_err(), "it waits");
        proxy.set(Way::Open);
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, *b"echo");
    }

    #[tokio::test]
    async fn a_slow_way_is_late_in_each_direction() {
        let (proxy, mut stream) = echoed().await;
        proxy.set(Way::Slow(Duration::from_millis(50)));
        let began = Instant::now();
        echo(&mut stream).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_way_to_nowhere_closes_at_once() {
        let proxy = Proxy::start(|| None).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
    }
}
