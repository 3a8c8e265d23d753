//! Rows as text for the tests of operators, aggregates that are simple enough to be sure of, and snapshots by way of bytes.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use graph::AggregateFunction;
use state::{MemoryStore, SnapshotWriter};

use super::ledger::SplitNames;
use crate::aggregate::{Accumulator, AggregateError};
use crate::batch::{Batch, RowKind};
use crate::operator::{Operator, Output};
use crate::plan::Call;

/// A batch from text: `columns` like `k STRING, v BIGINT`, then a row per line, values divided by blanks. Times of day are on 1970-01-01.
/// Rows may begin with a kind mark.
pub fn batch(columns: &str, rows: &str) -> Batch {
    let schema = schema(columns);
    let lines: Vec<&str> = rows.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let marks = ["+I", "-U", "+U", "-D"];
    let kinds: Vec<u8> =
        lines.iter().filter_map(|line| marks.iter().position(|mark| line.starts_with(mark))).map(|k| k as u8).collect();
    let cells: Vec<Vec<&str>> =
        lines.iter().map(|line| line.split_whitespace().skip(usize::from(!kinds.is_empty())).collect()).collect();
    let arrays: Vec<ArrayRef> = arrow(&schema)
        .fields()
        .iter()
        .enumerate()
        .map(|(at, field)| {
            let texts = cells.iter().map(|row| (row[at] != "NULL").then(|| spelled(row[at], field.data_type())));
            cast(&texts.collect::<StringArray>(), field.data_type()).unwrap()
        })
        .collect();
    let rows = RecordBatch::try_new(arrow(&schema), arrays).unwrap();
    if kinds.is_empty() { Batch::inserts(rows) } else { Batch::changes(rows, kinds.into()) }
}

fn spelled(text: &str, data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(_, _) if text.contains(':') && !text.contains('T') => {
            format!("1970-01-01T{text}{}", if text.matches(':').count() == 1 { ":00" } else { "" })
        }
        _ => text.to_string(),
    }
}

pub fn schema(columns: &str) -> graph::Schema {
    let column = |text: &str| {
        let (name, data_type) = text.trim().split_once(' ').unwrap();
        graph::Column::new(name, data_type.parse().unwrap(), true)
    };
    graph::Schema::new(columns.split(',').map(column).collect())
}

pub fn arrow(schema: &graph::Schema) -> arrow::datatypes::SchemaRef {
    expr::arrow_schema(schema)
}

/// A row per line, as [`batch`] reads them; a kind mark before each row of a batch with kinds.
pub fn text(batches: &[Batch]) -> String {
    let mut lines = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<ArrayFormatter> =
            batch.rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let kind = batch.kinds.as_ref().map(|_| batch.kind(row).mark().to_string());
            let cells = columns.iter().map(|column| short(&column.value(row).to_string()));
            lines.push(kind.into_iter().chain(cells).collect::<Vec<_>>().join(" "));
        }
    }
    lines.join("\n")
}

fn short(text: &str) -> String {
    let Some(time) = text.strip_prefix("1970-01-01T") else { return text.to_string() };
    time.strip_suffix(":00").filter(|rest| rest.contains(':')).unwrap_or(time).to_string()
}

/// The lines of a text, ordered: for comparisons where the order of rows is free.
pub fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    lines.sort();
    lines
}

/// The relation that changes add up to, each row with how often it is there; panics when a row is taken back that is not there.
pub fn relation(batches: &[Batch]) -> Vec<String> {
    let mut rows: Vec<String> = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let line = text(&[Batch::inserts(batch.rows.slice(row, 1))]);
            if batch.kind(row).adds() {
                rows.push(line);
            } else {
                let at = rows.iter().position(|known| *known == line);
                rows.remove(at.unwrap_or_else(|| panic!("{line} is taken back but was never there")));
            }
        }
    }
    rows.sort();
    rows
}

/// Asserts that each -U has its +U behind it, in one batch.
pub fn updates_are_paired(batches: &[Batch]) {
    for batch in batches {
        for row in 0..batch.num_rows() {
            match batch.kind(row) {
                RowKind::UpdateBefore => assert_eq!(batch.kind(row + 1), RowKind::UpdateAfter),
                RowKind::UpdateAfter => assert_eq!(batch.kind(row - 1), RowKind::UpdateBefore),
                _ => {}
            }
        }
    }
}

pub fn names() -> SplitNames {
    Arc::new(|split| ("source".to_string(), format!("split-{split}")))
}

pub fn call(function: AggregateFunction, arg: Option<usize>) -> Call {
    Call {
        function,
        arg,
        arg_type: arg.map(|_| graph::DataType::BigInt),
        filter: None,
        distinct: false,
        fraction: None,
        time: None,
        retracts: false,
        result: graph::DataType::BigInt,
    }
}

/// Snapshots of operators, one per worker, each by way of bytes.
pub fn saved(operators: &mut [&mut dyn Operator]) -> MemoryStore {
    let mut store = MemoryStore::new();
    for (worker, operator) in operators.iter_mut().enumerate() {
        let mut writer = SnapshotWriter::new();
        operator.snapshot(1, &mut writer).unwrap();
        store.put("it", worker, writer.finish().unwrap());
    }
    MemoryStore::from_bytes(&store.to_bytes().unwrap()).unwrap()
}

/// What an operator sends when called so.
pub fn sent(call: impl FnOnce(&mut Output) -> crate::error::Result<()>) -> Vec<Batch> {
    let mut out = Output::new();
    call(&mut out).unwrap();
    out.take()
}

/// A small generator (SplitMix64): tests need repeatable numbers, not good ones.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// COUNT and SUM over BIGINT: the sum of the values and how many there were.
pub fn accumulator(call: &Call) -> Result<Box<dyn Accumulator>, AggregateError> {
    Ok(Box::new(Plain { call: call.clone(), groups: Vec::new() }))
}

struct Plain {
    call: Call,
    groups: Vec<(i64, i64)>,
}

impl Plain {
    fn apply(&mut self, slots: &[u32], arg: Option<&ArrayRef>, filter: Option<&BooleanArray>, sign: i64) {
        for (row, &slot) in slots.iter().enumerate() {
            let passes = filter.is_none_or(|filter| filter.is_valid(row) && filter.value(row));
            let value = match arg {
                Some(arg) => arg.is_valid(row).then(|| match arg.as_primitive_opt::<Int64Type>() {
                    Some(values) => values.value(row),
                    None => 0,
                }),
                None => Some(0),
            };
            if let Some(value) = value.filter(|_| passes) {
                self.groups[slot as usize].0 += sign;
                self.groups[slot as usize].1 += sign * value;
            }
        }
    }
}

impl Accumulator for Plain {
    fn resize(&mut self, slots: usize) {
        if slots > self.groups.len() {
            self.groups.resize(slots, (0, 0));
        }
    }

    fn update(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        _time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.apply(slots, arg, filter, 1);
        Ok(())
    }

    fn retract(
        &mut self,
        slots: &[u32],
        arg: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        _time: Option<&[i64]>,
    ) -> Result<(), AggregateError> {
        self.apply(slots, arg, filter, -1);
        Ok(())
    }

    fn merge(&mut self, slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        let (counts, sums) = (state[0].as_primitive::<Int64Type>(), state[1].as_primitive::<Int64Type>());
        for (row, &slot) in slots.iter().enumerate() {
            self.groups[slot as usize].0 += counts.value(row);
            self.groups[slot as usize].1 += sums.value(row);
        }
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        vec![Field::new("count", DataType::Int64, false), Field::new("sum", DataType::Int64, false)]
    }

    fn state(&self, slots: &[u32]) -> Vec<ArrayRef> {
        let column = |value: fn(&(i64, i64)) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(slots.iter().map(|&slot| value(&self.groups[slot as usize]))))
        };
        vec![column(|group| group.0), column(|group| group.1)]
    }

    fn value(&self, slots: &[u32]) -> Result<ArrayRef, AggregateError> {
        let counts = self.call.function == AggregateFunction::Count;
        let value = |&slot: &u32| match self.groups[slot as usize] {
            (count, _) if counts => Some(count),
            (count, sum) => (count > 0).then_some(sum),
        };
        Ok(Arc::new(slots.iter().map(value).collect::<Int64Array>()))
    }

    fn clear(&mut self, slots: &[u32]) {
        slots.iter().for_each(|&slot| self.groups[slot as usize] = (0, 0));
    }

    fn bytes(&self) -> usize {
        self.groups.capacity() * 16
    }
}
