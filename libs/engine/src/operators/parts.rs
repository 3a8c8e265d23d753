//! Cuts a batch into parts of one pane each, without copying where rows of a pane lie together.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;

use crate::error::{Result, RunError};

/// Parts are slices if they have at least this many rows on average: below, a copy costs less than the calls per slice.
const SLICE_ROWS: usize = 64;

/// The rows of each (pane, from), given as the values of the batch's last columns: `pane` alone for tumbling windows (`from` is then
/// `i64::MIN`), else `pane` and `from`. A pane may come several times.
pub fn parts(rows: &RecordBatch, tumble: bool) -> Result<Vec<((i64, i64), RecordBatch)>> {
    let count = rows.num_rows();
    if count == 0 {
        return Ok(Vec::new());
    }
    let columns = rows.num_columns();
    let (panes, froms) = match tumble {
        true => (rows.column(columns - 1).as_primitive::<Int64Type>().values(), None),
        false => {
            let froms = rows.column(columns - 1).as_primitive::<Int64Type>().values();
            (rows.column(columns - 2).as_primitive::<Int64Type>().values(), Some(froms))
        }
    };
    let key = |row: usize| (panes[row], froms.map_or(i64::MIN, |froms| froms[row]));
    let constant = |values: &[i64]| values.iter().all(|value| *value == values[0]);
    if constant(panes) && froms.is_none_or(|froms| constant(froms)) {
        return Ok(vec![(key(0), rows.clone())]);
    }
    let mut runs: Vec<((i64, i64), usize)> = vec![(key(0), 0)];
    for row in 1..count {
        let at = key(row);
        if runs[runs.len() - 1].0 != at {
            runs.push((at, row));
        }
    }
    let ends = runs.iter().skip(1).map(|run| run.1).chain([count]);
    let ranges = runs.iter().zip(ends).map(|(&(key, start), end)| (key, start..end));
    if runs.len() * SLICE_ROWS <= count + SLICE_ROWS {
        return Ok(ranges.map(|(key, range)| (key, rows.slice(range.start, range.len()))).collect());
    }
    let mut lists: BTreeMap<(i64, i64), Vec<u32>> = BTreeMap::new();
    for (key, range) in ranges {
        lists.entry(key).or_default().extend(range.start as u32..range.end as u32);
    }
    let take = |(key, list): ((i64, i64), Vec<u32>)| Ok((key, take_record_batch(rows, &UInt32Array::from(list))?));
    let taken: Result<_, arrow::error::ArrowError> = lists.into_iter().map(take).collect();
    taken.map_err(|error| RunError::internal(format!("cannot cut a batch by pane: {error}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn cut(panes: Vec<i64>, froms: Option<Vec<i64>>) -> Vec<((i64, i64), Vec<i64>)> {
        let number = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let mut columns = vec![("v", number((0..panes.len() as i64).collect())), ("pane", number(panes))];
        let tumble = froms.is_none();
        columns.extend(froms.map(|froms| ("from", number(froms))));
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let values = |part: RecordBatch| part.column(0).as_primitive::<Int64Type>().values().to_vec();
        parts(&rows, tumble).unwrap().into_iter().map(|(key, part)| (key, values(part))).collect()
    }

    #[test]
    fn parts_hold_each_row_once_under_its_pane() {
        const ALL: i64 = i64::MIN;
        assert_eq!(cut(vec![5, 5], None), [((5, ALL), vec![0, 1])]);
        assert_eq!(cut(vec![5, 5], Some(vec![1, 2])), [((5, 1), vec![0]), ((5, 2), vec![1])]);
        assert_eq!(cut(vec![9, 5, 9, 5], None), [((5, ALL), vec![1, 3]), ((9, ALL), vec![0, 2])], "interleaved");
        let two = [vec![1; 100], vec![2; 100], vec![1; 100]].concat();
        let cut = cut(two, None);
        assert_eq!(cut.iter().map(|part| (part.0.0, part.1.len())).collect::<Vec<_>>(), [(1, 100), (2, 100), (1, 100)]);
    }
}
