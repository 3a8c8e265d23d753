//! The Arrow types of columns.

use std::sync::Arc;

use arrow::datatypes::{DataType as ArrowType, Field, Schema as ArrowSchema, SchemaRef, TimeUnit};
use graph::DataType;

pub fn arrow_type(t: &DataType) -> ArrowType {
    let unit = |precision: u8| match precision {
        0 => TimeUnit::Second,
        3 => TimeUnit::Millisecond,
        6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    };
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
        DataType::Timestamp(precision) => ArrowType::Timestamp(unit(*precision), None),
        DataType::TimestampLtz(precision) => ArrowType::Timestamp(unit(*precision), Some(Arc::from("UTC"))),
        DataType::Array(item) => ArrowType::List(Arc::new(Field::new("item", arrow_type(item), true))),
        DataType::Map(key, value) => {
            let fields = vec![Field::new("keys", arrow_type(key), false), Field::new("values", arrow_type(value), true)];
            ArrowType::Map(Arc::new(Field::new("entries", ArrowType::Struct(fields.into()), false)), false)
        }
        DataType::Row(fields) => ArrowType::Struct(fields.iter().map(|(name, t)| Field::new(name, arrow_type(t), true)).collect()),
    }
}

pub fn arrow_schema(s: &graph::Schema) -> SchemaRef {
    let fields: Vec<Field> = s.columns.iter().map(|column| Field::new(&column.name, arrow_type(&column.data_type), column.nullable)).collect();
    Arc::new(ArrowSchema::new(fields))
}

pub fn type_word(t: &ArrowType) -> String {
    t.to_string()
}
