//! The rows of `print` tables on stdout, in the form that was asked for.
//!
//! A bounded run publishes once, at its end: its rows are kept until [`Printer::finish`], and dropped if that is never called. The rows
//! of an unbounded run are written when their epoch is committed.

mod cells;
mod lines;
mod records;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use comfy_table::{CellAlignment, Table};
use connectors::PrintedRows;
use engine::plan::{Plan, StageKind};
use graph::SinkConnector;

use crate::arguments::Output;
use crate::output::visible;
use cells::{cell, is_number};
use lines::Lines;
use records::{Format, Records};
pub use stream::RowStream;

/// Longer results are lines instead of a table, whose layout needs all cells at once.
const TABLE_ROWS_MAX: usize = 10_000;

/// Where printed bytes go.
pub type Write = Box<dyn Fn(&[u8]) -> io::Result<()> + Send + Sync>;

/// A table whose rows are printed.
#[derive(Clone, Debug)]
pub struct Printed {
    /// The sink's node.
    pub operator: String,
    pub table: String,
    /// Stands before every row of a stream.
    pub identifier: String,
    pub schema: SchemaRef,
    pub updating: bool,
}

/// Why rows could not be printed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    #[error("cannot print CSV of {0} tables at once; use -o json, or print one of them")]
    SeveralTables(usize),
    #[error("cannot print the rows of {table}: {source}")]
    Format { table: String, source: formats::FormatError },
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
}

impl PrintError {
    /// Whether the reader of stdout has had enough, which is no failure.
    pub fn is_closed(&self) -> bool {
        matches!(self, PrintError::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The tables that a plan prints.
pub fn printed(plan: &Plan) -> Vec<Printed> {
    let sinks = plan.stages.iter().filter_map(|stage| match &stage.kind {
        StageKind::Sink(sink) => match &sink.connector {
            SinkConnector::Print(options) => Some(Printed {
                operator: stage.operator.clone(),
                table: sink.table.clone(),
                identifier: options.print_identifier.clone(),
                schema: expr::arrow_schema(&stage.schema),
                updating: stage.updating,
            }),
            _ => None,
        },
        _ => None,
    });
    sinks.collect()
}

/// Takes rows as they are committed, and shows them.
pub struct Printer {
    bounded: bool,
    write: Write,
    state: Mutex<State>,
}

struct State {
    tables: BTreeMap<String, Showing>,
    /// Whose rows were written last.
    last: Option<String>,
    /// Nothing more is written after an error.
    failed: bool,
}

/// One table and how it is shown.
struct Showing {
    printed: Printed,
    form: Form,
    /// Encoded, and not yet written.
    ready: Vec<u8>,
}

enum Form {
    Table { batches: Vec<RecordBatch>, rows: usize },
    Lines(Lines),
    Records(Box<Records>),
}

impl Printer {
    pub fn new(printed: Vec<Printed>, output: Output, bounded: bool, write: Write) -> Result<Printer, PrintError> {
        let several = printed.len() > 1;
        if several && output == Output::Csv {
            return Err(PrintError::SeveralTables(printed.len()));
        }
        let mut tables = BTreeMap::new();
        for printed in printed {
            let records = |format| {
                let table = several.then(|| printed.table.clone());
                let records = Records::new(format, &printed.schema, table, printed.updating);
                let records = records.map_err(|source| PrintError::Format { table: printed.table.clone(), source })?;
                Ok::<_, PrintError>(Form::Records(Box::new(records)))
            };
            let form = match output {
                Output::Json => records(Format::Json)?,
                Output::Csv => records(Format::Csv)?,
                Output::Table if bounded && !printed.updating => Form::Table { batches: Vec::new(), rows: 0 },
                Output::Table => {
                    let untold = several && !bounded && printed.identifier.is_empty();
                    let identifier = if untold { &printed.table } else { &printed.identifier };
                    Form::Lines(Lines::new(&printed.schema, identifier, printed.updating))
                }
            };
            tables.insert(printed.operator.clone(), Showing { printed, form, ready: Vec::new() });
        }
        Ok(Printer { bounded, write, state: Mutex::new(State { tables, last: None, failed: false }) })
    }

    /// Takes the rows of an epoch. The first error is returned; afterwards rows are thrown away.
    pub fn take(&self, rows: PrintedRows) -> Result<(), PrintError> {
        let mut state = self.state.lock().expect("nothing panics while it prints");
        if state.failed {
            return Ok(());
        }
        let taken = self.show(&mut state, rows);
        state.failed = taken.is_err();
        taken
    }

    fn show(&self, state: &mut State, printed: PrintedRows) -> Result<(), PrintError> {
        let changed = state.last.replace(printed.operator.clone()).is_some_and(|last| last != printed.operator);
        let showing = state.tables.get_mut(&printed.operator).expect("only the plan's sinks print");
        if let Form::Lines(lines) = &mut showing.form
            && changed
            && !self.bounded
        {
            lines.interrupted();
        }
        showing.take(&printed)?;
        if !self.bounded && !showing.ready.is_empty() {
            (self.write)(&showing.ready)?;
            showing.ready.clear();
        }
        Ok(())
    }

    /// Writes what was kept for the end. `terminal`: tables are to fit into its width.
    pub fn finish(&self, terminal: bool) -> Result<(), PrintError> {
        let mut state = self.state.lock().expect("nothing panics while it prints");
        if state.failed || !self.bounded {
            return Ok(());
        }
        let titles = state.tables.len() > 1;
        for (position, showing) in state.tables.values_mut().enumerate() {
            if let Form::Table { batches, .. } = &showing.form {
                showing.ready = format!("{}\n", table(&showing.printed.schema, batches, terminal)).into_bytes();
            }
            if titles && !matches!(showing.form, Form::Records(_)) {
                let title = format!("{}{}\n", if position > 0 { "\n" } else { "" }, visible(&showing.printed.table));
                (self.write)(title.as_bytes())?;
            }
            if let Form::Records(records) = &mut showing.form {
                records.begin(&mut showing.ready);
            }
            (self.write)(&showing.ready)?;
            showing.ready = Vec::new();
        }
        Ok(())
    }
}

impl Showing {
    fn take(&mut self, printed: &PrintedRows) -> Result<(), PrintError> {
        if let Form::Table { batches, rows } = &mut self.form {
            *rows += printed.rows.num_rows();
            batches.push(printed.rows.clone());
            if *rows > TABLE_ROWS_MAX {
                let mut lines = Lines::new(&self.printed.schema, "", false);
                for batch in std::mem::take(batches) {
                    lines.rows(&batch, None, &mut self.ready);
                }
                self.form = Form::Lines(lines);
            }
            return Ok(());
        }
        let kinds = printed.kinds.as_ref();
        match &mut self.form {
            Form::Table { .. } => {}
            Form::Lines(lines) => lines.rows(&printed.rows, kinds, &mut self.ready),
            Form::Records(records) => {
                let encoded = records.rows(&printed.rows, kinds, &mut self.ready);
                encoded.map_err(|source| PrintError::Format { table: self.printed.table.clone(), source })?;
            }
        }
        Ok(())
    }
}

fn table(schema: &SchemaRef, batches: &[RecordBatch], terminal: bool) -> Table {
    let mut table = crate::output::table(terminal);
    table.set_header(schema.fields().iter().map(|field| visible(field.name())));
    for batch in batches {
        for row in 0..batch.num_rows() {
            table.add_row(batch.columns().iter().map(|column| cell(column, row)));
        }
    }
    for (column, field) in table.column_iter_mut().zip(schema.fields()) {
        if is_number(field.data_type()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}
