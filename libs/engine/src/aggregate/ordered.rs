//! MIN and MAX of strings and bytes, FIRST_VALUE and LAST_VALUE of any key type, where no rows are taken back.
//!
//! Values are held in Arrow's row format, whose bytes compare as the values do. FIRST_VALUE is the smallest (time, value), LAST_VALUE
//! the largest, so that ties of time do not depend on the order of arrival. NULL values are ignored.

use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};
use arrow::row::{RowConverter, SortField};

use super::AggregateError;
use super::rows::Rows;
use super::slots::{Function, Picked};

/// Values, with or without a time before them, as bytes that compare as they do.
pub(super) struct Encoding {
    converter: RowConverter,
    value: DataType,
    by_time: bool,
}

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl Encoding {
    /// None if values of the type have no order that the other parts of the engine share.
    pub fn new(value: &DataType, by_time: bool) -> Option<Self> {
        state::check_key_type(value).ok()?;
        let mut fields = vec![SortField::new(value.clone())];
        if by_time {
            fields.insert(0, SortField::new(TIME));
        }
        Some(Self { converter: RowConverter::new(fields).ok()?, value: value.clone(), by_time })
    }

    /// The columns of [`Encoding::fields`] for a batch of arguments.
    pub fn columns(&self, rows: &Rows) -> Vec<ArrayRef> {
        let mut columns = vec![rows.arg().clone()];
        if self.by_time {
            let time = rows.time().expect("the call names the column of the time");
            columns.insert(0, Arc::new(TimestampMicrosecondArray::from(time.to_vec())));
        }
        columns
    }

    pub fn encode(&self, columns: &[ArrayRef]) -> arrow::row::Rows {
        let columns: Vec<ArrayRef> = columns.iter().map(state::canonical_floats).collect();
        self.converter.convert_columns(&columns).expect("the argument has its declared type")
    }

    /// The columns of [`Encoding::fields`].
    pub fn decode<'a>(&self, rows: impl Iterator<Item = &'a [u8]>) -> Vec<ArrayRef> {
        let parser = self.converter.parser();
        self.converter.convert_rows(rows.map(|row| parser.parse(row))).expect("the bytes were made by this converter")
    }

    /// As [`Encoding::decode`], with NULL in all columns where there are no bytes.
    pub fn decode_some(&self, rows: &[Option<&[u8]>]) -> Vec<ArrayRef> {
        let present = self.decode(rows.iter().copied().flatten());
        let mut next = 0;
        let place = |row: &Option<&[u8]>| {
            row.map(|_| {
                next += 1;
                next - 1
            })
        };
        let indices: arrow::array::UInt32Array = rows.iter().map(place).collect();
        let spread =
            |column: &ArrayRef| arrow::compute::take(column, &indices, None).expect("the indices are in range");
        present.iter().map(spread).collect()
    }

    /// `time` if there is one, then `value`.
    pub fn fields(&self, nullable: bool) -> Vec<Field> {
        let time = self.by_time.then(|| Field::new("time", TIME, nullable));
        time.into_iter().chain([Field::new("value", self.value.clone(), nullable)]).collect()
    }
}

pub(super) struct Ordered {
    encoding: Encoding,
    largest: bool,
    /// Bytes behind the boxes.
    heap: usize,
}

type Best = Option<Box<[u8]>>;

impl Ordered {
    pub fn new(encoding: Encoding, largest: bool) -> Self {
        Self { encoding, largest, heap: 0 }
    }

    /// `columns` are those of the encoding.
    fn add(&mut self, groups: &mut [Best], rows: &Rows, columns: &[ArrayRef]) {
        let encoded = self.encoding.encode(columns);
        rows.each(|slot, row| {
            let row = encoded.row(row);
            let candidate = row.data();
            let best = &mut groups[slot];
            let better = match best.as_deref() {
                None => true,
                Some(best) if self.largest => candidate > best,
                Some(best) => candidate < best,
            };
            if better {
                self.heap = self.heap + candidate.len() - best.as_deref().map_or(0, <[u8]>::len);
                match best {
                    // Times and numbers have one width: nothing to allocate then.
                    Some(best) if best.len() == candidate.len() => best.copy_from_slice(candidate),
                    best => *best = Some(candidate.into()),
                }
            }
        });
    }
}

impl Function for Ordered {
    type Group = Best;

    fn change(&mut self, groups: &mut [Best], rows: &Rows, by: i64) -> Result<(), AggregateError> {
        assert!(by > 0, "an ordered aggregate that takes rows back is created with `Call::retracts`");
        self.add(groups, rows, &self.encoding.columns(rows));
        Ok(())
    }

    fn merge(&mut self, groups: &mut [Best], slots: &[u32], state: &[ArrayRef]) -> Result<(), AggregateError> {
        // The value is the last column; where it is NULL the group was empty.
        self.add(groups, &Rows::new(slots, state.last(), None, None), state);
        Ok(())
    }

    fn state_fields(&self) -> Vec<Field> {
        self.encoding.fields(true)
    }

    fn state(&self, groups: Picked<Best>) -> Vec<ArrayRef> {
        self.encoding.decode_some(&groups.iter().map(Option::as_deref).collect::<Vec<_>>())
    }

    fn value(&self, groups: Picked<Best>) -> Result<ArrayRef, AggregateError> {
        Ok(self.state(groups).pop().expect("the value is the last column"))
    }

    fn forget(&mut self, best: Best) {
        self.heap -= best.map_or(0, |best| best.len());
    }

    fn heap_bytes(&self) -> usize {
        self.heap
    }
}
