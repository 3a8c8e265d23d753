//! How types are called in messages and manifests.

use arrow::datatypes::DataType;

/// The SQL name of an Arrow type, or Arrow's own where SQL has none.
pub fn type_word(data_type: &DataType) -> String {
    expr::sql_type(data_type).map_or_else(|| data_type.to_string(), |word| word.to_string())
}
