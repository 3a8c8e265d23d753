//! Rows to the bytes of a file, format by format.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use formats::RecordEncoder;
use formats::csv::CsvOptions;
use formats::json::JsonOptions;
use graph::connector::Compression;
use graph::{FileFormat, FilesystemOptions};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::columns::{batch, coerced};
use super::text::timestamp_format;

/// Rows per row group: enough for its overhead to vanish, few enough that a file can be read in parallel.
const GROUP_ROWS: usize = 256 * 1024;
/// Bytes per row group, so that wide rows do not fill the memory.
const GROUP_BYTES: usize = 64 << 20;

/// Encodes one file at a time.
pub enum Encoder {
    Parquet { writer: Box<ArrowWriter<Vec<u8>>>, schema: SchemaRef },
    Records { encoder: Box<dyn RecordEncoder>, bytes: Vec<u8> },
}

/// File name extension of a format.
pub fn extension(format: FileFormat) -> &'static str {
    match format {
        FileFormat::Parquet => "parquet",
        FileFormat::Json => "json",
        FileFormat::Csv => "csv",
    }
}

impl Encoder {
    /// Begins a file.
    ///
    /// # Errors
    /// The text says which column or option the format does not take.
    pub fn begin(options: &FilesystemOptions, schema: &SchemaRef) -> Result<Encoder, String> {
        let timestamp_format = timestamp_format(options.json_timestamps);
        let mut encoder: Box<dyn RecordEncoder> = match options.format {
            FileFormat::Parquet => return parquet(options, schema),
            FileFormat::Json => {
                let options = JsonOptions { timestamp_format, ..JsonOptions::default() };
                Box::new(formats::json::Writer::new(schema.clone(), options).map_err(|error| error.to_string())?)
            }
            FileFormat::Csv => {
                let options = csv_options(options)?;
                Box::new(formats::csv::Writer::new(schema.clone(), options).map_err(|error| error.to_string())?)
            }
        };
        let mut bytes = Vec::new();
        encoder.begin_file(&mut bytes);
        Ok(Encoder::Records { encoder, bytes })
    }

    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), String> {
        match self {
            Encoder::Parquet { writer, schema } => {
                let columns = rows
                    .columns()
                    .iter()
                    .zip(schema.fields())
                    .map(|(column, field)| coerced(column, field.data_type()));
                let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
                writer.write(&batch(schema, columns, rows.num_rows())).map_err(|error| error.to_string())
            }
            Encoder::Records { encoder, bytes } => encoder.encode(rows, bytes).map_err(|error| error.to_string()),
        }
    }

    /// Encoded bytes that nobody took yet.
    pub fn take(&mut self) -> Vec<u8> {
        match self {
            Encoder::Parquet { writer, .. } => std::mem::take(writer.inner_mut()),
            Encoder::Records { bytes, .. } => std::mem::take(bytes),
        }
    }

    /// How many bytes [`take`](Self::take) would give.
    pub fn ready(&self) -> usize {
        match self {
            Encoder::Parquet { writer, .. } => writer.inner().len(),
            Encoder::Records { bytes, .. } => bytes.len(),
        }
    }

    /// Bytes that are still rows, as far as can be estimated.
    pub fn unencoded(&self) -> usize {
        match self {
            Encoder::Parquet { writer, .. } => writer.in_progress_size(),
            Encoder::Records { .. } => 0,
        }
    }

    /// Ends the file; gives the rest of its bytes.
    pub fn finish(self) -> Result<Vec<u8>, String> {
        match self {
            Encoder::Parquet { writer, .. } => writer.into_inner().map_err(|error| error.to_string()),
            Encoder::Records { bytes, .. } => Ok(bytes),
        }
    }
}

fn parquet(options: &FilesystemOptions, schema: &SchemaRef) -> Result<Encoder, String> {
    let codec = match options.parquet_compression {
        Compression::None => Codec::UNCOMPRESSED,
        Compression::Snappy => Codec::SNAPPY,
        Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
        Compression::Lz4 => Codec::LZ4_RAW,
    };
    let schema = written(schema);
    let properties = WriterProperties::builder()
        .set_compression(codec)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
        .set_created_by("highwater".to_string())
        .build();
    let writer =
        ArrowWriter::try_new(Vec::new(), schema.clone(), Some(properties)).map_err(|error| error.to_string())?;
    Ok(Encoder::Parquet { writer: Box::new(writer), schema })
}

/// Parquet has no timestamps in seconds: other readers would see bare integers.
fn written(schema: &Schema) -> SchemaRef {
    let field = |field: &Arc<Field>| match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Timestamp(TimeUnit::Millisecond, zone.clone())))
        }
        _ => field.clone(),
    };
    Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()))
}

/// The options of CSV, for reading and writing.
pub fn csv_options(options: &FilesystemOptions) -> Result<CsvOptions, String> {
    let delimiter = u8::try_from(options.csv_delimiter).ok().filter(u8::is_ascii);
    Ok(CsvOptions {
        header: options.csv_header,
        delimiter: delimiter.ok_or_else(|| {
            format!("csv.field-delimiter is {:?}; it must be one ASCII character", options.csv_delimiter)
        })?,
        null_literal: options.csv_null_literal.clone(),
        timestamp_format: timestamp_format(options.json_timestamps),
        ..CsvOptions::default()
    })
}
