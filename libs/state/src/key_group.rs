//! Which worker owns a key: part of the savepoint format, so nothing here may change without a new format version.
//!
//! *Key hash* = XXH3 (64 bit, seed 0) over the canonical encoding of the key, one encoded value per key column, in order.
//! *Key group* = key hash modulo the job's number of groups. Workers own contiguous ranges of groups ([`owner`]).
//! The golden vectors in this file's tests hold the definition.
//!
//! Canonical encoding, by logical type (a dictionary is its values; views and large offsets change nothing); integers are little-endian:
//!
//! | type | bytes |
//! |---|---|
//! | NULL of any type | `00` |
//! | BOOLEAN | `01`, 0 or 1 as 8 bytes |
//! | TINYINT, SMALLINT, INT, BIGINT, unsigned | `02`, value as i64 (8 bytes), so the width does not matter |
//! | FLOAT, DOUBLE | `03`, value as f64 bits (8 bytes); -0.0 is 0.0, every NaN is `7ff8000000000000` |
//! | DECIMAL(p, s) | `04`, s (1 byte), unscaled value as i128 (16 bytes) |
//! | STRING | `05`, length in bytes as u32 (4 bytes), UTF-8 |
//! | BYTES | `06`, length as u32 (4 bytes), bytes |
//! | DATE | `07`, days since 1970-01-01 (8 bytes) |
//! | ARRAY | `08`, number of elements as u32 (4 bytes), the elements |
//! | ROW | `09`, the fields |
//! | TIMESTAMP, TIMESTAMP_LTZ | `10` s, `11` ms, `12` us, `13` ns; count of that unit since the epoch (8 bytes) |
//! | TIME | `14` .. `17` by unit likewise; count since midnight (8 bytes) |
//! | duration | `18` .. `1b` by unit likewise (8 bytes) |
//!
//! Every value is tagged and delimits itself, so no two different keys of the same types have one encoding. The unit of a timestamp is
//! part of its value: a plan that compares TIMESTAMP(3) with TIMESTAMP(6) casts before it exchanges.

use std::ops::Range;

use arrow::array::{Array, ArrayAccessor, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Decimal128Type, TimeUnit};
use xxhash_rust::xxh3::xxh3_64;

use crate::words::{each_word, is_word};
use crate::{logical, logical_type};

/// Number of key groups of a job that does not choose its own.
pub const KEY_GROUPS: u16 = 256;

const NULL: u8 = 0x00;
const DECIMAL: u8 = 0x04;
const STRING: u8 = 0x05;
const BYTES: u8 = 0x06;
const LIST: u8 = 0x08;
const ROW: u8 = 0x09;
const WORD_LEN: usize = 9;
const DECIMAL_LEN: usize = 18;
const PREFIX_LEN: usize = 5;

/// The key hash of each row of the key `columns`, which all have `rows` rows. No columns: all rows share one hash.
///
/// Panics on a column whose type [`crate::check_key_type`] refuses.
pub fn key_hashes(columns: &[ArrayRef], rows: usize) -> Vec<u64> {
    assert!(columns.iter().all(|column| column.len() == rows), "every key column has a value for every row");
    let columns: Vec<ArrayRef> = columns.iter().map(logical).collect();
    match columns.as_slice() {
        [one] if is_word(one.data_type()) => one_word_column(one),
        [one] if *one.data_type() == DataType::Utf8 => one_string_column(one),
        _ => composite(&columns, rows),
    }
}

/// The key group of each key hash, for a job of `groups` groups.
pub fn key_groups(hashes: &[u64], groups: u16) -> Vec<u16> {
    let groups = u64::from(groups);
    hashes.iter().map(|hash| (hash % groups) as u16).collect()
}

/// The worker, of `workers`, that owns a key group of [`KEY_GROUPS`]: contiguous ranges, sizes differ by at most one.
pub fn owner(group: u16, workers: usize) -> usize {
    usize::from(group) * workers / usize::from(KEY_GROUPS)
}

/// The key groups that a worker owns: the inverse of [`owner`].
pub fn owned(worker: usize, workers: usize) -> Range<u16> {
    let first = |worker: usize| (worker * usize::from(KEY_GROUPS)).div_ceil(workers) as u16;
    first(worker)..first(worker + 1)
}

fn one_word_column(column: &ArrayRef) -> Vec<u64> {
    let mut hashes = vec![0; column.len()];
    let tag = word_tag(column.data_type());
    each_word(column, |row, word| hashes[row] = xxh3_64_of_word(tag, word));
    hash_nulls(column, &mut hashes);
    hashes
}

/// `xxh3_64` of a tag and eight bytes: its branch for 9 to 16 bytes with the length filled in, because most keys are one number
/// and the general function costs several times as much. The two constants are words of the default secret.
/// Source: XXH3 in the xxHash specification, "Small inputs"; a test compares it with the general function.
#[inline(always)]
fn xxh3_64_of_word(tag: u8, word: u64) -> u64 {
    let low = (u64::from(tag) | word << 8) ^ 0x6782_737b_ea42_39b9;
    let high = word ^ 0xaf56_bc3b_0996_523a;
    let product = u128::from(low) * u128::from(high);
    let hash = (WORD_LEN as u64)
        .wrapping_add(low.swap_bytes())
        .wrapping_add(high)
        .wrapping_add(product as u64 ^ (product >> 64) as u64);
    let hash = (hash ^ (hash >> 37)).wrapping_mul(0x1656_6791_9e37_79f9);
    hash ^ (hash >> 32)
}

fn one_string_column(column: &ArrayRef) -> Vec<u64> {
    let strings = column.as_string::<i32>();
    let mut hashes = Vec::with_capacity(column.len());
    // Short strings, the usual ones, are assembled on the stack; the vector serves the others and keeps its room.
    let mut short = [0u8; 128];
    let mut long = Vec::new();
    short[0] = STRING;
    for row in 0..strings.len() {
        let text = strings.value(row).as_bytes();
        let end = PREFIX_LEN + text.len();
        hashes.push(if end <= short.len() {
            short[1..PREFIX_LEN].copy_from_slice(&length(text.len()));
            short[PREFIX_LEN..end].copy_from_slice(text);
            xxh3_64(&short[..end])
        } else {
            long.clear();
            put_bytes(STRING, text, &mut long);
            xxh3_64(&long)
        });
    }
    hash_nulls(column, &mut hashes);
    hashes
}

fn hash_nulls(column: &ArrayRef, hashes: &mut [u64]) {
    if column.null_count() == 0 {
        return;
    }
    let null = xxh3_64(&[NULL]);
    for (row, hash) in hashes.iter_mut().enumerate() {
        if column.is_null(row) {
            *hash = null;
        }
    }
}

/// Column by column in two passes: the length of each row's encoding, then the bytes, into one buffer.
fn composite(columns: &[ArrayRef], rows: usize) -> Vec<u64> {
    let mut ends = vec![0usize; rows];
    columns.iter().for_each(|column| add_lengths(column, &mut ends));
    let mut starts = Vec::with_capacity(rows);
    let mut total = 0;
    for end in &mut ends {
        starts.push(total);
        total += *end;
        *end = total;
    }
    let mut bytes = vec![0u8; total];
    let mut at = starts.clone();
    columns.iter().for_each(|column| write(column, &mut bytes, &mut at));
    starts.iter().zip(&ends).map(|(&start, &end)| xxh3_64(&bytes[start..end])).collect()
}

fn add_lengths(column: &ArrayRef, lengths: &mut [usize]) {
    let array = column.as_ref();
    match array.data_type() {
        data_type if is_word(data_type) => add_length(array, lengths, |_| WORD_LEN),
        DataType::Null => lengths.iter_mut().for_each(|length| *length += 1),
        DataType::Decimal128(_, _) => add_length(array, lengths, |_| DECIMAL_LEN),
        DataType::Utf8 => {
            let strings = array.as_string::<i32>();
            add_length(array, lengths, |row| PREFIX_LEN + strings.value_length(row) as usize)
        }
        DataType::Binary => {
            let binary = array.as_binary::<i32>();
            add_length(array, lengths, |row| PREFIX_LEN + binary.value_length(row) as usize)
        }
        _ => {
            // Nested values are encoded twice, once to be measured: a cold path, kept short.
            let mut scratch = Vec::new();
            for (row, length) in lengths.iter_mut().enumerate() {
                scratch.clear();
                put_value(array, row, &mut scratch);
                *length += scratch.len();
            }
        }
    }
}

fn add_length(array: &dyn Array, lengths: &mut [usize], length_of: impl Fn(usize) -> usize) {
    for (row, length) in lengths.iter_mut().enumerate() {
        *length += if array.is_null(row) { 1 } else { length_of(row) };
    }
}

fn write(column: &ArrayRef, bytes: &mut [u8], at: &mut [usize]) {
    let array = column.as_ref();
    match array.data_type() {
        data_type if is_word(data_type) => {
            let tag = word_tag(data_type);
            each_word(array, |row, word| {
                let start = at[row];
                if array.is_null(row) {
                    bytes[start] = NULL;
                    at[row] = start + 1;
                } else {
                    bytes[start] = tag;
                    bytes[start + 1..start + WORD_LEN].copy_from_slice(&word.to_le_bytes());
                    at[row] = start + WORD_LEN;
                }
            });
        }
        DataType::Utf8 => write_bytes(STRING, array.as_string::<i32>(), bytes, at),
        DataType::Binary => write_bytes(BYTES, array.as_binary::<i32>(), bytes, at),
        _ => {
            let mut scratch = Vec::new();
            for (row, start) in at.iter_mut().enumerate() {
                scratch.clear();
                put_value(array, row, &mut scratch);
                bytes[*start..*start + scratch.len()].copy_from_slice(&scratch);
                *start += scratch.len();
            }
        }
    }
}

fn write_bytes<T: AsRef<[u8]>>(tag: u8, array: impl ArrayAccessor<Item = T>, bytes: &mut [u8], at: &mut [usize]) {
    for (row, start) in at.iter_mut().enumerate() {
        if array.is_null(row) {
            bytes[*start] = NULL;
            *start += 1;
        } else {
            let value = array.value(row);
            let value = value.as_ref();
            let end = *start + PREFIX_LEN + value.len();
            bytes[*start] = tag;
            bytes[*start + 1..*start + PREFIX_LEN].copy_from_slice(&length(value.len()));
            bytes[*start + PREFIX_LEN..end].copy_from_slice(value);
            *start = end;
        }
    }
}

/// The encoding of one value of any key type: what the column-wise paths above must agree with.
fn put_value(array: &dyn Array, row: usize, out: &mut Vec<u8>) {
    if array.is_null(row) || *array.data_type() == DataType::Null {
        return out.push(NULL);
    }
    match array.data_type() {
        data_type if is_word(data_type) => {
            out.push(word_tag(data_type));
            each_word(&array.slice(row, 1), |_, word| out.extend_from_slice(&word.to_le_bytes()));
        }
        DataType::Decimal128(_, scale) => {
            out.extend_from_slice(&[DECIMAL, *scale as u8]);
            out.extend_from_slice(&array.as_primitive::<Decimal128Type>().value(row).to_le_bytes());
        }
        DataType::Utf8 => put_bytes(STRING, array.as_string::<i32>().value(row).as_bytes(), out),
        DataType::Binary => put_bytes(BYTES, array.as_binary::<i32>().value(row), out),
        DataType::List(_) => {
            let elements = array.as_list::<i32>().value(row);
            out.push(LIST);
            out.extend_from_slice(&length(elements.len()));
            (0..elements.len()).for_each(|element| put_value(&elements, element, out));
        }
        DataType::Struct(_) => {
            out.push(ROW);
            array.as_struct().columns().iter().for_each(|field| put_value(field, row, out));
        }
        other if logical_type(other) != *other => put_value(&logical(&array.slice(row, 1)), 0, out),
        other => panic!("{}", crate::KeyTypeError(other.clone())),
    }
}

fn put_bytes(tag: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend_from_slice(&length(value.len()));
    out.extend_from_slice(value);
}

fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).expect("a value of a key is shorter than 4 GiB").to_le_bytes()
}

fn word_tag(data_type: &DataType) -> u8 {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    };
    match data_type {
        DataType::Boolean => 0x01,
        DataType::Float32 | DataType::Float64 => 0x03,
        DataType::Date32 => 0x07,
        DataType::Timestamp(u, _) => 0x10 + unit(u),
        DataType::Time32(u) | DataType::Time64(u) => 0x14 + unit(u),
        DataType::Duration(u) => 0x18 + unit(u),
        integer => {
            debug_assert!(integer.is_integer(), "{integer} has a tag of its own");
            0x02
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::*;
    use arrow::compute::cast;
    use arrow::datatypes::{Int32Type, TimeUnit::*};

    use super::*;
    use crate::test_data::{Random, column, key_types};

    fn hash(columns: &[ArrayRef]) -> u64 {
        key_hashes(columns, 1)[0]
    }

    fn of(value: impl Array + 'static) -> ArrayRef {
        Arc::new(value)
    }

    /// Part of the savepoint format: a failure here means that restored keys would go to other workers.
    #[test]
    fn golden_vectors() {
        let long = "0123456789".repeat(30);
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]);
        let row = StructArray::from(vec![(
            Arc::new(arrow::datatypes::Field::new("a", DataType::Int64, true)),
            of(Int64Array::from(vec![7])),
        )]);
        let cases: Vec<(&str, Vec<ArrayRef>)> = vec![
            ("no columns", vec![]),
            ("NULL", vec![of(Int64Array::from(vec![None]))]),
            ("TRUE", vec![of(BooleanArray::from(vec![true]))]),
            ("0", vec![of(Int64Array::from(vec![0]))]),
            ("-1", vec![of(Int64Array::from(vec![-1]))]),
            ("1.5", vec![of(Float64Array::from(vec![1.5]))]),
            ("NaN", vec![of(Float64Array::from(vec![f64::NAN]))]),
            ("12.34", vec![of(Decimal128Array::from(vec![1234]).with_data_type(DataType::Decimal128(10, 2)))]),
            ("''", vec![of(StringArray::from(vec![""]))]),
            ("'straße'", vec![of(StringArray::from(vec!["straße"]))]),
            ("300 digits", vec![of(StringArray::from(vec![long.as_str()]))]),
            ("x'00ff'", vec![of(BinaryArray::from(vec![&b"\x00\xff"[..]]))]),
            ("DATE 1970-01-02", vec![of(Date32Array::from(vec![1]))]),
            ("TIME 00:00:01", vec![of(Time64MicrosecondArray::from(vec![1_000_000]))]),
            ("TIMESTAMP(0) 1 s", vec![of(TimestampSecondArray::from(vec![1]))]),
            ("TIMESTAMP(3) 1 s", vec![of(TimestampMillisecondArray::from(vec![1_000]))]),
            ("TIMESTAMP(6) 1 s", vec![of(TimestampMicrosecondArray::from(vec![1_000_000]))]),
            ("TIMESTAMP(9) 1 s", vec![of(TimestampNanosecondArray::from(vec![1_000_000_000]))]),
            ("ARRAY[1, NULL]", vec![of(list)]),
            ("ROW(7)", vec![of(row)]),
            ("(1, 2)", vec![of(Int64Array::from(vec![1])), of(Int32Array::from(vec![2]))]),
            ("('a', 2)", vec![of(StringArray::from(vec!["a"])), of(Int64Array::from(vec![2]))]),
            ("(NULL, 2)", vec![of(StringArray::from(vec![None::<&str>])), of(Int64Array::from(vec![2]))]),
        ];
        let found: Vec<String> = cases.iter().map(|(name, key)| format!("{name}: {:016x}", hash(key))).collect();
        assert_eq!(found.join("\n"), GOLDEN.trim());
    }

    /// `no columns` is the published XXH3-64 of no bytes.
    const GOLDEN: &str = "
no columns: 2d06800538d394c2
NULL: c44bdff4074eecdb
TRUE: a048b5cb82162577
0: 8da2b7ab8b1ee0e7
-1: 51957c455b8e6c65
1.5: 58bdc64af8b48dc4
NaN: a849877be0234960
12.34: df6c84a608473e6d
'': 2db60605234d7cb9
'straße': 321386903da63fc1
300 digits: 60547c9d282bf03f
x'00ff': 56044bb36610e033
DATE 1970-01-02: b0ed88a6e1810759
TIME 00:00:01: e938f8c28ae494d5
TIMESTAMP(0) 1 s: 2245e57afe75285a
TIMESTAMP(3) 1 s: 08c16db854adef2e
TIMESTAMP(6) 1 s: 084d96655954f459
TIMESTAMP(9) 1 s: 1234b1043b1e6562
ARRAY[1, NULL]: 6491962c5652d810
ROW(7): 4dda024164182815
(1, 2): 4c7f64e228471e68
('a', 2): a8dadbffcb4bdd83
(NULL, 2): e84195b976d32f21
";

    #[test]
    fn the_encoding_of_a_value_does_not_change_its_hash() {
        let int = |width: DataType| hash(&[cast(&Int64Array::from(vec![-5]), &width).unwrap()]);
        for width in [DataType::Int8, DataType::Int16, DataType::Int32] {
            assert_eq!(int(width), int(DataType::Int64));
        }
        let text = StringArray::from(vec!["some text longer than a view holds"]);
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        for encoding in [DataType::LargeUtf8, DataType::Utf8View, dictionary] {
            assert_eq!(hash(&[cast(&text, &encoding).unwrap()]), hash(&[of(text.clone())]), "{encoding}");
        }
        let double = |value: f64| hash(&[of(Float64Array::from(vec![value]))]);
        assert_eq!(double(-0.0), double(0.0));
        assert_eq!(double(-f64::NAN), double(f64::NAN));
        assert_eq!(double(f64::from_bits(0x7ff0_0000_0000_0001)), double(f64::NAN));
        assert_eq!(hash(&[of(Float32Array::from(vec![0.25]))]), double(0.25));
        let utc = TimestampMillisecondArray::from(vec![9]).with_timezone("UTC");
        assert_eq!(hash(&[of(utc)]), hash(&[of(TimestampMillisecondArray::from(vec![9]))]));
    }

    #[test]
    fn values_of_different_types_or_places_differ() {
        let one = hash(&[of(Int64Array::from(vec![1]))]);
        assert_ne!(one, hash(&[of(Float64Array::from(vec![1.0]))]));
        assert_ne!(one, hash(&[of(TimestampMillisecondArray::from(vec![1]))]));
        let pair = |a: &str, b: &str| hash(&[of(StringArray::from(vec![a])), of(StringArray::from(vec![b]))]);
        assert_ne!(pair("ab", "c"), pair("a", "bc"));
    }

    /// All paths (one column, columns together, value by value) agree, also on sliced columns and with NULLs.
    #[test]
    fn column_paths_agree_with_the_encoding_of_single_values() {
        let mut random = Random(1);
        let types = key_types();
        for round in 0..200 {
            let width = 1 + random.below(3) as usize;
            let columns: Vec<ArrayRef> = (0..width)
                .map(|_| {
                    let data_type = &types[random.below(types.len() as u64) as usize];
                    column(data_type, 40, 30, round % 2 == 0, &mut random).slice(3, 30)
                })
                .collect();
            let hashes = key_hashes(&columns, 30);
            for (row, hash) in hashes.into_iter().enumerate() {
                let mut bytes = Vec::new();
                columns.iter().for_each(|column| put_value(column, row, &mut bytes));
                assert_eq!(hash, xxh3_64(&bytes), "row {row} of {columns:?}");
            }
        }
    }

    #[test]
    fn owners_have_contiguous_ranges_of_even_size() {
        for workers in [1, 2, 3, 5, 7, 256] {
            let owners: Vec<usize> = (0..KEY_GROUPS).map(|group| owner(group, workers)).collect();
            assert!(owners.is_sorted());
            for worker in 0..workers {
                assert!(
                    (0..KEY_GROUPS)
                        .all(|group| owned(worker, workers).contains(&group) == (owners[usize::from(group)] == worker))
                );
            }
            let sizes: Vec<usize> = (0..workers).map(|w| owners.iter().filter(|&&o| o == w).count()).collect();
            assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{workers}: {sizes:?}");
        }
        assert_eq!(key_groups(&[0, 255, 256, u64::MAX], KEY_GROUPS), [0, 255, 0, 255]);
    }

    #[test]
    fn a_map_is_no_key() {
        let entries = DataType::Struct(
            vec![
                arrow::datatypes::Field::new("k", DataType::Utf8, false),
                arrow::datatypes::Field::new("v", DataType::Utf8, true),
            ]
            .into(),
        );
        let map = DataType::Map(Arc::new(arrow::datatypes::Field::new("entries", entries, false)), false);
        let text = crate::check_key_type(&map).unwrap_err().to_string();
        assert!(text.contains("cannot use a column of type Map"), "{text}");
        assert!(crate::check_key_type(&DataType::Timestamp(Millisecond, None)).is_ok());
    }
}
