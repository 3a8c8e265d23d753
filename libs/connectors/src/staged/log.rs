//! Records that wait for the commit of their checkpoint, with the partitions that were chosen for them.
//!
//! A log is cut into blocks, each compressed and with a checksum, and blocks into files. What has no room in memory waits on the local disk.
//! A file is a row of blocks; a block is `bytes (4) | bytes unpacked (4) | xxh3 of the packed bytes, seeded with their unpacked length (8) | packed by LZ4`, all numbers little
//! endian; unpacked, it is a row of `partition (4) | frame`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use engine::RunError;
use lz4_flex::block::{compress_into, decompress, get_maximum_output_size};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Frame, unnamed_file};

/// Unpacked bytes of a block.
const BLOCK_BYTES: usize = 1 << 20;
/// Packed bytes in memory; what is beyond goes to disk.
const MEMORY_BYTES: usize = 8 << 20;
/// Bytes of a file, which is written and read as a whole.
pub const FILE_BYTES: u64 = 16 << 20;
/// Before the bytes of a block.
const HEAD_BYTES: usize = 16;

/// A log that is written.
#[derive(Default)]
pub struct RecordLog {
    /// The block at hand, unpacked.
    block: Vec<u8>,
    block_records: u64,
    packed: Vec<u8>,
    /// What came before that which is in memory. Without a name, so that it goes with the process.
    disk: Option<File>,
    disk_bytes: u64,
    files: VecDeque<FileFacts>,
}

/// A file of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileFacts {
    pub bytes: u64,
    pub records: u64,
}

impl RecordLog {
    /// Appends a record: a whole frame as [`Frame::write`] has written it.
    pub fn append(&mut self, partition: i32, frame: &[u8]) -> io::Result<()> {
        self.block.extend_from_slice(&partition.to_le_bytes());
        self.block.extend_from_slice(frame);
        self.block_records += 1;
        match self.block.len() >= BLOCK_BYTES {
            true => self.pack(),
            false => Ok(()),
        }
    }

    fn pack(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let start = self.packed.len();
        self.packed.resize(start + HEAD_BYTES + get_maximum_output_size(self.block.len()), 0);
        let bytes = compress_into(&self.block, &mut self.packed[start + HEAD_BYTES..])
            .expect("there is room for the longest that it can become");
        self.packed.truncate(start + HEAD_BYTES + bytes);
        let checksum = xxh3_64_with_seed(&self.packed[start + HEAD_BYTES..], self.block.len() as u64);
        self.packed[start..start + 4].copy_from_slice(&(bytes as u32).to_le_bytes());
        self.packed[start + 4..start + 8].copy_from_slice(&(self.block.len() as u32).to_le_bytes());
        self.packed[start + 8..start + HEAD_BYTES].copy_from_slice(&checksum.to_le_bytes());
        let added = (HEAD_BYTES + bytes) as u64;
        match self.files.back_mut().filter(|file| file.bytes + added <= FILE_BYTES) {
            Some(file) => *file = FileFacts { bytes: file.bytes + added, records: file.records + self.block_records },
            None => self.files.push_back(FileFacts { bytes: added, records: self.block_records }),
        }
        self.block.clear();
        self.block_records = 0;
        if self.packed.len() >= MEMORY_BYTES {
            let disk = match &mut self.disk {
                Some(disk) => disk,
                None => self.disk.insert(unnamed_file()?),
            };
            disk.write_all(&self.packed)?;
            self.disk_bytes += self.packed.len() as u64;
            self.packed.clear();
        }
        Ok(())
    }

    /// The log is complete.
    pub fn finish(mut self) -> io::Result<LogFiles> {
        self.pack()?;
        if let Some(disk) = &mut self.disk {
            disk.seek(SeekFrom::Start(0))?;
        }
        let RecordLog { packed, disk, disk_bytes, files, .. } = self;
        Ok(LogFiles { memory: io::Cursor::new(packed), disk, left_on_disk: disk_bytes, files })
    }
}

/// The files of a complete log.
pub struct LogFiles {
    memory: io::Cursor<Vec<u8>>,
    disk: Option<File>,
    left_on_disk: u64,
    files: VecDeque<FileFacts>,
}

impl LogFiles {
    /// The next file, as it is to be written.
    pub fn next_file(&mut self) -> io::Result<Option<(FileFacts, Vec<u8>)>> {
        let Some(file) = self.files.pop_front() else { return Ok(None) };
        let mut content = vec![0; file.bytes as usize];
        let (of_disk, of_memory) = content.split_at_mut(file.bytes.min(self.left_on_disk) as usize);
        if let Some(disk) = &mut self.disk {
            disk.read_exact(of_disk)?;
        }
        self.left_on_disk -= of_disk.len() as u64;
        self.memory.read_exact(of_memory)?;
        Ok(Some((file, content)))
    }
}

/// Gives each record of a file with its partition, in order; says how many there were.
///
/// # Errors
/// Those of `each`; `checkpoint_corrupt` with the place of a block that is not what was written.
pub fn read_file(
    shown: &str,
    file: &[u8],
    mut each: impl FnMut(i32, &Frame<'_>) -> Result<(), RunError>,
) -> Result<u64, RunError> {
    let mut blocks = Blocks::of(shown, file);
    let mut records = 0;
    while let Some(block) = blocks.next()? {
        records += block.read(&mut each)?;
    }
    Ok(records)
}

/// A file of a log, block by block.
pub struct Blocks<'a> {
    shown: &'a str,
    file: &'a [u8],
    rest: &'a [u8],
}

/// A block, unpacked.
pub struct Block<'a> {
    shown: &'a str,
    /// Where it begins in its file.
    at: usize,
    content: Vec<u8>,
}

impl<'a> Blocks<'a> {
    pub fn of(shown: &'a str, file: &'a [u8]) -> Blocks<'a> {
        Blocks { shown, file, rest: file }
    }

    /// The next block; `None` at the end.
    ///
    /// # Errors
    /// `checkpoint_corrupt` with its place, if it is not what was written.
    pub fn next(&mut self) -> Result<Option<Block<'a>>, RunError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let at = self.file.len() - self.rest.len();
        let (content, behind) = unpacked(self.rest).ok_or_else(|| damaged(self.shown, at))?;
        self.rest = behind;
        Ok(Some(Block { shown: self.shown, at, content }))
    }
}

impl Block<'_> {
    /// Gives each record with its partition, in order; says how many there were.
    pub fn read(&self, mut each: impl FnMut(i32, &Frame<'_>) -> Result<(), RunError>) -> Result<u64, RunError> {
        let damaged = || damaged(self.shown, self.at);
        let mut records = 0;
        let mut rest = &self.content[..];
        while !rest.is_empty() {
            let (partition, frame) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
            let (frame, behind) = Frame::read(frame).ok_or_else(damaged)?;
            each(i32::from_le_bytes(*partition), &frame)?;
            records += 1;
            rest = behind;
        }
        Ok(records)
    }
}

fn damaged(shown: &str, at: usize) -> RunError {
    RunError::external("checkpoint_corrupt", format!("{shown} is damaged: its block at byte {at} cannot be read"))
}

/// The first block of a file, and what is behind it.
fn unpacked(file: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (bytes, rest) = file.split_first_chunk::<4>()?;
    let (unpacked_bytes, rest) = rest.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<8>()?;
    let (packed, behind) = rest.split_at_checked(u32::from_le_bytes(*bytes) as usize)?;
    let unpacked_bytes = u32::from_le_bytes(*unpacked_bytes) as usize;
    // Before anything is unpacked: LZ4 trusts what it reads.
    if xxh3_64_with_seed(packed, unpacked_bytes as u64) != u64::from_le_bytes(*checksum) {
        return None;
    }
    let block = decompress(packed, unpacked_bytes).ok().filter(|block| block.len() == unpacked_bytes)?;
    Some((block, behind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes that cannot be packed.
    fn noise(seed: u64, bytes: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        });
        next.take(bytes).collect()
    }

    fn files_of(log: RecordLog) -> Vec<(FileFacts, Vec<u8>)> {
        let mut files = log.finish().unwrap();
        std::iter::from_fn(|| files.next_file().unwrap()).collect()
    }

    #[test]
    fn a_log_gives_back_its_records_in_order_whatever_its_size() {
        for (records, bytes) in [(0, 0), (1, 10), (3000, 1000), (60, 1 << 20), (3, 5 << 20)] {
            let mut log = RecordLog::default();
            for at in 0..records {
                let value = noise(at, bytes);
                let frame =
                    Frame { key: Some(b"k"), value: Some(&value), timestamp: Some(at as i64), ..Frame::default() };
                let mut written = Vec::new();
                frame.write(&mut written);
                log.append(at as i32 % 7, &written).unwrap();
                assert!(log.packed.len() < MEMORY_BYTES, "what is beyond is on disk");
            }
            let files = files_of(log);
            let total: usize = files.iter().map(|(_, content)| content.len()).sum();
            assert!(files.iter().all(|(_, content)| content.len() as u64 <= FILE_BYTES));
            assert!(total < 20 << 20 || files.len() > 3, "{} files of {total} bytes", files.len());
            let mut at = 0;
            for (facts, content) in &files {
                let read = read_file("it", content, |partition, frame| {
                    assert_eq!((partition, frame.timestamp), (at as i32 % 7, Some(at as i64)));
                    assert!(frame.value == Some(&noise(at, bytes)[..]) && frame.key == Some(b"k"));
                    at += 1;
                    Ok(())
                });
                assert_eq!((read.unwrap(), content.len() as u64), (facts.records, facts.bytes));
            }
            assert_eq!(at, records);
        }
    }

    #[test]
    fn a_log_that_is_damaged_says_so() {
        let mut log = RecordLog::default();
        let mut frame = Vec::new();
        Frame { value: Some(b"a value that is long enough"), ..Frame::default() }.write(&mut frame);
        for _ in 0..3 {
            log.append(1, &frame).unwrap();
            log.pack().unwrap();
        }
        let (_, content) = files_of(log).remove(0);
        for at in 0..content.len() {
            let mut damaged = content.clone();
            damaged[at] ^= 1;
            let read = read_file("the/file", &damaged, |_, _| Ok(()));
            let error = read.expect_err("a flipped bit");
            assert!(error.code == "checkpoint_corrupt" && error.message.contains("the/file"), "{at}: {error}");
        }
        let cut = read_file("it", &content[..content.len() - 1], |_, _| Ok(()));
        assert!(cut.is_err());
    }
}
