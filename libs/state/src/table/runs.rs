//! Rows that are only ever added up: written when there are too many, without a look at what is there, and put together when they are read.
//!
//! Whoever folds rows into partial states ([`crate::KeyTable`] and a vector per column) and needs a key's whole state only at the end may
//! write all of its states as a *run* and begin with none. A key then has a row in each run that it was in. They are read some groups at a
//! time: all rows of a key group, of all runs, are together a small part of the whole ([`crate::KEY_GROUPS`]), and no key is in two groups.
//! So what is written is written once, in order, and read once; nothing is looked up.
//!
//! A run is the last number of the table's namespace; the numbers before it are the caller's.

use arrow::array::{ArrayRef, RecordBatch};

use super::{Cursor, Result, Table};
use crate::KEY_GROUPS;
use crate::key_group::{key_groups, key_hashes};

/// Runs in a table.
pub struct Runs {
    table: Box<dyn Table>,
    /// The number of the next run: above all that are in the table.
    next: i64,
}

/// Reads runs some key groups at a time.
#[derive(Clone, Debug)]
pub struct Reader {
    first: Vec<i64>,
    last: Vec<i64>,
    group: u16,
    /// How many groups are read next.
    groups: u16,
}

/// Rows that become one file.
const ROWS: usize = 128 * 1024;
/// Rows read at once.
const READ_ROWS: usize = 8 * 1024;
/// Groups with fewer rows than this are read together with more: each stretch of rows that is looked for costs as much as many rows.
const FEW_ROWS: usize = 16 * 1024;

impl Runs {
    /// `next`: above the numbers of all runs that the table has; 0 for an empty one.
    pub fn new(table: Box<dyn Table>, next: i64) -> Runs {
        assert!(table.schema().runs, "the last number of the namespace is the run");
        Runs { table, next }
    }

    /// Writes rows as a run: no two with one key.
    pub fn write(&mut self, namespace: &[i64], keys: &[ArrayRef], values: &[ArrayRef], rows: usize) -> Result<()> {
        let namespace = [namespace, &[self.next]].concat();
        self.next += 1;
        if rows <= ROWS {
            return self.table.put(&namespace, keys, values, rows);
        }
        // In the order of groups, so that the files of a run do not overlap.
        let groups = key_groups(&key_hashes(keys, rows), KEY_GROUPS);
        let mut order: Vec<u32> = (0..rows as u32).collect();
        order.sort_by_key(|&row| groups[row as usize]);
        for order in order.chunks(ROWS) {
            let taken = |columns: &[ArrayRef]| {
                let rows = arrow::array::UInt32Array::from(order.to_vec());
                arrow::compute::take_arrays(columns, &rows, None).expect("the rows are in the columns")
            };
            self.table.put(&namespace, &taken(keys), &taken(values), order.len())?;
        }
        Ok(())
    }

    /// Reads all runs of the namespaces from the first to the last, both included, which are the caller's numbers.
    pub fn reader(&self, first: &[i64], last: &[i64]) -> Reader {
        Reader { first: [first, &[i64::MIN]].concat(), last: [last, &[i64::MAX]].concat(), group: 0, groups: 1 }
    }

    /// The rows of the next key groups that have some, with the columns of [`super::TableSchema::rows`]; `None` after the last. All rows of
    /// these groups; a key may have a row in each run.
    pub fn read(&mut self, reader: &mut Reader) -> Result<Option<Vec<RecordBatch>>> {
        while reader.group < KEY_GROUPS {
            let end = reader.group.saturating_add(reader.groups).min(KEY_GROUPS);
            let batches = self.read_groups(reader, reader.group..end)?;
            reader.group = end;
            let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
            // Groups are about as large as one another, so twice as many are still few rows.
            match rows {
                few if few < FEW_ROWS / 2 => reader.groups = (reader.groups * 2).min(KEY_GROUPS),
                many if many > FEW_ROWS * 2 => reader.groups = (reader.groups / 2).max(1),
                _ => {}
            }
            if rows > 0 {
                return Ok(Some(batches));
            }
        }
        Ok(None)
    }

    /// All rows of these key groups, wherever the reader is.
    pub fn read_groups(&mut self, reader: &Reader, groups: std::ops::Range<u16>) -> Result<Vec<RecordBatch>> {
        let mut cursor = Cursor::namespaces(groups, &reader.first, &reader.last);
        let mut batches = Vec::new();
        while let Some(rows) = self.table.scan(&mut cursor, READ_ROWS)? {
            batches.push(rows);
        }
        Ok(batches)
    }

    /// Removes all runs of the namespaces from the first to the last, both included.
    pub fn remove(&mut self, first: &[i64], last: &[i64]) -> Result<()> {
        self.table.remove_namespaces(&[first, &[i64::MIN]].concat(), &[last, &[i64::MAX]].concat())
    }

    /// The number of the next run. Above 0 if anything was ever written.
    pub fn next(&self) -> i64 {
        self.next
    }

    pub fn table(&mut self) -> &mut dyn Table {
        &mut *self.table
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::{DataType, Field, Fields, Int64Type};

    use super::super::{MemoryTable, RocksMemory, RocksTable, TableSchema};
    use super::*;
    use crate::test_data::Random;

    fn schema() -> TableSchema {
        let field = |name| Fields::from(vec![Field::new(name, DataType::Int64, true)]);
        TableSchema::new(&["pane"], &field("k"), &field("sum")).unwrap().with_runs()
    }

    fn column(values: impl IntoIterator<Item = i64>) -> Vec<ArrayRef> {
        vec![Arc::new(Int64Array::from_iter_values(values))]
    }

    fn sums(runs: &mut Runs, first: i64, last: i64) -> BTreeMap<i64, i64> {
        let mut reader = runs.reader(&[first], &[last]);
        let (mut sums, mut seen) = (BTreeMap::new(), BTreeSet::new());
        while let Some(batches) = runs.read(&mut reader).unwrap() {
            let mut here = BTreeMap::new();
            for rows in &batches {
                let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values();
                for (key, sum) in column(2).iter().zip(column(3)) {
                    *here.entry(*key).or_insert(0) += sum;
                }
            }
            assert!(here.keys().all(|key| seen.insert(*key)), "all rows of a key come together");
            sums.extend(here);
        }
        sums
    }

    fn agrees_with_a_map(table: Box<dyn Table>, seed: u64) {
        let mut random = Random(seed);
        let mut runs = Runs::new(table, 0);
        assert_eq!(runs.next(), 0);
        let mut model: BTreeMap<i64, BTreeMap<i64, i64>> = BTreeMap::new();
        for _ in 0..30 {
            let pane = random.below(4) as i64;
            let keys: BTreeSet<i64> = (0..random.below(3_000)).map(|_| random.below(5_000) as i64).collect();
            runs.write(&[pane], &column(keys.iter().copied()), &column(keys.iter().map(|key| key + 1)), keys.len())
                .unwrap();
            for key in keys {
                *model.entry(pane).or_default().entry(key).or_default() += key + 1;
            }
            if random.below(8) == 0 {
                let last = pane + random.below(2) as i64;
                runs.remove(&[pane], &[last]).unwrap();
                model.retain(|at, _| *at < pane || *at > last);
            }
            for pane in 0..4 {
                assert_eq!(sums(&mut runs, pane, pane), model.get(&pane).cloned().unwrap_or_default());
            }
            let mut together = BTreeMap::new();
            for (key, sum) in [1, 2].iter().filter_map(|pane| model.get(pane)).flatten() {
                *together.entry(*key).or_insert(0) += sum;
            }
            assert_eq!(sums(&mut runs, 1, 2), together);
        }
    }

    #[test]
    fn runs_of_a_table_in_memory_agree_with_a_map() {
        (0..5).for_each(|seed| agrees_with_a_map(Box::new(MemoryTable::new(schema()).unwrap()), seed));
    }

    #[test]
    fn runs_of_a_rocksdb_table_agree_with_a_map() {
        let place = tempfile::tempdir().unwrap();
        for seed in 0..2 {
            let memory = RocksMemory::new(1 << 20);
            let mut table = RocksTable::create(schema(), &place.path().join(seed.to_string()), &memory).unwrap();
            table.ingest_bytes = 1_000;
            agrees_with_a_map(Box::new(table), seed);
        }
    }

    #[test]
    fn a_run_of_several_files_is_whole() {
        let place = tempfile::tempdir().unwrap();
        let table = RocksTable::create(schema(), place.path(), &RocksMemory::new(4 << 20)).unwrap();
        let mut runs = Runs::new(Box::new(table), 0);
        let rows = 3 * ROWS as i64 / 2;
        for pane in [5, 6] {
            runs.write(&[pane], &column(0..rows), &column(0..rows), rows as usize).unwrap();
        }
        assert_eq!(sums(&mut runs, 5, 5), (0..rows).map(|key| (key, key)).collect());
    }
}
