//! What to do with each value of a record: a writer schema resolved to columns, once.
//!
//! | writer | column |
//! |---|---|
//! | boolean | BOOLEAN |
//! | int | TINYINT, SMALLINT (checked), INT, BIGINT, FLOAT, DOUBLE |
//! | long | BIGINT, FLOAT, DOUBLE |
//! | float | FLOAT, DOUBLE |
//! | double | DOUBLE |
//! | string, bytes | STRING, BYTES |
//! | enum | STRING |
//! | fixed | BYTES |
//! | uuid | STRING; of fixed also BYTES |
//! | decimal(p, s) | DECIMAL(q, t) with t >= s, checked |
//! | date | DATE |
//! | time-* | TIME |
//! | timestamp-*, local-timestamp-* | TIMESTAMP, TIMESTAMP_LTZ of any precision, cut toward the past |
//! | array, map, record | ARRAY, MAP with keys of STRING, ROW (fields by name) |
//! | null, union of one type and null | the same, nullable |

use std::collections::HashSet;

use super::MAX_DEPTH;
use super::schema::{Logical, Schema, Type, TypeId};
use super::wire::{Cursor, Fault, Flaw, Outcome};
use crate::columns::{Column, Data, Kind, Scalar, sql_type};

/// Seconds from 1970 to the beginning of year 1 and of year 10,000: the times that the text formats take, too.
const YEARS: (i64, i64) = (-62_135_596_800, 253_402_300_800);

/// How one value on the wire goes into a column.
#[derive(Debug)]
enum Op {
    Null,
    /// A union; the branch without an operation is null.
    Union(Vec<Option<Op>>),
    Boolean,
    /// The bounds are the column's.
    Int {
        min: i64,
        max: i64,
    },
    Long,
    IntToDouble,
    /// Rounded once, to the float.
    LongToFloat,
    LongToDouble,
    Float,
    Double,
    /// A time or timestamp: in units of the wire, which the column's are `times` of, or `divide` make one of.
    Ticks {
        int: bool,
        times: i64,
        divide: i64,
        /// Values from here on are out of the column's range.
        end: i64,
        start: i64,
    },
    Decimal {
        size: Option<usize>,
        times: i128,
        /// The least number of one digit too many.
        end: i128,
    },
    Text,
    Binary,
    Fixed(usize),
    Uuid,
    Enum(Vec<String>),
    List(Box<Op>),
    Map(Box<Op>),
    Row(Row),
}

/// The fields of a record in the order of the wire.
#[derive(Debug, Default)]
struct Row {
    members: Vec<Member>,
    /// Columns that the record has no field for.
    missing: Vec<usize>,
}

#[derive(Debug)]
enum Member {
    Skip(TypeId),
    Column { index: usize, op: Op },
}

/// A writer schema and what becomes of its records.
#[derive(Debug)]
pub(crate) struct Plan {
    schema: Schema,
    row: Row,
}

impl Plan {
    /// Resolves a writer schema to columns.
    ///
    /// # Errors
    /// The sentence that names the column and both types.
    pub(crate) fn new(schema: Schema, columns: &[Column]) -> Result<Plan, String> {
        let row = match schema.get(schema.root()) {
            Type::Record { fields, .. } => row(&schema, fields, columns, "", 0)?,
            _ => return Err(format!("its type is {}; a row is read from a record", schema.describe(schema.root()))),
        };
        Ok(Plan { schema, row })
    }

    /// Appends one record to the columns. On a fault parts of it may have been appended: truncate the columns.
    pub(crate) fn decode(&self, cursor: &mut Cursor, columns: &mut [Column]) -> Outcome<()> {
        self.row(&self.row, cursor, columns)
    }

    fn row(&self, row: &Row, cursor: &mut Cursor, columns: &mut [Column]) -> Outcome<()> {
        for member in &row.members {
            match member {
                Member::Skip(id) => cursor.skip(&self.schema, *id, 0)?,
                Member::Column { index, op } => {
                    let column = &mut columns[*index];
                    if let Err(fault) = self.value(op, cursor, column) {
                        return Err(below(fault, column));
                    }
                }
            }
        }
        for &index in &row.missing {
            columns[index].push_null();
        }
        Ok(())
    }

    #[inline]
    fn value(&self, op: &Op, cursor: &mut Cursor, column: &mut Column) -> Outcome<()> {
        match op {
            Op::Null => null(cursor, column)?,
            Op::Union(branches) => {
                let branch = cursor.long()?;
                match usize::try_from(branch).ok().and_then(|branch| branches.get(branch)) {
                    Some(Some(op)) => return self.value(op, cursor, column),
                    Some(None) => null(cursor, column)?,
                    None => return cursor.fault(Flaw::Branch(branch)),
                }
            }
            Op::Boolean => column.push_bits(cursor.boolean()?.into()),
            &Op::Int { min, max } => {
                let value = cursor.int()?;
                if !(min..=max).contains(&value) {
                    return cursor.fault(Flaw::OutOfRange(value.to_string()));
                }
                column.push_bits(value);
            }
            Op::Long => column.push_bits(cursor.long()?),
            // An int is exact in a double; FLOAT columns round once when they take it.
            Op::IntToDouble => column.push_bits((cursor.int()? as f64).to_bits() as i64),
            Op::LongToFloat => column.push_bits(f64::from(cursor.long()? as f32).to_bits() as i64),
            Op::LongToDouble => column.push_bits((cursor.long()? as f64).to_bits() as i64),
            Op::Float => {
                column.push_bits(f64::from(f32::from_le_bytes(cursor.array()?)).to_bits() as i64);
            }
            Op::Double => column.push_bits(i64::from_le_bytes(cursor.array()?)),
            &Op::Ticks { int, times, divide, start, end } => {
                let wire = if int { cursor.int()? } else { cursor.long()? };
                match wire.div_euclid(divide).checked_mul(times) {
                    Some(value) if (start..end).contains(&value) => column.push_bits(value),
                    _ => return cursor.fault(Flaw::OutOfRange(wire.to_string())),
                }
            }
            &Op::Decimal { size, times, end } => {
                let bytes = match size {
                    Some(size) => cursor.take(size)?,
                    None => cursor.bytes()?,
                };
                let value = big_endian(bytes).and_then(|value| value.checked_mul(times));
                match value.filter(|value| (-end < *value) && *value < end) {
                    Some(value) => column.push(Scalar::Wide(value)),
                    None => return cursor.fault(Flaw::OutOfRange("a number of too many digits".into())),
                }
            }
            Op::Text => match std::str::from_utf8(cursor.bytes()?) {
                Ok(text) => column.push_text(text)?,
                Err(_) => return cursor.fault(Flaw::Utf8),
            },
            Op::Binary => column.push_binary(cursor.bytes()?)?,
            Op::Fixed(size) => column.push_binary(cursor.take(*size)?)?,
            Op::Uuid => column.push_text(&uuid(&cursor.array()?))?,
            Op::Enum(symbols) => {
                let symbol = cursor.symbol(symbols)?;
                match cursor.room.checked_sub(symbol.len()) {
                    Some(room) => cursor.room = room,
                    None => return cursor.fault(Flaw::TooLong),
                }
                column.push_text(symbol)?;
            }
            Op::List(op) => {
                let Data::List { item, .. } = &mut column.data else { unreachable!("resolved to an ARRAY column") };
                cursor.items(|cursor| self.value(op, cursor, item))?;
                column.close_row()?;
            }
            Op::Map(op) => {
                let Data::Map { key, value, .. } = &mut column.data else { unreachable!("resolved to a MAP column") };
                let mut keys = Keys::default();
                cursor.items(|cursor| {
                    let bytes = cursor.bytes()?;
                    let Ok(text) = std::str::from_utf8(bytes) else { return cursor.fault(Flaw::Utf8) };
                    if !keys.insert(bytes) {
                        return cursor.fault(Flaw::DuplicateKey(text.into()));
                    }
                    key.push_text(text)?;
                    self.value(op, cursor, value)
                })?;
                column.close_row()?;
            }
            Op::Row(row) => {
                let Data::Struct(children) = &mut column.data else { unreachable!("resolved to a ROW column") };
                self.row(row, cursor, children)?;
                column.close_struct();
            }
        }
        Ok(())
    }
}

/// The keys of a map so far: few are compared, many are hashed.
#[derive(Default)]
struct Keys<'a> {
    few: Vec<&'a [u8]>,
    many: HashSet<&'a [u8]>,
}

impl<'a> Keys<'a> {
    const FEW: usize = 16;

    fn insert(&mut self, key: &'a [u8]) -> bool {
        if self.few.len() < Self::FEW {
            let new = !self.few.contains(&key);
            self.few.push(key);
            return new;
        }
        !self.few.contains(&key) && self.many.insert(key)
    }
}

#[inline]
fn null(cursor: &Cursor, column: &mut Column) -> Outcome<()> {
    if !column.field.is_nullable() {
        return cursor.fault(Flaw::Null);
    }
    column.push_null();
    Ok(())
}

/// The fault is in this column, or below it.
#[cold]
fn below(mut fault: Box<Fault>, column: &Column) -> Box<Fault> {
    fault.data_type.get_or_insert_with(|| sql_type(column.field.data_type()));
    fault.path.push(column.field.name().clone());
    fault
}

/// A two's complement number of any length, if it fits.
fn big_endian(bytes: &[u8]) -> Option<i128> {
    const WIDTH: usize = size_of::<i128>();
    let sign = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    let (extension, tail) = bytes.split_at(bytes.len().saturating_sub(WIDTH));
    let mut number = [sign; WIDTH];
    number[WIDTH - tail.len()..].copy_from_slice(tail);
    let value = i128::from_be_bytes(number);
    let fits = extension.iter().all(|byte| *byte == sign) && (value < 0) == (sign == 0xff);
    fits.then_some(value)
}

fn uuid(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn row(
    schema: &Schema,
    fields: &[(String, TypeId)],
    columns: &[Column],
    path: &str,
    depth: usize,
) -> Result<Row, String> {
    let mut row = Row::default();
    let mut found = vec![false; columns.len()];
    for (name, id) in fields {
        let member = match columns.iter().position(|column| column.field.name() == name) {
            None if schema.is_zero_width(*id) => continue,
            None => Member::Skip(*id),
            Some(index) => {
                found[index] = true;
                let path = format!("{path}{name}");
                Member::Column { index, op: op(schema, *id, &columns[index], &path, depth + 1)? }
            }
        };
        row.members.push(member);
    }
    for (index, column) in columns.iter().enumerate().filter(|(index, _)| !found[*index]) {
        if !column.field.is_nullable() {
            let name = column.field.name();
            return Err(format!("column {path}{name} is NOT NULL, but the schema has no field {name}"));
        }
        row.missing.push(index);
    }
    Ok(row)
}

fn op(schema: &Schema, id: TypeId, column: &Column, path: &str, depth: usize) -> Result<Op, String> {
    let refused = |hint: &str| {
        let (wire, declared) = (schema.describe(id), sql_type(column.field.data_type()));
        Err(format!("column {path} is {declared}, which {wire} cannot become{hint}"))
    };
    if depth > MAX_DEPTH {
        return refused("; it nests too deep");
    }
    let logical = schema.logical(id);
    Ok(match (schema.get(id), column.kind) {
        (Type::Null, _) if column.field.is_nullable() => Op::Null,
        (Type::Union(branches), _) => {
            let nulls = branches.iter().filter(|&&branch| *schema.get(branch) == Type::Null).count();
            if branches.len() - nulls != 1 || nulls > 1 {
                return refused("; of unions only one type and null can be read");
            }
            let branch = |&branch: &TypeId| match schema.get(branch) {
                Type::Null => Ok(None),
                _ => op(schema, branch, column, path, depth + 1).map(Some),
            };
            Op::Union(branches.iter().map(branch).collect::<Result<_, _>>()?)
        }
        (Type::Boolean, Kind::Boolean) => Op::Boolean,
        (Type::Int, Kind::Date) if logical == Some(Logical::Date) => {
            Op::Int { min: YEARS.0 / 86_400, max: YEARS.1 / 86_400 - 1 }
        }
        (Type::Int, Kind::Time { digits }) | (Type::Long, Kind::Time { digits }) => match logical {
            Some(Logical::Time { digits: wire }) => {
                ticks(*schema.get(id) == Type::Int, wire, digits, 0, 86_400 * 10i64.pow(digits.into()))
            }
            _ => return refused(""),
        },
        (Type::Long, Kind::Timestamp { digits }) => match logical {
            Some(Logical::Timestamp { digits: wire, .. }) => {
                let bound = |seconds: i64| seconds.saturating_mul(10i64.pow(digits.into()));
                ticks(false, wire, digits, bound(YEARS.0), bound(YEARS.1))
            }
            _ => return refused("; a long has no unit: it needs a logical type"),
        },
        // What has a unit is not a mere number, and the other way round.
        (Type::Int | Type::Long, _) if logical.is_some() => {
            return refused("; declare the column as a date, time or timestamp");
        }
        (Type::Int, Kind::Int { min, max }) => Op::Int { min, max },
        (Type::Int, Kind::Float32 | Kind::Float64) => Op::IntToDouble,
        (Type::Long, Kind::Int { max: i64::MAX, .. }) => Op::Long,
        (Type::Long, Kind::Int { .. }) => return refused("; declare it BIGINT"),
        (Type::Long, Kind::Float32) => Op::LongToFloat,
        (Type::Long, Kind::Float64) => Op::LongToDouble,
        (Type::Float, Kind::Float32 | Kind::Float64) => Op::Float,
        (Type::Double, Kind::Float64) => Op::Double,
        (Type::Double, Kind::Float32) => return refused("; declare it DOUBLE"),
        (Type::Bytes | Type::Fixed { .. }, Kind::Decimal { precision, scale }) => {
            let Some(Logical::Decimal { scale: wire_scale, .. }) = logical else { return refused("") };
            let more = i64::from(scale) - i64::from(wire_scale);
            let Ok(more @ 0..=38) = u32::try_from(more) else {
                return refused("; it has fewer digits after the point");
            };
            let size = if let Type::Fixed { size, .. } = schema.get(id) { Some(*size) } else { None };
            Op::Decimal { size, times: 10i128.pow(more), end: 10i128.pow(precision.into()) }
        }
        (Type::Bytes | Type::Fixed { .. }, _) if matches!(logical, Some(Logical::Decimal { .. })) => {
            return refused("; declare the column as DECIMAL");
        }
        (Type::Bytes | Type::String, Kind::Text) => Op::Text,
        (Type::Bytes | Type::String, Kind::Binary) => Op::Binary,
        (Type::Enum { symbols, .. }, Kind::Text) => Op::Enum(symbols.clone()),
        (Type::Fixed { .. }, Kind::Text) if logical == Some(Logical::Uuid) => Op::Uuid,
        (Type::Fixed { size, .. }, Kind::Binary) => Op::Fixed(*size),
        (&Type::Array(item), Kind::List) => {
            let Data::List { item: column, .. } = &column.data else { unreachable!("the kind of an ARRAY column") };
            // Else a few bytes could ask for any number of items.
            if schema.is_zero_width(item) {
                return refused("; its items take no bytes");
            }
            Op::List(Box::new(op(schema, item, column, &format!("{path}.item"), depth + 1)?))
        }
        (&Type::Map(value), Kind::Map) => {
            let Data::Map { key, value: column, .. } = &column.data else { unreachable!("the kind of a MAP column") };
            if key.kind != Kind::Text {
                return refused("; its keys are texts");
            }
            Op::Map(Box::new(op(schema, value, column, &format!("{path}.value"), depth + 1)?))
        }
        (Type::Record { fields, .. }, Kind::Struct) => {
            let Data::Struct(children) = &column.data else { unreachable!("the kind of a ROW column") };
            Op::Row(row(schema, fields, children, &format!("{path}."), depth + 1)?)
        }
        (Type::Null, _) => return refused("; it is NOT NULL"),
        _ => return refused(""),
    })
}

fn ticks(int: bool, wire: u8, column: u8, start: i64, end: i64) -> Op {
    let unit = |more: u8| 10i64.pow(more.into());
    let (times, divide) = (unit(column.saturating_sub(wire)), unit(wire.saturating_sub(column)));
    Op::Ticks { int, times, divide, start, end }
}
