//! Rows as aligned lines, as they come: for results without an end, and for those too long for a table.

use arrow::array::{RecordBatch, UInt8Array};
use arrow::datatypes::Schema;
use engine::RowKind;

use super::cells::{cell, is_number};
use crate::output::visible;

/// The header is repeated after so many rows.
const HEADER_ROWS: usize = 1000;
/// A wider cell pushes the rest of its line to the right.
const ALIGNED_CHARS_MAX: usize = 40;

/// Writes rows of one table below each other. The widths of columns only grow.
pub struct Lines {
    names: Vec<String>,
    numbers: Vec<bool>,
    widths: Vec<usize>,
    /// Stands before every row.
    identifier: String,
    updating: bool,
    since_header: usize,
}

impl Lines {
    pub fn new(schema: &Schema, identifier: &str, updating: bool) -> Lines {
        let names: Vec<String> = schema.fields().iter().map(|field| visible(field.name())).collect();
        Lines {
            widths: names.iter().map(|name| name.chars().count()).collect(),
            names,
            numbers: schema.fields().iter().map(|field| is_number(field.data_type())).collect(),
            identifier: if identifier.is_empty() { String::new() } else { format!("{}> ", visible(identifier)) },
            updating,
            since_header: HEADER_ROWS,
        }
    }

    /// The next row has the header above it, because something else was written since.
    pub fn interrupted(&mut self) {
        self.since_header = HEADER_ROWS;
    }

    pub fn rows(&mut self, rows: &RecordBatch, kinds: Option<&UInt8Array>, out: &mut Vec<u8>) {
        let text = |row| rows.columns().iter().map(|column| cell(column, row)).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = (0..rows.num_rows()).map(text).collect();
        for line in &lines {
            for (width, cell) in self.widths.iter_mut().zip(line) {
                *width = (*width).max(cell.chars().count().min(ALIGNED_CHARS_MAX));
            }
        }
        for (row, line) in lines.iter().enumerate() {
            if self.since_header >= HEADER_ROWS {
                self.since_header = 0;
                self.line("  ", &self.names, out);
            }
            self.since_header += 1;
            let mark = kinds.map_or(RowKind::Insert, |kinds| RowKind::from_code(kinds.value(row))).mark();
            self.line(mark, line, out);
        }
    }

    fn line(&self, mark: &str, cells: &[String], out: &mut Vec<u8>) {
        let mut line = self.identifier.clone();
        if self.updating {
            line.push_str(mark);
            line.push_str("  ");
        }
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                line.push_str("  ");
            }
            let blanks = " ".repeat(self.widths[at].saturating_sub(cell.chars().count()));
            match self.numbers[at] {
                true => line.extend([blanks.as_str(), cell]),
                false => line.extend([cell, blanks.as_str()]),
            }
        }
        out.extend_from_slice(line.trim_end().as_bytes());
        out.push(b'\n');
    }
}
