//! A table in memory: an ordered map. What the other tables are held against, and small state in tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use futures::future::BoxFuture;

use super::codec::{Codec, Taken, span};
use super::cursor::{Cursor, Judgement};
use super::part::{Freeze, Namer, Saved, save_rows};
use super::{Found, Result, Table, TableError, TableSchema};
use crate::KEY_GROUPS;
use crate::files::Files;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

pub struct MemoryTable {
    codec: Arc<Codec>,
    /// Shared with what is frozen; copied by the first change after that.
    rows: Arc<Map>,
}

impl MemoryTable {
    /// # Errors
    /// `Values` if a column cannot be stored.
    pub fn new(schema: TableSchema) -> Result<MemoryTable> {
        Ok(MemoryTable { codec: Arc::new(Codec::new(schema)?), rows: Arc::default() })
    }
}

impl Table for MemoryTable {
    fn schema(&self) -> &TableSchema {
        &self.codec.schema
    }

    fn get(&mut self, namespace: &[i64], keys: &[ArrayRef], rows: usize) -> Result<Found> {
        let keys = self.codec.keys(namespace, keys, rows);
        let found: Vec<(u32, &[u8])> =
            (0..rows as u32).filter_map(|row| Some((row, self.rows.get(keys.get(row))?.as_slice()))).collect();
        let values = self.codec.decode_values(found.iter().map(|(_, values)| *values)).map_err(damaged)?;
        Ok(Found { at: found.into_iter().map(|(row, _)| row).collect(), values })
    }

    fn put(&mut self, namespace: &[i64], keys: &[ArrayRef], values: &[ArrayRef], rows: usize) -> Result<()> {
        let (keys, values) = (self.codec.keys(namespace, keys, rows), self.codec.values(values));
        let map = Arc::make_mut(&mut self.rows);
        for row in 0..rows as u32 {
            map.insert(keys.get(row).to_vec(), values.row(row as usize).to_vec());
        }
        Ok(())
    }

    fn remove(&mut self, namespace: &[i64], keys: &[ArrayRef], rows: usize) -> Result<()> {
        let keys = self.codec.keys(namespace, keys, rows);
        let map = Arc::make_mut(&mut self.rows);
        (0..rows as u32).for_each(|row| {
            map.remove(keys.get(row));
        });
        Ok(())
    }

    fn remove_namespaces(&mut self, first: &[i64], last: &[i64]) -> Result<()> {
        let span = span(first, last);
        Arc::make_mut(&mut self.rows).retain(|key, _| !span.contains(key));
        Ok(())
    }

    fn scan(&mut self, cursor: &mut Cursor, rows_max: usize) -> Result<Option<RecordBatch>> {
        let mut taken = Taken::default();
        let mut from = cursor.next().to_vec();
        'seek: while taken.len() < rows_max && from.as_slice() < cursor.end() {
            let range = (Bound::Included(from.as_slice()), Bound::Excluded(cursor.end()));
            for (key, values) in self.rows.range::<[u8], _>(range) {
                match cursor.judge(key) {
                    Judgement::Take if taken.len() == rows_max => break 'seek,
                    Judgement::Take => taken.push(key, values),
                    Judgement::Seek(to) => {
                        from = to;
                        continue 'seek;
                    }
                    Judgement::Malformed => return Err(damaged("a key is too short".to_owned())),
                }
            }
            break;
        }
        let Some(last) = taken.last_key() else {
            cursor.finish();
            return Ok(None);
        };
        cursor.pass(last);
        self.codec.decode(&taken).map(Some).map_err(damaged)
    }

    fn bytes(&self) -> usize {
        self.rows.iter().map(|(key, values)| key.len() + values.len()).sum()
    }

    fn freeze(&mut self) -> Result<Box<dyn Freeze>> {
        Ok(Box::new(Frozen(MemoryTable { codec: self.codec.clone(), rows: self.rows.clone() })))
    }
}

struct Frozen(MemoryTable);

impl Freeze for Frozen {
    fn save<'a>(mut self: Box<Self>, files: &'a dyn Files, name: Namer<'a>) -> BoxFuture<'a, Result<Saved>> {
        Box::pin(async move {
            let mut cursor = Cursor::all(self.0.schema(), 0..KEY_GROUPS);
            let mut batches = Vec::new();
            while let Some(rows) = self.0.scan(&mut cursor, super::COPY_ROWS)? {
                batches.push(rows);
            }
            save_rows(self.0.schema(), batches, files, name).await
        })
    }
}

fn damaged(reason: String) -> TableError {
    TableError::Damaged { place: "memory".to_owned(), reason }
}
