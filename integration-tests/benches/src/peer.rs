//! The DataFusion crate as the other side: `benches datafusion FILE SQL [ROWS]`, in a process of its own.
//!
//! One partition, one thread, its own defaults otherwise. The result is streamed and every column touched; with ROWS it is
//! written there as JSON lines instead.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use arrow::array::Array;
use arrow::json::LineDelimitedWriter;
use datafusion::error::DataFusionError;
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::prelude::ParquetReadOptions;
use futures::StreamExt;

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
    let mut touched = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        match &mut writer {
            Some(writer) => writer.write(&batch)?,
            None => {
                touched += batch
                    .columns()
                    .iter()
                    .map(|column| column.get_array_memory_size() + column.null_count())
                    .sum::<usize>()
            }
        }
    }
    if let Some(writer) = writer {
        writer.into_inner().flush()?;
    }
    std::hint::black_box(touched);
    Ok(())
}
