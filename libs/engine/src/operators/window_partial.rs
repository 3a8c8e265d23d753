//! Aggregates by pane and key before the exchange, so that fewer rows travel and a frequent key burdens no single worker.
//!
//! State: a table of groups per (pane, from), never across an epoch: everything leaves, as partial states, whenever the watermark or the
//! epoch moves, and when there are many groups. So the rows' lateness, decided before, still holds when the final stage gets them.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use state::{SnapshotReader, SnapshotWriter};

use super::groups::{Groups, Layout, Pool};
use super::parts::parts;
use super::results::{Results, record_batch};
use super::window_aggregate::saved_schema;
use crate::batch::Batch;
use crate::error::Result;
use crate::operator::{Operator, Output};
use crate::plan::WindowSpec;

/// Groups held at most: more would not fit the processor's cache, and memory is the final stage's.
pub const GROUPS_MAX: usize = 64 * 1024;

pub struct WindowPartial {
    pool: Pool,
    tumble: bool,
    panes: BTreeMap<(i64, i64), Groups>,
    groups: usize,
    schema: SchemaRef,
}

impl WindowPartial {
    /// `spec` is that of the final stage, except that it tells of arguments, not of partial states.
    pub fn new(spec: &WindowSpec) -> Result<WindowPartial> {
        let output = expr::arrow_schema(&spec.output);
        let layout = Layout::new(spec.keys, output.fields(), &spec.calls, false)?;
        let tumble = spec.windows.is_tumble();
        let schema = saved_schema(&layout);
        let columns: Vec<usize> = (0..schema.fields().len() - usize::from(tumble)).collect();
        let schema = schema.project(&columns).expect("a prefix of the columns exists");
        Ok(WindowPartial {
            pool: Pool::new(layout),
            tumble,
            panes: BTreeMap::new(),
            groups: 0,
            schema: Arc::new(schema),
        })
    }

    /// The columns of the output: keys, states, `pane`, and except for tumbling windows `from`.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn send_all(&mut self, out: &mut Output) -> Result<()> {
        self.groups = 0;
        let mut results = Results::new(&self.schema);
        for ((pane, from), table) in mem::take(&mut self.panes) {
            let layer = table.layer();
            let constant = |value| Arc::new(Int64Array::from(vec![value; layer.rows])) as ArrayRef;
            let mut columns = [layer.keys, layer.states, vec![constant(pane)]].concat();
            if !self.tumble {
                columns.push(constant(from));
            }
            results.push(record_batch(&self.schema, columns, layer.rows)?, out)?;
            self.pool.recycle(table);
        }
        results.flush(out)
    }
}

impl Operator for WindowPartial {
    fn process(&mut self, _port: usize, batch: Batch, _wm: i64, out: &mut Output) -> Result<()> {
        assert!(batch.kinds.is_none(), "planning refuses windows over an updating input");
        for (key, rows) in parts(&batch.rows, self.tumble)? {
            let table = match self.panes.entry(key) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.pool.table()?),
            };
            let before = table.len();
            table.add(&rows)?;
            self.groups += table.len() - before;
        }
        if self.groups > GROUPS_MAX { self.send_all(out) } else { Ok(()) }
    }

    fn watermark(&mut self, _wm: i64, out: &mut Output) -> Result<()> {
        self.send_all(out)
    }

    fn epoch_end(&mut self, _epoch: u64, out: &mut Output) -> Result<()> {
        self.send_all(out)
    }

    fn snapshot(&mut self, _epoch: u64, _writer: &mut SnapshotWriter) -> Result<()> {
        assert!(self.panes.is_empty(), "a partial stage holds nothing across epochs");
        Ok(())
    }

    fn restore(&mut self, _reader: &SnapshotReader) -> Result<()> {
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.panes.values().map(Groups::bytes).sum::<usize>() + self.pool.bytes()
    }
}
