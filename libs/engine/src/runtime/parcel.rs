//! The container that timely moves: at most one batch, and its form on the wire.

use std::cell::OnceCell;
use std::io::Write;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, UInt8Array, UInt32Array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use std::sync::Arc;
use timely::Accountable;
use timely::bytes::arc::Bytes;
use timely::dataflow::channels::ContainerBytes;

use crate::batch::{Batch, Origin};

/// A batch on its way. Never sent without one: timely takes containers out by `mem::take`, so there must be an empty value.
#[derive(Clone, Default)]
pub struct Parcel {
    pub batch: Option<Batch>,
    /// The encoded batch; timely asks for the length first.
    encoded: OnceCell<Vec<u8>>,
}

impl Parcel {
    pub fn new(batch: Batch) -> Parcel {
        assert!(batch.num_rows() > 0, "batches without rows are not sent");
        Parcel { batch: Some(batch), encoded: OnceCell::new() }
    }

    fn encoded(&self) -> &[u8] {
        self.encoded.get_or_init(|| self.batch.as_ref().map(encode).unwrap_or_default())
    }
}

impl Accountable for Parcel {
    fn record_count(&self) -> i64 {
        self.batch.as_ref().map_or(0, |batch| batch.num_rows() as i64)
    }
}

impl ContainerBytes for Parcel {
    fn from_bytes(bytes: Bytes) -> Parcel {
        Parcel { batch: decode(&bytes), encoded: OnceCell::new() }
    }

    fn length_in_bytes(&self) -> usize {
        self.encoded().len()
    }

    fn into_bytes<W: Write>(&self, writer: &mut W) {
        writer.write_all(self.encoded()).expect("timely gives room for the length that it asked for");
    }
}

const KINDS: u8 = 1;
const ORIGIN: u8 = 2;

/// Eight bytes of header (which of kinds and origin follow the columns), an Arrow IPC stream of one batch, padding to eight bytes.
fn encode(batch: &Batch) -> Vec<u8> {
    let mut fields: Vec<Field> = batch.rows.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    let mut columns: Vec<ArrayRef> = batch.rows.columns().to_vec();
    let mut flags = 0;
    if let Some(kinds) = &batch.kinds {
        flags |= KINDS;
        fields.push(Field::new("", DataType::UInt8, false));
        columns.push(Arc::new(kinds.clone()));
    }
    if let Some(origin) = &batch.origin {
        flags |= ORIGIN;
        fields.push(Field::new("", DataType::UInt32, false));
        fields.push(Field::new("", DataType::Int64, false));
        columns.push(Arc::new(origin.splits.clone()));
        columns.push(Arc::new(origin.positions.clone()));
    }
    let schema = Arc::new(Schema::new(fields));
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(schema.clone(), columns, &options)
        .expect("the columns are those of one batch");
    let mut bytes = vec![flags, 0, 0, 0, 0, 0, 0, 0];
    let mut writer = StreamWriter::try_new(&mut bytes, &schema).expect("writing to memory does not fail");
    writer.write(&rows).expect("writing to memory does not fail");
    writer.finish().expect("writing to memory does not fail");
    drop(writer);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// Copies once, so that no array keeps a receive buffer of timely alive.
fn decode(bytes: &[u8]) -> Option<Batch> {
    let flags = *bytes.first()?;
    let mut buffer = Buffer::from(&bytes[8..]);
    let rows = StreamDecoder::new()
        .decode(&mut buffer)
        .ok()
        .flatten()
        .expect("a peer of the same binary sends what this one reads");
    let mut width = rows.num_columns();
    let mut origin = None;
    if flags & ORIGIN != 0 {
        width -= 2;
        let splits = UInt32Array::from(rows.column(width).to_data());
        origin = Some(Origin { splits, positions: Int64Array::from(rows.column(width + 1).to_data()) });
    }
    let mut kinds = None;
    if flags & KINDS != 0 {
        width -= 1;
        kinds = Some(UInt8Array::from(rows.column(width).to_data()));
    }
    let rows = rows.project(&(0..width).collect::<Vec<_>>()).expect("the columns before the added ones exist");
    Some(Batch { rows, kinds, origin, permit: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    #[test]
    fn a_batch_survives_the_wire() {
        let rows = RecordBatch::try_from_iter([
            ("a", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])) as ArrayRef),
            ("b", Arc::new(StringArray::from(vec!["x", "", "zzz"])) as ArrayRef),
        ])
        .expect("columns");
        let plain = Batch::inserts(rows.slice(1, 2));
        let mut full = Batch::changes(rows, UInt8Array::from(vec![0, 1, 2]));
        full.origin = Some(Origin { splits: vec![4, 4, 5].into(), positions: vec![7, 8, 0].into() });
        for batch in [plain, full] {
            let bytes = encode(&batch);
            assert_eq!(bytes.len() % 8, 0);
            let back = decode(&bytes).expect("a batch");
            assert_eq!((&back.rows, &back.kinds), (&batch.rows, &batch.kinds));
            assert_eq!(back.origin.map(|o| o.positions), batch.origin.map(|o| o.positions));
        }
    }
}
