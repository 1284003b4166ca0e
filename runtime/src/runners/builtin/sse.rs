//! The data of server-sent events, put together from the pieces in which an answer comes.

/// A longer line is no piece of an answer.
const LINE_BYTES: usize = 4 << 20;

/// Collects pieces, and gives out the data of one event after the other.
#[derive(Debug, Default)]
pub(super) struct Events {
    bytes: Vec<u8>,
    /// Before here there is no end of a line.
    searched: usize,
}

impl Events {
    /// Takes a piece.
    ///
    /// # Errors
    /// A line is too long.
    pub(super) fn add(&mut self, piece: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(piece);
        if self.bytes.len() > LINE_BYTES + piece.len() {
            return Err(format!("a line of its answer has over {LINE_BYTES} bytes"));
        }
        Ok(())
    }

    /// The data of the next event that is there as a whole. The servers that are meant write each in one line.
    pub(super) fn next(&mut self) -> Option<String> {
        loop {
            let Some(length) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.bytes.len();
                return None;
            };
            let line: Vec<u8> = self.bytes.drain(..=self.searched + length).collect();
            self.searched = 0;
            if let Some(data) = line.strip_prefix(b"data:") {
                return Some(String::from_utf8_lossy(data).trim().to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_put_together_from_pieces_and_all_else_is_passed_over() {
        let mut events = Events::default();
        events.add(b": hello\r\nevent: x\ndata: {\"a\"").unwrap();
        assert_eq!(events.next(), None);
        events.add(b": 1}\r\n\r\ndata:[DONE]\n\nda").unwrap();
        assert_eq!(events.next().as_deref(), Some("{\"a\": 1}"));
        assert_eq!(events.next().as_deref(), Some("[DONE]"));
        assert_eq!(events.next(), None);
    }

    #[test]
    fn a_line_without_end_is_an_error() {
        let mut events = Events::default();
        let piece = vec![b'x'; 1 << 20];
        let added = (0..100).take_while(|_| events.next().is_none() && events.add(&piece).is_ok()).count();
        assert!((3..6).contains(&added), "{added}");
    }
}
