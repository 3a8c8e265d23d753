//! The rows of an epoch that is not complete, as frames; of a table with a key, what becomes of each.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, Read, Seek, SeekFrom, Write};

use engine::RunError;

use super::{Frame, unnamed_file, unreadable};

/// Bytes in memory; what is beyond goes to disk.
const MEMORY_BYTES: usize = 32 << 20;

/// The frames of an epoch.
pub struct EpochFrames {
    memory: Vec<u8>,
    /// What came before that which is in memory. Without a name, so that it goes with the process.
    disk: Option<File>,
    /// Frames so far.
    frames: u64,
    /// Of an upsert table, what comes to each key and what goes from it.
    keys: Option<HashMap<Vec<u8>, Vec<Counted>>>,
    /// The same row has the same hash within a log, and nobody can choose rows that have.
    hashing: RandomState,
}

/// A row of a key. The changes of a key come through several workers, in any order among them: one says that its row has gone, another that
/// its own has come. So rows are counted, and what came as often as it went has changed nothing.
struct Counted {
    row: u64,
    /// How often it came, less how often it went.
    count: i64,
    /// The frame with which it came last, or first went.
    frame: u64,
}

impl EpochFrames {
    pub fn new(upserts: bool) -> EpochFrames {
        let hashing = RandomState::new();
        EpochFrames { memory: Vec::new(), disk: None, frames: 0, keys: upserts.then(HashMap::new), hashing }
    }

    pub fn append(&mut self, frames: &[u8]) -> std::io::Result<()> {
        match &mut self.keys {
            None => self.memory.extend_from_slice(frames),
            Some(keys) => {
                let mut rest = frames;
                while let Some((frame, behind)) = Frame::read(rest) {
                    let row = self.hashing.hash_one((frame.value, frame.timestamp, &frame.headers));
                    let key = frame.key.unwrap_or_default();
                    let rows = match keys.get_mut(key) {
                        Some(rows) => rows,
                        None => keys.entry(key.to_vec()).or_default(),
                    };
                    count(rows, row, frame.taken_back, self.frames);
                    match frame.taken_back {
                        // What has gone is only named, and it is now.
                        true => Frame { value: None, ..frame }.write(&mut self.memory),
                        false => self.memory.extend_from_slice(&rest[..rest.len() - behind.len()]),
                    }
                    self.frames += 1;
                    rest = behind;
                }
            }
        }
        if self.memory.len() >= MEMORY_BYTES {
            let disk = match &mut self.disk {
                Some(disk) => disk,
                None => self.disk.insert(unnamed_file()?),
            };
            disk.write_all(&self.memory)?;
            self.memory.clear();
        }
        Ok(())
    }

    /// Gives each frame that counts, in order; nothing is left.
    pub fn take(&mut self, mut each: impl FnMut(&Frame<'_>) -> Result<(), RunError>) -> Result<(), RunError> {
        let mut counts = self.keys.as_mut().map(|keys| {
            let mut counts: Vec<u64> = std::mem::take(keys).into_values().filter_map(|rows| outcome(&rows)).collect();
            counts.sort_unstable();
            counts.into_iter().peekable()
        });
        let mut number = 0;
        let mut give = |frame: &Frame<'_>| {
            let given = counts.as_mut().is_none_or(|counts| counts.next_if_eq(&number).is_some());
            number += 1;
            if given { each(frame) } else { Ok(()) }
        };
        if let Some(mut disk) = self.disk.take() {
            disk.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            let mut reader = BufReader::with_capacity(1 << 20, disk);
            let (mut head, mut bytes) = ([0; 4], Vec::new());
            loop {
                match reader.read_exact(&mut head) {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
                    Err(error) => return Err(unreadable(error)),
                }
                let length = Frame::length(head);
                bytes.clear();
                bytes.extend(head);
                bytes.resize(4 + length, 0);
                reader.read_exact(&mut bytes[4..]).map_err(unreadable)?;
                let (frame, _) = Frame::read(&bytes).ok_or_else(|| RunError::internal("a frame is damaged"))?;
                give(&frame)?;
            }
        }
        let memory = std::mem::take(&mut self.memory);
        let mut rest = &memory[..];
        while let Some((frame, behind)) = Frame::read(rest) {
            give(&frame)?;
            rest = behind;
        }
        self.frames = 0;
        Ok(())
    }
}

fn count(rows: &mut Vec<Counted>, row: u64, taken_back: bool, frame: u64) {
    match (rows.iter().position(|counted| counted.row == row), taken_back) {
        (Some(at), true) => rows[at].count -= 1,
        // Behind the others: it is the last that came.
        (Some(at), false) => {
            let known = rows.remove(at);
            rows.push(Counted { count: known.count + 1, frame, ..known });
        }
        (None, _) => rows.push(Counted { row, count: if taken_back { -1 } else { 1 }, frame }),
    }
}

/// The frame that says what has become of a key: a row that came and stays, the last one if the key is not unique; else one that went. `None`:
/// it is as it was.
fn outcome(rows: &[Counted]) -> Option<u64> {
    let stays = rows.iter().rfind(|row| row.count > 0);
    stays.or_else(|| rows.iter().rfind(|row| row.count < 0)).map(|row| row.frame)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(key: &str, value: &str, taken_back: bool) -> Vec<u8> {
        let mut bytes = vec![];
        let frame = Frame {
            taken_back,
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            timestamp: Some(7),
            headers: vec![("h", Some(b"v")), ("none", None)],
        };
        frame.write(&mut bytes);
        assert_eq!(Frame::read(&bytes), Some((frame, &b""[..])));
        bytes
    }

    fn taken(log: &mut EpochFrames) -> Vec<(String, Option<usize>)> {
        let mut all = vec![];
        log.take(|frame| {
            all.push((String::from_utf8(frame.key.unwrap().to_vec()).unwrap(), frame.value.map(<[u8]>::len)));
            Ok(())
        })
        .unwrap();
        all
    }

    /// What is sent of an epoch of changes such as `+a 1`, shown as `a 1` and `a -`.
    fn sent(changes: &[&str]) -> Vec<String> {
        let mut log = EpochFrames::new(true);
        for change in changes {
            let (key, value) = change[1..].split_once(' ').unwrap();
            log.append(&frame(key, value, change.starts_with('-'))).unwrap();
        }
        let mut all = vec![];
        log.take(|frame| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            all.push(format!("{} {}", text(frame.key.unwrap()), frame.value.map_or("-".into(), text)));
            Ok(())
        })
        .unwrap();
        assert!(taken(&mut log).is_empty(), "nothing is left");
        all
    }

    #[test]
    fn an_epoch_of_upserts_is_what_becomes_of_each_key() {
        for (changes, expected) in [
            (&["+a 1", "+b 1", "-a 1", "+a 22", "+c 1"][..], &["b 1", "a 22", "c 1"][..]),
            (&["-a 1"], &["a -"]),
            (&["-a 1", "+a 2"], &["a 2"]),
            // The key has gone from one group of the query to another, whose change came first.
            (&["+a 2", "-a 1"], &["a 2"]),
            (&["+a 2", "+b 1", "-a 1", "-b 1"], &["a 2"]),
            // The same row left one group and came to another: the key is as it was.
            (&["+a 1", "-a 1"], &[]),
            (&["-a 1", "+a 1"], &[]),
            (&["-a 1", "+a 2", "-a 2"], &["a -"]),
            (&["+a 2", "-a 2", "-a 1"], &["a -"]),
            (&["-a 2", "+a 2", "+a 3", "-a 1"], &["a 3"]),
            // Not unique: the last that came.
            (&["+a 1", "+a 2", "+a 1"], &["a 1"]),
        ] {
            assert_eq!(sent(changes), expected, "{changes:?}");
        }
    }

    #[test]
    fn a_large_epoch_waits_on_disk_in_order() {
        let value = "x".repeat(1 << 20);
        for upserts in [false, true] {
            let mut log = EpochFrames::new(upserts);
            for at in 0..80 {
                log.append(&frame(&format!("{at}"), &value, false)).unwrap();
                assert!(log.memory.len() < MEMORY_BYTES);
            }
            assert!(log.disk.is_some());
            let expected: Vec<_> = (0..80).map(|at| (at.to_string(), Some(value.len()))).collect();
            assert_eq!(taken(&mut log), expected);
            assert!(log.disk.is_none() && taken(&mut log).is_empty());
        }
    }
}
