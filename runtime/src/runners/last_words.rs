//! The end of what a process wrote to its standard error, kept for the report of how it ended.

use std::collections::VecDeque;

/// So many lines are kept at most.
const LINES: usize = 20;

/// So many bytes are kept at most, of all lines together.
const BYTES: usize = 4 << 10;

/// The last lines of a text that comes in pieces.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    /// The newest bytes, a few more than are shown.
    bytes: VecDeque<u8>,
}

impl LastWords {
    pub(super) fn add(&mut self, piece: &[u8]) {
        let piece = &piece[piece.len().saturating_sub(BYTES)..];
        let surplus = (self.bytes.len() + piece.len()).saturating_sub(BYTES);
        self.bytes.drain(..surplus);
        self.bytes.extend(piece);
    }

    /// The lines that are kept, without what a terminal would obey, and without empty ones.
    pub(super) fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let mut lines: Vec<String> = text
            .lines()
            .rev()
            .map(|line| line.chars().filter(|char| !char.is_control()).collect::<String>().trim_end().to_owned())
            .filter(|line| !line.is_empty())
            .take(LINES)
            .collect();
        lines.reverse();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pieces: &[&str]) -> Vec<String> {
        let mut words = LastWords::default();
        pieces.iter().for_each(|piece| words.add(piece.as_bytes()));
        words.lines()
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(after(&["one\ntw", "o\n\n", "thr\u{1b}ee"]), ["one", "two", "three"]);
        assert!(after(&[]).is_empty());
    }

    #[test]
    fn only_the_end_is_kept() {
        let many: String = (0..100).map(|n| format!("{n}\n")).collect();
        let lines = after(&[&many]);
        assert_eq!((lines.len(), lines[0].as_str(), lines[19].as_str()), (20, "80", "99"));
        let long = after(&["first\n", &"x".repeat(10_000)]);
        assert_eq!((long.len(), long[0].len()), (1, BYTES));
        let pieces: Vec<String> = (0..1000).map(|_| "y".repeat(10)).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        assert_eq!(after(&pieces)[0].len(), BYTES);
    }
}
