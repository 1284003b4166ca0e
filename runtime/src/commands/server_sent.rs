//! Server-sent events, as a node's streams bring them.

use anyhow::ensure;

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Empty where the stream gives none.
    pub name: String,
    /// What it carries.
    pub data: String,
}

/// Reads server-sent events, however their bytes are cut.
#[derive(Debug, Default)]
pub struct ServerSent {
    line: Vec<u8>,
    coming: Sent,
}

impl ServerSent {
    /// An event is an entry or a piece of an answer: what is longer than this is none.
    const BYTES_AT_MOST: usize = 16 << 20;

    /// Takes bytes; gives each event that is now complete.
    pub fn take(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<Sent>> {
        let mut complete = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                ensure!(self.line.len() + self.coming.data.len() < Self::BYTES_AT_MOST, "an event has no end");
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            match line.trim_end_matches('\r').split_once(':') {
                Some(("data", data)) => self.coming.data.push_str(data.trim_start()),
                Some(("event", name)) => name.trim_start().clone_into(&mut self.coming.name),
                // A blank line ends an event; without data it is none.
                None if line.trim().is_empty() => {
                    let sent = std::mem::take(&mut self.coming);
                    complete.extend((!sent.data.is_empty()).then_some(sent));
                }
                Some(_) | None => {}
            }
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_sent_events_are_read_however_they_are_cut() {
        let stream = b": hello\n\nid: 4\ndata: {\"index\":4}\n\nevent: rewound\r\ndata: {\"next\":4}\r\n\r\ndata: half";
        let sent = |name: &str, data: &str| Sent { name: name.into(), data: data.into() };
        for cut in 1..stream.len() {
            let mut parser = ServerSent::default();
            let found: Vec<Sent> = stream.chunks(cut).flat_map(|chunk| parser.take(chunk).unwrap()).collect();
            assert_eq!(found, [sent("", "{\"index\":4}"), sent("rewound", "{\"next\":4}")], "cut every {cut} bytes");
        }
    }
}
