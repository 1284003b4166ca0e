//! The files by which a node tells its real addresses to whoever started it, so that port 0 can be asked for.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use libp2p::Multiaddr;

const API: &str = "api.addr";
const PEER: &str = "p2p.addr";

/// Removes what an earlier start announced. Call it before anything is bound.
pub fn withdraw(data: &Path) -> io::Result<()> {
    for name in [API, PEER] {
        match std::fs::remove_file(data.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Announces where the API listens.
pub fn api(data: &Path, address: SocketAddr) -> io::Result<()> {
    write(data, API, &format!("{address}\n"))
}

/// Announces where other nodes reach this one, a line each.
pub fn peer(data: &Path, addresses: &[Multiaddr]) -> io::Result<()> {
    write(data, PEER, &addresses.iter().map(|address| format!("{address}\n")).collect::<String>())
}

/// Where the node of this directory said that its API listens; none if it has not yet.
pub fn read_api(data: &Path) -> Option<SocketAddr> {
    std::fs::read_to_string(data.join(API)).ok()?.trim().parse().ok()
}

/// Where the node of this directory said that other nodes reach it; empty if it has not yet.
pub fn read_peer(data: &Path) -> Vec<Multiaddr> {
    let text = std::fs::read_to_string(data.join(PEER)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Written aside and renamed, so that nobody reads half of it.
fn write(data: &Path, name: &str, text: &str) -> io::Result<()> {
    let draft = data.join(format!("{name}.new"));
    std::fs::write(&draft, text)?;
    std::fs::rename(draft, data.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_can_be_read_until_it_is_withdrawn() {
        let data = tempfile::tempdir().unwrap();
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/4".parse().unwrap();
        api(data.path(), "127.0.0.1:7".parse().unwrap()).unwrap();
        peer(data.path(), std::slice::from_ref(&address)).unwrap();
        assert_eq!(read_api(data.path()), Some("127.0.0.1:7".parse().unwrap()));
        assert_eq!(read_peer(data.path()), [address]);
        withdraw(data.path()).unwrap();
        withdraw(data.path()).unwrap();
        assert_eq!((read_api(data.path()), read_peer(data.path()).len()), (None, 0));
    }
}
