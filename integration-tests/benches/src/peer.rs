//! The DataFusion crate as the other side: `benches datafusion FILE SQL [ROWS]`, in a process of its own.
//!
//! One partition, one thread, its own defaults otherwise. The result is streamed and every column touched; with ROWS it is
//! written there as JSON lines instead.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use arrow::array::{Array, ArrayData};
use arrow::json::LineDelimitedWriter;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::prelude::ParquetReadOptions;
use futures::StreamExt;

/// Reads every byte of a column, as the sink of the other side does.
fn bytes_of(column: &ArrayData) -> u64 {
    let sum = |bytes: &[u8]| {
        let (words, rest) = bytes.as_chunks::<8>();
        let words = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        rest.iter().fold(words, |sum, byte| sum.wrapping_add(u64::from(*byte)))
    };
    let own = match column.data_type().primitive_width() {
        Some(width) => sum(&column.buffers()[0][column.offset() * width..(column.offset() + column.len()) * width]),
        // The views of texts, not the shared buffers behind them, which a batch may only use in part.
        None => column.buffers().first().map_or(0, |buffer| sum(buffer)),
    };
    column.child_data().iter().map(bytes_of).fold(own, u64::wrapping_add)
}

pub fn main(arguments: &[String]) -> ExitCode {
    let [file, sql, rest @ ..] = arguments else {
        eprintln!("usage: benches datafusion FILE SQL [ROWS]");
        return ExitCode::from(2);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    match runtime.block_on(run(file, sql, rest.first())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(file: &str, sql: &str, rows: Option<&String>) -> Result<(), DataFusionError> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    context.register_parquet("bids", file, ParquetReadOptions::default()).await?;
    let mut stream = context.sql(sql).await?.execute_stream().await?;
    let mut writer = match rows {
        Some(path) => Some(LineDelimitedWriter::new(BufWriter::new(File::create(path)?))),
        None => None,
    };
    let mut touched = 0u64;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        match &mut writer {
            Some(writer) => writer.write(&batch)?,
            None => {
                touched += batch.columns().iter().map(|column| bytes_of(&column.to_data())).fold(0, u64::wrapping_add)
            }
        }
    }
    if let Some(writer) = writer {
        writer.into_inner().flush()?;
    }
    std::hint::black_box(touched);
    Ok(())
}
