//! Shared by the tests of the formats: seeded mutations, schemas, cells.

use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

pub(crate) use crate::conformance::{Outcome, Random, feed};
use crate::decoder::RecordDecoder;

/// A good text made worse (or not) in one or two places; `alphabet` has the bytes that matter to the grammar.
pub(crate) fn mutate(random: &mut Random, seeds: &[&[u8]], alphabet: &[u8]) -> Vec<u8> {
    let mut text = random.pick(seeds).to_vec();
    for _ in 0..1 + random.below(2) {
        if text.is_empty() {
            break;
        }
        let at = random.below(text.len());
        let byte = if random.below(8) == 0 { random.bits() as u8 } else { alphabet[random.below(alphabet.len())] };
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
