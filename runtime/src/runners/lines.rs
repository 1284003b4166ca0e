//! Lines of bounded length from a stream of bytes, for both ends of a runner's standard streams.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Reads line after line. Cancel safe: a line that was read in part is gone on with.
#[derive(Debug)]
pub struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
    limit: usize,
    /// The last line was handed out.
    taken: bool,
}

/// What came instead of a line.
#[derive(Debug, thiserror::Error)]
pub enum NoLine {
    /// It would be longer than the limit, in bytes.
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    /// The stream ended within it, after so many bytes.
    #[error("the stream ended after {0} bytes of a line that has no end")]
    Half(usize),
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Broke(#[from] io::Error),
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// The lines of this stream, none longer than `limit` bytes without its end.
    pub fn new(input: R, limit: usize) -> Lines<R> {
        Lines { input: BufReader::new(input), line: Vec::new(), limit, taken: false }
    }

    /// The next line, without its end; none at the end of the stream. After an error there is no next one.
    pub async fn next(&mut self) -> Result<Option<&[u8]>, NoLine> {
        if std::mem::take(&mut self.taken) {
            self.line.clear();
            // One long line does not hold its memory for ever.
            self.line.shrink_to(64 << 10);
        }
        loop {
            let bytes = self.input.fill_buf().await?;
            if bytes.is_empty() {
                return if self.line.is_empty() { Ok(None) } else { Err(NoLine::Half(self.line.len())) };
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > self.limit {
                return Err(NoLine::TooLong(self.limit));
            }
            self.line.extend_from_slice(part);
            let read = part.len() + usize::from(end.is_some());
            self.input.consume(read);
            if end.is_some() {
                self.taken = true;
                return Ok(Some(&self.line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8], limit: usize) -> (Vec<String>, Option<NoLine>) {
        let mut lines = Lines::new(text, limit);
        let mut found = Vec::new();
        loop {
            match lines.next().await {
                Ok(Some(line)) => found.push(String::from_utf8_lossy(line).into_owned()),
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn lines_come_whole_and_without_their_ends() {
        let (found, error) = all(b"one\n\nthree\n", 5).await;
        assert_eq!((found, error.is_none()), (vec!["one".into(), String::new(), "three".into()], true));
    }

    #[tokio::test]
    async fn a_line_beyond_the_limit_is_an_error_before_it_is_held() {
        let (found, error) = all(b"12345\n123456\n", 5).await;
        assert_eq!(found, ["12345"]);
        assert!(matches!(error, Some(NoLine::TooLong(5))), "{error:?}");
        let endless = vec![b'x'; 100_000];
        assert!(matches!(all(&endless, 10_000).await.1, Some(NoLine::TooLong(10_000))));
    }

    #[tokio::test]
    async fn an_end_within_a_line_is_an_error() {
        let (found, error) = all(b"one\ntw", 5).await;
        assert_eq!(found, ["one"]);
        assert!(matches!(error, Some(NoLine::Half(2))), "{error:?}");
    }
}
