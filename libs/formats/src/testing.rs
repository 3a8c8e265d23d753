//! Shared by the tests of the formats: seeded mutations, and feeding in arbitrary chunks.

use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use crate::decoder::{BadRecord, RecordDecoder, Stopped};

/// SplitMix64: the same mutations in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub(crate) fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

/// A good text made worse (or not) in one or two places; `alphabet` has the bytes that matter to the grammar.
pub(crate) fn mutate(random: &mut Random, seeds: &[&[u8]], alphabet: &[u8]) -> Vec<u8> {
    let mut text = random.pick(seeds).to_vec();
    for _ in 0..1 + random.below(2) {
        if text.is_empty() {
            break;
        }
        let at = random.below(text.len());
        let byte = if random.below(8) == 0 { random.next() as u8 } else { alphabet[random.below(alphabet.len())] };
        match random.below(8) {
            // Mostly still good: another digit, or another letter in a text.
            6 | 7 if text[at].is_ascii_digit() => text[at] = b'0' + random.below(10) as u8,
            6 | 7 if text[at].is_ascii_alphabetic() => text[at] = b"aeltuz"[random.below(6)],
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            2 => drop(text.remove(at)),
            3 if random.below(4) == 0 => text.truncate(at),
            3 => text[at] ^= 1 << random.below(8),
            4 => {
                let end = at + random.below(text.len() - at + 1).min(12);
                text.drain(at..end);
            }
            _ => {
                let other = random.pick(seeds);
                let from = random.below(other.len());
                let to = from + random.below(other.len() - from + 1).min(24);
                text.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    text
}

/// What a decoder makes of a whole file.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) batch: RecordBatch,
    pub(crate) records: Vec<u64>,
    pub(crate) bad: Vec<BadRecord>,
}

/// Feeds a file in chunks of `chunk()` bytes and batches of `rows()` rows.
pub(crate) fn feed(
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
        assert!(progress.rows <= wanted);
        start += progress.consumed;
        bad.extend(progress.bad);
        if progress.stopped != Stopped::Bytes || last {
            let decoded = decoder.flush();
            assert_eq!(decoded.records.len(), decoded.batch.num_rows());
            decoded
                .batch
                .columns()
                .iter()
                .for_each(|column| column.to_data().validate_full().expect("valid Arrow data"));
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
    Outcome { batch: concat_batches(decoder.schema(), &batches).expect("one schema"), records, bad }
}

/// Feeds a file in one piece.
pub(crate) fn decode_all(decoder: &mut dyn RecordDecoder, file: &[u8]) -> Outcome {
    feed(decoder, file, || file.len(), || usize::MAX)
}

pub(crate) fn schema(fields: impl IntoIterator<Item = Field>) -> SchemaRef {
    Arc::new(Schema::new(fields.into_iter().collect::<Vec<_>>()))
}

pub(crate) fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

pub(crate) fn row(fields: impl IntoIterator<Item = Field>) -> DataType {
    DataType::Struct(Fields::from(fields.into_iter().collect::<Vec<_>>()))
}

/// One cell as text, `null` for nulls.
pub(crate) fn cell(array: &dyn Array, row: usize) -> String {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    if let DataType::Timestamp(unit, Some(_)) = array.data_type() {
        // Arrow prints no named zones; ours is always UTC.
        let data = array
            .to_data()
            .into_builder()
            .data_type(DataType::Timestamp(*unit, None))
            .build()
            .expect("the same layout");
        return format!("{}Z", cell(&arrow::array::make_array(data), row));
    }
    let options = FormatOptions::default().with_null("null");
    ArrayFormatter::try_new(array, &options).expect("a printable type").value(row).to_string()
}
