//! One Arrow IPC file or stream as a bounded source: the rows of a view, put down for a query.
//!
//! One split; a position is a row number. Only the wanted columns are decoded.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use engine::{Position, RowPositions, RunError, Source, SourceContext, SourceHints, SourceOutput, Split, SplitStart};
use futures::FutureExt;
use futures::future::BoxFuture;
use graph::connector::ViewSnapshotOptions;

use crate::files::AllowedRoots;
use crate::types::type_word;

/// What an Arrow IPC file begins with; a stream does not.
const MAGIC: &[u8] = b"ARROW1";

pub struct SnapshotSource {
    table: String,
    path: PathBuf,
    schema: SchemaRef,
}

impl SnapshotSource {
    /// # Errors
    /// A path outside of the roots.
    pub fn open(
        node: &graph::Source,
        options: &ViewSnapshotOptions,
        hints: SourceHints,
        roots: &AllowedRoots,
    ) -> Result<SnapshotSource, RunError> {
        let path = roots.resolve(Path::new(&options.path))?;
        Ok(SnapshotSource { table: node.table.clone(), path, schema: expr::arrow_schema(&hints.columns) })
    }

    fn failed(&self, reason: impl std::fmt::Display) -> RunError {
        RunError::external("input_file_invalid", format!("cannot read the snapshot of view {}: {reason}", self.table))
    }

    /// Opens the file, and says how long it is.
    async fn reader(&self) -> Result<(Reader, u64), RunError> {
        let (path, schema) = (self.path.clone(), self.schema.clone());
        let opening = tokio::task::spawn_blocking(move || {
            let bytes = std::fs::metadata(&path)?.len();
            Ok::<_, ArrowError>((Reader::open(&path, &schema)?, bytes))
        });
        opening.await.map_err(|_| self.failed("opening was broken off"))?.map_err(|error| self.failed(error))
    }

    async fn read_split(&self, start: SplitStart, batch_rows: usize, out: &mut SourceOutput) -> Result<(), RunError> {
        let from: usize = match &start.position {
            None => 0,
            Some(Position::At(row)) => row.parse().map_err(|_| self.failed(format!("{row:?} is no row")))?,
            Some(Position::End) => return out.finished(start.number),
        };
        let (mut reader, _) = self.reader().await?;
        let mut at: usize = 0;
        loop {
            let next = tokio::task::spawn_blocking(move || (reader.next(), reader)).await;
            let (rows, again) = next.map_err(|_| self.failed("reading was broken off"))?;
            reader = again;
            let Some(rows) = rows.transpose().map_err(|error| self.failed(error))? else { break };
            let (first, end) = (at, at + rows.num_rows());
            while at < end {
                let count = batch_rows.min(end - at);
                // What was sent before the position is skipped.
                let skipped = from.saturating_sub(at).min(count);
                let part = rows.slice(at - first + skipped, count - skipped);
                let row = (at + skipped) as i64;
                at += count;
                if part.num_rows() > 0 {
                    let next = Position::At(at.to_string());
                    out.rows(start.number, part, RowPositions::From(row), vec![], next).await?;
                }
            }
        }
        out.finished(start.number)
    }
}

impl Source for SnapshotSource {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn splits(&self) -> BoxFuture<'_, Result<Vec<Split>, RunError>> {
        async {
            let (_, bytes) = self.reader().await?;
            let spec = serde_json::Value::Null;
            Ok(vec![Split { id: self.table.clone(), spec, min_time_us: None, rows: None, bytes: Some(bytes) }])
        }
        .boxed()
    }

    fn read(
        self: Arc<Self>,
        context: SourceContext,
        mut out: SourceOutput,
    ) -> BoxFuture<'static, Result<(), RunError>> {
        async move {
            for start in context.splits {
                self.read_split(start, context.batch_rows, &mut out).await?;
            }
            Ok(())
        }
        .boxed()
    }
}

/// Batches of the wanted columns.
struct Reader {
    batches: Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>,
    schema: SchemaRef,
}

impl Reader {
    fn open(path: &Path, want: &SchemaRef) -> Result<Reader, ArrowError> {
        let open = || Ok::<_, ArrowError>(BufReader::with_capacity(1 << 18, File::open(path)?));
        let mut begin = [0; MAGIC.len()];
        let is_file = open()?.read_exact(&mut begin).is_ok() && begin == MAGIC;
        let batches: Box<dyn Iterator<Item = _> + Send> = if is_file {
            let columns = positions(&FileReader::try_new(open()?, None)?.schema(), want)?;
            Box::new(FileReader::try_new(open()?, Some(columns))?)
        } else {
            let columns = positions(&StreamReader::try_new(open()?, None)?.schema(), want)?;
            Box::new(StreamReader::try_new(open()?, Some(columns))?)
        };
        Ok(Reader { batches, schema: want.clone() })
    }

    fn next(&mut self) -> Option<Result<RecordBatch, ArrowError>> {
        let wanted = |rows: RecordBatch| {
            let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
            let columns = rows.columns()[..self.schema.fields().len()].to_vec();
            RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
        };
        self.batches.next().map(|rows| rows.and_then(wanted))
    }
}

/// Where the wanted columns are. Who wants none still gets one, for the number of its rows.
fn positions(have: &Schema, want: &Schema) -> Result<Vec<usize>, ArrowError> {
    let mut positions = Vec::new();
    for field in want.fields() {
        let (at, found) = have
            .column_with_name(field.name())
            .ok_or_else(|| ArrowError::SchemaError(format!("it has no column {}", field.name())))?;
        if found.data_type() != field.data_type() {
            let (name, is, declared) = (field.name(), type_word(found.data_type()), type_word(field.data_type()));
            return Err(ArrowError::SchemaError(format!("column {name} is {is}, not {declared}")));
        }
        positions.push(at);
    }
    if positions.is_empty() && !have.fields().is_empty() {
        positions.push(0);
    }
    Ok(positions)
}
