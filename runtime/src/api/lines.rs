//! Cuts a stream of bytes into lines, none longer than a limit.

use bytes::{Buf as _, Bytes, BytesMut};

use super::body::COMMAND_BYTES_AT_MOST;

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// All of it.
    Whole(Bytes),
    /// It was longer than the limit, and is dropped.
    TooLong,
}

/// Bytes that are not lines yet, and the number of those that were.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pending: BytesMut,
    /// So many of the pending bytes hold no line end.
    searched: usize,
    /// The line that is coming is too long: its bytes are dropped until its end.
    skipping: bool,
    number: u64,
}

impl Lines {
    /// Takes more bytes in. Take the lines out before the next.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next line that is not blank and its number, counted from 1, if all of it is here.
    pub(crate) fn next(&mut self) -> Option<(u64, Line)> {
        loop {
            let Some(found) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') else {
                self.searched = self.pending.len();
                if self.skipping || self.pending.len() > COMMAND_BYTES_AT_MOST {
                    self.skipping = true;
                    self.pending.clear();
                    self.searched = 0;
                }
                return None;
            };
            let line = self.pending.split_to(self.searched + found);
            self.pending.advance(1);
            self.searched = 0;
            if let Some(line) = self.line(line) {
                return Some(line);
            }
        }
    }

    /// The last line, if the stream ended without a line end.
    pub(crate) fn end(&mut self) -> Option<(u64, Line)> {
        self.searched = 0;
        let rest = self.pending.split();
        self.line(rest)
    }

    fn line(&mut self, line: BytesMut) -> Option<(u64, Line)> {
        self.number += 1;
        if std::mem::take(&mut self.skipping) || line.len() > COMMAND_BYTES_AT_MOST {
            return Some((self.number, Line::TooLong));
        }
        (!line.trim_ascii().is_empty()).then(|| (self.number, Line::Whole(line.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(u64, Line)> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(chunk);
            found.extend(std::iter::from_fn(|| lines.next()));
        }
        found.extend(lines.end());
        found
    }

    fn whole(number: u64, text: &str) -> (u64, Line) {
        (number, Line::Whole(Bytes::copy_from_slice(text.as_bytes())))
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_arrive() {
        let wanted = [whole(1, "one"), whole(3, "two\r"), whole(4, "three")];
        let text = b"one\n \ntwo\r\nthree";
        assert_eq!(cut(&[text]), wanted);
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(cut(&single), wanted);
        assert_eq!(cut(&[b"one\n"]), [whole(1, "one")]);
        assert_eq!(cut(&[]), []);
    }

    #[test]
    fn a_line_over_the_limit_is_dropped_and_the_next_one_is_found() {
        let long = vec![b'x'; COMMAND_BYTES_AT_MOST + 1];
        let wanted = [(1, Line::TooLong), whole(2, "next")];
        assert_eq!(cut(&[&[&long[..], b"\nnext"].concat()]), wanted);
        assert_eq!(cut(&[&long, &long, b"\n", b"next\n"]), wanted);
        assert_eq!(cut(&[&long]), [(1, Line::TooLong)]);
        let longest = &long[1..];
        assert_eq!(cut(&[longest, b"\n"]).len(), 1);
        assert!(matches!(cut(&[longest])[0], (1, Line::Whole(_))), "the limit itself is allowed");
    }

    #[test]
    fn a_line_without_end_does_not_pile_up() {
        let mut lines = Lines::default();
        for _ in 0..40 {
            lines.push(&[b'x'; 100_000]);
            assert_eq!(lines.next(), None);
        }
        assert!(lines.pending.len() <= COMMAND_BYTES_AT_MOST);
    }
}
