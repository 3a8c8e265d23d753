//! SQL types and Arrow types, and how types combine.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use graph::{DataType, Schema};

/// The one Arrow type that stands for an SQL type on every edge.
pub fn arrow_type(t: &DataType) -> ArrowType {
    let utc = || Some(Arc::from("UTC"));
    match t {
        DataType::Boolean => ArrowType::Boolean,
        DataType::TinyInt => ArrowType::Int8,
        DataType::SmallInt => ArrowType::Int16,
        DataType::Int => ArrowType::Int32,
        DataType::BigInt => ArrowType::Int64,
        DataType::Float => ArrowType::Float32,
        DataType::Double => ArrowType::Float64,
        DataType::Decimal(precision, scale) => ArrowType::Decimal128(*precision, *scale as i8),
        DataType::String => ArrowType::Utf8,
        DataType::Bytes => ArrowType::Binary,
        DataType::Date => ArrowType::Date32,
        DataType::Time => ArrowType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(precision) => ArrowType::Timestamp(time_unit(*precision), None),
        DataType::TimestampLtz(precision) => ArrowType::Timestamp(time_unit(*precision), utc()),
        DataType::Array(item) => ArrowType::List(Arc::new(Field::new("item", arrow_type(item), true))),
        DataType::Map(key, value) => {
            let fields =
                vec![Field::new("keys", arrow_type(key), false), Field::new("values", arrow_type(value), true)];
            ArrowType::Map(Arc::new(Field::new("entries", ArrowType::Struct(fields.into()), false)), false)
        }
        DataType::Row(fields) => {
            ArrowType::Struct(fields.iter().map(|(name, t)| Field::new(name, arrow_type(t), true)).collect())
        }
    }
}

/// The columns of an edge as Arrow fields.
pub fn arrow_schema(s: &Schema) -> SchemaRef {
    let fields: Vec<Field> = s
        .columns
        .iter()
        .map(|column| Field::new(&column.name, arrow_type(&column.data_type), column.nullable))
        .collect();
    Arc::new(ArrowSchema::new(fields))
}

/// The SQL type that reads an Arrow type, also of those that never stand on an edge (views, large offsets, dictionaries, other units); `None`
/// for types that have no word in SQL.
pub fn sql_type(t: &ArrowType) -> Option<DataType> {
    Some(match t {
        ArrowType::Boolean => DataType::Boolean,
        ArrowType::Int8 => DataType::TinyInt,
        ArrowType::Int16 | ArrowType::UInt8 => DataType::SmallInt,
        ArrowType::Int32 | ArrowType::UInt16 => DataType::Int,
        ArrowType::Int64 | ArrowType::UInt32 => DataType::BigInt,
        ArrowType::UInt64 => DataType::Decimal(20, 0),
        ArrowType::Float16 | ArrowType::Float32 => DataType::Float,
        ArrowType::Float64 => DataType::Double,
        ArrowType::Decimal32(precision, scale)
        | ArrowType::Decimal64(precision, scale)
        | ArrowType::Decimal128(precision, scale)
            if *scale >= 0 && *scale as u8 <= *precision =>
        {
            DataType::Decimal(*precision, *scale as u8)
        }
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => DataType::String,
        ArrowType::Binary | ArrowType::LargeBinary | ArrowType::BinaryView | ArrowType::FixedSizeBinary(_) => {
            DataType::Bytes
        }
        ArrowType::Date32 | ArrowType::Date64 => DataType::Date,
        ArrowType::Time32(_) | ArrowType::Time64(_) => DataType::Time,
        ArrowType::Timestamp(unit, None) => DataType::Timestamp(precision_of(*unit)),
        ArrowType::Timestamp(unit, Some(_)) => DataType::TimestampLtz(precision_of(*unit)),
        ArrowType::List(item)
        | ArrowType::LargeList(item)
        | ArrowType::FixedSizeList(item, _)
        | ArrowType::ListView(item) => DataType::Array(Box::new(sql_type(item.data_type())?)),
        ArrowType::Map(entries, _) => match entries.data_type() {
            ArrowType::Struct(fields) if fields.len() == 2 => {
                DataType::Map(Box::new(sql_type(fields[0].data_type())?), Box::new(sql_type(fields[1].data_type())?))
            }
            _ => return None,
        },
        ArrowType::Struct(fields) => {
            let fields: Option<Vec<_>> =
                fields.iter().map(|field| Some((field.name().clone(), sql_type(field.data_type())?))).collect();
            DataType::Row(fields?)
        }
        ArrowType::Dictionary(_, value) => sql_type(value)?,
        ArrowType::RunEndEncoded(_, values) => sql_type(values.data_type())?,
        _ => return None,
    })
}

pub(crate) fn time_unit(precision: u8) -> TimeUnit {
    match precision {
        0 => TimeUnit::Second,
        3 => TimeUnit::Millisecond,
        6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

fn precision_of(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// The type of a part of an expression: an SQL type, or one that only exists inside expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ty {
    Sql(DataType),
    /// The literal NULL, which takes any type. In Arrow: Null.
    Null,
    /// Days to seconds. In Arrow: microseconds as Int64.
    DayTime,
    /// Years and months. In Arrow: months as Int64.
    YearMonth,
}

impl Ty {
    pub fn arrow(&self) -> ArrowType {
        match self {
            Ty::Sql(t) => arrow_type(t),
            Ty::Null => ArrowType::Null,
            Ty::DayTime | Ty::YearMonth => ArrowType::Int64,
        }
    }

    pub fn sql(&self) -> Option<&DataType> {
        match self {
            Ty::Sql(t) => Some(t),
            _ => None,
        }
    }

    pub fn is_interval(&self) -> bool {
        matches!(self, Ty::DayTime | Ty::YearMonth)
    }
}

impl std::fmt::Display for Ty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ty::Sql(t) => t.fmt(f),
            Ty::Null => f.write_str("NULL"),
            Ty::DayTime => f.write_str("INTERVAL DAY TO SECOND"),
            Ty::YearMonth => f.write_str("INTERVAL YEAR TO MONTH"),
        }
    }
}

/// Precision and scale of an exact number as a decimal; integers as Flink counts their digits.
pub(crate) fn as_decimal(t: &DataType) -> Option<(u8, u8)> {
    match t {
        DataType::TinyInt => Some((3, 0)),
        DataType::SmallInt => Some((5, 0)),
        DataType::Int => Some((10, 0)),
        DataType::BigInt => Some((19, 0)),
        DataType::Decimal(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}

fn integer_rank(t: &DataType) -> Option<u8> {
    match t {
        DataType::TinyInt => Some(0),
        DataType::SmallInt => Some(1),
        DataType::Int => Some(2),
        DataType::BigInt => Some(3),
        _ => None,
    }
}

/// The type that holds the values of both, as Flink derives it for comparisons, CASE, COALESCE, UNION and lists; `None` if there is none.
pub(crate) fn common_type(a: &DataType, b: &DataType) -> Option<DataType> {
    if a == b {
        return Some(a.clone());
    }
    if let (Some(x), Some(y)) = (integer_rank(a), integer_rank(b)) {
        return Some(if x >= y { a.clone() } else { b.clone() });
    }
    match (a, b) {
        (DataType::Float, DataType::Float) => Some(DataType::Float),
        (DataType::Double, other) | (other, DataType::Double) if other.is_numeric() => Some(DataType::Double),
        (DataType::Float, DataType::Decimal(..)) | (DataType::Decimal(..), DataType::Float) => Some(DataType::Double),
        (DataType::Float, other) | (other, DataType::Float) if other.is_integer() => Some(DataType::Float),
        (DataType::Timestamp(p), DataType::Timestamp(q)) => Some(DataType::Timestamp(*p.max(q))),
        (DataType::TimestampLtz(p), DataType::TimestampLtz(q)) => Some(DataType::TimestampLtz(*p.max(q))),
        (DataType::Timestamp(p), DataType::TimestampLtz(q)) | (DataType::TimestampLtz(q), DataType::Timestamp(p)) => {
            Some(DataType::TimestampLtz(*p.max(q)))
        }
        (DataType::Date, DataType::Timestamp(p)) | (DataType::Timestamp(p), DataType::Date) => {
            Some(DataType::Timestamp(*p))
        }
        (DataType::Date, DataType::TimestampLtz(p)) | (DataType::TimestampLtz(p), DataType::Date) => {
            Some(DataType::TimestampLtz(*p))
        }
        (DataType::Array(x), DataType::Array(y)) => Some(DataType::Array(Box::new(common_type(x, y)?))),
        (DataType::Map(k, v), DataType::Map(l, w)) => {
            Some(DataType::Map(Box::new(common_type(k, l)?), Box::new(common_type(v, w)?)))
        }
        (DataType::Row(xs), DataType::Row(ys)) if xs.len() == ys.len() => {
            let fields: Option<Vec<_>> =
                xs.iter().zip(ys).map(|((name, x), (_, y))| Some((name.clone(), common_type(x, y)?))).collect();
            Some(DataType::Row(fields?))
        }
        _ => {
            let ((p1, s1), (p2, s2)) = (as_decimal(a)?, as_decimal(b)?);
            let scale = s1.max(s2);
            let digits = (p1 - s1).max(p2 - s2);
            // Digits before the point are kept; the scale gives way, as in Flink.
            let precision = (digits + scale).min(38);
            Some(DataType::Decimal(precision, scale.min(38 - digits.min(38))))
        }
    }
}

/// Whether a value is taken without a written CAST where `to` is wanted (INSERT, arguments of functions): the widening casts of Flink, and
/// those between numbers and between times that its sinks make.
pub fn casts_implicitly(from: &DataType, to: &DataType) -> bool {
    if from == to {
        return true;
    }
    match (from, to) {
        (from, to) if from.is_numeric() && to.is_numeric() => true,
        (DataType::Date, to) => to.is_timestamp(),
        (from, to) if from.is_timestamp() => to.is_timestamp(),
        (DataType::Array(x), DataType::Array(y)) => casts_implicitly(x, y),
        (DataType::Map(k, v), DataType::Map(l, w)) => casts_implicitly(k, l) && casts_implicitly(v, w),
        (DataType::Row(xs), DataType::Row(ys)) => {
            xs.len() == ys.len() && xs.iter().zip(ys).all(|((_, x), (_, y))| casts_implicitly(x, y))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn arrow_types_come_back_as_the_sql_types_they_stand_for() {
        for text in [
            "BOOLEAN",
            "TINYINT",
            "SMALLINT",
            "INT",
            "BIGINT",
            "FLOAT",
            "DOUBLE",
            "DECIMAL(38, 10)",
            "STRING",
            "BYTES",
            "DATE",
            "TIME",
            "TIMESTAMP(0)",
            "TIMESTAMP(3)",
            "TIMESTAMP(6)",
            "TIMESTAMP(9)",
            "TIMESTAMP_LTZ(3)",
            "ARRAY<INT>",
            "MAP<STRING, ARRAY<DOUBLE>>",
            "ROW<a BIGINT, `b c` ROW<x DOUBLE>>",
        ] {
            let t: DataType = text.parse().unwrap();
            assert_eq!(sql_type(&arrow_type(&t)), Some(t), "{text}");
        }
        assert_eq!(sql_type(&ArrowType::Utf8View), Some(DataType::String));
        assert_eq!(sql_type(&ArrowType::Duration(TimeUnit::Second)), None);
    }

    #[test]
    fn common_types_are_flinks() {
        for (a, b, expected) in [
            ("INT", "BIGINT", "BIGINT"),
            ("INT", "DECIMAL(4, 2)", "DECIMAL(12, 2)"),
            ("DECIMAL(38, 0)", "DECIMAL(38, 38)", "DECIMAL(38, 0)"),
            ("FLOAT", "DECIMAL(4, 2)", "DOUBLE"),
            ("DATE", "TIMESTAMP(3)", "TIMESTAMP(3)"),
            ("TIMESTAMP(3)", "TIMESTAMP(6)", "TIMESTAMP(6)"),
            ("STRING", "INT", ""),
            ("BOOLEAN", "INT", ""),
        ] {
            let common = |a: &str, b: &str| {
                common_type(&a.parse().unwrap(), &b.parse().unwrap()).map_or(String::new(), |t| t.to_string())
            };
            assert_eq!(common(a, b), expected, "{a} and {b}");
            assert_eq!(common(b, a), expected, "{b} and {a}");
        }
    }
}
