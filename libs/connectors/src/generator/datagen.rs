//! `datagen`: rows of random values and sequences, at full speed or at a rate.
//!
//! A row is a function of the seed and its number alone. Split `i` of `n` has the rows `i, i + n, i + 2n, ...`, so sequences ascend in
//! every split; a position is the number of rows of the split that were sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray,
};
use arrow::datatypes::SchemaRef;
use arrow::datatypes::{Date32Type, Decimal128Type, Int64Type};
use engine::{Position, RowPositions, RunError, Source, SourceContext, SourceHints, SourceOutput, Split};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::connector::DatagenOptions;
use graph::{DataType, Period, suggestion};
use tokio::time::Instant;

use super::{below, draw, stream, unit};
use crate::files::columns::{Constant, batch};
use expr::{arrow_schema, arrow_type};

/// At a rate, rows are sent at least this far apart, so that slow generators do not send single rows for ever.
const TICK: Duration = Duration::from_millis(10);
/// 2000-01-01, where sequences of times begin by default: a wall clock would not be the same twice.
const EPOCH_US: i64 = 946_684_800_000_000;

pub struct DatagenSource {
    options: DatagenOptions,
    schema: SchemaRef,
    columns: Vec<Column>,
}

/// How the values of a wanted column are made.
struct Column {
    data_type: DataType,
    values: Values,
    nulls: Option<Nulls>,
    stream: u64,
}

#[derive(Clone, Copy)]
struct Nulls {
    rate: f64,
    stream: u64,
}

/// Integers stand for themselves, for unscaled decimals, days, or the units of a timestamp.
enum Values {
    /// `min` and the number of values, 0 for 2^64.
    Integers {
        min: i64,
        count: u64,
    },
    Decimals {
        min: i128,
        count: u128,
    },
    Floats {
        min: f64,
        max: f64,
    },
    /// Hexadecimal digits.
    Texts {
        length: usize,
    },
    Booleans,
    /// `count` is 0 for no end; after the end it begins again.
    Sequence {
        start: i128,
        step: i128,
        count: u128,
    },
}

const KINDS: [&str; 2] = ["random", "sequence"];
const OPTIONS: [&str; 8] = ["kind", "min", "max", "start", "end", "step", "length", "null-rate"];

impl DatagenSource {
    /// # Errors
    /// All options of fields that are wrong, in one message.
    pub fn open(node: &graph::Source, options: &DatagenOptions, hints: SourceHints) -> Result<DatagenSource, RunError> {
        let mut problems = Vec::new();
        let fields = by_column(node, options, &mut problems);
        let mut columns: BTreeMap<&str, Column> = BTreeMap::new();
        for (number, column) in node.columns.iter().enumerate() {
            let mut field = Field {
                name: &column.name,
                data_type: &column.data_type,
                options: fields.get(column.name.as_str()),
                problems: &mut problems,
            };
            let nulls = field
                .null_rate(column.nullable)
                .map(|rate| Nulls { rate, stream: stream(options.seed, 2 * number as u64 + 1) });
            if let Some(values) = field.values() {
                let data_type = column.data_type.clone();
                columns.insert(
                    &column.name,
                    Column { data_type, values, nulls, stream: stream(options.seed, 2 * number as u64) },
                );
            }
        }
        if !problems.is_empty() {
            return Err(RunError::user(
                "invalid_option",
                format!("cannot generate rows of {}: {}", node.table, problems.join("; ")),
            ));
        }
        let wanted =
            hints.columns.names().map(|name| columns.remove(name).expect("a wanted column is one of the node's"));
        Ok(DatagenSource { options: options.clone(), columns: wanted.collect(), schema: arrow_schema(&hints.columns) })
    }

    /// Rows of a split: all of those with numbers `split + k * splits` below the end.
    fn rows_of(&self, split: u64) -> u64 {
        let splits = self.options.splits;
        self.options.number_of_rows.map_or(u64::MAX, |all| all.saturating_sub(split).div_ceil(splits))
    }

    /// `count` rows of a split from its row `first` on.
    fn batch(&self, split: u64, first: u64, count: usize) -> arrow::array::RecordBatch {
        let rows = || (first..first + count as u64).map(|k| split + k * self.options.splits);
        batch(&self.schema, self.columns.iter().map(|column| column.values(rows())).collect(), count)
    }
}

/// Options by column and name.
fn by_column<'a>(
    node: &graph::Source,
    options: &'a DatagenOptions,
    problems: &mut Vec<String>,
) -> BTreeMap<&'a str, BTreeMap<&'a str, &'a str>> {
    let names: Vec<&str> = node.columns.iter().map(|column| column.name.as_str()).collect();
    let mut fields: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for (key, value) in &options.fields {
        let Some((column, option)) = key.strip_prefix("fields.").and_then(|rest| rest.rsplit_once('.')) else {
            problems.push(format!("there is no option {key}; write fields.COLUMN.OPTION"));
            continue;
        };
        if !names.contains(&column) {
            problems.push(format!(
                "option {key}: there is no column {column}; {}",
                suggestion(column, names.iter().copied())
            ));
        } else if !OPTIONS.contains(&option) {
            problems
                .push(format!("option {key}: there is no option {option} of a field; {}", suggestion(option, OPTIONS)));
        } else {
            fields.entry(column).or_default().insert(option, value.trim());
        }
    }
    fields
}

/// Reads the options of one column.
struct Field<'a> {
    name: &'a str,
    data_type: &'a DataType,
    options: Option<&'a BTreeMap<&'a str, &'a str>>,
    problems: &'a mut Vec<String>,
}

impl Field<'_> {
    fn option(&self, option: &str) -> Option<&str> {
        self.options.and_then(|options| options.get(option).copied())
    }

    fn problem(&mut self, option: &str, reason: String) {
        self.problems.push(format!("option fields.{}.{option}: {reason}", self.name));
    }

    fn null_rate(&mut self, nullable: bool) -> Option<f64> {
        let text = self.option("null-rate")?.to_string();
        match text.parse::<f64>() {
            Ok(rate) if (0.0..=1.0).contains(&rate) => {
                if rate > 0.0 && !nullable {
                    self.problem("null-rate", "the column is declared NOT NULL".into());
                }
                (rate > 0.0).then_some(rate)
            }
            _ => {
                self.problem("null-rate", format!("{text:?} is not a number from 0 to 1"));
                None
            }
        }
    }

    /// A value of the column's type as its integer: unscaled, days, or units of time.
    fn integer(&mut self, option: &str) -> Option<i128> {
        let text = self.option(option)?.to_string();
        let read = || -> Option<i128> {
            let array = Constant::parse(Some(&text), &arrow_type(self.data_type)).ok()?;
            let array = array.value();
            if array.is_null(0) {
                return None;
            }
            Some(match self.data_type {
                DataType::Decimal(..) => array.as_primitive::<Decimal128Type>().value(0),
                DataType::Date => array.as_primitive::<Date32Type>().value(0).into(),
                _ => arrow::compute::cast(array, &arrow::datatypes::DataType::Int64)
                    .ok()?
                    .as_primitive::<Int64Type>()
                    .value(0)
                    .into(),
            })
        };
        let value = read();
        if value.is_none() {
            let data_type = self.data_type.to_string();
            self.problem(option, format!("{text:?} is no value of {data_type}"));
        }
        value
    }

    fn float(&mut self, option: &str, default: f64) -> f64 {
        let Some(text) = self.option(option).map(str::to_string) else { return default };
        text.parse().ok().filter(|value: &f64| value.is_finite()).unwrap_or_else(|| {
            self.problem(option, format!("{text:?} is no number"));
            default
        })
    }

    fn values(&mut self) -> Option<Values> {
        let data_type = self.data_type;
        // Times ascend unless asked otherwise: random ones are late for everything.
        let default = if data_type.is_timestamp() { "sequence" } else { "random" };
        let kind = self.option("kind").unwrap_or(default).to_string();
        let (known, others): (&[&str], &[&str]) = match kind.as_str() {
            "random" => (&["min", "max", "length"], &["start", "end", "step"]),
            "sequence" => (&["start", "end", "step"], &["min", "max", "length"]),
            _ => {
                self.problem("kind", format!("there is no kind {kind}; {}", suggestion(&kind, KINDS)));
                return None;
            }
        };
        for option in others {
            if self.option(option).is_some() {
                self.problem(option, format!("the kind {kind} takes {}", known.join(", ")));
            }
        }
        if kind == "sequence" { self.sequence() } else { self.random() }
    }

    fn sequence(&mut self) -> Option<Values> {
        let unit_us = match self.data_type {
            DataType::Timestamp(0) | DataType::TimestampLtz(0) => Some((1_000_000, 1)),
            DataType::Timestamp(3) | DataType::TimestampLtz(3) => Some((1_000, 1)),
            DataType::Timestamp(6) | DataType::TimestampLtz(6) => Some((1, 1)),
            DataType::Timestamp(_) | DataType::TimestampLtz(_) => Some((1, 1_000)),
            DataType::TinyInt
            | DataType::SmallInt
            | DataType::Int
            | DataType::BigInt
            | DataType::Float
            | DataType::Double => None,
            DataType::Decimal(..) | DataType::String | DataType::Date => None,
            other => {
                let reason = format!("there is no sequence of {other}");
                self.problem("kind", reason);
                return None;
            }
        };
        let (default_start, step) = match unit_us {
            Some((us, units)) => {
                let text = self.option("step").map(str::to_string);
                let period: Result<Period, String> =
                    text.as_deref().map_or(Ok(Period::from_us(us.max(1_000))), str::parse);
                let step = match period {
                    Ok(period) if period.us % us == 0 => i128::from(period.us / us) * units,
                    Ok(_) => {
                        let reason =
                            format!("{} is not a multiple of the unit of {}", text.unwrap_or_default(), self.data_type);
                        self.problem("step", reason);
                        return None;
                    }
                    Err(reason) => {
                        self.problem("step", reason);
                        return None;
                    }
                };
                (i128::from(EPOCH_US / us) * units, step)
            }
            None => {
                let text = self.option("step").map(str::to_string);
                // One whole: a step of decimals is written as a decimal.
                let one =
                    if let DataType::Decimal(_, scale) = self.data_type { 10i128.pow(u32::from(*scale)) } else { 1 };
                let step = match (&text, self.data_type) {
                    (None, _) => Some(one),
                    (Some(_), DataType::Decimal(..)) => self.integer("step"),
                    (Some(text), _) => text.parse().ok(),
                };
                let Some(step) = step else {
                    self.problem("step", format!("{:?} is no whole number", text.unwrap_or_default()));
                    return None;
                };
                (0, step)
            }
        };
        let bound = |field: &mut Self, option: &str| match field.data_type {
            DataType::String | DataType::Float | DataType::Double => {
                let text = field.option(option)?.to_string();
                let value = text.parse::<i64>().ok();
                if value.is_none() {
                    field.problem(option, format!("{text:?} is no whole number"));
                }
                value.map(i128::from)
            }
            _ => field.integer(option),
        };
        let start = bound(self, "start").unwrap_or(default_start);
        let end = bound(self, "end");
        if step == 0 || end.is_some_and(|end| (end - start).signum() * step.signum() < 0) {
            self.problem(if step == 0 { "step" } else { "end" }, "the sequence does not reach its end".into());
            return None;
        }
        // Without an end a narrow type begins again behind its largest value.
        let end = end.or_else(|| {
            (!matches!(self.data_type, DataType::String))
                .then(|| self.range().map(|(min, max)| if step > 0 { max } else { min }))
                .flatten()
        });
        let count = end.map_or(0, |end| ((end - start) / step) as u128 + 1);
        Some(Values::Sequence { start, step, count })
    }

    /// The least and the largest value of the type, as integers.
    fn range(&self) -> Option<(i128, i128)> {
        Some(match self.data_type {
            DataType::TinyInt => (i8::MIN.into(), i8::MAX.into()),
            DataType::SmallInt => (i16::MIN.into(), i16::MAX.into()),
            DataType::Int => (i32::MIN.into(), i32::MAX.into()),
            DataType::BigInt | DataType::Timestamp(_) | DataType::TimestampLtz(_) => (i64::MIN.into(), i64::MAX.into()),
            DataType::Decimal(precision, _) => {
                (1 - 10i128.pow(u32::from(*precision)), 10i128.pow(u32::from(*precision)) - 1)
            }
            // Years 0 to 9999.
            DataType::Date => (-719_528, 2_932_896),
            _ => return None,
        })
    }

    fn random(&mut self) -> Option<Values> {
        let is_text = matches!(self.data_type, DataType::String | DataType::Bytes);
        for option in ["min", "max", "length"] {
            let fits = if option == "length" { is_text } else { !is_text && *self.data_type != DataType::Boolean };
            if !fits && self.option(option).is_some() {
                let reason = format!("it says nothing about {}", self.data_type);
                self.problem(option, reason);
            }
        }
        match self.data_type {
            DataType::Boolean => Some(Values::Booleans),
            DataType::String | DataType::Bytes => {
                let text = self.option("length").unwrap_or("100").to_string();
                match text.parse() {
                    Ok(length) if length <= 1 << 20 => Some(Values::Texts { length }),
                    _ => {
                        self.problem("length", format!("{text:?} is no number up to 1048576"));
                        None
                    }
                }
            }
            DataType::Float | DataType::Double => {
                let (min, max) = (self.float("min", 0.0), self.float("max", 1.0));
                if min > max {
                    self.problem("min", "it is above max".into());
                }
                Some(Values::Floats { min, max })
            }
            _ => {
                let Some((least, largest)) = self.default_range() else {
                    let reason = format!("datagen makes no {}", self.data_type);
                    self.problem("kind", reason);
                    return None;
                };
                let (min, max) = (self.integer("min").unwrap_or(least), self.integer("max").unwrap_or(largest));
                if min > max {
                    self.problem("min", "it is above max".into());
                    return None;
                }
                let count = (max - min) as u128 + 1;
                Some(match self.data_type {
                    DataType::Decimal(..) => Values::Decimals { min, count },
                    // 2^64 values are written as 0.
                    _ => Values::Integers { min: min as i64, count: count as u64 },
                })
            }
        }
    }

    /// Random values without bounds: of the whole type; dates and times of the years 2000 to 2029.
    fn default_range(&self) -> Option<(i128, i128)> {
        let days = (10_957, 21_914);
        match self.data_type {
            DataType::Date => Some(days),
            DataType::Timestamp(precision) | DataType::TimestampLtz(precision) => {
                let per_day = 86_400 * 10i128.pow(u32::from(*precision));
                Some((days.0 * per_day, days.1 * per_day - 1))
            }
            _ => self.range(),
        }
    }
}

impl Column {
    fn values(&self, rows: impl Iterator<Item = u64> + Clone) -> ArrayRef {
        macro_rules! array {
            ($array:ty, |$row:ident| $value:expr) => {
                match self.nulls {
                    None => rows.map(|$row| Some($value)).collect::<$array>(),
                    Some(nulls) => rows
                        .map(|$row| (unit(draw(nulls.stream, $row)) >= nulls.rate).then(|| $value))
                        .collect::<$array>(),
                }
            };
        }
        let integer = |row: u64| -> i128 {
            match &self.values {
                Values::Integers { min, count } => {
                    min.wrapping_add(below(draw(self.stream, row), *count) as i64).into()
                }
                Values::Decimals { min, count } => {
                    // Two draws make 128 bits; the remainder is uneven by less than 2^-60 for all but the widest ranges.
                    let wide = (u128::from(draw(self.stream, row)) << 64) | u128::from(draw(!self.stream, row));
                    min + (wide % count) as i128
                }
                Values::Sequence { start, step, count: 0 } => start + step * i128::from(row),
                Values::Sequence { start, step, count } => start + step * (u128::from(row) % count) as i128,
                _ => unreachable!("the column is not made from integers"),
            }
        };
        let float = |row: u64| match self.values {
            Values::Floats { min, max } => min + (max - min) * unit(draw(self.stream, row)),
            _ => integer(row) as f64,
        };
        let text = |row: u64| match self.values {
            Values::Texts { length } => hex_text(self.stream, row, length),
            _ => integer(row).to_string(),
        };
        let zone = matches!(self.data_type, DataType::TimestampLtz(_)).then(|| Arc::from("UTC"));
        match &self.data_type {
            DataType::TinyInt => Arc::new(array!(Int8Array, |row| integer(row) as i8)),
            DataType::SmallInt => Arc::new(array!(Int16Array, |row| integer(row) as i16)),
            DataType::Int => Arc::new(array!(Int32Array, |row| integer(row) as i32)),
            DataType::BigInt => Arc::new(array!(Int64Array, |row| integer(row) as i64)),
            DataType::Float => Arc::new(array!(Float32Array, |row| float(row) as f32)),
            DataType::Double => Arc::new(array!(Float64Array, |row| float(row))),
            DataType::Decimal(precision, scale) => {
                let array =
                    array!(Decimal128Array, |row| integer(row)).with_precision_and_scale(*precision, *scale as i8);
                Arc::new(array.expect("the precision is that of a checked type"))
            }
            DataType::String => Arc::new(array!(StringArray, |row| text(row))),
            DataType::Bytes => Arc::new(array!(BinaryArray, |row| text(row).into_bytes())),
            DataType::Boolean => Arc::new(array!(BooleanArray, |row| draw(self.stream, row) & 1 == 1)),
            DataType::Date => Arc::new(array!(Date32Array, |row| integer(row) as i32)),
            DataType::Timestamp(precision) | DataType::TimestampLtz(precision) => match precision {
                0 => Arc::new(array!(TimestampSecondArray, |row| integer(row) as i64).with_timezone_opt(zone)),
                3 => Arc::new(array!(TimestampMillisecondArray, |row| integer(row) as i64).with_timezone_opt(zone)),
                6 => Arc::new(array!(TimestampMicrosecondArray, |row| integer(row) as i64).with_timezone_opt(zone)),
                _ => Arc::new(array!(TimestampNanosecondArray, |row| integer(row) as i64).with_timezone_opt(zone)),
            },
            other => unreachable!("{other} was refused when the source was opened"),
        }
    }
}

fn hex_text(stream: u64, row: u64, length: usize) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(length);
    let base = draw(stream, row);
    let mut word = 0;
    for at in 0..length {
        if at % 16 == 0 {
            word = draw(base, at as u64 / 16);
        }
        text.push(DIGITS[(word & 15) as usize] as char);
        word >>= 4;
    }
    text
}

impl Source for DatagenSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn splits(&self) -> BoxFuture<'_, Result<Vec<Split>, RunError>> {
        let split = |at: u64| Split {
            id: at.to_string(),
            spec: at.into(),
            min_time_us: None,
            rows: self.options.number_of_rows.map(|_| self.rows_of(at)),
            bytes: None,
        };
        let splits = (0..self.options.splits).map(split).collect();
        async { Ok(splits) }.boxed()
    }

    fn read(
        self: Arc<Self>,
        context: SourceContext,
        mut out: SourceOutput,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        async move {
            let mut open: Vec<(u32, u64, u64)> = Vec::with_capacity(context.splits.len());
            for start in &context.splits {
                let split = start
                    .split
                    .spec
                    .as_u64()
                    .ok_or_else(|| RunError::internal("a split of datagen is not a number"))?;
                let done = match &start.position {
                    None => 0,
                    Some(Position::At(text)) => {
                        text.parse().map_err(|_| RunError::internal("a position of datagen is not a number"))?
                    }
                    Some(Position::End) => self.rows_of(split),
                };
                open.push((start.number, split, done));
            }
            let rate = self.options.rows_per_second.map(|rate| rate as f64);
            // All readers count from their own start: after a restart the rate goes on from there.
            let begun = Instant::now();
            let first = open.iter().map(|(_, split, done)| split + done * self.options.splits).min().unwrap_or(0);
            while !open.is_empty() {
                // The split that is furthest behind.
                let at = (0..open.len()).min_by_key(|at| (open[*at].2, open[*at].1)).expect("there are open splits");
                let (number, split, done) = open[at];
                let left = self.rows_of(split).saturating_sub(done);
                if left == 0 {
                    out.finished(number)?;
                    open.remove(at);
                    continue;
                }
                let mut count = (context.batch_rows as u64).min(left).max(1);
                if let Some(rate) = rate {
                    let next = split + done * self.options.splits - first;
                    let due = |row: u64| begun + Duration::from_secs_f64(row as f64 / rate);
                    if due(next) > Instant::now() {
                        tokio::time::sleep_until(due(next).max(Instant::now() + TICK)).await;
                    }
                    let passed = (begun.elapsed().as_secs_f64() * rate) as u64;
                    count = count.min(passed.saturating_sub(next) / self.options.splits + 1);
                }
                let rows = self.batch(split, done, count as usize);
                let next = Position::At((done + count).to_string());
                out.rows(number, rows, RowPositions::From(done as i64), vec![], next).await?;
                open[at].2 = done + count;
                // Making rows never waits by itself; others must get their turn.
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{all_columns, collect, run, source_conformance, source_node, starts};
    use serde_json::{Value, json};

    const COLUMNS: &[&str] = &[
        "id BIGINT NOT NULL",
        "k INT",
        "x DOUBLE",
        "d DECIMAL(10, 2)",
        "s STRING",
        "b BOOLEAN",
        "day DATE",
        "ts TIMESTAMP(3)",
        "z TIMESTAMP_LTZ(6)",
        "t SMALLINT",
        "raw BYTES",
        "f FLOAT",
        "n TINYINT",
    ];

    fn open(options: Value, columns: &[&str]) -> Result<Arc<dyn Source>, RunError> {
        let mut all = json!({"type": "datagen"});
        all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let node = source_node(all, columns, &[]);
        let graph::SourceConnector::Datagen(options) = &node.connector else { panic!("no datagen") };
        Ok(Arc::new(DatagenSource::open(&node, options, all_columns(&node))?))
    }

    #[test]
    fn datagen_keeps_the_suite_and_rows_do_not_depend_on_splits() {
        let rows = |splits: u64| {
            let options = json!({"number-of-rows": 500, "splits": splits, "fields.id.kind": "sequence", "fields.k.min": "1", "fields.k.max": "9",
                "fields.s.length": "20", "fields.s.null-rate": "0.5", "fields.ts.start": "2020-01-01 00:00:00", "fields.ts.step": "250ms"});
            run(source_conformance(open(options, COLUMNS).unwrap()))
        };
        let one = rows(1);
        assert_eq!(one.len(), 500);
        assert_eq!(rows(3), one);
        let nulls = one.iter().filter(|row| row.split('|').nth(4) == Some("NULL")).count();
        assert!((200..300).contains(&nulls), "{nulls}");
        assert!(one.iter().all(|row| (1..=9).contains(&row.split('|').nth(1).unwrap().parse::<i32>().unwrap())));
        let tenth = one.iter().find(|row| row.starts_with("10|")).unwrap();
        assert_eq!(tenth.split('|').nth(7), Some("2020-01-01T00:00:02.500"));
    }

    #[test]
    fn a_seed_decides_the_rows() {
        let rows = |options: Value| run(source_conformance(open(options, &["k INT", "s STRING", "x DOUBLE"]).unwrap()));
        let first = rows(json!({"number-of-rows": 50, "seed": 1}));
        assert_eq!(rows(json!({"number-of-rows": 50, "seed": 1})), first, "the same seed");
        let second = rows(json!({"number-of-rows": 50, "seed": 2}));
        let shared = second.iter().filter(|row| first.contains(row)).count();
        assert_eq!(shared, 0, "another seed");
        let source = open(json!({"number-of-rows": 5, "fields.id.kind": "sequence"}), &["id BIGINT"]).unwrap();
        let seen = run(async { collect(&source, starts(&source.splits().await.unwrap()), 2).await.unwrap() });
        let numbered: Vec<String> = seen.into_iter().flat_map(|seen| seen.rows).collect();
        assert_eq!(numbered, ["0: 0", "1: 1", "2: 2", "3: 3", "4: 4"], "positions are row numbers");
        // Columns of one table do not repeat each other either.
        let twins = run(source_conformance(open(json!({"number-of-rows": 50}), &["a BIGINT", "b BIGINT"]).unwrap()));
        assert!(twins.iter().all(|row| row.split('|').next() != row.split('|').nth(1)), "{twins:?}");
    }

    #[test]
    fn sequences_step_and_begin_again() {
        let options = json!({"number-of-rows": 5, "fields.a.kind": "sequence", "fields.a.start": "10", "fields.a.end": "12", "fields.b.kind": "sequence",
            "fields.b.start": "1.50", "fields.b.step": "0.25", "fields.c.kind": "sequence", "fields.c.start": "2001-02-27", "fields.d.kind": "sequence",
            "fields.d.step": "-2", "fields.e.kind": "sequence"});
        let source = open(options, &["a INT", "b DECIMAL(6, 2)", "c DATE", "d STRING", "e TIMESTAMP(0)"]).unwrap();
        let rows = run(source_conformance(source));
        assert_eq!(rows[4], "12|2.00|2001-03-01|-4|2000-01-01T00:00:02", "{rows:?}");
        assert_eq!(rows[1], "10|2.25|2001-03-02|-6|2000-01-01T00:00:03", "{rows:?}");
    }

    #[test]
    fn wrong_options_are_all_named_at_once() {
        let options = json!({"fields.a.kinnd": "random", "fields.b.kind": "sequnce", "fields.zz.min": "1", "fields.c.min": "abc", "fields.d.step": "1s",
            "fields.e.null-rate": "0.1", "fields.g.step": "3ms"});
        let columns = ["a INT", "b INT", "c INT", "d INT", "e INT NOT NULL", "f ARRAY<INT>", "g TIMESTAMP(0)"];
        let Err(error) = open(options, &columns) else { panic!("accepted") };
        assert_eq!(error.code, "invalid_option");
        for part in [
            "did you mean kind?",
            "did you mean sequence?",
            "there is no column zz",
            "\"abc\" is no value of INT",
            "the kind random takes min, max, length",
            "declared NOT NULL",
            "datagen makes no ARRAY<INT>",
            "3ms is not a multiple of the unit of TIMESTAMP(0)",
        ] {
            assert!(error.message.contains(part), "{part} is missing in {}", error.message);
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let source = open(
            json!({"number-of-rows": 60, "rows-per-second": 200, "splits": 2, "fields.id.kind": "sequence"}),
            &["id BIGINT"],
        )
        .unwrap();
        let begun = std::time::Instant::now();
        let seen = run(async { collect(&source, starts(&source.splits().await.unwrap()), 8192).await.unwrap() });
        assert_eq!(seen.iter().map(|seen| seen.len).sum::<usize>(), 60);
        assert!(begun.elapsed() >= Duration::from_millis(280), "{:?}", begun.elapsed());
    }
}
