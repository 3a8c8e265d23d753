//! JSON lines and CSV from files: bytes in chunks, records through the decoders of the `formats` crate.

use std::future::Future;

use arrow::array::{Int64Array, RecordBatch};
use bytes::Bytes;
use engine::{BadRecord, Position, RowPositions, SplitStart};
use formats::csv::CsvOptions;
use formats::json::{JsonOptions, Scanner};
use formats::text::TimestampFormat;
use formats::{FormatError, RecordDecoder, Stopped};
use graph::FileFormat;
use graph::connector::JsonTimestamps;

use super::encode::csv_options;
use super::error::{FileError, Result};
use super::source::FilesystemSource;
use super::store::{FileMeta, Store};

/// Fetched at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// JSON files of at least two times this size are read as several splits.
const SPLIT_BYTES: u64 = 32 << 20;
/// Bad records are handed over when there are this many, even without rows.
const BAD_AT_ONCE: usize = 256;

/// Bytes for a decoder.
pub(super) enum TextPiece {
    /// The head of the file, for a decoder that goes on further behind.
    Header(Bytes),
    /// Where the next chunk lies; before the first one only.
    Seek {
        offset: u64,
        record: u64,
    },
    Chunk {
        bytes: Bytes,
        last: bool,
    },
}

/// Names that tell of compressed content, which would be read as garbage.
pub(super) fn check_name(shown: &str) -> Result<()> {
    let compressed = [".gz", ".zst", ".bz2", ".xz", ".lz4", ".snappy", ".zip"];
    match compressed.iter().find(|end| shown.ends_with(**end)) {
        None => Ok(()),
        Some(end) => Err(FileError::InputFileInvalid {
            file: shown.to_string(),
            place: String::new(),
            reason: format!("it ends in {end}, and compressed text is not supported; decompress it"),
        }),
    }
}

/// Offsets at which a large file of lines is cut, each directly behind a newline.
pub(super) async fn line_cuts(store: &Store, file: &FileMeta) -> Result<Vec<u64>> {
    cuts(store, file, SPLIT_BYTES, 64 * 1024).await
}

async fn cuts(store: &Store, file: &FileMeta, split_bytes: u64, look_bytes: u64) -> Result<Vec<u64>> {
    let mut cuts: Vec<u64> = Vec::new();
    let mut at = split_bytes;
    while at + split_bytes <= file.size {
        // A line that is longer than a split swallows the next cuts.
        if cuts.last().is_some_and(|last| *last > at) {
            at += split_bytes;
            continue;
        }
        let mut from = at - 1;
        while from < file.size {
            let to = (from + look_bytes).min(file.size);
            let bytes = store.read_ranges(file, vec![from..to]).await?.pop().unwrap_or_default();
            if let Some(newline) = bytes.iter().position(|byte| *byte == b'\n') {
                let cut = from + newline as u64 + 1;
                if cut < file.size {
                    cuts.push(cut);
                }
                break;
            }
            from = to;
        }
        at += split_bytes;
    }
    Ok(cuts)
}

/// Where to begin: an offset and the number of the record there. `None`: the position is not one of ours.
pub(super) fn resume_point(position: &Option<Position>, from: u64) -> Option<Option<(u64, u64)>> {
    match position {
        None => Some(None),
        Some(Position::End) => Some(Some((u64::MAX, 0))),
        Some(Position::At(text)) => {
            let (offset, record) = text.split_once(':')?;
            let offset: u64 = offset.parse().ok().filter(|offset| *offset >= from)?;
            Some(Some((offset, record.parse().ok()?)))
        }
    }
}

/// Fetches a stretch of a file for the decoder; `false` when nobody listens any more.
pub(super) async fn fetch<F: Future<Output = bool>>(
    store: &Store,
    file: &FileMeta,
    (from, to): (u64, u64),
    resume: Option<(u64, u64)>,
    header: bool,
    send: impl Fn(TextPiece) -> F,
) -> Result<bool> {
    let read = async |start: u64, end: u64| {
        Ok::<Bytes, FileError>(store.read_ranges(file, vec![start..end]).await?.pop().unwrap_or_default())
    };
    let mut at = from;
    if let Some((offset, record)) = resume {
        at = offset.min(to);
        if header && !send(TextPiece::Header(read(0, file.size.min(CHUNK_BYTES)).await?)).await {
            return Ok(false);
        }
        if !send(TextPiece::Seek { offset: at, record }).await {
            return Ok(false);
        }
    }
    loop {
        let end = (at + CHUNK_BYTES).min(to);
        let piece = TextPiece::Chunk { bytes: read(at, end).await?, last: end == to };
        if !send(piece).await {
            return Ok(false);
        }
        if end == to {
            return Ok(true);
        }
        at = end;
    }
}

/// The decoder for the source's columns.
///
/// # Errors
/// A column type or an option that the format does not take.
pub(super) fn decoder(source: &FilesystemSource) -> Result<Box<dyn RecordDecoder>> {
    let schema = source.file_schema.clone();
    let timestamp_format = timestamp_format(source.options.json_timestamps);
    let made: Result<Box<dyn RecordDecoder>, FormatError> = match source.options.format {
        FileFormat::Json => Scanner::new(schema, JsonOptions { timestamp_format, ..JsonOptions::default() })
            .map(|scanner| Box::new(scanner) as _),
        FileFormat::Csv => {
            let options =
                csv_options(&source.options).map_err(|reason| FileError::Option { option: "format".into(), reason })?;
            let options = CsvOptions { columns: source.file_columns.clone(), ..options };
            formats::csv::Reader::new(schema, options).map(|reader| Box::new(reader) as _)
        }
        FileFormat::Parquet => unreachable!("Parquet is no format of records"),
    };
    made.map_err(|error| FileError::Option { option: "format".into(), reason: error.to_string() })
}

pub fn timestamp_format(format: JsonTimestamps) -> TimestampFormat {
    match format {
        JsonTimestamps::Sql => TimestampFormat::Sql,
        JsonTimestamps::Iso8601 => TimestampFormat::Iso8601,
        JsonTimestamps::EpochSeconds => TimestampFormat::EpochSeconds,
        JsonTimestamps::EpochMillis => TimestampFormat::EpochMillis,
        JsonTimestamps::EpochMicros => TimestampFormat::EpochMicros,
    }
}

/// Takes rows, their numbers, bad records and the position behind them; answers whether anybody listens.
pub(super) type Emit<'a> = dyn FnMut(RecordBatch, RowPositions, Vec<BadRecord>, Position) -> bool + 'a;

/// Decodes one split.
pub(super) struct TextDecoder {
    decoder: Box<dyn RecordDecoder>,
    shown: String,
    /// Fed, and not yet consumed.
    rest: Vec<u8>,
    /// Offset in the file of the next byte to be consumed.
    offset: u64,
    /// Number of the next record, as far as rows and bad records tell.
    record: u64,
    bad: Vec<BadRecord>,
}

impl TextDecoder {
    pub fn new(source: &FilesystemSource, start: &SplitStart, from: u64) -> Result<TextDecoder> {
        let mut decoder = decoder(source)?;
        match from {
            0 => decoder.begin_file(),
            from => decoder.seek(from, 0),
        }
        Ok(TextDecoder { decoder, shown: start.split.id.clone(), rest: vec![], offset: from, record: 0, bad: vec![] })
    }

    fn failed(&self, error: FormatError) -> FileError {
        FileError::InputFileInvalid { file: self.shown.clone(), place: String::new(), reason: error.to_string() }
    }

    /// Decodes what it can; stops when nobody listens.
    pub fn feed(&mut self, piece: TextPiece, batch_rows: usize, emit: &mut Emit) -> Result<()> {
        let (bytes, last) = match piece {
            TextPiece::Header(bytes) => {
                self.decoder.decode(&bytes, false, 0).map_err(|error| self.failed(error))?;
                if self.decoder.needs_header() {
                    let reason = format!("its header is longer than {CHUNK_BYTES} bytes");
                    return Err(FileError::InputFileInvalid { file: self.shown.clone(), place: String::new(), reason });
                }
                return Ok(());
            }
            TextPiece::Seek { offset, record } => {
                self.decoder.seek(offset, record);
                (self.offset, self.record) = (offset, record);
                return Ok(());
            }
            TextPiece::Chunk { bytes, last } => (bytes, last),
        };
        let mut carried = std::mem::take(&mut self.rest);
        let mut text: &[u8] = &bytes;
        if !carried.is_empty() {
            // Only the record that was cut in two is put together, where that record ends with its line.
            let line = text.iter().position(|byte| *byte == b'\n').map_or(text.len(), |newline| newline + 1);
            let (end, behind) = text.split_at(line);
            carried.extend_from_slice(end);
            let Some(done) = self.decode(&carried, last && behind.is_empty(), batch_rows, emit)? else { return Ok(()) };
            text = behind;
            if done < carried.len() {
                carried.drain(..done);
                carried.extend_from_slice(behind);
                text = &carried;
            }
        }
        let Some(done) = self.decode(text, last, batch_rows, emit)? else { return Ok(()) };
        if !last {
            self.rest = text[done..].to_vec();
        } else if self.decoder.rows() > 0 || !self.bad.is_empty() {
            self.emit(emit);
        }
        Ok(())
    }

    /// Decodes all whole records; gives the number of bytes consumed, `None` when nobody listens.
    fn decode(&mut self, text: &[u8], last: bool, batch_rows: usize, emit: &mut Emit) -> Result<Option<usize>> {
        let mut done = 0;
        loop {
            let room = batch_rows - self.decoder.rows();
            let progress = self.decoder.decode(&text[done..], last, room).map_err(|error| self.failed(error))?;
            done += progress.consumed;
            self.offset += progress.consumed as u64;
            self.bad.extend(progress.bad.into_iter().map(bad_record));
            let whole = progress.stopped == Stopped::Bytes;
            if (!whole || self.bad.len() >= BAD_AT_ONCE) && !self.emit(emit) {
                return Ok(None);
            }
            if whole {
                return Ok(Some(done));
            }
        }
    }

    fn emit(&mut self, emit: &mut Emit) -> bool {
        let decoded = self.decoder.flush();
        let numbers = decoded.records;
        let positions = if numbers.is_empty() {
            RowPositions::From(self.record as i64)
        } else {
            let (first, last) = (numbers.record(0), numbers.record(numbers.len() - 1));
            self.record = self.record.max(last + 1);
            if last - first == numbers.len() as u64 - 1 {
                RowPositions::From(first as i64)
            } else {
                RowPositions::Each(Int64Array::from_iter_values(numbers.iter().map(|number| number as i64)))
            }
        };
        let bad = std::mem::take(&mut self.bad);
        if let Some(last) = bad.last() {
            self.record = self.record.max(last.position as u64 + 1);
        }
        emit(decoded.batch, positions, bad, Position::At(format!("{}:{}", self.offset, self.record)))
    }
}

fn bad_record(bad: formats::BadRecord) -> BadRecord {
    let message = format!("{} (the record begins at byte {} of the file)", bad.message, bad.offset);
    BadRecord { position: bad.record as i64, code: bad.code.to_string(), message, payload: bad.payload }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::files::store::AllowedRoots;
    use crate::testing::run;

    #[test]
    fn files_of_lines_are_cut_behind_newlines() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.json");
        let lines: Vec<String> = (0..500).map(|at| "x".repeat(at * 7 % 40) + "\n").collect();
        for text in [lines.concat(), lines.concat().trim_end().to_string(), "y".repeat(5_000), "\n".repeat(3_000)] {
            std::fs::write(&path, &text).unwrap();
            let store = Store::Local(AllowedRoots::new([root.path()]));
            run(async {
                let file = store.head(path.to_str().unwrap()).await.unwrap().unwrap();
                for (split, look) in [(64, 8), (100, 1_000), (1_000, 3), (1 << 20, 64)] {
                    let cuts = cuts(&store, &file, split, look).await.unwrap();
                    assert!(cuts.is_sorted_by(|a, b| a < b) && cuts.iter().all(|cut| *cut > 0 && *cut < file.size));
                    assert!(cuts.iter().all(|cut| text.as_bytes()[*cut as usize - 1] == b'\n'), "{cuts:?}");
                    if text.len() > 8_000 && split <= 100 {
                        assert!(cuts.len() > 50, "{} cuts", cuts.len());
                    }
                }
            });
        }
    }
}
