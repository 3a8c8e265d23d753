//! Writes the input of the benches: `gen DIRECTORY EVENTS RATE` (events per second of event time).
//!
//! Leaves `bids.parquet` and `bids.jsonl` (the bids among the events) and `events.jsonl` (all of them, nested), and says
//! so on stdout. What is there already is left alone: a folder with that many events at that rate is always the same.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use arrow::array::RecordBatch;
use arrow::json::LineDelimitedWriter;
use connectors::generator::nexmark::{Generator, bid_schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;

const BATCH_EVENTS: u64 = 20_000;
const ROW_GROUP_ROWS: usize = 1 << 20;
/// JSON is ten times the size of Parquet: a tenth of the events is enough to measure.
const JSON_SHARE: u64 = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, events, rate] = arguments.as_slice() else {
        eprintln!("usage: gen DIRECTORY EVENTS RATE");
        return ExitCode::from(2);
    };
    let written = match (events.parse(), rate.parse()) {
        (Ok(events), Ok(rate)) if rate > 0 => write_all(Path::new(folder), events, &Generator::new(rate, 0)),
        _ => Err("EVENTS and RATE are whole numbers, RATE above 0".into()),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot generate events in {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_all(folder: &Path, events: u64, generator: &Generator) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(folder)?;
    let slices =
        |events: u64| (0..events).step_by(BATCH_EVENTS as usize).map(move |from| from..events.min(from + BATCH_EVENTS));
    once(&folder.join("bids.parquet"), |file| {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .build();
        let mut writer = ArrowWriter::try_new(file, bid_schema(), Some(properties))?;
        for slice in slices(events) {
            writer.write(&generator.bids(slice))?;
        }
        writer.close()?;
        Ok(())
    })?;
    let lines = |file: File, make: &dyn Fn(std::ops::Range<u64>) -> RecordBatch| -> Result<(), Box<dyn Error>> {
        let mut writer = LineDelimitedWriter::new(BufWriter::with_capacity(1 << 20, file));
        for slice in slices(events / JSON_SHARE) {
            writer.write(&make(slice))?;
        }
        writer.into_inner().flush()?;
        Ok(())
    };
    once(&folder.join("bids.jsonl"), |file| lines(file, &|slice| generator.bids(slice)))?;
    once(&folder.join("events.jsonl"), |file| lines(file, &|slice| generator.events(slice)))
}

/// A file appears under its name when it is complete.
fn once(path: &PathBuf, write: impl FnOnce(File) -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
    if !path.exists() {
        let unfinished = path.with_extension("unfinished");
        write(File::create(&unfinished)?)?;
        std::fs::rename(&unfinished, path)?;
    }
    println!("{}", path.display());
    Ok(())
}
