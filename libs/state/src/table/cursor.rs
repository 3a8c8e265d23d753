//! Where a scan of a table is, and which rows it wants: a range of key groups in a range of namespaces.

use std::ops::Range;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Int64Type;

use super::TableSchema;
use super::codec::{after, group, prefix, start_of};
use crate::KEY_GROUPS;

/// A scan that is under way. It holds nothing of the table, so the table may change and even be another one.
#[derive(Clone, Debug)]
pub struct Cursor {
    groups: Range<u16>,
    numbers: usize,
    /// Bytes of the next key that may be wanted.
    next: Vec<u8>,
    /// Bytes after the last one.
    end: Vec<u8>,
}

/// What to do with a key.
#[derive(Debug, PartialEq)]
pub(super) enum Judgement {
    Take,
    /// Nothing is wanted before these bytes.
    Seek(Vec<u8>),
    Malformed,
}

impl Cursor {
    /// All rows of a range of groups.
    pub fn all(schema: &TableSchema, groups: Range<u16>) -> Cursor {
        let numbers = schema.namespace.len();
        Cursor::namespaces(groups, &vec![i64::MIN; numbers], &vec![i64::MAX; numbers])
    }

    /// Rows of the namespaces from the first to the last, both included.
    pub fn namespaces(groups: Range<u16>, first: &[i64], last: &[i64]) -> Cursor {
        assert_eq!(first.len(), last.len(), "namespaces of one table have the same numbers");
        assert!(groups.end <= KEY_GROUPS, "key groups are below {KEY_GROUPS}");
        Cursor { numbers: first.len(), next: start_of(&prefix(first), groups.start), end: after(&prefix(last)), groups }
    }

    pub(super) fn next(&self) -> &[u8] {
        &self.next
    }

    pub(super) fn end(&self) -> &[u8] {
        &self.end
    }

    /// Nothing is left.
    pub(super) fn finish(&mut self) {
        self.next = self.end.clone();
    }

    /// The row of this key has been given.
    pub(super) fn pass(&mut self, key: &[u8]) {
        self.next.clear();
        self.next.extend_from_slice(key);
        // The next bytes in order.
        self.next.push(0);
    }

    pub(super) fn judge(&self, key: &[u8]) -> Judgement {
        let Some((found, namespace)) = group(key, self.numbers) else { return Judgement::Malformed };
        if found < self.groups.start {
            Judgement::Seek(start_of(namespace, self.groups.start))
        } else if found >= self.groups.end {
            Judgement::Seek(after(namespace))
        } else {
            Judgement::Take
        }
    }
}

/// The stretches of rows with one namespace.
pub(super) fn namespaces(columns: &[ArrayRef], rows: usize) -> Vec<(Vec<i64>, Range<usize>)> {
    let columns: Vec<&[i64]> = columns.iter().map(|column| &column.as_primitive::<Int64Type>().values()[..]).collect();
    let mut stretches: Vec<(Vec<i64>, Range<usize>)> = Vec::new();
    for row in 0..rows {
        match stretches.last_mut() {
            Some((namespace, range)) if columns.iter().zip(namespace.iter()).all(|(column, n)| column[row] == *n) => {
                range.end = row + 1;
            }
            _ => stretches.push((columns.iter().map(|column| column[row]).collect(), row..row + 1)),
        }
    }
    stretches
}
