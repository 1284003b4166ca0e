//! The form of the store's plain files: a head, frames, an end. What was flipped, torn or cut off is noticed.
//!
//! ```text
//! head   "lockstep", kind (1 byte), version (1 byte)
//! frame  tag (1 byte, not 0), length (4 bytes, little endian), content, check (16 bytes)
//! end    tag 0, length 0, check
//! ```
//!
//! A check is the beginning of SHA-256(the check before, tag, length, content); the first one before is the head,
//! so the last check stands for the whole file.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// The version that is written and read.
const VERSION: u8 = 1;
const MAGIC: &[u8; 8] = b"lockstep";
const END: u8 = 0;
const CHECK_BYTES: usize = 16;

/// The longest content of a frame: far above every entry and manifest, and little to read by mistake.
pub(super) const FRAME_BYTES_AT_MOST: usize = 16 << 20;

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Snapshot = 1,
    Aside = 2,
    Backup = 3,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadFile {
    #[error("{0}")]
    Io(io::Error),
    #[error("it is no {0} file of Lockstep")]
    Foreign(&'static str),
    #[error("it has version {found} of its form, this program reads version {VERSION}")]
    Version { found: u8 },
    #[error("it is cut off, or its bytes have changed since it was written")]
    Torn,
    #[error("{0}")]
    Content(String),
}

impl From<io::Error> for BadFile {
    fn from(error: io::Error) -> BadFile {
        if error.kind() == io::ErrorKind::UnexpectedEof { BadFile::Torn } else { BadFile::Io(error) }
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshot",
            Kind::Aside => "set-aside",
            Kind::Backup => "backup",
        }
    }

    fn head(self) -> [u8; 10] {
        let mut head = [0; 10];
        head[..8].copy_from_slice(MAGIC);
        head[8] = self as u8;
        head[9] = VERSION;
        head
    }
}

fn check(before: &[u8], tag: u8, content: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update([tag]);
    hasher.update((content.len() as u32).to_le_bytes());
    hasher.update(content);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hasher.finalize()[..CHECK_BYTES]);
    check
}

/// Writes a file frame by frame. Give it a buffered writer.
pub(super) struct FrameWriter<W: Write> {
    out: W,
    chain: [u8; CHECK_BYTES],
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(mut out: W, kind: Kind) -> io::Result<Self> {
        out.write_all(&kind.head())?;
        Ok(FrameWriter { out, chain: check(&kind.head(), END, &[]) })
    }

    /// Writes one frame. Its tag is not 0.
    pub(super) fn frame(&mut self, tag: u8, content: &[u8]) -> io::Result<()> {
        assert_ne!(tag, END, "tag 0 ends a file");
        if content.len() > FRAME_BYTES_AT_MOST {
            return Err(io::Error::other(format!("{} bytes are too long for a frame", content.len())));
        }
        self.write(tag, content)
    }

    /// Ends the file. Without this it counts as torn.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.write(END, &[])?;
        self.out.flush()
    }

    fn write(&mut self, tag: u8, content: &[u8]) -> io::Result<()> {
        self.chain = check(&self.chain, tag, content);
        self.out.write_all(&[tag])?;
        self.out.write_all(&(content.len() as u32).to_le_bytes())?;
        self.out.write_all(content)?;
        self.out.write_all(&self.chain)
    }
}

/// Reads a file frame by frame. Give it a buffered reader.
pub(super) struct FrameReader<R: Read> {
    input: R,
    chain: [u8; CHECK_BYTES],
    ended: bool,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(mut input: R, kind: Kind) -> Result<Self, BadFile> {
        let mut head = [0; 10];
        input.read_exact(&mut head)?;
        if head[..9] != kind.head()[..9] {
            return Err(BadFile::Foreign(kind.name()));
        }
        if head[9] != VERSION {
            return Err(BadFile::Version { found: head[9] });
        }
        Ok(FrameReader { input, chain: check(&head, END, &[]), ended: false })
    }

    /// The next frame's tag and content; none at the file's proper end.
    pub(super) fn frame(&mut self) -> Result<Option<(u8, Vec<u8>)>, BadFile> {
        if self.ended {
            return Ok(None);
        }
        let mut start = [0; 5];
        self.input.read_exact(&mut start)?;
        let [tag, length @ ..] = start;
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_BYTES_AT_MOST {
            return Err(BadFile::Torn);
        }
        // Grows as bytes come: a length that is wrong allocates nothing.
        let mut content = Vec::new();
        self.input.by_ref().take(length as u64).read_to_end(&mut content)?;
        let mut found = [0; CHECK_BYTES];
        self.input.read_exact(&mut found)?;
        self.chain = check(&self.chain, tag, &content);
        if content.len() != length || found != self.chain {
            return Err(BadFile::Torn);
        }
        if tag == END {
            self.ended = true;
            return if self.input.read(&mut [0])? == 0 { Ok(None) } else { Err(BadFile::Torn) };
        }
        Ok(Some((tag, content)))
    }

    /// The next frame, which must have this tag.
    pub(super) fn expect(&mut self, wanted: u8) -> Result<Vec<u8>, BadFile> {
        match self.frame()? {
            Some((tag, content)) if tag == wanted => Ok(content),
            Some((tag, _)) => Err(BadFile::Content(format!("it has a part {tag} where part {wanted} belongs"))),
            None => Err(BadFile::Content(format!("its part {wanted} is missing"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes, Kind::Aside).unwrap();
        writer.frame(1, b"one").unwrap();
        writer.frame(2, &[7; 300]).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<(u8, Vec<u8>)>, BadFile> {
        let mut reader = FrameReader::new(bytes, Kind::Aside)?;
        std::iter::from_fn(|| reader.frame().transpose()).collect()
    }

    #[test]
    fn frames_come_back_as_written() {
        assert_eq!(read(&file()).unwrap(), vec![(1, b"one".to_vec()), (2, vec![7; 300])]);
    }

    #[test]
    fn every_flipped_bit_every_cut_and_every_addition_is_noticed() {
        let good = file();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut flipped = good.clone();
                flipped[at] ^= 1 << bit;
                assert!(read(&flipped).is_err(), "bit {bit} of byte {at}");
            }
            assert!(read(&good[..at]).is_err(), "cut at {at}");
        }
        assert!(read(&[&good[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_newer_form_is_told_from_damage() {
        let mut newer = file();
        newer[9] = 9;
        assert!(matches!(read(&newer), Err(BadFile::Version { found: 9 })));
        assert!(matches!(FrameReader::new(&file()[..], Kind::Backup), Err(BadFile::Foreign("backup"))));
    }
}
