//! A sweep that was interrupted goes on: each seed that ended is a line of a file.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

use super::Judged;

/// The file of seeds that ended.
#[derive(Debug)]
pub struct Done(Mutex<File>);

impl Done {
    /// Opens the file, or begins it. Returns what an earlier sweep left there; a half line at its end is cut off.
    ///
    /// # Errors
    /// The file cannot be read or written, or a line in it is none of a sweep's.
    pub fn open(path: &Path) -> io::Result<(Done, Vec<Judged>)> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let lines: Vec<String> = BufReader::new(&file).lines().collect::<io::Result<_>>()?;
        let (mut before, mut whole) = (Vec::new(), 0);
        for (at, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(judged) => {
                    before.push(judged);
                    whole += line.len() as u64 + 1;
                }
                Err(_) if at + 1 == lines.len() => file.set_len(whole)?,
                Err(error) => {
                    let reason = format!("line {} is none of a sweep's: {error}", at + 1);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
                }
            }
        }
        Ok((Done(Mutex::new(file)), before))
    }

    /// Adds a seed.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&self, judged: &Judged) -> io::Result<()> {
        let line = serde_json::to_string(judged)? + "\n";
        self.0.lock().map_err(|_| io::Error::other("another thread panicked"))?.write_all(line.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_ended_is_read_back_and_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("done");
        let judged = |seed| Judged { seed, failure: None, probes: BTreeMap::new(), events: 1, cpu_us: 2 };
        let (done, before) = Done::open(&path).unwrap();
        assert_eq!(before, []);
        done.add(&judged(3)).unwrap();
        done.add(&judged(4)).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let (done, before) = Done::open(&path).unwrap();
        assert_eq!(before, [judged(3)]);
        done.add(&judged(5)).unwrap();
        assert_eq!(Done::open(&path).unwrap().1, [judged(3), judged(5)]);
        std::fs::write(&path, "something else\n{}\n").unwrap();
        let error = Done::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 1 is none of a sweep's"), "{error}");
    }
}
