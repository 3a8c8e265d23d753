//! Rows as bytes for whoever asked: JSON, CSV or Arrow, piece by piece.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use formats::csv::CsvOptions;
use formats::json::JsonOptions;
use formats::{FormatError, RecordEncoder, csv, json};

use crate::error::ViewError;

/// Rows that are encoded at a time.
const PIECE_ROWS: usize = 8192;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One array of objects; values as in the format `json`.
    Json,
    /// With a header line; values as in the format `csv`. Nested columns are refused.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
}

impl Form {
    pub fn media_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Csv => "text/csv; charset=utf-8",
            Form::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Form::Json => "json",
            Form::Csv => "csv",
            Form::Arrow => "arrow",
        }
    }

    /// Batches of this schema as bytes. The iterator gives them in pieces and holds one; behind an error there is nothing more.
    ///
    /// # Errors
    /// A column that the form cannot carry. The pieces fail at a value that it cannot carry (a year beyond 9999).
    pub fn encode<B: Iterator<Item = Result<RecordBatch, ViewError>>>(
        self,
        schema: &SchemaRef,
        batches: B,
    ) -> Result<Encoded<B>, ViewError> {
        let refused = |source| ViewError::Form { form: self.name(), source };
        let writer = match self {
            Form::Json => Writer::Json {
                encoder: json::Writer::new(schema.clone(), JsonOptions::default()).map_err(refused)?,
                any: false,
            },
            Form::Csv => {
                let options = CsvOptions { header: true, ..CsvOptions::default() };
                Writer::Csv { encoder: csv::Writer::new(schema.clone(), options).map_err(refused)?, begun: false }
            }
            Form::Arrow => Writer::Arrow(Box::new(StreamWriter::try_new(Vec::new(), schema)?)),
        };
        Ok(Encoded { form: self, writer: Some(writer), batches, cut: VecDeque::new() })
    }
}

/// See [`Form::encode`].
pub struct Encoded<B> {
    form: Form,
    /// None at the end.
    writer: Option<Writer>,
    batches: B,
    /// Of the batch that is being written.
    cut: VecDeque<RecordBatch>,
}

enum Writer {
    Json { encoder: json::Writer, any: bool },
    Csv { encoder: csv::Writer, begun: bool },
    Arrow(Box<StreamWriter<Vec<u8>>>),
}

impl<B: Iterator<Item = Result<RecordBatch, ViewError>>> Encoded<B> {
    fn piece(&mut self, writer: &mut Writer) -> Result<Option<Vec<u8>>, ViewError> {
        while self.cut.is_empty() {
            let Some(batch) = self.batches.next().transpose()? else { return Ok(None) };
            let rows = batch.num_rows();
            let cuts = (0..rows).step_by(PIECE_ROWS);
            self.cut.extend(cuts.map(|from| batch.slice(from, PIECE_ROWS.min(rows - from))));
        }
        let Some(rows) = self.cut.pop_front() else { return Ok(None) };
        writer.write(self.form, &rows).map(Some)
    }
}

impl<B: Iterator<Item = Result<RecordBatch, ViewError>>> Iterator for Encoded<B> {
    type Item = Result<Vec<u8>, ViewError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut writer = self.writer.take()?;
        match self.piece(&mut writer) {
            Ok(Some(bytes)) => {
                self.writer = Some(writer);
                Some(Ok(bytes))
            }
            Ok(None) => Some(writer.end()),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Writer {
    fn write(&mut self, form: Form, rows: &RecordBatch) -> Result<Vec<u8>, ViewError> {
        let refused = |source: FormatError| ViewError::Form { form: form.name(), source };
        let mut out = Vec::new();
        match self {
            Writer::Json { encoder, any } => {
                let mut lines = Vec::new();
                encoder.encode(rows, &mut lines).map_err(refused)?;
                // Texts have no line ends inside: they are escaped.
                for line in lines.split_inclusive(|byte| *byte == b'\n') {
                    out.extend_from_slice(if *any { b",\n" } else { b"[" });
                    out.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
                    *any = true;
                }
            }
            Writer::Csv { encoder, begun } => {
                if !std::mem::replace(begun, true) {
                    encoder.begin_file(&mut out);
                }
                encoder.encode(rows, &mut out).map_err(refused)?;
            }
            Writer::Arrow(stream) => {
                stream.write(rows)?;
                out = std::mem::take(stream.get_mut());
            }
        }
        Ok(out)
    }

    fn end(self) -> Result<Vec<u8>, ViewError> {
        Ok(match self {
            Writer::Json { any: true, .. } => b"]\n".to_vec(),
            Writer::Json { any: false, .. } => b"[]\n".to_vec(),
            Writer::Csv { mut encoder, begun } => {
                let mut out = Vec::new();
                if !begun {
                    encoder.begin_file(&mut out);
                }
                out
            }
            Writer::Arrow(mut stream) => {
                stream.finish()?;
                stream.into_inner()?
            }
        })
    }
}
