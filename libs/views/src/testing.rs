//! Views, rows and chance for the tests of this crate.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt8Array};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use graph::{Column, DataType, Schema};

use crate::{Changes, ViewDefinition};

/// `k BIGINT NOT NULL, s STRING, x DOUBLE`.
pub type Row = (i64, Option<String>, Option<f64>);

pub fn definition(name: &str, key: &[&str]) -> ViewDefinition {
    let columns = vec![
        Column::new("k", DataType::BigInt, false),
        Column::new("s", DataType::String, true),
        Column::new("x", DataType::Double, true),
    ];
    ViewDefinition::new(name, Schema::new(columns), key.iter().map(|name| name.to_string()).collect())
}

pub fn batch(rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(rows.iter().map(|row| row.1.as_deref()).collect::<StringArray>()),
        Arc::new(rows.iter().map(|row| row.2).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(expr::arrow_schema(&definition("v", &[]).columns), columns).unwrap()
}

pub fn changes(rows: &[(u8, Row)]) -> Changes {
    let kinds: Vec<u8> = rows.iter().map(|row| row.0).collect();
    let rows: Vec<Row> = rows.iter().map(|row| row.1.clone()).collect();
    Changes { rows: batch(&rows), kinds: kinds.iter().any(|kind| *kind != 0).then(|| UInt8Array::from(kinds)) }
}

/// Rows as text, `a|b|NULL`.
pub fn texts(rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<_> = rows.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
    let row = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
    (0..rows.num_rows()).map(row).collect()
}

/// A small generator of numbers, the same for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    pub fn row(&mut self, keys: u64) -> Row {
        let text = match self.below(5) {
            0 => None,
            _ => Some(format!("s{}", self.below(4))),
        };
        let number = match self.below(6) {
            0 => None,
            1 => Some(-0.0),
            2 => Some(f64::NAN),
            _ => Some(self.below(7) as f64 / 2.0),
        };
        (self.below(keys) as i64, text, number)
    }
}
