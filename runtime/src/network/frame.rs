//! Frames on a lane: a little-endian u32 length, a kind, then that many bytes. Nothing is allocated on a peer's word.

use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use futures::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use lockstep_replication::wire::MESSAGE_BYTES_AT_MOST;

/// Bytes of a frame before its payload.
const HEADER_BYTES: usize = 5;
/// One read takes at most so many bytes: what the stream layer hands over at once.
const READ_BYTES: usize = 16 << 10;
/// Payloads from this size on are written as they are; smaller ones are collected first.
const COLLECT_BELOW_BYTES: usize = 16 << 10;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message for the node.
    Message,
    /// Addresses of nodes, for the network itself.
    Addresses,
}

/// One frame. The payload has at most [`MESSAGE_BYTES_AT_MOST`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// What it carries.
    pub(super) kind: Kind,
    /// Its content.
    pub(super) payload: Bytes,
}

/// Why a lane cannot be read on.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFrame {
    #[error("it announced a frame of {0} bytes; {MESSAGE_BYTES_AT_MOST} are the most")]
    Oversized(u32),
    #[error("it sent a frame of unknown kind {0}")]
    UnknownKind(u8),
    #[error("its stream ended in the middle of a frame")]
    Half,
    #[error("its stream broke: {0}")]
    Broken(io::Error),
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Message => 0,
            Kind::Addresses => 1,
        }
    }

    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            0 => Some(Kind::Message),
            1 => Some(Kind::Addresses),
            _ => None,
        }
    }
}

/// Reads frames from one lane.
pub(super) struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(super) fn new(source: R) -> Self {
        FrameReader { source, buffer: BytesMut::new() }
    }

    /// The next frame; none when the other side has closed the lane between two frames.
    pub(super) async fn next(&mut self) -> Result<Option<Frame>, BadFrame> {
        loop {
            if let Some(frame) = self.complete()? {
                return Ok(Some(frame));
            }
            let held = self.buffer.len();
            self.buffer.resize(held + READ_BYTES, 0);
            let read = self.source.read(&mut self.buffer[held..]).await.map_err(BadFrame::Broken)?;
            self.buffer.truncate(held + read);
            match (read, held) {
                (0, 0) => return Ok(None),
                (0, _) => return Err(BadFrame::Half),
                _ => {}
            }
        }
    }

    /// Takes a frame out of the buffer, if all of it is there.
    fn complete(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some((header, _)) = self.buffer.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let [a, b, c, d, kind] = *header;
        let announced = u32::from_le_bytes([a, b, c, d]);
        let length = announced as usize;
        if length > MESSAGE_BYTES_AT_MOST {
            return Err(BadFrame::Oversized(announced));
        }
        let kind = Kind::from_byte(kind).ok_or(BadFrame::UnknownKind(kind))?;
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(HEADER_BYTES + length);
        Ok(Some(Frame { kind, payload: frame.split_off(HEADER_BYTES).freeze() }))
    }
}

/// Writes these frames and flushes. Small ones are collected in `scratch`, so that many leave in one write.
pub(super) async fn write<W: AsyncWrite + Unpin>(
    sink: &mut W,
    scratch: &mut Vec<u8>,
    frames: impl IntoIterator<Item = Frame>,
) -> io::Result<()> {
    scratch.clear();
    for Frame { kind, payload } in frames {
        scratch.put_u32_le(payload.len() as u32);
        scratch.put_u8(kind.byte());
        if payload.len() < COLLECT_BELOW_BYTES {
            scratch.extend_from_slice(&payload);
        } else {
            sink.write_all(scratch).await?;
            scratch.clear();
            sink.write_all(&payload).await?;
        }
    }
    sink.write_all(scratch).await?;
    sink.flush().await
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn message(byte: u8, length: usize) -> Frame {
        Frame { kind: Kind::Message, payload: vec![byte; length].into() }
    }

    fn written(frames: &[Frame]) -> Vec<u8> {
        let mut sink = Cursor::new(Vec::new());
        block_on(write(&mut sink, &mut Vec::new(), frames.to_vec())).expect("memory takes all");
        sink.into_inner()
    }

    fn read_all(bytes: &[u8]) -> (Vec<Frame>, Option<BadFrame>) {
        let mut reader = FrameReader::new(bytes);
        let mut frames = Vec::new();
        loop {
            match block_on(reader.next()) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => return (frames, None),
                Err(bad) => return (frames, Some(bad)),
            }
        }
    }

    #[test]
    fn frames_of_every_size_arrive_as_they_were_sent() {
        let frames = [
            message(1, 0),
            message(2, 1),
            Frame { kind: Kind::Addresses, payload: Bytes::from_static(b"here") },
            message(3, COLLECT_BELOW_BYTES),
            message(4, 7),
            message(5, MESSAGE_BYTES_AT_MOST),
        ];
        let (read, bad) = read_all(&written(&frames));
        assert!(bad.is_none(), "{bad:?}");
        assert_eq!(read, frames);
    }

    #[test]
    fn the_length_is_little_endian_and_the_kind_follows_it() {
        assert_eq!(written(&[message(9, 3)]), [3, 0, 0, 0, 0, 9, 9, 9]);
    }

    #[test]
    fn a_length_above_the_limit_is_an_error_before_anything_is_read_for_it() {
        let announced = MESSAGE_BYTES_AT_MOST as u32 + 1;
        let mut bytes = announced.to_le_bytes().to_vec();
        bytes.push(0);
        let mut reader = FrameReader::new(&bytes[..]);
        assert!(matches!(block_on(reader.next()), Err(BadFrame::Oversized(length)) if length == announced));
        assert!(reader.buffer.capacity() <= 2 * READ_BYTES, "nothing was allocated for it");
    }

    #[test]
    fn an_unknown_kind_is_an_error() {
        assert!(matches!(read_all(&[0, 0, 0, 0, 77]).1, Some(BadFrame::UnknownKind(77))));
    }

    #[test]
    fn a_stream_that_ends_inside_a_frame_is_an_error_after_the_whole_frames() {
        let mut bytes = written(&[message(1, 10), message(2, 10)]);
        bytes.pop();
        let (read, bad) = read_all(&bytes);
        assert_eq!(read, [message(1, 10)]);
        assert!(matches!(bad, Some(BadFrame::Half)));
    }
}
