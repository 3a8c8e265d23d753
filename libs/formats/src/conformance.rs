//! For tests and fuzz targets: what every decoder keeps on every file, as assertions, and draws that are the same in every run.

use arrow::array::Array;
use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;

use crate::decoder::{BadRecord, RecordDecoder, Stopped};

/// What a decoder makes of a whole file.
#[derive(Debug, PartialEq)]
pub struct Outcome {
    pub batch: RecordBatch,
    /// Per row the number of its record.
    pub records: Vec<u64>,
    pub bad: Vec<BadRecord>,
}

impl Outcome {
    /// The reports, one line each: record, offset, code, message, and the payload in brackets.
    pub fn reports(&self) -> Vec<String> {
        let line = |bad: &BadRecord| {
            let payload = String::from_utf8_lossy(&bad.payload);
            format!("{} {} {} {} [{payload}]", bad.record, bad.offset, bad.code, bad.message)
        };
        self.bad.iter().map(line).collect()
    }
}

/// Feeds a file in chunks of `chunk()` bytes and batches of `rows()` rows.
///
/// # Panics
/// The decoder does not keep its contract: more rows than asked for, Arrow data that is not valid, bytes left over, a number of records
/// that is not that of the rows, a payload that is not where its report says. Or the file as a whole is bad (its header).
pub fn feed(
    decoder: &mut dyn RecordDecoder,
    file: &[u8],
    mut chunk: impl FnMut() -> usize,
    mut rows: impl FnMut() -> usize,
) -> Outcome {
    let (mut batches, mut records, mut bad) = (Vec::new(), Vec::new(), Vec::new());
    let (mut start, mut end) = (0, 0);
    decoder.begin_file();
    loop {
        let wanted = rows();
        let last = end == file.len();
        let progress = decoder.decode(&file[start..end], last, wanted).expect("the file as a whole is good");
        assert!(progress.rows <= wanted, "no more rows than asked for");
        start += progress.consumed;
        bad.extend(progress.bad);
        if progress.stopped != Stopped::Bytes || last {
            let decoded = decoder.flush();
            assert_eq!(decoded.records.len(), decoded.batch.num_rows(), "each row has the number of its record");
            for column in decoded.batch.columns() {
                column.to_data().validate_full().expect("valid Arrow data");
            }
            records.extend(decoded.records.iter());
            batches.push(decoded.batch);
        }
        match progress.stopped {
            Stopped::Bytes if last => break,
            Stopped::Bytes => end = (end + chunk()).min(file.len()),
            Stopped::Rows | Stopped::Full => {}
        }
    }
    assert_eq!(start, file.len(), "all bytes of a file are consumed");
    for bad in &bad {
        let from = bad.offset as usize;
        assert_eq!(file[from..from + bad.payload.len()], bad.payload, "a payload is where its report says");
    }
    Outcome { batch: concat_batches(decoder.schema(), &batches).expect("one schema"), records, bad }
}

/// SplitMix64: the same draws in every run.
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `limit`, without it.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.bits() % limit as u64) as usize
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}
