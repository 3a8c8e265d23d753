//! Rows to tuples as `COPY ... (FORMAT binary)` takes them, in frames: the columns of the key, then the others.
//!
//! Every type has one form, that of the type which [`target::column_type`](super::target::column_type) names.

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, ListArray, RecordBatch};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Schema, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use engine::{Batch, RunError};
use formats::RecordEncoder;
use formats::json::{JsonOptions, Writer};

use super::target::{Target, is_json};
use crate::staged::Frame;

/// Days and microseconds from 1970 to 2000, where PostgreSQL begins to count.
const DAYS_TO_2000: i32 = 10_957;
const US_TO_2000: i64 = DAYS_TO_2000 as i64 * 86_400_000_000;

/// Makes frames of rows.
pub struct Encoder {
    table: String,
    names: Vec<String>,
    key: Vec<usize>,
    rest: Vec<usize>,
    scratch: (Vec<u8>, Vec<u8>),
}

/// A value that PostgreSQL has no form for.
struct Misfit(&'static str);

impl Encoder {
    pub fn new(target: &Target) -> Encoder {
        let names = target.columns.iter().map(|column| column.name.clone()).collect();
        let (key, rest) = (target.key.clone(), target.others());
        Encoder { table: target.shown.clone(), names, key, rest, scratch: Default::default() }
    }

    /// Appends a frame for each row.
    ///
    /// # Errors
    /// `output_null` for a NULL in the key, `output_unwritable` for a value that PostgreSQL has no form for; both with the row.
    pub fn encode(&mut self, batch: &Batch, log: &mut Vec<u8>) -> Result<(), RunError> {
        let rows = &batch.rows;
        let cells = rows.columns().iter().map(Cells::new).collect::<Result<Vec<_>, _>>()?;
        let Encoder { table, names, key: keys, rest, scratch: (key, value) } = self;
        for row in 0..rows.num_rows() {
            key.clear();
            value.clear();
            for (columns, bytes) in [(&*keys, &mut *key), (&*rest, &mut *value)] {
                for at in columns {
                    cells[*at].write(row, bytes).map_err(|Misfit(why)| {
                        let message = format!(
                            "cannot write to table {table}: column {}: {why}, in the row {}",
                            names[*at],
                            shown(names, rows, row)
                        );
                        RunError::user("output_unwritable", message)
                    })?;
                }
            }
            if let Some(at) = keys.iter().find(|at| cells[**at].is_null(row)) {
                let message = format!(
                    "cannot write to table {table}: {} is part of its key, and NULL in the row {}",
                    names[*at],
                    shown(names, rows, row)
                );
                return Err(RunError::user("output_null", message).hint("leave such rows out (WHERE ... IS NOT NULL)"));
            }
            let key = (!keys.is_empty()).then_some(&key[..]);
            Frame { taken_back: !batch.kind(row).adds(), key, value: Some(value), ..Frame::default() }.write(log);
        }
        Ok(())
    }
}

/// `a = 1, b = NULL`, cut where it is long.
fn shown(names: &[String], rows: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let cells = names.iter().zip(rows.columns()).map(|(name, column)| {
        let value = ArrayFormatter::try_new(column, &options)
            .map_or_else(|_| "?".to_string(), |formatter| formatter.value(row).to_string());
        format!("{name} = {value}")
    });
    cells.collect::<Vec<_>>().join(", ").chars().take(300).collect()
}

/// The values of a column.
enum Cells {
    Nothing,
    Plain(ArrayRef),
    List(ListArray, Box<Cells>, u32),
    /// A text per row, and where each ends.
    Json(ArrayRef, Vec<u8>, Vec<usize>),
}

impl Cells {
    fn new(column: &ArrayRef) -> Result<Cells, RunError> {
        Ok(match column.data_type() {
            ArrowType::Null => Cells::Nothing,
            ArrowType::List(item) if !is_json(column.data_type()) => {
                let list = column.as_list::<i32>().clone();
                let items = Cells::new(list.values())?;
                let oid = oid(item.data_type())
                    .ok_or_else(|| RunError::internal(format!("an array of {} is no JSON", item.data_type())))?;
                Cells::List(list, Box::new(items), oid)
            }
            other if is_json(other) => {
                let schema = Schema::new(vec![Field::new("v", other.clone(), true)]);
                let rows = RecordBatch::try_new(schema.clone().into(), vec![column.clone()])?;
                let unwritable = |error: formats::FormatError| RunError::user("output_unwritable", error.to_string());
                let mut writer = Writer::new(schema.into(), JsonOptions::default()).map_err(unwritable)?;
                let mut lines = Vec::new();
                writer.encode(&rows, &mut lines).map_err(unwritable)?;
                let ends = lines.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
                Cells::Json(column.clone(), lines, ends)
            }
            _ => Cells::Plain(column.clone()),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Nothing => true,
            Cells::Plain(column) | Cells::Json(column, ..) => column.is_null(row),
            Cells::List(list, ..) => list.is_null(row),
        }
    }

    /// Length and bytes of a value.
    fn write(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Misfit> {
        if self.is_null(row) {
            out.extend((-1i32).to_be_bytes());
            return Ok(());
        }
        let start = out.len();
        out.extend([0; 4]);
        match self {
            Cells::Nothing => {}
            Cells::Plain(column) => plain(column, row, out)?,
            Cells::Json(_, lines, ends) => {
                // The version of jsonb's form; then what stands between `{"v":` and `}`.
                out.push(1);
                let start = if row == 0 { 0 } else { ends[row - 1] + 1 };
                out.extend_from_slice(&lines[start + 5..ends[row] - 1]);
            }
            Cells::List(list, items, oid) => {
                let offsets = list.value_offsets();
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                let has_nulls = range.clone().any(|at| items.is_null(at));
                // No dimension, or one, which begins at 1.
                out.extend(i32::from(!range.is_empty()).to_be_bytes());
                out.extend(i32::from(has_nulls).to_be_bytes());
                out.extend(oid.to_be_bytes());
                if !range.is_empty() {
                    out.extend((range.len() as i32).to_be_bytes());
                    out.extend(1i32.to_be_bytes());
                }
                for at in range {
                    items.write(at, out)?;
                }
            }
        }
        let length = out.len() - start - 4;
        let length = i32::try_from(length).map_err(|_| Misfit("a value has 2 GiB or more"))?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }
}

/// The type's number in every database.
fn oid(item: &ArrowType) -> Option<u32> {
    Some(match item {
        ArrowType::Boolean => 16,
        ArrowType::Binary => 17,
        ArrowType::Int64 => 20,
        ArrowType::Int8 | ArrowType::Int16 => 21,
        ArrowType::Int32 => 23,
        ArrowType::Utf8 => 25,
        ArrowType::Float32 => 700,
        ArrowType::Float64 => 701,
        ArrowType::Date32 => 1082,
        ArrowType::Time64(_) => 1083,
        ArrowType::Timestamp(_, None) => 1114,
        ArrowType::Timestamp(_, Some(_)) => 1184,
        ArrowType::Decimal128(..) => 1700,
        _ => return None,
    })
}

fn value<T: ArrowPrimitiveType>(column: &ArrayRef, row: usize) -> T::Native {
    column.as_primitive::<T>().value(row)
}

fn plain(column: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<(), Misfit> {
    match column.data_type() {
        ArrowType::Boolean => out.push(column.as_boolean().value(row).into()),
        ArrowType::Int8 => out.extend(i16::from(value::<Int8Type>(column, row)).to_be_bytes()),
        ArrowType::Int16 => out.extend(value::<Int16Type>(column, row).to_be_bytes()),
        ArrowType::Int32 => out.extend(value::<Int32Type>(column, row).to_be_bytes()),
        ArrowType::Int64 => out.extend(value::<Int64Type>(column, row).to_be_bytes()),
        ArrowType::Float32 => out.extend(value::<Float32Type>(column, row).to_be_bytes()),
        ArrowType::Float64 => out.extend(value::<Float64Type>(column, row).to_be_bytes()),
        ArrowType::Decimal128(_, scale) => numeric(value::<Decimal128Type>(column, row), *scale as u8, out),
        ArrowType::Utf8 => {
            let text = column.as_string::<i32>().value(row).as_bytes();
            if text.contains(&0) {
                return Err(Misfit("a text has the character U+0000, which PostgreSQL cannot store"));
            }
            out.extend_from_slice(text);
        }
        ArrowType::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
        ArrowType::Date32 => {
            let days = value::<Date32Type>(column, row).checked_sub(DAYS_TO_2000);
            out.extend(days.ok_or(Misfit("a date is too early"))?.to_be_bytes());
        }
        ArrowType::Time64(_) => out.extend(value::<Time64MicrosecondType>(column, row).to_be_bytes()),
        ArrowType::Timestamp(unit, _) => {
            let us = match unit {
                TimeUnit::Second => value::<TimestampSecondType>(column, row).checked_mul(1_000_000),
                TimeUnit::Millisecond => value::<TimestampMillisecondType>(column, row).checked_mul(1_000),
                TimeUnit::Microsecond => Some(value::<TimestampMicrosecondType>(column, row)),
                TimeUnit::Nanosecond => {
                    let ns = value::<TimestampNanosecondType>(column, row);
                    if ns.rem_euclid(1_000) != 0 {
                        return Err(Misfit(
                            "a timestamp has nanoseconds, and PostgreSQL stores microseconds: CAST it to TIMESTAMP(6)",
                        ));
                    }
                    Some(ns / 1_000)
                }
            };
            let us = us.and_then(|us| us.checked_sub(US_TO_2000)).ok_or(Misfit("a timestamp is out of range"))?;
            out.extend(us.to_be_bytes());
        }
        _ => return Err(Misfit("its type has no form in PostgreSQL")),
    }
    Ok(())
}

/// Groups of four decimal digits, from the first that is not zero to the last; the weight says where the point is.
fn numeric(unscaled: i128, scale: u8, out: &mut Vec<u8>) {
    let (scale, whole) = (u32::from(scale), unscaled.unsigned_abs());
    let (mut front, tail) = (whole / 10u128.pow(scale), whole % 10u128.pow(scale));
    let mut groups = [0u16; 20];
    let mut integers = 0;
    while front > 0 {
        groups[integers] = (front % 10_000) as u16;
        front /= 10_000;
        integers += 1;
    }
    groups[..integers].reverse();
    let mut end = integers;
    for group in 0..scale.div_ceil(4) {
        let behind = scale.saturating_sub(4 * (group + 1));
        let digits = tail / 10u128.pow(behind) % 10_000;
        // The last may be short.
        let missing = (4 * (group + 1)).saturating_sub(scale);
        groups[end] = (digits * 10u128.pow(missing) % 10_000) as u16;
        end += 1;
    }
    let first = groups[..end].iter().position(|group| *group != 0).unwrap_or(end);
    let last = groups[..end].iter().rposition(|group| *group != 0).map_or(first, |last| last + 1);
    let weight = if first == last { 0 } else { integers as i16 - 1 - first as i16 };
    out.extend(((last - first) as i16).to_be_bytes());
    out.extend(weight.to_be_bytes());
    out.extend(if unscaled < 0 && first != last { 0x4000u16 } else { 0 }.to_be_bytes());
    out.extend((scale as u16).to_be_bytes());
    for group in &groups[first..last] {
        out.extend(group.to_be_bytes());
    }
}
